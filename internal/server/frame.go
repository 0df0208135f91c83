package server

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/pagoda-engine/pagoda/engine"
)

// This file is the form of /ui/api/stream, which the page and pagoda top read.
// Times are milliseconds since the engine started.

// Frame is one event: what the engine is doing at a moment. A Full one stands by
// itself; the others have the steps and blocks that are new since the one before.
type Frame struct {
	Seq      int64         `json:"seq"` // consecutive; after a gap comes a Full one
	Full     bool          `json:"full,omitempty"`
	NowMs    int64         `json:"now_ms"`
	Info     *FrameInfo    `json:"info,omitempty"` // of a Full one
	Stats    FrameStats    `json:"stats"`
	Requests []FrameChoice `json:"requests"` // in the order of arrival, those with blocks first
	More     int           `json:"more,omitempty"`
	Steps    []FrameStep   `json:"steps,omitempty"`
	Blocks   []FrameBlock  `json:"blocks,omitempty"` // absent from a Full one: free, and never used
}

// FrameInfo is what does not change.
type FrameInfo struct {
	Model       string `json:"model"`
	Version     string `json:"version"`
	BlockSize   int    `json:"block_size"`
	BlockBytes  int64  `json:"block_bytes"`
	MaxModelLen int    `json:"max_model_len"`
	MaxLogprobs int    `json:"max_logprobs"`
	Chat        bool   `json:"chat"` // there is a chat template
	Text        bool   `json:"text"` // there is a tokenizer
}

// FrameStats are the gauges and counters of a Frame.
type FrameStats struct {
	Running         int     `json:"running"`
	Waiting         int     `json:"waiting"`
	Swapped         int     `json:"swapped"`
	BlocksTotal     int     `json:"blocks_total"`
	BlocksUsed      int     `json:"blocks_used"`
	BlocksCached    int     `json:"blocks_cached"`
	BlocksFree      int     `json:"blocks_free"`
	BlocksInFlight  int     `json:"blocks_in_flight"`
	BlocksShared    int     `json:"blocks_shared"`
	BlocksSaved     int     `json:"blocks_saved"`
	BlocksShown     int     `json:"blocks_shown"` // of all ids, those that the block map has
	HostTotal       int     `json:"host_total"`
	HostUsed        int     `json:"host_used"`
	SlotUse         float64 `json:"slot_use"` // of the used blocks' slots, those that hold a token
	PromptTokens    int64   `json:"prompt_tokens"`
	CachedTokens    int64   `json:"cached_tokens"`
	LookedUpTokens  int64   `json:"looked_up_tokens"`
	GeneratedTokens int64   `json:"generated_tokens"`
	Steps           int64   `json:"steps"`
	StepUs          int64   `json:"step_us"`
	Preemptions     int64   `json:"preemptions"`
	Swaps           int64   `json:"swaps"`
	Evictions       int64   `json:"evictions"`
	Finished        int64   `json:"finished"`
}

// FrameChoice is one choice of a request that has not ended.
type FrameChoice struct {
	ID          string `json:"id"` // of the response, as the client got it
	Choice      int    `json:"choice"`
	Sequence    int64  `json:"seq"`
	Status      string `json:"status"`
	Prompt      int    `json:"prompt"` // tokens, as are the next ones
	Output      int    `json:"output"`
	MaxTokens   int    `json:"max"`
	Computed    int    `json:"computed"`
	Cached      int    `json:"cached"`
	Blocks      int    `json:"blocks"`
	HostBlocks  int    `json:"host_blocks"`
	Preemptions int    `json:"preemptions"`
}

// FrameStep is one step of the engine.
type FrameStep struct {
	Step      int64    `json:"n"`
	AtMs      float64  `json:"at_ms"`
	TookUs    int64    `json:"took_us"` // on the device; 0 = not known
	Prefill   int      `json:"prefill"` // tokens
	Decodes   int      `json:"decodes"` // tokens, one a sequence
	Running   int      `json:"running"`
	Waiting   int      `json:"waiting"`
	Swaps     int      `json:"swaps"`      // sequences preempted by swap
	Recompute int      `json:"recomputes"` // and by recompute
	SwapOut   int      `json:"swap_out"`   // blocks
	SwapIn    int      `json:"swap_in"`
	Evicted   int      `json:"evicted"`
	Used      int      `json:"used"` // of the pool's blocks
	Total     int      `json:"total"`
	Why       []string `json:"why"` // who ran, then a sentence a reason
}

// FrameBlock is one KV block. In JSON it is an array, because there are many.
type FrameBlock struct {
	ID               int
	State            string // f free, c cached, u used, i in flight, r retired
	Refs, Tokens     int
	Hash             string // the beginning; "" = not published
	TakenMs, TouchMs int64
	Owners           []int64 // the first of its sequences
}

// appendBlock writes what FrameBlock's UnmarshalJSON reads.
func appendBlock(to []byte, id int, b *engine.BlockState) []byte {
	to = strconv.AppendInt(append(to, '['), int64(id), 10)
	to = append(to, ',', '"', b.State.String()[0], '"', ',')
	to = strconv.AppendInt(to, int64(b.Refs), 10)
	to = strconv.AppendInt(append(to, ','), int64(b.Tokens), 10)
	to = append(to, ',', '"')
	if b.Published {
		to = hex.AppendEncode(to, b.Hash[:hashShown])
	}
	to = strconv.AppendInt(append(to, '"', ','), b.Taken.Milliseconds(), 10)
	to = strconv.AppendInt(append(to, ','), b.Touched.Milliseconds(), 10)
	for _, owner := range b.Owners {
		if owner == 0 {
			break
		}
		to = strconv.AppendInt(append(to, ','), int64(owner), 10)
	}
	return append(to, ']')
}

const hashShown = 6 // bytes

// UnmarshalJSON reads [id, state, refs, tokens, hash, taken, touched, owner…].
func (b *FrameBlock) UnmarshalJSON(data []byte) error {
	var fields []json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return err
	}
	into := []any{&b.ID, &b.State, &b.Refs, &b.Tokens, &b.Hash, &b.TakenMs, &b.TouchMs}
	if len(fields) < len(into) {
		return fmt.Errorf("a block of %d fields, want at least %d", len(fields), len(into))
	}
	b.Owners = make([]int64, len(fields)-len(into))
	for i := range b.Owners {
		into = append(into, &b.Owners[i])
	}
	for i, field := range fields {
		if err := json.Unmarshal(field, into[i]); err != nil {
			return err
		}
	}
	return nil
}

func frameStats(o *engine.Observation) FrameStats {
	s := &o.Stats
	return FrameStats{
		Running: s.Running, Waiting: s.Waiting, Swapped: s.Swapped,
		BlocksTotal: s.BlocksTotal, BlocksUsed: s.BlocksUsed, BlocksCached: s.BlocksCached, BlocksFree: s.BlocksFree,
		BlocksInFlight: s.BlocksInFlight, BlocksShared: s.BlocksShared, BlocksSaved: s.BlocksSaved, BlocksShown: len(o.Blocks),
		HostTotal: s.HostBlocksTotal, HostUsed: s.HostBlocksUsed, SlotUse: s.BlockUtilization(),
		PromptTokens: s.PromptTokens, CachedTokens: s.PrefixHits, LookedUpTokens: s.PrefixQueries, GeneratedTokens: s.GenerationTokens,
		Steps: s.Steps, StepUs: s.LastStep.Microseconds(),
		Preemptions: s.PreemptionsRecompute + s.PreemptionsSwap, Swaps: s.PreemptionsSwap, Evictions: s.Evictions,
		Finished: s.FinishedStop + s.FinishedLength + s.FinishedAbort + s.FinishedError,
	}
}

// frameChoices shows those that have blocks before those that wait, as many as a
// frame has room for.
func frameChoices(requests []engine.RequestState) (shown []FrameChoice, more int) {
	shown = []FrameChoice{}
	for _, withBlocks := range []bool{true, false} {
		for i := range requests {
			q := &requests[i]
			if (q.Blocks > 0) != withBlocks || len(shown) == shownRequests {
				continue
			}
			shown = append(shown, FrameChoice{
				ID: q.ID, Choice: q.Choice, Sequence: int64(q.Sequence), Status: q.Status.String(),
				Prompt: q.Prompt, Output: q.Output, MaxTokens: q.MaxTokens, Computed: q.Computed, Cached: q.Cached,
				Blocks: q.Blocks, HostBlocks: q.HostBlocks, Preemptions: q.Preemptions,
			})
		}
	}
	return shown, len(requests) - len(shown)
}

// frameStep dresses a record; o has both clocks.
func (s *Server) frameStep(o *engine.Observation, r *engine.StepRecord) FrameStep {
	at := o.Now - o.Time.Sub(r.Start)
	step := FrameStep{
		Step: r.Step, AtMs: float64(at) / float64(time.Millisecond), TookUs: r.Device.Microseconds(),
		Prefill: r.Tokens - r.Decodes, Decodes: r.Decodes, Running: r.Running, Waiting: r.Waiting,
		Swaps: r.Preempted("swap"), Recompute: r.Preempted("recompute"),
		SwapOut: r.SwapOut.Blocks, SwapIn: r.SwapIn.Blocks, Evicted: len(r.Evicted),
		Used: r.Pool.Used, Total: r.Pool.Total(), Why: []string{},
	}
	if s.explain != nil {
		step.Why = s.explain(r)
	}
	return step
}

// changedBlocks appends, as JSON and with a comma after each, the blocks that are
// not as before.
func changedBlocks(to []byte, before, now []engine.BlockState) []byte {
	for i := range now {
		if i >= len(before) || before[i] != now[i] {
			to = append(appendBlock(to, i+1, &now[i]), ',')
		}
	}
	return to
}

// usedBlocks is changedBlocks against a pool that was never used.
func usedBlocks(to []byte, now []engine.BlockState) []byte {
	for i := range now {
		if now[i] != (engine.BlockState{}) {
			to = append(appendBlock(to, i+1, &now[i]), ',')
		}
	}
	return to
}

// encodeFrame writes head, which has neither steps nor blocks, with those.
func encodeFrame(head *Frame, steps [][]byte, blocks []byte) []byte {
	var out bytes.Buffer
	encodeJSON(&out, head)
	out.Truncate(out.Len() - len("}\n"))
	if len(steps) > 0 {
		out.WriteString(`,"steps":[`)
		out.Write(bytes.Join(steps, []byte{','}))
		out.WriteByte(']')
	}
	if len(blocks) > 0 {
		out.WriteString(`,"blocks":[`)
		out.Write(bytes.TrimSuffix(blocks, []byte{','}))
		out.WriteByte(']')
	}
	out.WriteByte('}')
	return out.Bytes()
}
