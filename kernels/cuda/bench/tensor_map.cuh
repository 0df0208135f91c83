// Tensor maps for the Hopper benches.
#pragma once

#include "../wgmma.cuh"
#include "bench.cuh"

#include <cuda.h>

namespace bench {

// tensor_map describes [rows][cols] bf16, contiguous, with boxes of box × 64.
inline TensorMap tensor_map(const bf16 *base, int64_t rows, int64_t cols, int box) {
	using Encode = CUresult (*)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *, const cuuint64_t *, const cuuint32_t *, const cuuint32_t *,
	                            CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
	static Encode encode = nullptr;
	if (!encode) {
		cudaDriverEntryPointQueryResult found;
		CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", (void **)&encode, 12000, cudaEnableDefault, &found));
	}
	CUtensorMap map;
	cuuint64_t dims[] = {(cuuint64_t)cols, (cuuint64_t)rows}, strides[] = {(cuuint64_t)cols * 2};
	cuuint32_t boxes[] = {64, (cuuint32_t)box}, steps[] = {1, 1};
	if (encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, (void *)base, dims, strides, boxes, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
	           CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE)) {
		printf("FAIL tensor map\n");
		exit(1);
	}
	TensorMap out;
	memcpy(&out, &map, sizeof out);
	return out;
}

} // namespace bench
