// Package cuda is the kernels.Backend of NVIDIA GPUs (build tag cuda).
//
// # Cast
//
//   - Backend: checks what it is given, keeps the pinned staging ring and
//     launches. One op a file: <op>.cu holds the kernels, <op>.go the params
//     struct that they take by value and a pure plan function that chooses kernel
//     and grid from shape and architecture.
//   - common.cuh, layout.go: what all kernels share, from both sides: strides of
//     the paged KV pool, the step's arrays, the epilogues of the projections.
//   - message: a step as the host sends it, packed: new block ids, sampling parameters
//     and the batch. prepare.cu fetches it from pinned memory and unpacks it on the
//     device, where the row state (tables, last tokens, penalty counts) lives.
//   - graphs: a decode step captured by batch bucket, which finds its message by
//     counting steps.
//   - layers: all layers of a decode of one sequence, of small models, as one kernel; the
//     operations are gathered until the head, and issued one by one where they are not a decoder's.
//     Its CTAs wait for each other: only one Backend of a process may decode on a card.
//   - package internal/cuda: driver calls that gorgonia.org/cu lacks.
//
// # Layouts
//
// The residual stream (Hidden) and Logits are float32, the other activations and the KV
// pool float16. Row strides of activations are the width rounded up to 64 elements; the padding is
// zero in weights and in activations, so that products may run over it.
// Weights are rounded to bfloat16, as in every backend, and kept as float16, which holds
// those values exactly from 2⁻¹⁷ to 65,504 (what is smaller is 2⁻²⁵ off at most, what is
// larger is refused): tensor cores multiply equal types, and activations get three bits
// more than in bfloat16. [in/64][out][64]: panels of 64 columns, in which the rows of a tile are one
// run of memory; rows as in the checkpoint, up to a multiple of 128, except
//
//	LinearQKV     in each head of q, k and v: rows 0, h, 1, h+1, … with h = headDim/2
//	LinearGateUp  rows gate 0, up 0, gate 1, up 1, …
//	LinearDown    times 64, and MLP over 64: the products of gates and ups reach further
//
// so that the two values that RoPE rotates, and the two that SwiGLU multiplies,
// are neighbouring columns of a product, in one thread's registers. Biases are
// float32, in the same order.
//
// # Life of a step
//
// UpdateRows appends to the message under way. Launch appends the batch. A decode
// step whose bucket has a graph waits for Sample, which launches the graph between two
// events in one crossing to C; other steps are launched at once, op by op, on the same
// stream, and of prompts only the tokens with logits go on behind the last layer's QKV. Sample's kernels write the results into mapped host memory; Wait waits
// for the step's event.
//
// # Invariants
//
//  1. Nothing is allocated a step, but for plans and tensor maps, which are made once for a shape
//     and kept. Device addresses are fixed at Setup: graphs stay valid when the pool grows or
//     shrinks (CUDA virtual memory).
//  2. The plain kernels sum in one fixed order whatever the batch;
//     Limits.BatchInvariant keeps to those kernels that do.
//  3. Block 0 takes the writes of padding tokens. Nothing reads it.
//  4. A failure sticks with the operation and its shape; Wait returns it.
package cuda
