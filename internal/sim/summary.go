package sim

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/pagoda-engine/pagoda/kvcache"
	"github.com/pagoda-engine/pagoda/scheduler"
)

// Summary is what came of a run.
type Summary struct {
	Requests int64 `json:"requests"` // that arrived
	Finished int64 `json:"finished"` // that were answered whole
	Aborted  int64 `json:"aborted"`
	Refused  int64 `json:"refused,omitempty"` // that could never fit

	Steps                int64   `json:"steps"` // with work
	Preemptions          int64   `json:"preemptions"`
	PreemptionsSwap      int64   `json:"preemptions_swap"`
	PreemptionsRecompute int64   `json:"preemptions_recompute"`
	Waits                int64   `json:"waits"`     // shortages that waiting resolved
	SwapFull             int64   `json:"swap_full"` // preemptions that would have swapped
	HitRate              float64 `json:"hit_rate"`  // of looked-up tokens, 0–1
	Evictions            int64   `json:"evictions"`
	Forks                int64   `json:"forks"`
	CopiedBlocks         int64   `json:"copied_blocks"` // on write
	SwapOutBlocks        int64   `json:"swap_out_blocks"`
	SwapInBlocks         int64   `json:"swap_in_blocks"`
	SwapOutBytes         int64   `json:"swap_out_bytes,omitempty"` // 0 = the size of a block is not known
	SwapInBytes          int64   `json:"swap_in_bytes,omitempty"`

	NumGPUBlocks      int          `json:"num_gpu_blocks"`
	BlockUtilization  float64      `json:"kv_block_utilization"` // used ÷ allocated slots, mean over steps
	PoolUse           float64      `json:"kv_cache_usage"`       // used ÷ all blocks, mean over steps
	PeakPoolUse       float64      `json:"peak_kv_cache_usage"`
	MeanBatch         float64      `json:"mean_running"` // sequences with blocks, mean over steps
	MostWaiting       int          `json:"most_waiting"`
	PredictionError   float64      `json:"prediction_error"` // of the step-time model, moving mean at the end
	ComputedTokens    int64        `json:"computed_tokens"`
	PromptTokens      int64        `json:"prompt_tokens"`
	OutputTokens      int64        `json:"output_tokens"`
	OutputThroughput  float64      `json:"output_throughput"` // tokens/s
	RequestThroughput float64      `json:"request_throughput"`
	VirtualSeconds    float64      `json:"virtual_seconds"`
	WallSeconds       float64      `json:"wall_seconds"`
	TTFT              Distribution `json:"ttft"` // arrival to first token
	ITL               Distribution `json:"itl"`  // every gap between two tokens of a sequence
	Latency           Distribution `json:"e2el"` // arrival to last token
}

// tally collects a Summary from what happens.
type tally struct {
	sum           Summary
	blockSize     int
	ttft, itl     histogram
	latency       histogram
	slots, used   float64 // sums over steps
	pool, running float64
	first, last   time.Duration
	begun         bool
}

// arrive counts a request.
func (t *tally) arrive(at time.Duration) {
	if !t.begun {
		t.first, t.begun = at, true
	}
	t.sum.Requests++
}

// step counts a step.
func (t *tally) step(r *scheduler.Record) {
	for i := range r.Decisions {
		d := &r.Decisions[i]
		switch d.Means {
		case scheduler.BySwap:
			t.sum.PreemptionsSwap++
		case scheduler.ByRecompute:
			t.sum.PreemptionsRecompute++
		case scheduler.ByWaiting:
			t.sum.Waits++
		}
		if d.SwapFull {
			t.sum.SwapFull++
		}
	}
	t.sum.SwapOutBlocks += int64(r.SwapOut.Blocks)
	t.sum.SwapInBlocks += int64(r.SwapIn.Blocks)
	t.sum.MostWaiting = max(t.sum.MostWaiting, r.Waiting)
	if len(r.Scheduled) == 0 {
		return
	}
	t.sum.Steps++
	t.sum.ComputedTokens += int64(r.Tokens)
	t.slots += float64(r.Pool.UsedSlots)
	t.used += float64(r.Pool.Used * t.blockSize)
	use := float64(r.Pool.Used) / float64(max(r.Pool.Total(), 1))
	t.pool += use
	t.running += float64(r.Running)
	t.sum.PeakPoolUse = max(t.sum.PeakPoolUse, use)
}

// end counts a request that ended.
func (t *tally) end(arrived, now time.Duration, aborted bool) {
	t.last = max(t.last, now)
	if aborted {
		t.sum.Aborted++
		return
	}
	t.sum.Finished++
	t.latency.add(now - arrived)
}

// summary closes the books. blockBytes may be 0.
func (t *tally) summary(cache kvcache.Stats, blockBytes int64) Summary {
	s := t.sum
	s.Preemptions = s.PreemptionsSwap + s.PreemptionsRecompute
	s.NumGPUBlocks, s.Evictions, s.Forks, s.CopiedBlocks = cache.Total, cache.Evictions, cache.Forks, cache.Copies
	s.SwapOutBytes, s.SwapInBytes = s.SwapOutBlocks*blockBytes, s.SwapInBlocks*blockBytes
	s.HitRate = ratio(float64(cache.Hits), float64(cache.Queries))
	s.BlockUtilization = ratio(t.slots, t.used)
	s.PoolUse, s.MeanBatch = ratio(t.pool, float64(s.Steps)), ratio(t.running, float64(s.Steps))
	s.VirtualSeconds = (t.last - t.first).Seconds()
	s.OutputThroughput = ratio(float64(s.OutputTokens), s.VirtualSeconds)
	s.RequestThroughput = ratio(float64(s.Finished), s.VirtualSeconds)
	s.TTFT, s.ITL, s.Latency = t.ttft.describe(), t.itl.describe(), t.latency.describe()
	return s
}

func ratio(part, whole float64) float64 {
	if whole == 0 {
		return 0
	}
	return part / whole
}

// Print writes the summary for people.
func (s *Summary) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	line("requests", "%d", s.Requests)
	line("finished", "%d (%d aborted, %d refused)", s.Finished, s.Aborted, s.Refused)
	line("steps", "%d, %.1f sequences each, %d waiting at most", s.Steps, s.MeanBatch, s.MostWaiting)
	line("preemptions", "%d: %d by swap, %d by recompute (%d of these for a full swap pool); %d shortages waited out",
		s.Preemptions, s.PreemptionsSwap, s.PreemptionsRecompute, s.SwapFull, s.Waits)
	line("hit rate", "%.1f %% of looked-up tokens", 100*s.HitRate)
	line("evictions", "%d blocks; %d copied on write by %d forks", s.Evictions, s.CopiedBlocks, s.Forks)
	line("swapped", "%d blocks out, %d in%s", s.SwapOutBlocks, s.SwapInBlocks, s.swapBytes())
	line("kv blocks", "%d; %.1f %% used, %.1f %% at most; %.1f %% of their slots hold tokens",
		s.NumGPUBlocks, 100*s.PoolUse, 100*s.PeakPoolUse, 100*s.BlockUtilization)
	line("tokens", "%d of prompts, %d generated, %d computed", s.PromptTokens, s.OutputTokens, s.ComputedTokens)
	line("throughput", "%.1f output tok/s, %.2f requests/s", s.OutputThroughput, s.RequestThroughput)
	for _, d := range []struct {
		name string
		Distribution
	}{{"ttft", s.TTFT}, {"itl", s.ITL}, {"latency", s.Latency}} {
		line(d.name, "median %.4g ms, mean %.4g, p90 %.4g, p99 %.4g, max %.4g", d.Median, d.Mean, d.P90, d.P99, d.Max)
	}
	if s.WallSeconds > 0 {
		line("time", "%.6g virtual seconds in %.3g real ones", s.VirtualSeconds, s.WallSeconds)
	} else {
		line("time", "%.6g virtual seconds", s.VirtualSeconds)
	}
	return t.Flush()
}

func (s *Summary) swapBytes() string {
	if s.SwapOutBytes+s.SwapInBytes == 0 {
		return ""
	}
	return fmt.Sprintf(" (%.2f and %.2f GiB)", float64(s.SwapOutBytes)/(1<<30), float64(s.SwapInBytes)/(1<<30))
}
