// Package cuda (build tag cuda) is what a Backend needs of the CUDA driver: a
// device with its primary context, streams and events of gorgonia.org/cu, and
// beside them what that module lacks: graphs, launch attributes, pinned and
// virtual memory, batched copies, tensor maps.
//
// The driver is loaded by the first call that needs it (third_party/cuda-shim);
// without one, Devices is 0 and Status says why.
//
// # Rules
//
//   - Calls need the device's context current on the OS thread: lock the
//     goroutine to its thread and call Device.Bind.
//   - Nothing that is called once a step allocates. Kernels take one params
//     struct without Go pointers, by value.
//   - Handles are plain values; who made one destroys it.
package cuda
