package server

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pagoda-engine/pagoda/engine"
)

// engineCollector reads the engine's numbers when it is scraped, all at one
// moment.
type engineCollector struct {
	engine  Engine
	entries []engineMetric
	tokens  *prometheus.Desc // of the histogram of step sizes
}

// engineMetric is one series of engine.Stats.
type engineMetric struct {
	desc   *prometheus.Desc
	kind   prometheus.ValueType
	value  func(*engine.Stats) float64
	labels []string // values of the desc's labels
}

func newEngineCollector(e Engine) *engineCollector {
	c := &engineCollector{engine: e}
	c.vllm()
	c.blocks()
	c.scheduling()
	c.tokens = prometheus.NewDesc("vllm:iteration_tokens_total", "Tokens computed by a step.", nil, nil)
	return c
}

func (c *engineCollector) add(kind prometheus.ValueType, name, help, label, labelValue string, value func(*engine.Stats) float64) {
	m := engineMetric{kind: kind, value: value}
	var names []string
	if label != "" {
		names, m.labels = []string{label}, []string{labelValue}
	}
	m.desc = prometheus.NewDesc(name, help, names, nil)
	c.entries = append(c.entries, m)
}

func (c *engineCollector) gauge(name, help string, value func(*engine.Stats) float64) {
	c.add(prometheus.GaugeValue, name, help, "", "", value)
}

func (c *engineCollector) counter(name, help string, value func(*engine.Stats) int64) {
	c.add(prometheus.CounterValue, name, help, "", "", func(s *engine.Stats) float64 { return float64(value(s)) })
}

// vllm adds the series that vLLM has, by its names.
func (c *engineCollector) vllm() {
	c.gauge("vllm:num_requests_running", "Requests in the running batch.", func(s *engine.Stats) float64 { return float64(s.Running) })
	c.gauge("vllm:num_requests_waiting", "Requests that wait to run.", func(s *engine.Stats) float64 { return float64(s.Waiting) })
	c.gauge("vllm:num_requests_swapped", "Requests whose KV blocks are in host memory.", func(s *engine.Stats) float64 { return float64(s.Swapped) })
	c.gauge("vllm:kv_cache_usage_perc", "Share of KV blocks that are referenced, 0 to 1.", func(s *engine.Stats) float64 { return s.KVUsage() })
	c.gauge("vllm:gpu_cache_usage_perc", "Old name of vllm:kv_cache_usage_perc.", func(s *engine.Stats) float64 { return s.KVUsage() })
	reason := func(name string, value func(*engine.Stats) float64) {
		c.add(prometheus.GaugeValue, "vllm:num_requests_waiting_by_reason", "Requests that wait to run, by reason.", "reason", name, value)
	}
	reason("capacity", func(s *engine.Stats) float64 { return float64(s.Waiting) })
	reason("deferred", func(*engine.Stats) float64 { return 0 }) // nothing else holds a request back
	for _, state := range []string{"awake", "weights_offloaded", "discard_all"} {
		c.add(prometheus.GaugeValue, "vllm:engine_sleep_state", "1 for the state that the engine is in: it never sleeps.", "sleep_state", state,
			func(*engine.Stats) float64 { return map[bool]float64{true: 1}[state == "awake"] })
	}
	c.gauge("vllm:cpu_cache_usage_perc", "Share of the swap pool that is held, 0 to 1.", func(s *engine.Stats) float64 { return s.HostUsage() })
	c.counter("vllm:prompt_tokens_total", "Prompt tokens processed.", func(s *engine.Stats) int64 { return s.PromptTokens })
	c.counter("vllm:generation_tokens_total", "Tokens generated.", func(s *engine.Stats) int64 { return s.GenerationTokens })
	c.counter("vllm:prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache, once a request.", func(s *engine.Stats) int64 { return s.PrefixQueries })
	c.counter("vllm:prefix_cache_hits_total", "Prompt tokens found in the prefix cache.", func(s *engine.Stats) int64 { return s.PrefixHits })
	c.counter("vllm:num_preemptions_total", "Preemptions.", func(s *engine.Stats) int64 { return s.PreemptionsRecompute + s.PreemptionsSwap })
}

// blocks adds what PagedAttention's blocks are doing.
func (c *engineCollector) blocks() {
	state := func(name string, value func(*engine.Stats) int) {
		c.add(prometheus.GaugeValue, "pagoda:kv_blocks", "KV blocks by state; used = referenced.", "state", name,
			func(s *engine.Stats) float64 { return float64(value(s)) })
	}
	state("free", func(s *engine.Stats) int { return s.BlocksFree })
	state("used", func(s *engine.Stats) int { return s.BlocksUsed })
	state("cached", func(s *engine.Stats) int { return s.BlocksCached })
	state("in_flight", func(s *engine.Stats) int { return s.BlocksInFlight })
	host := func(name string, value func(*engine.Stats) int) {
		c.add(prometheus.GaugeValue, "pagoda:host_kv_blocks", "Blocks of the swap pool by state.", "state", name,
			func(s *engine.Stats) float64 { return float64(value(s)) })
	}
	host("used", func(s *engine.Stats) int { return s.HostBlocksUsed })
	host("in_flight", func(s *engine.Stats) int { return s.HostBlocksInFlight })
	host("free", func(s *engine.Stats) int { return s.HostBlocksTotal - s.HostBlocksUsed - s.HostBlocksInFlight })
	c.gauge("pagoda:kv_block_utilization", "Used slots / allocated slots of the referenced blocks, 0 to 1.", func(s *engine.Stats) float64 { return s.BlockUtilization() })
	c.gauge("pagoda:kv_internal_fragmentation", "Share of allocated slots that hold nothing, 0 to 1.", func(s *engine.Stats) float64 { return s.InternalFragmentation() })
	c.gauge("pagoda:kv_blocks_shared", "KV blocks with two references or more.", func(s *engine.Stats) float64 { return float64(s.BlocksShared) })
	c.gauge("pagoda:kv_shared_bytes_saved", "Bytes of KV memory that sharing saves now.", func(s *engine.Stats) float64 { return float64(s.SharedBytesSaved()) })
	c.counter("pagoda:forks_total", "Choices that shared the blocks of another's prompt.", func(s *engine.Stats) int64 { return s.Forks })
	c.counter("pagoda:copied_blocks_total", "Blocks copied on write.", func(s *engine.Stats) int64 { return s.CopiedBlocks })
	c.counter("pagoda:evictions_total", "Cached blocks whose content was given up.", func(s *engine.Stats) int64 { return s.Evictions })
	c.counter("pagoda:swap_in_bytes_total", "Bytes copied from host to device.", func(s *engine.Stats) int64 { return s.SwapInBytes })
	c.counter("pagoda:swap_out_bytes_total", "Bytes copied from device to host.", func(s *engine.Stats) int64 { return s.SwapOutBytes })
}

// scheduling adds what the scheduler decided and how well it predicted.
func (c *engineCollector) scheduling() {
	means := func(name string, value func(*engine.Stats) int64) {
		c.add(prometheus.CounterValue, "pagoda:preemptions_total", "Preemptions by means.", "means", name,
			func(s *engine.Stats) float64 { return float64(value(s)) })
	}
	means("recompute", func(s *engine.Stats) int64 { return s.PreemptionsRecompute })
	means("swap", func(s *engine.Stats) int64 { return s.PreemptionsSwap })
	c.counter("pagoda:block_waits_total", "Steps that requests sat out for want of a block.", func(s *engine.Stats) int64 { return s.BlockWaits })
	c.counter("pagoda:swap_pool_full_total", "Preemptions by recompute because the swap pool was full.", func(s *engine.Stats) int64 { return s.SwapPoolFull })
	c.counter("pagoda:steps_total", "Steps of the engine.", func(s *engine.Stats) int64 { return s.Steps })
	c.gauge("pagoda:step_seconds", "Device time of the last step.", func(s *engine.Stats) float64 { return s.LastStep.Seconds() })
	c.gauge("pagoda:predicted_step_seconds", "What the step-time model expected of the last step.", func(s *engine.Stats) float64 { return s.PredictedStep.Seconds() })
	c.gauge("pagoda:step_time_error", "Moving mean of |predicted - measured| / measured.", func(s *engine.Stats) float64 { return s.StepTimeError })
}

// Describe implements prometheus.Collector.
func (c *engineCollector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c *engineCollector) Collect(ch chan<- prometheus.Metric) {
	st := c.engine.Stats()
	for i := range c.entries {
		m := &c.entries[i]
		ch <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(&st), m.labels...)
	}
	buckets, sofar := map[float64]uint64{}, uint64(0)
	for i, bound := range engine.StepSizeBounds {
		sofar += uint64(st.StepSizes[i])
		buckets[float64(bound)] = sofar
	}
	ch <- prometheus.MustNewConstHistogram(c.tokens, sofar+uint64(st.StepSizes[len(engine.StepSizeBounds)]), float64(st.StepTokens), buckets)
}
