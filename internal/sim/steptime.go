package sim

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pagoda-engine/pagoda/scheduler"
)

// StepTime gives the time of a step, in nanoseconds a unit:
//
//	t = Step + Prefill·prefill tokens + Decode·decodes + Context·positions that
//	    decodes attend to + Pair·(query, key) pairs of prefill
type StepTime struct {
	Step    float64 `json:"step_ns"`
	Prefill float64 `json:"prefill_token_ns"`
	Decode  float64 `json:"decode_ns"`
	Context float64 `json:"context_ns"`
	Pair    float64 `json:"pair_ns"`
}

// Of is the time of a step with this load; at least a nanosecond.
func (t *StepTime) Of(l scheduler.Load) time.Duration {
	ns := t.Step + t.Prefill*float64(l.PrefillTokens) + t.Decode*float64(l.Decodes) +
		t.Context*float64(l.Context) + t.Pair*float64(l.PrefillPairs)
	return max(1, time.Duration(ns))
}

// String prints the coefficients as ParseStepTime takes them.
func (t StepTime) String() string {
	var parts []string
	for _, name := range stepTerms {
		parts = append(parts, name+"="+formatNs(*t.term(name)))
	}
	return strings.Join(parts, ",")
}

var stepTerms = []string{"step", "prefill", "decode", "context", "pair"}

func (t *StepTime) term(name string) *float64 {
	return map[string]*float64{"step": &t.Step, "prefill": &t.Prefill, "decode": &t.Decode, "context": &t.Context, "pair": &t.Pair}[name]
}

var timeUnits = map[string]float64{"ns": 1, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9}

// Set changes the coefficients that text names, such as
// "step=4.6ms,prefill=21us,context=13.6ns"; fractions of a nanosecond count.
func (t *StepTime) Set(text string) error {
	for part := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		term := t.term(name)
		if term == nil {
			return fmt.Errorf("%q: want TERM=TIME with a term of %s", part, strings.Join(stepTerms, ", "))
		}
		digits := strings.TrimRight(value, "nµums")
		unit, known := timeUnits[value[len(digits):]]
		number, err := strconv.ParseFloat(digits, 64)
		if err != nil || !known || !(number >= 0) || math.IsInf(number, 0) {
			return fmt.Errorf("%q: want a time such as 21us or 0.65ns", part)
		}
		*term = number * unit
	}
	return nil
}

func formatNs(ns float64) string {
	for _, unit := range []string{"s", "ms", "us"} {
		if ns >= timeUnits[unit] {
			return strconv.FormatFloat(ns/timeUnits[unit], 'g', 4, 64) + unit
		}
	}
	return strconv.FormatFloat(ns, 'g', 4, 64) + "ns"
}

// Preset is a machine with a model: its step times, its KV pool, its copies.
type Preset struct {
	Name, From string // From says where the numbers are from
	StepTime
	BlockBytes       int64 // of a block of 16 tokens
	Blocks           int   // of 16 tokens
	MaxBatchedTokens int
	SwapOut, SwapIn  time.Duration // of a block of 16 tokens
}

// presets. Both are derived from measurements of other engines, not of Pagoda, so
// that they say what such a machine does and not how good this program is.
var presets = map[string]Preset{
	"h200-7b": {
		Name: "h200-7b",
		// Decode at 1,184 tokens of context, batch 1 … 512: 4.65 5.17 5.33 6.02 7.57
		// 12.2 22.6 ms, within 13 %; prompts of 1k, 8k, 30k: 29.7, 200, 931 ms.
		From:     "Qwen2.5-7B bf16 on one H200, vLLM 0.26: decode steps at batch 1–512, prompts of 1k–30k, 54 GB/s each way to pinned memory",
		StepTime: StepTime{Step: 4.6e6, Prefill: 21150, Decode: 14000, Context: 13.6, Pair: 0.648},
		// 0.9 of the card leaves 2,044,928 tokens.
		BlockBytes: 896 << 10, Blocks: 127808, MaxBatchedTokens: 8192,
		SwapOut: 17 * time.Microsecond, SwapIn: 17 * time.Microsecond,
	},
	"cpu-0.5b": {
		Name: "cpu-0.5b",
		// Decode at batch 1, 8, 16: 26.6 51.9 61.5 ms, within 14 %; 605 prompt tokens/s.
		// Context from 12 KiB a token at 40 GB/s, pairs from 86 kFLOP at 300 GFLOP/s.
		From:       "Qwen2.5-0.5B bf16 on 2 vCPUs (Zen 5), llama.cpp: decode steps at batch 1–16, prompts of 512; copies at 10 GB/s are assumed",
		StepTime:   StepTime{Step: 26e6, Prefill: 1.53e6, Decode: 2.4e6, Context: 300, Pair: 290},
		BlockBytes: 192 << 10, Blocks: 48000, MaxBatchedTokens: 2048,
		SwapOut: 20 * time.Microsecond, SwapIn: 20 * time.Microsecond,
	},
}

// PresetNames lists the presets.
func PresetNames() []string { return slices.Sorted(maps.Keys(presets)) }

// FindPreset returns the preset of that name, for blocks of blockSize tokens.
func FindPreset(name string, blockSize int) (Preset, error) {
	p, ok := presets[name]
	if !ok {
		return p, fmt.Errorf("%q is no preset: want one of %s", name, strings.Join(PresetNames(), ", "))
	}
	if blockSize < 1 {
		return p, fmt.Errorf("a block of %d tokens", blockSize)
	}
	p.Blocks = p.Blocks * 16 / blockSize
	p.BlockBytes = p.BlockBytes * int64(blockSize) / 16
	p.SwapOut = p.SwapOut * time.Duration(blockSize) / 16
	p.SwapIn = p.SwapIn * time.Duration(blockSize) / 16
	return p, nil
}

// Fitted is what Fit learned of a recorded run.
type Fitted struct {
	StepTime
	Steps           int64         // learned from
	Error           float64       // mean of |predicted − measured| / measured near the end
	SwapOut, SwapIn time.Duration // of a block; 0 = none was copied
}

// Fit fits the step time to a recorded run, with the scheduler's own model, and
// takes the mean times of its copies.
func Fit(trace *scheduler.TraceReader) (Fitted, error) {
	var model scheduler.StepModel
	f := Fitted{}
	loads := map[int64]scheduler.Load{}
	type transfer struct {
		out    bool
		blocks int
	}
	transfers := map[scheduler.TransferID]transfer{}
	var took [2]time.Duration
	var blocks [2]int
	for {
		l, err := trace.Next()
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) && model.Ready(): // cut off: what is there will do
			if !model.Ready() {
				return f, errors.New("the trace has too few timed steps to fit a step time to")
			}
			f.StepTime, f.Steps, f.Error = Coefficients(&model), model.Count(), model.Error()
			f.SwapIn, f.SwapOut = took[0]/time.Duration(max(blocks[0], 1)), took[1]/time.Duration(max(blocks[1], 1))
			return f, nil
		case err != nil:
			return f, err
		case l.Record != nil:
			r := l.Record
			if len(r.Scheduled) > 0 {
				loads[r.Step] = r.Load
			}
			if r.SwapOut.ID != 0 {
				transfers[r.SwapOut.ID] = transfer{true, r.SwapOut.Blocks}
			}
			if r.SwapIn.ID != 0 {
				transfers[r.SwapIn.ID] = transfer{false, r.SwapIn.Blocks}
			}
		case l.Update != nil:
			model.Observe(loads[l.Update.Step], l.Update.Took)
			delete(loads, l.Update.Step)
		case l.CopyDone != nil && l.CopyDone.Took > 0:
			t, direction := transfers[l.CopyDone.ID], 0
			if t.out {
				direction = 1
			}
			took[direction] += l.CopyDone.Took
			blocks[direction] += t.blocks
			delete(transfers, l.CopyDone.ID)
		}
	}
}

// Coefficients asks the model for what large loads add, since its own answers are
// whole nanoseconds.
func Coefficients(m *scheduler.StepModel) StepTime {
	const many = 1 << 30
	base := m.Predict(scheduler.Load{})
	each := func(l scheduler.Load) float64 { return float64(m.Predict(l)-base) / many }
	return StepTime{
		Step: float64(base), Prefill: each(scheduler.Load{PrefillTokens: many}), Decode: each(scheduler.Load{Decodes: many}),
		Context: each(scheduler.Load{Context: many}), Pair: each(scheduler.Load{PrefillPairs: many}),
	}
}
