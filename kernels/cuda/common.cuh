// What every kernel shares: types, the paged KV pool, the arrays of a step, and
// the epilogues of the projections. The Go side of each struct is in layout.go;
// sizes and offsets are asserted on both sides.
//
// Layouts (W = row stride in elements):
//   hidden   float  [tokens][W]   residual stream, never rounded
//   normed   half   [tokens][W]   so are attn, query, keys and values: three bits more than
//                                 bf16, at the same speed; beyond ±65504 they are clamped
//   mlp      half   [tokens][W]   times MLP_SCALE, so that it holds up to ±4·10⁶
//   logits   float  [rows][W]
//   weights  half   [W/64][N][64]: panels of 64 columns, so that the rows of a tile are one run of
//                   memory a panel; rounded to bf16 first: what bf16 holds of 2⁻¹⁷ to 65504 half
//                   holds, too; rows as in the checkpoint, except
//              qkv:     in each head of q, k and v, row 2i is i, row 2i+1 is
//                       i + headDim/2: a pair that RoPE rotates is two columns
//              gate_up: row 2i is gate i, row 2i+1 is up i
//              down:    over MLP_SCALE
//            biases are permuted alike, float [N]
//   W is the width rounded up to 64 elements. What lies past the width is zero in
//   weights and in half activations, and stays so: K may be taken as W. Weights
//   have rows up to a multiple of 128, the surplus zero; activations have rows up
//   to a multiple of 256: tiles may read, not write, past M.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda_fp16.h>

constexpr float MLP_SCALE = 1.0f / 64; // weights.go: mlpScale

#define PG_KERNEL extern "C" __global__

// weight_at is where column k of a row of weights lies, and those behind it up to the end of their
// panel; panel is the elements of one.
template <class T> static __host__ __device__ __forceinline__ T *weight_at(T *w, int64_t panel, int64_t row, int k) {
	return w + (k >> 6) * panel + row * 64 + (k & 63);
}

// PagedKV: element d of the key of head h at token t of block b of layer l is
// base[b·block + l·layer + h·head + t·token + d]; its value is `value` further.
struct PagedKV {
	half *base;
	int64_t block, layer, value, head, token; // strides in elements
	int32_t block_size, block_shift;          // tokens of a block: 1 << block_shift
};
static_assert(sizeof(PagedKV) == 56, "layout.go: pagedKV");

// Batch: the step as prepare.cu leaves it, in device memory at fixed addresses.
// Under a graph the arrays are filled up to its bucket: padding tokens have id 0,
// position 0 and slot 0 (block 0), padding sequences length 0 and no tokens. Behind
// keep_logit_rows, before the last layer's attention, sequences, positions, token_seq and the
// counts of tokens, sequences and decodes are those of a batch of decodes; tokens, slots and
// logit_rows stay the whole step's, and nothing may read them any more.
struct Batch {
	const int32_t *header;      // [16] counts, H_*
	const int32_t *tokens;      // [tokens] ids, resolved
	const int32_t *token_seq;   // [tokens] sequence of each token
	const int32_t *positions;   // [tokens]
	const int32_t *slots;       // [tokens] block·block_size + offset, where its K and V go
	const int32_t *rows;        // [seqs] row of each sequence
	const int32_t *query_start; // [seqs + 1]
	const int32_t *seq_lens;    // [seqs] length once the step is computed
	const int32_t *logit_rows;  // [logits] token of each row of logits
	const int32_t *tables;      // [max_seqs][table_stride] block ids by row
	int64_t table_stride;
};
static_assert(sizeof(Batch) == 88, "layout.go: batchPtrs");

enum { H_TOKENS, H_SEQS, H_DECODES, H_LOGITS, H_SAMPLES };

// Block ids of sequence s.
static __device__ __forceinline__ const int32_t *block_table(const Batch &b, int s) {
	return b.tables + b.rows[s] * b.table_stride;
}

// First element of the key of head `head` at the position, of the layer.
static __device__ __forceinline__ const half *key_at(const PagedKV &kv, const int32_t *table, int layer, int head, int position) {
	int64_t block = table[position >> kv.block_shift], token = position & (kv.block_size - 1);
	return kv.base + block * kv.block + layer * kv.layer + head * kv.head + token * kv.token;
}

// --- Epilogues of the projections: y = x·wᵀ, two neighbouring columns at a time.

enum EpilogueKind {
	STORE,    // logits[m][n] = y, float
	RESIDUAL, // hidden[m][n] += y, float
	SWIGLU,   // mlp[m][n/2] = silu(y[n])·y[n+1]·MLP_SCALE, half
	QKV,      // + bias, RoPE; q → query[m], k and v → the token's slot, half
};

// A Top is the likeliest id of some columns of the head, a tile's of gemm_sm90.cu, else eight: its logit and, as the bits of
// another float, itself, −1 if none is above −inf. They are there instead of the logits of a row of which nobody wants more,
// from their place on, one behind the other.
#define TOP_BAD (-2) // a Top's id: a NaN or +inf is among the logits

struct Epilogue {
	void *out;         // logits, hidden, mlp or query
	int64_t ld;        // row stride of out, in its elements
	int32_t rows, cols; // M, and N as in the weight; nothing is stored past them
	// QKV only.
	int32_t heads, kv_heads, head_dim, layer;
	const float *bias;        // [N] or NULL
	const float2 *rope;       // [max_model_len][head_dim/2] cos and sin, scaled
	const int32_t *positions; // Batch.positions
	const int32_t *slots;     // Batch.slots
	PagedKV kv;
	// STORE only.
	const uint8_t *whole; // [M] or NULL: rows whose logits somebody reads; of others only the Tops
	int32_t sample_vocab; // ids that may be drawn
	// A norm that two products make between them (gemm_fold.cuh).
	int32_t pieces;     // sums of squares of a row
	float *squares;     // [pieces][M]: left by RESIDUAL, read by SWIGLU and QKV, or NULL
	half *normed;       // of RESIDUAL: times the norm's weights, like out, or NULL
	const float *norm;  // of RESIDUAL: [N]
	float inverse, eps; // 1 / width
};
static_assert(sizeof(Epilogue) == 176 && offsetof(Epilogue, bias) == 40 && offsetof(Epilogue, kv) == 72, "layout.go: epilogue");

// silu is x / (1 + e^−x), to 2⁻²¹: a division that rounds takes as long as the rest of a product's end.
static __device__ __forceinline__ float silu(float x) {
	float e, inverse;
	asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(-1.44269504f * x));
	asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(1.0f + e));
	return x * inverse;
}

// gated is what SWIGLU keeps of a gate and its up.
static __device__ __forceinline__ float gated(float gate, float up) { return silu(gate) * (up * MLP_SCALE); }

// Where the first element of the pair (n, n+1) goes; the second is head_dim/2
// further.
static __device__ __forceinline__ half *qkv_destination(const Epilogue &e, int m, int n) {
	int head = n / e.head_dim, i = (n - head * e.head_dim) / 2;
	if (head < e.heads) return static_cast<half *>(e.out) + m * e.ld + head * e.head_dim + i;
	int slot = e.slots[m], h = head - e.heads;
	half *out = e.kv.base + (int64_t)(slot >> e.kv.block_shift) * e.kv.block + e.layer * e.kv.layer +
	            (slot & (e.kv.block_size - 1)) * e.kv.token + i;
	return out + (h < e.kv_heads ? h * e.kv.head : e.kv.value + (h - e.kv_heads) * e.kv.head);
}

static __device__ __forceinline__ void turn(float2 r, float &a, float &b) {
	float x = a * r.x - b * r.y;
	b = b * r.x + a * r.y;
	a = x;
}

// Adds the bias to PAIRS pairs from column n on, all of one head, and turns them
// if they are of a query or key.
template <int PAIRS>
static __device__ __forceinline__ void qkv_turn(const Epilogue &e, int m, int n, float (&a)[PAIRS], float (&b)[PAIRS]) {
	int head = n / e.head_dim, half = e.head_dim / 2, i = (n - head * e.head_dim) / 2;
#pragma unroll
	for (int j = 0; j < PAIRS; j++) {
		if (e.bias) {
			float2 bias = *reinterpret_cast<const float2 *>(e.bias + n + 2 * j);
			a[j] += bias.x;
			b[j] += bias.y;
		}
		if (head < e.heads + e.kv_heads) turn(e.rope[(int64_t)e.positions[m] * half + i + j], a[j], b[j]);
	}
}

// to_half and pack_half round; what half cannot hold becomes its greatest, NaN stays NaN.
static __device__ __forceinline__ half to_half(float x) {
	uint16_t v;
	asm("cvt.rn.satfinite.f16.f32 %0, %1;" : "=h"(v) : "f"(x));
	return __ushort_as_half(v);
}

static __device__ __forceinline__ uint32_t pack_half(float lo, float hi) {
	uint32_t v;
	asm("cvt.rn.satfinite.f16x2.f32 %0, %1, %2;" : "=r"(v) : "f"(hi), "f"(lo));
	return v;
}

// epilogue2 ends columns n and n+1 (n even) of row m. The same arithmetic in
// every GEMM, so that two that agree on y agree on the result.
template <int KIND> static __device__ __forceinline__ void epilogue2(const Epilogue &e, int m, int n, float a, float b) {
	if (m >= e.rows || n >= e.cols) return;
	if constexpr (KIND == STORE) {
		float *out = static_cast<float *>(e.out) + m * e.ld + n;
		out[0] = a;
		if (n + 1 < e.cols) out[1] = b;
	} else if constexpr (KIND == RESIDUAL) {
		float *out = static_cast<float *>(e.out) + m * e.ld + n;
		out[0] += a;
		if (n + 1 < e.cols) out[1] += b;
	} else if constexpr (KIND == SWIGLU) {
		static_cast<half *>(e.out)[m * e.ld + n / 2] = to_half(gated(a, b));
	} else {
		float x[1] = {a}, y[1] = {b};
		half *out = qkv_destination(e, m, n);
		qkv_turn<1>(e, m, n, x, y);
		out[0] = to_half(x[0]);
		out[e.head_dim / 2] = to_half(y[0]);
	}
}

// top8 leaves the Top of columns n … n+7 of row m.
static __device__ __forceinline__ void top8(const Epilogue &e, int m, int n, const float (&y)[8]) {
	float z = -INFINITY;
	int id = -1;
	bool bad = false;
#pragma unroll
	for (int i = 0; i < 8; i++) {
		bad |= !(y[i] < INFINITY);
		if (n + i < e.sample_vocab && y[i] > z) z = y[i], id = n + i;
	}
	reinterpret_cast<float2 *>(static_cast<float *>(e.out) + m * e.ld)[n / 8] = make_float2(z, __int_as_float(bad ? TOP_BAD : id));
}

static __device__ __forceinline__ void add8(float (&sum)[8], float4 lo, float4 hi) {
	sum[0] += lo.x, sum[1] += lo.y, sum[2] += lo.z, sum[3] += lo.w;
	sum[4] += hi.x, sum[5] += hi.y, sum[6] += hi.z, sum[7] += hi.w;
}

static __device__ __forceinline__ void store8(float *to, const float (&y)[8]) {
	reinterpret_cast<float4 *>(to)[0] = make_float4(y[0], y[1], y[2], y[3]);
	reinterpret_cast<float4 *>(to)[1] = make_float4(y[4], y[5], y[6], y[7]);
}

// gated8 is gated of four gates and their ups, in halves.
static __device__ __forceinline__ uint2 gated8(const float (&y)[8]) {
	return {pack_half(gated(y[0], y[1]), gated(y[2], y[3])), pack_half(gated(y[4], y[5]), gated(y[6], y[7]))};
}

// epilogue8 ends columns n … n+7 (n a multiple of 8) of row m, with wide stores;
// the same values as four epilogue2. cols must be a multiple of 8. A head's size
// is a multiple of 16, so that the columns are of one head.
template <int KIND> static __device__ __forceinline__ void epilogue8(const Epilogue &e, int m, int n, const float (&y)[8]) {
	if (m >= e.rows || n >= e.cols) return;
	if constexpr (KIND == STORE) {
		if (e.whole && !e.whole[m]) return top8(e, m, n, y);
		store8(static_cast<float *>(e.out) + m * e.ld + n, y);
	} else if constexpr (KIND == RESIDUAL) {
		float *out = static_cast<float *>(e.out) + m * e.ld + n, sum[8];
		for (int i = 0; i < 8; i++) sum[i] = y[i];
		add8(sum, reinterpret_cast<const float4 *>(out)[0], reinterpret_cast<const float4 *>(out)[1]);
		store8(out, sum);
	} else if constexpr (KIND == SWIGLU) {
		*reinterpret_cast<uint2 *>(static_cast<half *>(e.out) + m * e.ld + n / 2) = gated8(y);
	} else {
		float a[4] = {y[0], y[2], y[4], y[6]}, b[4] = {y[1], y[3], y[5], y[7]};
		half *out = qkv_destination(e, m, n);
		qkv_turn<4>(e, m, n, a, b);
		*reinterpret_cast<uint2 *>(out) = {pack_half(a[0], a[1]), pack_half(a[2], a[3])};
		*reinterpret_cast<uint2 *>(out + e.head_dim / 2) = {pack_half(b[0], b[1]), pack_half(b[2], b[3])};
	}
}

// norm_scale is what a row's elements of that sum of squares are multiplied by; inverse: 1 / their number.
static __device__ __forceinline__ float norm_scale(float sum, float inverse, float eps) {
	float y;
	asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(sum * inverse + eps)); // rsqrtf, but for what is denormal
	return y;
}

// --- Programmatic dependent launch: grid_wait ends when the kernel before has ended, and
// all before it; grid_trigger lets the next one start. Without the launch attribute, and
// before sm_90, both do nothing.
//
// A kernel that triggers before it waits lets those behind it begin while several kernels
// still run. So what a kernel of the layers reads before its wait (weights, norms, biases, angles,
// positions and slots; in attention's plans the batch; in decode attention the plan, tables, and KV of
// earlier steps; in layers.cu lengths, tables and its epoch; in sampling the header's count and slot,
// the entries and their rows' parameters) must be older than the layers: embed waits and only then triggers. What else a
// pass begins with, attention of decodes behind their plan, plans behind keep_logit_rows, and the first kernel of sampling
// behind a message of its own are launched without the attribute.
// Nothing is written before a wait but attention's plans, which are read in the layers alone. Every
// kernel of a step waits; what is launched between steps (counts, load) does not have the attribute.

// depends is a number that takes all of x to make, but for a number's upper bit; its own lowest is not set.
static __device__ __forceinline__ uint32_t depends(uint32_t x) { return x << 1; }
static __device__ __forceinline__ uint32_t depends(int x) { return static_cast<uint32_t>(x) << 1; }
static __device__ __forceinline__ uint32_t depends(int64_t x) { return static_cast<uint32_t>(x | x >> 32) << 1; }
static __device__ __forceinline__ uint32_t depends(const void *x) { return depends(static_cast<int64_t>(reinterpret_cast<uintptr_t>(x))); }

// grid_wait waits for the kernel before, once it has made all that it is given. Without that the compiler makes much of it
// behind the wait, where every instruction is late. (It cannot know that the predicate is always true.)
template <class... T> static __device__ __forceinline__ void grid_wait(T... known) {
#if __CUDA_ARCH__ >= 900
	if constexpr (sizeof...(known) == 0) asm volatile("griddepcontrol.wait;" ::: "memory");
	else asm volatile("{.reg .pred p; setp.ne.u32 p, %0, 0xffffffff; @p griddepcontrol.wait;}" ::"r"((... | depends(known))) : "memory");
#endif
}

static __device__ __forceinline__ void grid_trigger() {
#if __CUDA_ARCH__ >= 900
	asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// --- Reductions in a fixed order.

template <class T> static __device__ __forceinline__ T warp_sum(T x) {
	for (int i = 16; i > 0; i /= 2) x += __shfl_xor_sync(~0u, x, i);
	return x;
}

static __device__ __forceinline__ float warp_max(float x) {
	for (int i = 16; i > 0; i /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, i));
	return x;
}
