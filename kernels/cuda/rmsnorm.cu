// out[i] = x / sqrt(mean(x²) + eps) · w with x = hidden[rows[i]], or hidden[i]
// without rows; float32, rounded to bf16 at the end (Zhang and Sennrich, 2019).
// One CTA a row, which it reads twice, the second time from cache; the sum has one
// order whatever the batch. Bytes: 4 in, 2 out an element.
#include "common.cuh"

struct RMSNormParams {
	const float *hidden;  // [tokens][ld]
	const float *w;       // [width]
	const int32_t *rows;  // [grid] or NULL
	bf16 *out;            // [grid][ld_out]
	int64_t ld, ld_out;
	int32_t width;
	float eps;
};
static_assert(sizeof(RMSNormParams) == 56, "rmsnorm.go");

PG_KERNEL void __launch_bounds__(512) rmsnorm(const __grid_constant__ RMSNormParams p) {
	grid_wait();
	grid_trigger();
	__shared__ float sums[16];
	int64_t row = p.rows ? p.rows[blockIdx.x] : blockIdx.x;
	const float4 *x = reinterpret_cast<const float4 *>(p.hidden + row * p.ld);
	int n = (p.width + 3) / 4; // the padding of hidden is zero
	float sum = 0;
	for (int i = threadIdx.x; i < n; i += blockDim.x) {
		float4 v = x[i];
		sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
	}
	sum = warp_sum(sum);
	if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
	__syncthreads();
	sum = 0;
	for (int i = 0; i < blockDim.x / 32; i++) sum += sums[i];
	float scale = rsqrtf(sum / p.width + p.eps);
	const float4 *w = reinterpret_cast<const float4 *>(p.w); // padded, too
	uint2 *out = reinterpret_cast<uint2 *>(p.out + blockIdx.x * p.ld_out);
	for (int i = threadIdx.x; i < n; i += blockDim.x) {
		float4 v = x[i], g = w[i];
		out[i] = {pack_bf16(v.x * scale * g.x, v.y * scale * g.y), pack_bf16(v.z * scale * g.z, v.w * scale * g.w)};
	}
}
