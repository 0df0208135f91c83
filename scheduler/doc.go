// Package scheduler decides, step by step, which sequences run with how many
// tokens. It is a state machine without clock, goroutine, device or text: calls
// go in, data comes out, and equal calls give equal data.
//
// # Driving it
//
//	s, err := scheduler.New(cfg, manager)
//	s.Add(seq)              // when a request arrives
//	out := s.Schedule()     // what the next step is
//	  … launch out.Scheduled …
//	s.Update(out, results)  // when the step's tokens are there
//	s.Abort(seq)            // at any time
//
// A synchronous loop calls Schedule, launch, Update. An overlapped loop calls
// Schedule for step n+1 between the launch of step n and its Update; at most one
// step is then in flight when Schedule is called, and every Output is updated
// once, in order. Sequence.Pending says that a step in flight will bring one more
// token; its next step takes that token from the device.
//
// # What a step is
//
// There is no prefill phase and no decode phase (the idea is vLLM V1's). Each
// sequence has known tokens and launched tokens, and must catch up: Schedule gives
// it min(known − launched, what is left of the token budget). In order:
//
//  1. running sequences that lack one token: decodes, oldest first. When no block
//     is free for one, the newest running sequence is preempted, if need be the
//     decode itself.
//  2. running sequences that lack more: prefill chunks. Their blocks were
//     allocated when they were admitted.
//  3. waiting sequences, in order, while fewer than MaxNumSeqs run and budget is
//     left, unless this step preempted. One that does not fit whole holds back
//     those behind it: nothing is half-admitted and nobody is passed over.
//
// # Preemption
//
// A preempted sequence gives all its blocks back, keeps its tokens, and waits in
// its order of arrival, so before all that never ran; its output is computed
// again as part of its prompt, as far as the prefix cache no longer has it. It
// resumes only when a margin of one block for every running sequence stays free,
// so that it is not preempted again at once. The oldest sequence is never
// preempted while another runs, and alone it fits, because Add refused what could
// not: it always makes progress.
//
// # Records and traces
//
// Record writes a step down by value, with its reasons. With Config.Trace every
// input and every record goes out as a TraceLine; since equal calls give equal
// data, Replay feeds the inputs of a trace to a fresh Scheduler and wants the same
// records, down to block ids.
//
// # Invariants
//
//	I7  A table has room for every launched token; launched ≤ known tokens.
//	I8  Each live sequence is in exactly one queue, a finished one in none.
//	I9  While sequences wait or run, each Schedule has work or a step is in flight.
//
// Check verifies the first two; the tests drive the third.
package scheduler
