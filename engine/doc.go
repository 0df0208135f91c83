// Package engine serves many requests at once on one model: it is where the
// scheduler, the KV cache, the model and the device meet, and the only package
// that knows all four. Tokens go in and tokens come out; text is the server's.
//
// # Cast
//
//   - Engine: the handle, for any goroutine. New loads a model, Submit takes a
//     Request, Close ends it all.
//   - Stream: one request's output, for one reader.
//   - loop (loop.go): the state of the engine's goroutine. It owns the
//     scheduler.Scheduler, the kvcache.Manager and Store, the model and its
//     kernels.Backend, and is the only one to call them.
//   - runner (runner.go): turns the scheduler's output into a kernels.Batch. It
//     keeps a row of device state for each running sequence and sends what
//     changed.
//   - judge (step.go): what a token means for its request: stop, length, error.
//   - waker (waker.go): shows tokens to readers and wakes them, where these are many.
//   - records (records.go): a ring of the last steps.
//   - guides (constraint.go): computes masks of requests that carry a Constraint,
//     on goroutines of its own.
//   - plan (size.go): the memory formula, applied before anything is allocated.
//
// # The life of a request
//
//  1. Submit, on the caller's goroutine, checks every field, sets the memory of
//     all its tokens aside, and puts it into the bounded inbox. This is the first
//     of two crossings between goroutines.
//  2. The loop takes it from the inbox to the scheduler's waiting queue.
//  3. The scheduler admits it: it has blocks for its prompt. The runner gives it
//     a row; its prompt is computed in one or more chunks, together with other
//     sequences' tokens, and the last chunk draws its first token. Each other chunk's
//     last token tells whether the chunk left numbers: others may find its blocks.
//  4. Each further step computes its last token and draws the next. What the
//     device drew comes back as one id a sequence; judge decides; the id is
//     appended to the sequence's memory, where the Stream reads it, and the
//     reader is notified. This is the second crossing.
//  5. Its end is a stop id, its length, an abort, or an error: the scheduler
//     frees its blocks, the runner its row, the Stream shows the final event.
//
// Preempted, a sequence loses row and blocks and starts again at 3 with all
// tokens that it has; its reader sees nothing but a pause.
//
// # Two loops
//
// Both are the same three calls. The synchronous one takes turns with the
// device; it is for the CPU, where a step ahead would take a core from the
// kernels.
//
//	synchronous:  schedule 1 · launch 1 · collect 1 · schedule 2 · launch 2 · collect 2
//	overlapped:   schedule 1 · launch 1 · schedule 2 · launch 2 · collect 1 · schedule 3 · launch 3 · collect 2
//
// In the overlapped loop the host does not know the token that a sequence
// computes next; the batch says kernels.FromDevice. A sequence that step n
// finishes has run in step n+1 already: that token is dropped, it is in no event
// and no count. Its blocks and its row may have new owners in step n+2: the
// device's stream orders what they do after step n+1.
//
// A row with a Constraint runs ahead, too. The mask of the token that step n+1 draws
// follows from the token of step n, so that such a step draws in a call of its own,
// after n is collected and while the device is at the forward pass of n+1:
//
//	schedule 2 · launch 2 · collect 1 (masks begin) · masks end · draw 2 · schedule 3 · …
//
// # Threads
//
//  1. One goroutine, locked to its OS thread, makes every call below the engine;
//     there is no mutex below it.
//  2. The way in is three channels and a stack: inbox (requests; its capacity
//     bounds those that have not started, and Submit refuses rather than wait),
//     calls (functions to run between two device calls, for tools), wake, and
//     aborts. A cancelled context pushes its request onto the stack of aborts by
//     compare-and-swap: it never blocks, cannot be lost, and is bounded by the
//     number of requests.
//  3. The way out is the Stream: memory for all tokens, an atomic count, a
//     one-slot notification. The loop never waits for a reader; what a step brought to
//     many readers is shown to them by a goroutine of its own, the waker.
//  4. Masks are computed by a few goroutines, which start with the first Constraint.
//     The loop waits for those of a step, for a bounded time, before it draws.
//  5. Stats are read without a lock; see statsCell.
//  6. With nothing to do the goroutine completes the load, where the device left some of
//     it, and then sleeps on its channels.
//
// # Invariants
//
//	I6  Blocks and rows are reused only by later launches on the same stream.
//	I8  Every request that Submit accepted gets exactly one final event.
//	I9  While requests are there, each turn of the loop launches or collects.
//
// The token-ID simulation (simulation_test.go) holds them, and the lists of
// kvcache and scheduler, against random clients. With build tag invariants every
// step checks them and fills freed blocks with NaN.
//
// Sources: the overlapped loop is vLLM's asynchronous scheduling and
// mini-sglang's overlap loop; continuous batching is Yu et al., "Orca", OSDI 2022.
package engine
