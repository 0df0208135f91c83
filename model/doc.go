// Package model turns a Hugging Face model directory into a network that runs:
// it reads and checks the files, gives the weights to a kernels.Backend, and
// issues the forward pass, which is written once for every device.
//
// # Cast
//
//   - Config: config.json, checked; BuiltinShape has the published sizes.
//   - GenerationConfig: generation_config.json, the sampling defaults.
//   - Checkpoint: the safetensors files of a directory, mapped and validated.
//   - The weight table (weights.go): every tensor an architecture has, which of
//     them are fused into one kernels.Weight, and in which order they load.
//   - Quantized: a checkpoint in memory with int8 matrices; the demo model is one.
//   - Source: where tensors come from: a Checkpoint, a Quantized or Dummy.
//   - Model: the weights on the device, and Forward.
//
// # Hostile files
//
// A model directory is somebody else's input. Three rules keep it harmless:
//
//  1. Nothing is allocated in proportion to a number in a file before that
//     number was checked against the length of the file.
//  2. Every number of a Config is bounded such that no product of the
//     dimensions of a model overflows an int64; shapes in safetensors headers
//     are multiplied with overflow checks.
//  3. Mapped memory is touched in one place (mapping.read), which survives a
//     file that is truncated, or a disk that fails, while it is mapped. No
//     slice of a mapping leaves this package: C code that met such a page would
//     die of SIGBUS, so tensors are copied to a staging buffer first, or read from
//     the file, not the mapping, by a backend that wants them so (Info.ReadsFiles).
//
// Refusals are *FileError: they name the file and, one by one, its faulty
// fields or tensors.
package model
