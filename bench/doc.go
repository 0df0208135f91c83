// Package bench measures Pagoda with itself, in one process.
//
// # Cast
//
//   - Workload: requests with prompt and output lengths and arrival times, made
//     from a seed.
//   - Run: the load loop. It submits a Workload to an engine, open loop (arrivals
//     as they come) or with bounded concurrency, and times every token.
//   - Sample: the times of one request. Summary: the metrics of many.
//   - Roofline: decode and prefill speed beside the machine's measured read
//     bandwidth and FLOP/s.
//   - Peers: models measured by the protocol that another engine was measured by,
//     beside that engine's figures (peers.json) and the card's floor.
//
// # Metric definitions
//
// They are vLLM's (benchmarks/benchmark_serving.py), so that numbers compare; the
// duration alone begins with the first submission and ends with the last completed
// request:
//
//   - TTFT, time to first token: from submission to the first token's arrival.
//   - ITL, inter-token latency: every gap between two tokens of one request, all
//     requests pooled.
//   - TPOT, time per output token: (last token − first token) ÷ (tokens − 1), one
//     value a request that has at least two tokens.
//   - output throughput: all generated tokens ÷ (end of the last request − first
//     submission); request throughput likewise.
//
// Percentiles interpolate linearly between ranks, as numpy does.
package bench
