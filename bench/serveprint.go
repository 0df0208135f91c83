package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ServeOptions are what the outputs of a run say of it.
type ServeOptions struct {
	Backend     string // openai or openai-chat
	Label       string
	Model       string
	Tokenizer   string // "" = none
	NumPrompts  int
	Load        ServeLoad
	Goodput     Goodput
	Metrics     []string  // latencies with percentiles, keys of LatencyKeys
	Percentiles []float64 // beside the median
	Detailed    bool      // every request in the JSON
	Metadata    map[string]string
}

// columnWidth of the labels, as vLLM prints them.
const columnWidth = 40

// PrintServe writes the table that vLLM prints, whose labels scripts look for, and
// below it what failed and how late the client was.
func PrintServe(w io.Writer, res *ServeResult, o ServeOptions) {
	rule := func(title, fill string) {
		pad := max(0, 50-len(title))
		fmt.Fprintf(w, "%s%s%s\n", strings.Repeat(fill, pad/2), title, strings.Repeat(fill, pad-pad/2))
	}
	count := func(label string, n int) { fmt.Fprintf(w, "%-*s %d\n", columnWidth, label, n) }
	value := func(label string, v float64) { fmt.Fprintf(w, "%-*s %.2f\n", columnWidth, label, v) }
	rule(" Serving Benchmark Result ", "=")
	count("Successful requests:", res.Completed)
	count("Failed requests:", res.Failed)
	if res.Unfinished > 0 {
		count("Unfinished requests:", res.Unfinished)
	}
	if o.Load.MaxConcurrency > 0 {
		count("Maximum request concurrency:", o.Load.MaxConcurrency)
	}
	if !math.IsInf(o.Load.RequestRate, 1) {
		value("Request rate configured (RPS):", o.Load.RequestRate)
	}
	value("Benchmark duration (s):", res.Duration.Seconds())
	count("Total input tokens:", res.InputTokens)
	count("Total generated tokens:", res.OutputTokens)
	value("Request throughput (req/s):", res.RequestThroughput)
	if len(o.Goodput) > 0 {
		value("Request goodput (req/s):", res.RequestGoodput)
	}
	value("Output token throughput (tok/s):", res.OutputThroughput)
	value("Peak output token throughput (tok/s):", res.PeakOutputThroughput)
	value("Peak concurrent requests:", float64(res.PeakConcurrency))
	value("Total token throughput (tok/s):", res.TotalThroughput)
	for _, n := range latencyNames {
		if !slices.Contains(o.Metrics, n.Key) {
			continue
		}
		d := res.describe(n.Key)
		rule(n.Long, "-")
		value("Mean "+n.Short+" (ms):", d.Mean)
		value("Median "+n.Short+" (ms):", d.Median)
		for _, p := range o.Percentiles {
			value("P"+percentileWord(p)+" "+n.Short+" (ms):", res.percentile(n.Key, p))
		}
	}
	rule("Client", "-")
	value("P99 send lag (ms):", res.SendLag.P99)
	value("P99 wake lag (ms):", res.WakeLag.P99)
	rule("", "=")
	for _, kind := range res.failureList() {
		fmt.Fprintf(w, "failed: %d × %s (the first: %s)\n", res.Failures[kind], kind, clip(res.Examples[kind], exampleWidth))
	}
	for _, note := range res.Notes() {
		fmt.Fprintln(w, wrapped(note, "  "))
	}
}

// exampleWidth bounds a quoted message of a server, in characters.
const exampleWidth = 160

// Notes are what a reader of the numbers must know.
func (res *ServeResult) Notes() (notes []string) {
	if res.Unfinished > 0 {
		notes = append(notes, fmt.Sprintf("Interrupted: %d of %d requests did not finish; throughput leaves out their tokens.", res.Unfinished, res.Completed+res.Failed+res.Unfinished))
	}
	if res.Uncounted > 0 {
		notes = append(notes, fmt.Sprintf("The server did not say how many tokens it made in %d answers: their chunks were counted, which may hold several tokens each. Give --tokenizer to count the text.", res.Uncounted))
	}
	if res.Short > 0 {
		notes = append(notes, fmt.Sprintf("%d of %d answers are shorter than was asked for: the server cut them, or does not know ignore_eos, so throughput is of less work than planned.", res.Short, res.Completed))
	}
	if lag := res.clientLag(); lag != "" {
		notes = append(notes, lag)
	}
	return notes
}

// clientLag warns when the client itself was so late that the figures hold its
// lateness, too.
func (res *ServeResult) clientLag() string {
	const share = 0.05
	ttft, tpot := res.describe("ttft").Median, res.describe("tpot").Median
	switch {
	case res.Completed == 0:
	case res.SendLag.P99 > max(1, share*ttft):
		return fmt.Sprintf("The client was late: 1 %% of the requests were sent %.1f ms after their time or later. Give it a machine or cores of its own.", res.SendLag.P99)
	case tpot > 0 && res.WakeLag.Median > max(0.5, share*tpot):
		return fmt.Sprintf("The client was late: half of its wake-ups came %.1f ms late or more, so latencies are that much too long. Give it a machine or cores of its own.", res.WakeLag.Median)
	}
	return ""
}

func (res *ServeResult) describe(key string) Distribution { return Describe(res.Latencies[key]) }

func (res *ServeResult) percentile(key string, p float64) float64 {
	if len(res.Latencies[key]) == 0 {
		return 0
	}
	return Percentile(res.Latencies[key], p)
}

// percentileWord spells 99 and 99.9 as vLLM's keys do.
func percentileWord(p float64) string { return strconv.FormatFloat(p, 'f', -1, 64) }

// SaveServe writes the run as vLLM's bench serve does with --save-result and returns
// the path. name may be empty for vLLM's pattern.
func SaveServe(dir, name string, run *ServeRun, res *ServeResult, o ServeOptions, now time.Time) (string, error) {
	if name == "" {
		rate := "inf"
		if !math.IsInf(o.Load.RequestRate, 1) {
			// As Python writes a float.
			if rate = strconv.FormatFloat(o.Load.RequestRate, 'f', -1, 64); !strings.Contains(rate, ".") {
				rate += ".0"
			}
		}
		concurrency := ""
		if o.Load.MaxConcurrency > 0 {
			concurrency = fmt.Sprintf("-concurrency%d", o.Load.MaxConcurrency)
		}
		label := o.Label
		if label == "" {
			label = o.Backend
		}
		name = fmt.Sprintf("%s-%sqps%s-%s-%s.json", label, rate, concurrency, filepath.Base(o.Model), now.Format("20060102-150405"))
	}
	text, err := json.Marshal(run.vllmResult(res, o, now))
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	return path, writeFolder(dir, map[string][]byte{name: text})
}

// vllmResult has vLLM's keys; null stands where vLLM has None.
func (run *ServeRun) vllmResult(res *ServeResult, o ServeOptions, now time.Time) map[string]any {
	orNull := func(set bool, v any) any {
		if set {
			return v
		}
		return nil
	}
	out := map[string]any{
		"date": now.Format("20060102-150405"), "endpoint_type": o.Backend, "backend": o.Backend, "label": orNull(o.Label != "", o.Label),
		"model_id": o.Model, "tokenizer_id": orNull(o.Tokenizer != "", o.Tokenizer), "num_prompts": o.NumPrompts,
		"request_rate": any(o.Load.RequestRate), "burstiness": o.Load.Burstiness, "max_concurrency": orNull(o.Load.MaxConcurrency > 0, o.Load.MaxConcurrency),
		"duration": res.Duration.Seconds(), "completed": res.Completed, "failed": res.Failed,
		"total_input_tokens": res.InputTokens, "total_output_tokens": res.OutputTokens,
		"request_throughput": res.RequestThroughput, "request_goodput": orNull(len(o.Goodput) > 0, res.RequestGoodput),
		"output_throughput": res.OutputThroughput, "total_token_throughput": res.TotalThroughput,
		"max_output_tokens_per_s": res.PeakOutputThroughput, "max_concurrent_requests": res.PeakConcurrency, "rtfx": 0.0,
	}
	if math.IsInf(o.Load.RequestRate, 1) {
		out["request_rate"] = "inf"
	}
	if math.IsInf(o.Load.Burstiness, 1) {
		out["burstiness"] = "inf"
	}
	for _, n := range latencyNames {
		if !slices.Contains(o.Metrics, n.Key) {
			continue
		}
		d := res.describe(n.Key)
		out["mean_"+n.Key+"_ms"], out["median_"+n.Key+"_ms"], out["std_"+n.Key+"_ms"] = d.Mean, d.Median, d.StdDev
		for _, p := range o.Percentiles {
			out["p"+percentileWord(p)+"_"+n.Key+"_ms"] = res.percentile(n.Key, p)
		}
	}
	latencies, queues := make([]float64, len(run.Samples)), make([]float64, len(run.Samples))
	for i := range run.Samples {
		s := &run.Samples[i]
		latencies[i], queues[i] = (s.Ended - s.Submitted).Seconds(), s.Queued.Seconds()
	}
	out["latencies"], out["queue_times"] = latencies, queues
	if o.Detailed {
		run.detail(out)
	}
	for key, value := range o.Metadata {
		out[key] = value
	}
	// Ours, which vLLM does not have.
	out["unfinished"] = res.Unfinished
	out["failures"], out["client_send_lag_p99_ms"], out["client_wake_lag_p99_ms"] = res.Failures, res.SendLag.P99, res.WakeLag.P99
	return out
}

// detail adds the lists of every request, in seconds.
func (run *ServeRun) detail(out map[string]any) {
	n := len(run.Samples)
	inputs, outputs, starts, ttfts := make([]int, n), make([]int, n), make([]float64, n), make([]float64, n)
	itls, texts, failures := make([][]float64, n), make([]string, n), make([]string, n)
	for i := range run.Samples {
		s := &run.Samples[i]
		inputs[i], starts[i], texts[i], itls[i] = s.PromptTokens, s.Submitted.Seconds(), s.Text, []float64{}
		if s.Err != nil {
			failures[i] = s.Err.Error()
			continue
		}
		outputs[i] = s.OutputTokens
		for j, at := range s.Tokens {
			if j == 0 {
				ttfts[i] = (at - s.Submitted).Seconds()
			} else {
				itls[i] = append(itls[i], (at - s.Tokens[j-1]).Seconds())
			}
		}
	}
	out["input_lens"], out["output_lens"], out["start_times"], out["ttfts"] = inputs, outputs, starts, ttfts
	out["itls"], out["generated_texts"], out["errors"] = itls, texts, failures
}
