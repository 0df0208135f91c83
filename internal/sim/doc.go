// Package sim runs the real scheduler and kvcache on a virtual clock: no model, no
// device, a million requests in minutes. It also reads decision traces of real
// runs, for people (text, Perfetto) and for replays.
//
// # Cast
//
//   - Workload: what arrives. Generated from a seed (Source), or taken from a
//     recorded trace (Arrivals).
//   - StepTime: how long a step takes, from five coefficients: a preset, the
//     command line's, or fitted to a trace (Fit).
//   - Run: the simulation. It stands where the engine stands: it adds sequences,
//     schedules, waits for the step, reports tokens and copies. The clock jumps from
//     event to event.
//   - Summary: what came of it; latencies from histograms, so that memory does not
//     grow with the number of requests.
//   - Replay: a trace again, decision by decision.
//   - Steps, WriteText, WritePerfetto: a trace made readable.
//
// # Virtual time
//
// The device runs one step at a time, the copy streams one transfer at a time in
// each direction. The host takes no time: what a step costs there is in the
// StepTime's constant. Equal configurations give equal runs, to the last byte of
// the trace.
package sim
