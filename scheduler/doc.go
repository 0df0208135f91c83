// Package scheduler decides, step by step, which sequences run with how many
// tokens. It is a state machine without clock, goroutine, device or text: calls
// go in, data comes out, and equal calls give equal data.
//
// # Driving it
//
//	s, err := scheduler.New(cfg, manager)
//	s.Add(seq)                    // when a request arrives; one Sequence a choice
//	out := s.Schedule()           // what the next step is
//	  … perform out.SwapOut, out.SwapIn, out.Copies; launch out.Scheduled …
//	s.Update(out, results, took)  // when the step's tokens are there
//	s.CopyDone(transfer, took)    // when swap copies are finished
//	s.Abort(seq)                  // at any time
//	s.SetLimits(…)                // at any time
//
// A synchronous loop calls Schedule, launch, Update. An overlapped loop calls
// Schedule for step n+1 between the launch of step n and its Update; at most one
// step is then in flight when Schedule is called, and every Output with work is
// updated once, in order. Sequence.Pending says that a step in flight will bring one
// more token; its next step takes that token from the device.
//
// The caller's device runs steps in order, and begins copies after the steps
// launched before them. So a block freed by Abort may be handed out at once, and
// what a step in flight computes counts as there when a sequence is swapped out.
//
// # The life of a sequence
//
//	       Add             Schedule                 finish, Abort
//	       ──→ Waiting ─────────────→ Running ──────────────────→ Finished
//	parked ──↗    ↑ ↑     recompute      │ │                         ↑ from
//	behind its    │ └────────────────────┘ │ swap                    │ every
//	parent        │    CopyDone            ↓                         │ state
//	              │               Swapped: copies out under way
//	              │ pool shrunk       │ CopyDone
//	              └───────────────  Swapped: on the host
//	                                  │ Schedule
//	                                  ↓ CopyDone
//	                              Running: copies in under way → Running
//
// A fork (Sequence.Parent) waits aside until its parent has computed the prompt,
// then shares the parent's blocks; the parent's preemption leaves it where it is, the
// parent's end promotes it: the first fork computes the prompt for the others. A parent
// that ends with the step that computed the prompt has no blocks to share any more: its
// forks find in the prefix index what is published of them.
//
// # What a step is
//
// There is no prefill phase and no decode phase (the idea is vLLM V1's). Each
// sequence has known tokens and launched tokens, and must catch up: Schedule gives
// it min(known − launched, what is left of the token budget).
//
//	0 ……… NumComputed ……… Launched ……… known = len(Tokens) + Pending ……… MaxLen
//	  in the cache │ in flight │ to be computed │ not there yet
//
// In order:
//
//  1. running sequences that lack one token: decodes, oldest first. Each takes a
//     block when it needs one, see Preemption.
//  2. running sequences that lack more: prefill chunks. Their blocks were allocated
//     when they were admitted. A chunk that would take all that is left, if only just
//     to finish its prompt, takes half of it, 16 tokens at least, while others want
//     some; what nobody takes it gets in the end. Decodes wait for the prefill beside
//     them: a step that has some keeps to Config.MaxMixedTokens, the decodes included,
//     and with Config.TargetITL its prefill is cut so that its predicted time keeps to
//     the target (bounded chunks beside decodes are Sarathi-Serve's, OSDI 2024).
//     MaxMixedTokens leaves prompts as many tokens as there are decodes, and both leave
//     them 16. A step without decodes has the whole budget.
//  3. waiting sequences, in order, while fewer than MaxNumSeqs run and budget is
//     left, unless this step preempted for want of blocks. One that does not fit
//     whole holds back those behind it: nothing is half-admitted and nobody is
//     passed over. A loan that was refused for want of blocks (Borrow) holds all of
//     them back while sequences run.
//
// # Preemption
//
// A decode that finds no free block makes room: it waits, if copies under way are
// about to free one; else one of the sequences after it is preempted: the newest, or
// another if that is cheaper by a quarter for each block that it frees; in mode auto
// it waits as well, if a sequence that needs no block ends within 8 steps and that
// costs less. With nobody after it, it waits and keeps its blocks: older sequences
// that end free some, or preempt it for theirs.
//
//	recompute = prefill time of its tokens, less the leading ones that others share
//	swap      = its own blocks × (time of a block out + time of a block in)
//	wait      = steps until the other's end × (a step's time ÷ running + a decode's)
//
// The rates are the StepModel's and CopyDone's, kept current. Swap falls back to
// recompute when the swap pool is full. A preempted sequence keeps its tokens, also
// the one that a step in flight brings, and waits in its order of arrival, so before
// all that never ran. It comes back when, beyond its need and its next block, this
// stays free: the watermark, or, if more, a block for each running sequence, doubled
// with each of its preemptions (reserve).
//
// # Bounds
//
//   - Nobody is bypassed: among equals in priority, admission is in order of arrival.
//   - The oldest running sequence is never preempted for want of blocks. It runs in
//     each step in which it lacks a token, unless copies under way, or an end within
//     8 steps, are waited for. Alone it fits, because Add refuses what could not.
//   - At most 3 preemptions a sequence for want of blocks. After that it is
//     protected: nobody, of whatever priority, is admitted unless all protected
//     sequences can grow to their full lengths beside any one of those that come
//     before the last of them, so that they never have to go (promisable). Lowered
//     limits preempt beyond this, and do not count.
//   - Later arrivals delay nobody's first token beyond three times the steps that it
//     would take without them, and 4 (TestFairness): each takes half of a step's
//     prefill at most, and none passes by. With MaxMixedTokens later arrivals that
//     decode make steps smaller, too: then it is three times the steps that it would
//     take without them if MaxBatchedTokens were as small.
//   - A prompt gets at least min(16, budget) tokens of a step in which it is the
//     first to prefill, and never less than half of what the step has for prefill:
//     beside d decodes min(MaxBatchedTokens − d, max(MaxMixedTokens − d, d, 16)), or,
//     with TargetITL, less, and not below 16 of it.
//   - Lowered limits hold from the next Schedule on; admission resumes once what the
//     pools lose is out of use, that is when the copies under way are reported.
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
//	I3  A block that two sequences name holds computed tokens only.
//	I7  A table has room for every launched token; launched ≤ known tokens.
//	I8  Each live sequence is in exactly one of running, waiting, or its parent's
//	    forks; a finished one in none.
//	I9  While sequences live, a Schedule has work, a step is in flight, or copies
//	    are under way; and the oldest goes on, see Bounds.
//
// Check verifies these but I9, and the Manager's. The tests verify all of them after
// every operation of a random machine (machine_test.go, soak_test.go), which also
// models what each block holds; readable examples of all that is said here are in
// testdata.
package scheduler
