// Package kernels is the contract between the model and the devices it runs on.
//
// # Cast
//
//   - Backend: one device with its weights, row state, activations and KV
//     pool. One method an operation; package kernels/cpu (C by cgo) and, with
//     build tag cuda, package kernels/cuda implement it.
//   - Shape and Limits: what the model needs, the hard maxima and the limits in
//     force; everything a Backend ever uses is reserved from them in Setup.
//   - Weight: an opaque tensor that a Backend packed as it likes.
//   - Batch: the ragged step, mixed prefill chunks and decodes, no phase flag.
//   - PagedKV: the strides of the block pool.
//   - Sampling: how one row's next token is drawn.
//
// # The life of a step
//
//  1. UpdateRows brings what changed since the last step (rows in and out, new
//     block ids, sampling parameters) to the device-resident row state.
//  2. Launch(batch, forward) issues the forward pass: forward calls the
//     operations in order; a Backend may instead replay a graph it captured
//     from an earlier call with the same bucket, and then never calls forward.
//  3. Sample draws a token for each row of Batch.LogitRows. It is a launch of
//     its own, so that a grammar mask computed while the forward pass runs
//     still reaches it. It returns the step's Ticket.
//  4. Wait(ticket) blocks until that step alone is done and returns its tokens,
//     or the first error that any operation met, with op and shape.
//
// All calls but Wait return at once; they are ordered on one compute stream.
// One goroutine, locked to its OS thread, makes all of them.
//
// # Numerics
//
// Weights are rounded to bfloat16 (a Backend may keep these numbers in another type), KV is
// float16 (PagedKV.DType); accumulation, softmax, RMSNorm, RoPE and logits are float32. A Backend may keep activations in
// float32 or 16 bits. Package kernelstest holds a float64 oracle and the conformance suite that every
// Backend passes.
//
// Sources: the fused-operation split follows what fast decode paths need
// (FlashInfer's page.cuh and vLLM's csrc are worth reading); PagedAttention is
// Kwon et al., "Efficient Memory Management for Large Language Model Serving
// with PagedAttention", SOSP 2023.
package kernels
