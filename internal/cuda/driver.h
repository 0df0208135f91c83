// The driver calls of package cuda, with handles as integers. All return a
// CUresult.
#pragma once

#include <cuda.h>
#include <stdint.h>

const char *pagoda_cuda_status(void); // third_party/cuda-shim/trampoline.c

// A launch: grid, CTA and shared memory, then attributes.
struct pg_launch {
	uint32_t grid[3], cta[3];
	uint32_t shared;  // bytes of dynamic shared memory
	uint32_t cluster; // CTAs of a cluster along x; 0 = none
	uint32_t pdl;     // 1: may start while the kernel before it ends
};

int pg_launch(uintptr_t function, uintptr_t stream, const struct pg_launch *l, void *params);
// pg_replay launches a graph between two events, all in one call. The first is left out, and *behind is 1, where `before`
// (0: none), an event of the same stream, has not happened yet: that is when the graph begins then.
int pg_replay(uintptr_t stream, CUgraphExec exec, uintptr_t before, uintptr_t start, uintptr_t end, int *behind);

// pg_elapsed is the time between two events in ms.
int pg_elapsed(uintptr_t start, uintptr_t end, float *ms);

// pg_done_within asks again and again whether an event is over, for at most so many microseconds:
// CUDA_ERROR_NOT_READY if it is not.
int pg_done_within(uintptr_t event, int us);

// pg_await waits for the later of two events, then does what pg_elapsed does.
int pg_await(uintptr_t start, uintptr_t end, float *ms);

int pg_capture_end(uintptr_t stream, CUgraphExec *exec, size_t *nodes);

// A range of device addresses, of which chunks [0, mapped) have memory behind
// them.
int pg_range_reserve(uint64_t bytes, uint64_t *base);
int pg_range_map(int device, uint64_t base, uint64_t chunk, uint64_t index, uint64_t *handle);
int pg_range_unmap(uint64_t base, uint64_t chunk, uint64_t index, uint64_t handle);

// pg_copy_batch makes n copies, by one batched call where the driver has it.
int pg_copy_batch(uint64_t *dst, uint64_t *src, size_t *sizes, size_t n, uintptr_t stream);

// Tiled tensor maps of float16, with 128-byte swizzle.

// Panels of 64 columns, [cols / 64][rows][64]; strides in bytes.
int pg_panel_map(void *map, uint64_t base, uint64_t rows, uint64_t cols, uint64_t row_stride, uint64_t panel_stride, uint32_t box_rows,
                 uint32_t box_panels);

// Rows without gaps as groups of eight, [rows / 8][cols / 64][8][64]; a box is whole groups.
int pg_group_map(void *map, uint64_t base, uint64_t rows, uint64_t cols, uint32_t box_groups);
