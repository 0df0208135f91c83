// Command pagoda-verify compares the engine's logits with an independent
// forward pass of Qwen2, Qwen3 and Llama.
//
// # Cast
//
//   - reference (forward.go, rope.go, checkpoint.go): the model written a second
//     time, over gomlx's pure-Go backend in float32. It reads config.json and
//     safetensors by itself and shares no code with packages model and kernels,
//     so that a mistake in the loader, in RoPE or in a kernel cannot hide by
//     being on both sides. It has no KV cache and no batching.
//   - comparison (compare.go): what is measured for a prompt, and the table.
//   - main.go: flags, prompts, the engine's side.
//
// The reference is itself held to transformers' float32 logits on the
// checkpoints of testdata/golden.
//
// gomlx is imported here and nowhere else.
package main
