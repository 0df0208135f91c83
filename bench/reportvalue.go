package bench

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// metricNames are the words for metrics that do not follow a pattern.
var metricNames = map[string]string{
	"output_throughput":      "output tok/s",
	"total_token_throughput": "total tok/s",
	"request_throughput":     "requests/s",
	"request_goodput":        "goodput req/s",
	"num_gpu_blocks":         "KV blocks",
	"num_preemptions":        "preemptions",
	"kv_block_utilization":   "KV block utilization",
	"internal_fragmentation": "fragmentation",
	"contiguous_waste":       "waste if contiguous",
	"prefix_hit_rate":        "prefix hit rate",
	"shared_bytes_saved":     "saved by sharing",
	"swap_in_bytes":          "swapped in",
	"swap_out_bytes":         "swapped out",
	"gpu_utilization":        "GPU busy",
	"cpu_cores_busy":         "cores busy",
	"peak_memory_bytes":      "peak memory",
	"engine_memory_bytes":    "engine memory",
	"peak_swap_bytes":        "peak swap",
	"kv_cache_usage":         "KV pool used",
	"peak_kv_cache_usage":    "peak KV pool used",
	"waiting_for_blocks":     "waits for blocks",
	"waiting_for_seqs":       "waits for a place",
	"preemptions_swap":       "swaps",
	"preemptions_recompute":  "recomputes",
}

// metricOrder is the order of the metrics in tables; others follow by name.
var metricOrder = []string{
	"output_throughput", "request_throughput", "request_goodput", "total_token_throughput",
	"median_ttft_ms", "p99_ttft_ms", "median_tpot_ms", "p99_tpot_ms", "median_itl_ms", "p99_itl_ms", "median_e2el_ms", "p99_e2el_ms",
	"num_gpu_blocks", "num_preemptions", "swap_out_bytes", "swap_in_bytes", "gpu_utilization",
	"kv_block_utilization", "internal_fragmentation", "contiguous_waste", "prefix_hit_rate", "shared_bytes_saved",
}

// displayName is what a metric is called in tables: p99_itl_ms is "ITL p99".
func displayName(metric string) string {
	if name, ok := metricNames[metric]; ok {
		return name
	}
	parts := strings.Split(metric, "_")
	if len(parts) >= 3 && parts[len(parts)-1] == "ms" {
		quantity := strings.ToUpper(strings.Join(parts[1:len(parts)-1], " "))
		known := slices.Contains([]string{"TTFT", "TPOT", "ITL", "E2EL", "QUEUE"}, quantity)
		if quantity == "QUEUE" { // no abbreviation
			quantity = "queue"
		}
		switch {
		case !known:
		case parts[0] == "median":
			return quantity + " p50"
		case parts[0] == "mean" || parts[0] == "std":
			return quantity + " " + parts[0]
		case strings.HasPrefix(parts[0], "p"):
			return quantity + " " + parts[0]
		}
	}
	if last := len(parts) - 1; last > 0 && parts[last] == "ms" {
		parts = parts[:last] // the unit is said apart
	}
	return strings.Join(parts, " ")
}

// Directions of a metric.
const (
	lowerIsBetter  = -1
	noDirection    = 0
	higherIsBetter = 1
)

// direction says which way a metric is better; of some, such as the number of
// blocks, neither way is.
func direction(metric string) int {
	switch {
	case strings.HasSuffix(metric, "_throughput"), strings.HasSuffix(metric, "_goodput"), strings.HasSuffix(metric, "hit_rate"),
		metric == "kv_block_utilization", metric == "shared_bytes_saved":
		return higherIsBetter
	case strings.HasSuffix(metric, "_ms"), strings.Contains(metric, "preemptions"), strings.HasPrefix(metric, "swap_"),
		strings.HasSuffix(metric, "fragmentation"), strings.HasSuffix(metric, "waste"), metric == "failed", metric == "num_failed", metric == "unfinished":
		return lowerIsBetter
	}
	return noDirection
}

// unitSuffix is what follows a metric's name in a header.
func unitSuffix(metric, unit string) string {
	switch {
	case unit == "", unit == "bytes", unit == "share", strings.Contains(displayName(metric), "/s"):
		return ""
	}
	return " " + unit
}

// formatAs writes a value of a unit with about three digits.
func formatAs(unit string, v float64) string {
	switch unit {
	case "bytes":
		return formatBinary(v)
	case "share":
		return strconv.FormatFloat(100*v, 'f', percentDecimals(v), 64) + " %"
	}
	return shortValue(v)
}

func percentDecimals(share float64) int {
	if share != 0 && math.Abs(share) < 0.0995 || math.Abs(share) > 0.99 && math.Abs(share) < 1 {
		return 1
	}
	return 0
}

func formatBinary(v float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for math.Abs(v) >= 1024 && i+1 < len(units) {
		v /= 1024
		i++
	}
	return shortValue(v) + " " + units[i]
}

// shortValue writes a number with at least three digits, and whole ones as they
// are.
func shortValue(v float64) string {
	size := math.Abs(v)
	decimals := 3
	switch {
	case !finite(v):
		return "–"
	case v == math.Trunc(v) || size >= 100:
		decimals = 0
	case size >= 10:
		decimals = 1
	case size >= 1:
		decimals = 2
	}
	return thousands(strconv.FormatFloat(v, 'f', decimals, 64))
}

// half is how far the runs lie from the median at most.
func (m Metric) half() float64 { return math.Max(m.Max-m.Median, m.Median-m.Min) }

// median is the metric's value as tables show it, spread how far the runs lie from
// it: "± 3 %", or nothing for one run or equal ones.
func (m Metric) median() string { return formatAs(m.Unit, m.Median) }

func (m Metric) spread() string {
	if len(m.Runs) < 2 || m.half() == 0 {
		return ""
	}
	if m.Median == 0 || m.Unit == "share" {
		return "± " + formatAs(m.Unit, m.half())
	}
	percent := 100 * m.half() / math.Abs(m.Median)
	decimals := 0
	if percent < 9.95 {
		decimals = 1
	}
	return "± " + strconv.FormatFloat(percent, 'f', decimals, 64) + " %"
}

// columns are the metrics that the console's and the page's first table show.
func (r *Report) columns() []string {
	have := map[string]bool{}
	for _, cell := range r.Cells {
		for name := range cell.Metrics {
			have[name] = true
		}
	}
	if r.Columns != nil {
		return slices.DeleteFunc(slices.Clone(r.Columns), func(name string) bool { return !have[name] })
	}
	return slices.SortedFunc(maps.Keys(have), func(a, b string) int {
		return cmp.Or(cmp.Compare(orderOf(a), orderOf(b)), cmp.Compare(a, b))
	})
}

func orderOf(metric string) int {
	if i := slices.Index(metricOrder, metric); i >= 0 {
		return i
	}
	return len(metricOrder)
}

// unit of a metric, from the first cell that has it.
func (r *Report) unit(metric string) string {
	for _, cell := range r.Cells {
		if m, ok := cell.Metrics[metric]; ok {
			return m.Unit
		}
	}
	return ""
}

// params divides the parameters of the cells into those that vary, which are
// columns, and those that are the same everywhere.
func (r *Report) params() (varied, same []string) {
	values := map[string]map[string]bool{}
	for _, cell := range r.Cells {
		for name := range cell.Params {
			values[name] = map[string]bool{}
		}
	}
	for name := range values {
		for _, cell := range r.Cells {
			values[name][paramText(cell.Params[name])] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if len(values[name]) > 1 {
			varied = append(varied, name)
		} else {
			same = append(same, name)
		}
	}
	return varied, same
}

// paramText writes a parameter's value, which may come from JSON.
func paramText(v any) string {
	switch v := v.(type) {
	case nil:
		return "–"
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case string:
		return v
	}
	return fmt.Sprint(v)
}

// flagName is a parameter as it is given on the command line.
func flagName(param string) string { return strings.ReplaceAll(param, "_", "-") }

// counted is a number of things with their name, which has an s unless there is one.
func counted(n float64, name string) string {
	if math.Round(n) == 1 {
		return "1 " + name
	}
	return fmt.Sprintf("%.0f %ss", n, name)
}

// isBest says whether a cell has the best one's parameters.
func (r *Report) isBest(cell Cell) bool {
	for name, value := range r.Best {
		if paramText(cell.Params[name]) != paramText(value) {
			return false
		}
	}
	return len(r.Best) > 0
}

// paramList writes parameters as "name value · name value".
func paramList(params map[string]any, names []string) string {
	var parts []string
	for _, name := range names {
		parts = append(parts, flagName(name)+" "+paramText(params[name]))
	}
	return strings.Join(parts, " · ")
}

// heading is the report's title.
func (r *Report) heading() string { return cmp.Or(r.Title, r.Experiment) }

// clip cuts a text that is longer than n characters.
func clip(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n]) + "…"
	}
	return s
}
