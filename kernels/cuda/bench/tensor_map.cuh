// Tensor maps for the Hopper benches.
#pragma once

#include "../wgmma.cuh"
#include "bench.cuh"

#include <cuda.h>

namespace bench {

inline TensorMap encode_map(const void *base, int rank, const cuuint64_t *dims, const cuuint64_t *strides, const cuuint32_t *boxes) {
	using Encode = CUresult (*)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *, const cuuint64_t *, const cuuint32_t *, const cuuint32_t *,
	                            CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
	static Encode encode = nullptr;
	if (!encode) {
		cudaDriverEntryPointQueryResult found;
		CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", (void **)&encode, 12000, cudaEnableDefault, &found));
	}
	CUtensorMap map;
	cuuint32_t steps[] = {1, 1, 1, 1};
	if (encode(&map, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, rank, const_cast<void *>(base), dims, strides, boxes, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
	           CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE)) {
		printf("FAIL tensor map\n");
		exit(1);
	}
	TensorMap out;
	memcpy(&out, &map, sizeof out);
	return out;
}

// panel_map describes panels of 64 columns, whose rows lie row bytes apart, and panels panel bytes, with
// boxes of box rows × panels.
inline TensorMap panel_map(const half *base, int64_t rows, int64_t cols, int64_t row, int64_t panel, int box, int panels) {
	cuuint64_t dims[] = {64, (cuuint64_t)rows, (cuuint64_t)cols / 64}, strides[] = {(cuuint64_t)row, (cuuint64_t)panel};
	cuuint32_t boxes[] = {64, (cuuint32_t)box, (cuuint32_t)panels};
	return encode_map(base, 3, dims, strides, boxes);
}
// tokens_map and weights_map are of both sides of a product: x [rows][cols], and w [cols/64][rows][64].
inline TensorMap tokens_map(const half *base, int64_t rows, int64_t cols, int box, int panels) { return panel_map(base, rows, cols, cols * 2, 128, box, panels); }
inline TensorMap weights_map(const half *base, int64_t rows, int64_t cols, int box, int panels) { return panel_map(base, rows, cols, 128, rows * 128, box, panels); }

// group_map describes rows of d halves, as many as `elems` make, as groups of eight rows in
// panels of 64 columns, with boxes of some groups.
inline TensorMap group_map(const half *base, int64_t elems, int d, int groups) {
	cuuint64_t dims[] = {64, 8, (cuuint64_t)d / 64, (cuuint64_t)elems / (8 * d)}, strides[] = {(cuuint64_t)d * 2, 128, (cuuint64_t)d * 16};
	cuuint32_t boxes[] = {64, 8, (cuuint32_t)d / 64, (cuuint32_t)groups};
	return encode_map(base, 4, dims, strides, boxes);
}

} // namespace bench
