//go:build cuda

#include "driver.h"

#include <time.h>

int pg_launch(uintptr_t function, uintptr_t stream, const struct pg_launch *l, void *params) {
	CUlaunchAttribute attrs[2];
	unsigned n = 0;
	if (l->cluster) {
		attrs[n].id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
		attrs[n].value.clusterDim.x = l->cluster;
		attrs[n].value.clusterDim.y = attrs[n].value.clusterDim.z = 1;
		n++;
	}
	if (l->pdl) {
		attrs[n].id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
		attrs[n].value.programmaticStreamSerializationAllowed = 1;
		n++;
	}
	CUlaunchConfig config = {
		.gridDimX = l->grid[0], .gridDimY = l->grid[1], .gridDimZ = l->grid[2],
		.blockDimX = l->cta[0], .blockDimY = l->cta[1], .blockDimZ = l->cta[2],
		.sharedMemBytes = l->shared, .hStream = (CUstream)stream, .attrs = attrs, .numAttrs = n,
	};
	void *args[] = {params};
	return cuLaunchKernelEx(&config, (CUfunction)function, args, NULL);
}

int pg_replay(uintptr_t stream, CUgraphExec exec, uintptr_t before, uintptr_t start, uintptr_t end, int *behind) {
	CUstream s = (CUstream)stream;
	*behind = before && cuEventQuery((CUevent)before) == CUDA_ERROR_NOT_READY;
	int r = *behind ? 0 : cuEventRecord((CUevent)start, s);
	if (!r) r = cuGraphLaunch(exec, s);
	if (!r) r = cuEventRecord((CUevent)end, s);
	return r;
}

int pg_elapsed(uintptr_t start, uintptr_t end, float *ms) {
	return cuEventElapsedTime(ms, (CUevent)start, (CUevent)end);
}

int pg_done_within(uintptr_t event, int us) {
	struct timespec start, now;
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (;;) {
		int r = cuEventQuery((CUevent)event);
		if (r != CUDA_ERROR_NOT_READY) return r;
		clock_gettime(CLOCK_MONOTONIC, &now);
		if ((now.tv_sec - start.tv_sec) * 1000000L + (now.tv_nsec - start.tv_nsec) / 1000 >= us) return r;
	}
}

int pg_await(uintptr_t start, uintptr_t end, float *ms) {
	int r = cuEventSynchronize((CUevent)end);
	return r ? r : pg_elapsed(start, end, ms);
}

int pg_capture_end(uintptr_t stream, CUgraphExec *exec, size_t *nodes) {
	CUgraph graph = NULL;
	CUresult r = cuStreamEndCapture((CUstream)stream, &graph);
	if (r) return r;
	r = cuGraphGetNodes(graph, NULL, nodes);
	if (!r) r = cuGraphInstantiate(exec, graph, 0);
	cuGraphDestroy(graph);
	if (r) return r;
	r = cuGraphUpload(*exec, (CUstream)stream);
	if (r) cuGraphExecDestroy(*exec);
	return r;
}

static CUmemAllocationProp chunk_prop(int device) {
	return (CUmemAllocationProp){
		.type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device},
	};
}

int pg_range_reserve(uint64_t bytes, uint64_t *base) {
	CUdeviceptr p = 0;
	CUresult r = cuMemAddressReserve(&p, bytes, 0, 0, 0);
	*base = p;
	return r;
}

int pg_range_map(int device, uint64_t base, uint64_t chunk, uint64_t index, uint64_t *handle) {
	CUmemAllocationProp prop = chunk_prop(device);
	CUmemAccessDesc access = {.location = prop.location, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
	CUmemGenericAllocationHandle h;
	CUdeviceptr at = base + index * chunk;
	CUresult r = cuMemCreate(&h, chunk, &prop, 0);
	if (r) return r;
	r = cuMemMap(at, chunk, 0, h, 0);
	if (!r) {
		r = cuMemSetAccess(at, chunk, &access, 1);
		if (r) cuMemUnmap(at, chunk);
	}
	if (r) cuMemRelease(h);
	*handle = h;
	return r;
}

int pg_range_unmap(uint64_t base, uint64_t chunk, uint64_t index, uint64_t handle) {
	CUresult r = cuMemUnmap(base + index * chunk, chunk);
	CUresult released = cuMemRelease(handle);
	return r ? r : released;
}

int pg_copy_batch(uint64_t *dst, uint64_t *src, size_t *sizes, size_t n, uintptr_t stream) {
	if (n > 1) {
		CUmemcpyAttributes attr = {.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM};
		size_t first = 0;
		CUresult r = cuMemcpyBatchAsync((CUdeviceptr *)dst, (CUdeviceptr *)src, sizes, n, &attr, &first, 1, (CUstream)stream);
		if (r != CUDA_ERROR_NOT_SUPPORTED) return r;
	}
	for (size_t i = 0; i < n; i++) { // drivers before 12.8
		CUresult r = cuMemcpyAsync(dst[i], src[i], sizes[i], (CUstream)stream);
		if (r) return r;
	}
	return CUDA_SUCCESS;
}

static int tensor_map(void *map, uint64_t base, int rank, const cuuint64_t *dims, const cuuint64_t *strides, const cuuint32_t *box) {
	CUtensorMap local; // aligned to 64 bytes, which the caller's need not be
	cuuint32_t steps[] = {1, 1, 1, 1};
	CUresult r = cuTensorMapEncodeTiled(&local, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, rank, (void *)base, dims, strides, box, steps,
		CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
	if (!r) __builtin_memcpy(map, &local, sizeof local);
	return r;
}

int pg_panel_map(void *map, uint64_t base, uint64_t rows, uint64_t cols, uint64_t row_stride, uint64_t panel_stride, uint32_t box_rows,
                 uint32_t box_panels) {
	cuuint64_t dims[] = {64, rows, cols / 64}, strides[] = {row_stride, panel_stride};
	cuuint32_t box[] = {64, box_rows, box_panels};
	return tensor_map(map, base, 3, dims, strides, box);
}

int pg_group_map(void *map, uint64_t base, uint64_t rows, uint64_t cols, uint32_t box_groups) {
	cuuint64_t dims[] = {64, 8, cols / 64, rows / 8}, strides[] = {2 * cols, 128, 16 * cols};
	cuuint32_t box[] = {64, 8, cols / 64, box_groups};
	return tensor_map(map, base, 4, dims, strides, box);
}
