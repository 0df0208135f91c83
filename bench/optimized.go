package bench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// Optimized is Baseline with the best parameters found, o.Limits, interleaved with that
// of the parameters to beat, o.Against, whose report is the second. The first has the
// verdict of comparing the two.
func Optimized(ctx context.Context, e Tunable, o BaselineOptions) (optimized, baseline *Report, err error) {
	reports, err := o.measure(ctx, e, []*side{{name: "baseline", limits: o.Against}, {name: "optimized", limits: o.Limits}})
	if len(reports) == 0 {
		return nil, nil, err
	}
	baseline, optimized = reports[0], reports[1]
	compared, e2 := Compare(baseline, optimized)
	if e2 != nil { // interrupted before both had a cell
		return optimized, baseline, err
	}
	optimized.Verdict = strings.TrimSpace(optimized.Verdict + "\nAgainst the baseline, interleaved with it: " + compared.Verdict)
	optimized.Tables, optimized.Plots = append(optimized.Tables, compared.Tables...), append(optimized.Plots, compared.Plots...)
	return optimized, baseline, err
}

// ConfigFile is the name of the file in which Tune leaves the parameters it found.
const ConfigFile = "optimal_config.yaml"

// memoryLimitKey is the size of the device that the search was told to take for granted:
// with another size the other values are no longer those that were measured.
const memoryLimitKey = "memory_limit"

// tunedKeys are the parameters of a TunedConfig, in the order of its file.
var tunedKeys = []string{memoryLimitKey, "gpu_memory_utilization", "max_num_seqs", "max_num_batched_tokens", "max_num_mixed_tokens", "long_prefill_token_threshold", "target_itl_ms", "swap_space"}

// TunedConfig is what Tune found: values by flag name with _, each with the measured
// reason.
type TunedConfig struct {
	Head   []string // comment lines
	Values map[string]string
	Why    map[string]string
}

// config is the best so far; err is why the search ended early.
func (t *tuner) config(err error) *TunedConfig {
	info := t.e.Info()
	c := &TunedConfig{Values: map[string]string{}, Why: t.reasons, Head: []string{
		fmt.Sprintf("Found by pagoda tune for %s on %s (%s).", info.Model, info.Device.Device, info.Device.Path),
		fmt.Sprintf("Objective: %s of %d requests, %d prompt and %d output tokens each on average.", t.objectiveName(), t.o.Load.Requests, t.o.Load.PromptTokens, t.o.Load.OutputTokens),
		"Figures are medians of the repeats with their range. Use it with pagoda serve MODEL --config FILE.",
	}}
	switch {
	case errors.Is(err, context.Canceled):
		c.Head = append(c.Head, "Interrupted: the best so far. pagoda tune --resume goes on.")
	case err == nil:
		c.Head = append(c.Head, strings.Split(t.verdict(nil), "\n")...)
	}
	params := tunedParams(t.best)
	if limit := t.base.MemoryLimit; limit > 0 {
		params[memoryLimitKey] = limit
		c.Why[memoryLimitKey] = fmt.Sprintf("%s, as the search was told: everything below was measured with it", formatBinary(float64(limit)))
	}
	for _, key := range tunedKeys {
		switch v := params[key].(type) {
		case nil:
		case float64:
			c.Values[key] = strconv.FormatFloat(v, 'g', -1, 64)
		default:
			c.Values[key] = fmt.Sprint(v)
		}
	}
	return c
}

// String is the file's text.
func (c *TunedConfig) String() string {
	var b strings.Builder
	for _, line := range c.Head {
		comment(&b, line)
	}
	for _, key := range tunedKeys {
		value, ok := c.Values[key]
		if !ok {
			continue
		}
		why := c.Why[key]
		switch {
		case why != "":
		case key == "max_num_mixed_tokens", key == "long_prefill_token_threshold", key == "target_itl_ms":
			why = "chosen with max_num_batched_tokens"
		default:
			why = "as at the start; not measured yet"
		}
		b.WriteString("\n")
		comment(&b, why)
		fmt.Fprintf(&b, "%s: %s\n", key, value)
	}
	return b.String()
}

// comment writes text as comment lines of some 100 characters.
func comment(b *strings.Builder, text string) {
	length := 0
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
			b.WriteString("#")
		case length+len(word) > 98:
			b.WriteString("\n#")
			length = 0
		}
		b.WriteString(" " + word)
		length += 1 + len(word)
	}
	b.WriteString("\n")
}

// Write leaves the file in dir.
func (c *TunedConfig) Write(dir string) error {
	return writeWhole(filepath.Join(dir, ConfigFile), []byte(c.String()))
}
