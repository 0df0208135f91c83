// What layers.cu is made of: parameters, words on their way, and attention.
#pragma once

#include "attention_decode.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

namespace {

constexpr int D = 64;                                  // of a head
constexpr int WARPS = 8, CONSUMERS = WARPS * 32;
constexpr int EACH_NORM = 2;                           // pairs of hidden that a thread norms: width is at most 1,024
constexpr int BOXES = 2;                               // copies that fill a stage of the ring
constexpr int FEW = 2, MANY = 5, MAX_ROWS = 16 * MANY; // tiles of a product in a CTA: of eight rows, and of 16 of gate_up
using F = Form<D, WARPS, 16, 1>;                       // of attention
static_assert(sizeof(Shared<D>) <= F::STAGE, "a stage holds a state");
enum { PRODUCT_QKV, PRODUCT_OUT, PRODUCT_GATE_UP, PRODUCT_DOWN, PRODUCTS };

// LayerWeights is a layer of the table that the host makes.
struct LayerWeights {
	TensorMap maps[PRODUCTS];
	const float *norms[2], *bias; // before qkv and gate_up; of qkv, or NULL
	int64_t pad[5];
};
static_assert(sizeof(LayerWeights) == 576, "layers.go: layerWeights");

// Share is a CTA's part of a product.
struct Share {
	int32_t rows;   // of a CTA
	int32_t cols;   // N, as in the weight
	int32_t panels; // of k
	int32_t per;    // panels of a stage of the ring
};

struct LayersParams {
	const LayerWeights *layers;
	Batch batch;
	Epilogue e;    // of qkv, but for its layer and bias
	float *hidden; // [width], as embed left it and as the head reads it
	uint64_t *words;
	uint32_t *epoch; // of the last layer of the last launch
	Share shares[PRODUCTS];
	int32_t count, width, intermediate, pieces; // pieces: of a KV head's tokens, at most
	int32_t stages, stage;                      // of the ring, and bytes of one
	int32_t row, normed;                        // bytes of the longest row, and of hidden
	uint32_t pace;                              // clocks from one copy of weights to the next, at least
	float eps, scale, inverse;                  // scale: log2(e) / √d; inverse: 1 / width
};
static_assert(sizeof(LayersParams) == 408, "layers.go: layersParams");

// Words are where values are on their way, each with its epoch.
struct Words {
	uint64_t *qkv;    // [heads + 2·kv_heads][d] half
	uint64_t *pieces; // [kv_heads][pieces][8][d] float, then [8] {maximum, weight}
	uint64_t *attn;   // [heads·d/2] two half
	uint64_t *middle; // [width] float: hidden behind attention
	uint64_t *end;    // [width] float: hidden behind the layer before
	uint64_t *mlp;    // [intermediate/2] two half
};

__device__ __forceinline__ void send(uint64_t *to, uint32_t value, uint32_t epoch) {
	asm volatile("st.relaxed.gpu.global.b64 [%0], %1;" ::"l"(to), "l"((uint64_t)epoch << 32 | value) : "memory");
}
__device__ __forceinline__ void send(uint64_t *to, float value, uint32_t epoch) { send(to, __float_as_uint(value), epoch); }

// Pair is two words as they were read.
struct Pair {
	uint64_t a, b;

	__device__ __forceinline__ void read(const uint64_t *from) {
		asm volatile("ld.relaxed.gpu.global.v2.b64 {%0, %1}, [%2];" : "=l"(a), "=l"(b) : "l"(from) : "memory");
	}
	__device__ __forceinline__ bool there(uint32_t epoch) const { return a >> 32 == epoch && b >> 32 == epoch; }
	__device__ __forceinline__ float2 floats() const { return {__uint_as_float((uint32_t)a), __uint_as_float((uint32_t)b)}; }
};

__device__ __forceinline__ void consumers_sync() { asm volatile("bar.sync 1, %0;" ::"n"(CONSUMERS) : "memory"); }

// Ring is the weights on their way, in stages; barriers: full and empty of each.
struct Ring {
	uint32_t memory, barriers;
	int stages, stage; // how many, and bytes of one
	int at = 0, turn = 0;

	__device__ __forceinline__ uint32_t place() const { return memory + at * stage; }
	__device__ __forceinline__ uint32_t full() const { return barriers + at * 16; }
	__device__ __forceinline__ uint32_t empty() const { return full() + 8; }
	__device__ __forceinline__ void next() {
		if (++at == stages) at = 0, turn ^= 1;
	}
};

static_assert(MAX_ROWS * 128 <= F::RINGS, "what is read behind the last stage is the CTA's own");
static_assert(8 * FEW == 16 && MAX_ROWS == 80 && 2 * EACH_NORM * CONSUMERS == 1024, "geometry.go: layersFewRows, layersRows, layersWidth");
static_assert(WARPS == 8 && BOXES == 2, "layers.go: layersWarps, layersBoxes");

// Memory is what lies behind the ring, the rings of attention, the row and hidden.
struct Memory {
	float sums[WARPS][MAX_ROWS];   // of a product, by warp
	Share shares[PRODUCTS];
	uint32_t query[HEADS * D / 2]; // two half each
	half fresh[2 * D];             // the token's own key and value
	float squares[WARPS];
};
static_assert(sizeof(Memory) == 3936 && sizeof(Memory) % 16 == 0, "layers.go: layersMemory");
static_assert(offsetof(Memory, query) % 16 == 0 && offsetof(Memory, fresh) % 16 == 0 && offsetof(Memory, squares) % 16 == 0, "read 16 bytes at a time");

// Piece is the CTA's part of the context: tokens first … last−1 of a KV head, if it has one. All pieces are `count` a head.
struct Piece {
	int head, index, first, last, length, count;
};

// Attention is a CTA's part of attention.
struct Attention {
	const LayersParams &p;
	const Words &words;
	Memory &m;
	char *rings;
	Piece piece;

	int lane = threadIdx.x % 32, warp = threadIdx.x / 32;

	__device__ __forceinline__ void cut() {
		piece.length = p.batch.seq_lens[0];
		int pieces = min(p.pieces, (piece.length + F::TILE - 1) / F::TILE);
		int each = ((piece.length + pieces - 1) / pieces + 15) / 16 * 16;
		piece.count = (piece.length + each - 1) / each;
		piece.head = blockIdx.x / p.pieces, piece.index = blockIdx.x - piece.head * p.pieces;
		piece.first = piece.index * each;
		piece.last = min(piece.first + each, piece.length);
		if (piece.head >= p.e.kv_heads || piece.index >= piece.count) piece.first = piece.last = 0;
	}
	__device__ __forceinline__ int group() const { return p.e.heads / p.e.kv_heads; }
	__device__ __forceinline__ char *stage() const { return rings + warp * F::RING; }
	__device__ __forceinline__ int start() const { return piece.first + warp * F::STEP; } // of the warp

	// request asks for a warp's keys and values; what is no token's yet, and the token's own, becomes zeros. It is
	// decode attention's Copies in a loop: code is what a CTA has little room for (performance.md, "Code").
	__device__ __forceinline__ void request(int layer, int position) {
		constexpr int CHUNKS = D / 8, ROWS = 32 / CHUNKS; // rows that an instruction copies
		if (position < piece.last) {
			int32_t block = __ldg(p.batch.tables + p.batch.rows[0] * p.batch.table_stride + (position >> p.e.kv.block_shift));
			int chunk = lane % CHUNKS, row = lane / CHUNKS, left = piece.length - 1 - position;
			const half *from = p.e.kv.base + block * p.e.kv.block + layer * p.e.kv.layer + piece.head * p.e.kv.head +
			                   ((position & (p.e.kv.block_size - 1)) + row) * p.e.kv.token + chunk * 8;
			uint32_t to = shared_address(stage());
#pragma unroll 1
			for (; row < 16; row += ROWS, from += ROWS * p.e.kv.token) {
				copy_async(to + swizzled<D>(row, chunk), from, row < left);
				copy_async(to + swizzled<D>(row, chunk) + F::VALUES, from + p.e.kv.value, row < left);
			}
		}
		copy_commit();
	}

	__device__ __forceinline__ uint64_t *piece_words(int head, int index) const { return words.pieces + (int64_t)(head * p.pieces + index) * HEADS * (D + 2); }

	// attend makes the CTA's piece of attention, or all of it.
	__device__ __forceinline__ void attend(int layer, uint32_t epoch) {
		if (piece.first >= piece.last) return;
		Lane<F> at(lane);
		int queries = group() * D / 2;
#pragma unroll 1
		for (int i = threadIdx.x; i < queries + (piece.last == piece.length ? D : 0); i += CONSUMERS) { // and the token's key, and value
			int key = i - queries, value = key - D / 2;
			int head = key < 0 ? piece.head * group() : p.e.heads + piece.head + (value < 0 ? 0 : p.e.kv_heads);
			const uint64_t *from = words.qkv + head * D + 2 * (key < 0 ? i : value < 0 ? key : value);
			Pair pair;
			do pair.read(from);
			while (!pair.there(epoch));
			uint32_t both = ((uint32_t)pair.a & 0xFFFF) | (uint32_t)pair.b << 16;
			if (key < 0) m.query[i] = both;
			else reinterpret_cast<uint32_t *>(m.fresh)[key] = both;
		}
		consumers_sync();
		State<D> state;
		DecodeParams q;
		q.query = reinterpret_cast<const half *>(m.query), q.ld = 0, q.group = group();
		Cursor<F> c;
		c.token = c.head = 0;
		state.reset();
		state.read(State<D>::query(q, c, lane));
#pragma unroll 1
		for (int position = start(); position < piece.last; position += F::TILE) {
			if (position != start()) request(layer, position);
			copy_wait<0>();
			__syncwarp();
			int own = piece.length - 1 - position; // where the token itself lies in the step
			if (own < F::STEP) {
				int part = lane / (D / 8), chunk = lane % (D / 8);
				if (part < 2) *reinterpret_cast<uint4 *>(stage() + part * F::VALUES + swizzled<D>(own, chunk)) = reinterpret_cast<const uint4 *>(m.fresh + part * D)[chunk];
				__syncwarp();
			}
			step<F>(state, at, shared_address(stage()), position == start(), piece.last - position, p.scale, lane);
			__syncwarp();
		}
		leave<D>(state, reinterpret_cast<Shared<D> *>(stage()), lane);
		consumers_sync();
		constexpr int N = D / 32; // dims of a thread: a warp has a head
		int head = warp, dim = lane * N;
		if (head < group()) {
			auto of = [&](int w) -> const Shared<D> & { return *reinterpret_cast<const Shared<D> *>(rings + w * F::RING); };
			float most = -INFINITY, weight = 0, o[N] = {};
#pragma unroll
			for (int w = 0; w < WARPS; w++) most = fmaxf(most, of(w).max[head]);
#pragma unroll
			for (int w = 0; w < WARPS; w++) {
				float by = exp2_fast(of(w).max[head] - most);
				weight += of(w).sum[head] * by;
#pragma unroll
				for (int i = 0; i < N; i++) o[i] += of(w).o[head][dim + i] * by;
			}
			if (piece.count == 1) {
				uint64_t *to = words.attn + ((piece.head * group() + head) * D + dim) / 2;
				float scale = __frcp_rn(weight);
#pragma unroll
				for (int i = 0; i < N; i += 2) send(to + i / 2, pack_half(o[i] * scale, o[i + 1] * scale), epoch);
			} else {
				uint64_t *to = piece_words(piece.head, piece.index);
#pragma unroll
				for (int i = 0; i < N; i++) send(to + head * D + dim + i, o[i], epoch);
				if (lane < 2) send(to + HEADS * D + 2 * head + lane, lane ? weight : most, epoch);
			}
		}
		consumers_sync(); // states are read
	}

	// merge makes DIMS dims of a head of the pieces, a warp each; the CTAs from the last one on have them, the first
	// have pieces. The lanes of a dim share the pieces.
	__device__ __forceinline__ void merge(uint32_t epoch) {
		constexpr int EACH = 3, DIMS = 4, SHARES = 32 / DIMS;
		int task = gridDim.x - 1 - blockIdx.x + warp * gridDim.x;
		if (piece.count == 1 || task >= p.e.heads * (D / DIMS)) return;
		int head = task / (D / DIMS), of = head / group(), in = head - of * group(), dim = task % (D / DIMS) * DIMS + lane % DIMS;
		float most = -INFINITY, weight = 0, o = 0;
#pragma unroll 1
		for (int base = lane / DIMS; base < piece.count; base += SHARES * EACH) {
			uint64_t value[EACH];
			Pair state[EACH];
			auto read = [&](int i) {
				const uint64_t *from = piece_words(of, min(base + SHARES * i, piece.count - 1));
				asm volatile("ld.relaxed.gpu.global.b64 %0, [%1];" : "=l"(value[i]) : "l"(from + in * D + dim) : "memory");
				state[i].read(from + HEADS * D + 2 * in);
			};
#pragma unroll
			for (int i = 0; i < EACH; i++) read(i);
			for (bool all = false; !all;) {
				all = true;
#pragma unroll
				for (int i = 0; i < EACH; i++)
					if (!(value[i] >> 32 == epoch && state[i].there(epoch))) {
						all = false;
						read(i);
					}
			}
#pragma unroll
			for (int i = 0; i < EACH; i++)
				if (base + SHARES * i < piece.count) {
					float2 s = state[i].floats();
					float to = fmaxf(most, s.x), a = exp2_fast(most - to), b = exp2_fast(s.x - to);
					most = to;
					weight = weight * a + s.y * b;
					o = o * a + __uint_as_float((uint32_t)value[i]) * b;
				}
		}
		__syncwarp();
		float high = most; // of a share without pieces −inf, but not of all
		for (int d = DIMS; d < 32; d *= 2) high = fmaxf(high, __shfl_xor_sync(~0u, high, d));
		float by = exp2_fast(most - high);
		weight *= by, o *= by;
		for (int d = DIMS; d < 32; d *= 2) {
			weight += __shfl_xor_sync(~0u, weight, d);
			o += __shfl_xor_sync(~0u, o, d);
		}
		o *= __frcp_rn(weight);
		float other = __shfl_down_sync(~0u, o, 1);
		if (lane < DIMS && lane % 2 == 0) send(words.attn + (head * D + dim) / 2, pack_half(o, other), epoch);
	}
};

} // namespace

#endif
