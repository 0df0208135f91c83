// How sums that wgmma left in registers reach memory.
#pragma once

#include "gemm.cuh"
#include "wgmma.cuh"

namespace {

constexpr int OUT_BYTES = 16 * 36 * 4; // of shared memory, of a warp

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// place is where 16 bytes of a row of 128 lie: 16 threads' accesses of 8 bytes in four rows, and
// eight's of 16 in one, fall into all banks.
__device__ __forceinline__ float4 *place(void *rows, int r, int chunk) { return static_cast<float4 *>(rows) + r * 8 + (chunk ^ r % 4 * 2); }

// store_if and add_if are stores and additions in L2 under a predicate; of the latter the compiler
// makes branches.
__device__ __forceinline__ void store_if(bool p, void *to, uint32_t x, uint32_t y) {
	asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %0, 0;\n@p st.global.v2.b32 [%1], {%2, %3};\n}\n" ::"r"((int)p), "l"(to), "r"(x), "r"(y) : "memory");
}
__device__ __forceinline__ void store_if(bool p, float *to, float4 v) {
	asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %0, 0;\n@p st.global.v4.f32 [%1], {%2, %3, %4, %5};\n}\n" ::"r"((int)p), "l"(to), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w) : "memory");
}
__device__ __forceinline__ void add_if(bool p, float *to, float4 v) {
	asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %0, 0;\n@p red.relaxed.gpu.global.add.v4.f32 [%1], {%2, %3, %4, %5};\n}\n" ::"r"((int)p), "l"(to), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w) : "memory");
}

// Out is where a warp's sums of 16 rows × N columns go, from (row, column) on, by way of its
// part of shared memory.
template <int N> struct Out {
	static constexpr int GROUPS = N / 8;
	const Epilogue &e;
	float *mine;
	int row, column;
	uint32_t to[4]; // of RESIDUAL

	// aim makes where a thread's sums go, in elements: of a residual, which no card has 2³² of.
	__device__ __forceinline__ void aim() {
		int lane = threadIdx.x % 32;
#pragma unroll
		for (int i = 0; i < 4; i++) to[i] = pinned((row + lane / 8 + 4 * i) * static_cast<uint32_t>(e.ld) + column + lane % 8 * 4);
	}

	// swiglu makes the outputs where the sums lie, and turns 128 columns at a time: two rows'
	// outputs are a word.
	__device__ __forceinline__ void swiglu(const float (&c)[N / 2]) const {
		constexpr int PART = 16, LD = 68;
		int lane = threadIdx.x % 32;
		uint32_t *words = reinterpret_cast<uint32_t *>(mine);
#pragma unroll
		for (int first = 0; first < GROUPS; first += PART) {
			const int groups = GROUPS - first < PART ? GROUPS - first : PART;
			__syncwarp();
#pragma unroll
			for (int j = 0; j < groups; j++) {
				const float *y = c + 4 * (first + j);
				words[lane / 4 * LD + 4 * j + lane % 4] = pack_half(gated(y[0], y[1]), gated(y[2], y[3]));
			}
			__syncwarp();
			half *out = static_cast<half *>(e.out) + row * e.ld + column / 2 + 4 * first;
#pragma unroll
			for (int i = lane; i < 8 * groups; i += 32) {
				int r = i / groups, j = i % groups;
				if (column + 8 * (first + j) >= e.cols) continue;
				uint4 v = *reinterpret_cast<const uint4 *>(words + r * LD + 4 * j);
				half *to = out + r * e.ld + 4 * j;
				if (row + r < e.rows) *reinterpret_cast<uint2 *>(to) = upper(v);
				if (row + r + 8 < e.rows) *reinterpret_cast<uint2 *>(to + 8 * e.ld) = lower(v);
			}
		}
	}
	// upper and lower are the two rows of four columns' words.
	static __device__ __forceinline__ uint2 upper(uint4 v) { return {__byte_perm(v.x, v.y, 0x5410), __byte_perm(v.z, v.w, 0x5410)}; }
	static __device__ __forceinline__ uint2 lower(uint4 v) { return {__byte_perm(v.x, v.y, 0x7632), __byte_perm(v.z, v.w, 0x7632)}; }

	// top leaves the Top of the row lane / 4 + 8·h, if its bit is in rows. ALL: all columns may be drawn.
	template <bool ALL> __device__ __forceinline__ void top(const float (&c)[N / 2], int h, uint32_t rows) const {
		int lane = threadIdx.x % 32, r = lane / 4 + 8 * h, first = column + lane % 4 * 2;
		int cols = e.cols - first, drawn = min(e.sample_vocab, e.cols) - first;
		auto may = [&](int i) { return ALL || i < drawn; };
		float all = -INFINITY, z = -INFINITY; // of all columns, NaN if one is; of those that may be drawn
#pragma unroll
		for (int j = 0; j < GROUPS; j++)
#pragma unroll
			for (int x = 0; x < 2; x++) {
				float y = c[4 * j + 2 * h + x];
				if (ALL || 8 * j + x < cols) all = max_nan(all, y);
				if (!ALL && may(8 * j + x)) z = fmaxf(z, y);
			}
		if (ALL) z = all;
		for (int i = 1; i < 4; i *= 2) {
			z = fmaxf(z, __shfl_xor_sync(~0u, z, i));
			all = max_nan(all, __shfl_xor_sync(~0u, all, i));
		}
		uint32_t at = NONE; // the first that is as likely
#pragma unroll
		for (int j = GROUPS - 1; j >= 0; j--)
#pragma unroll
			for (int x = 1; x >= 0; x--)
				if (may(8 * j + x) && c[4 * j + 2 * h + x] == z) at = 8 * j + x;
		if (at != NONE) at += first;
		for (int i = 1; i < 4; i *= 2) at = min(at, __shfl_xor_sync(~0u, at, i));
		int id = !(all < INFINITY) ? TOP_BAD : z > -INFINITY ? (int)at : -1;
		if (lane % 4 == 0 && rows >> r & 1)
			reinterpret_cast<float2 *>(static_cast<float *>(e.out) + (row + r) * e.ld)[column / N] = make_float2(z, __int_as_float(id));
	}
	static constexpr uint32_t NONE = ~0u;
	static __device__ __forceinline__ float max_nan(float x, float y) {
		asm("max.NaN.f32 %0, %0, %1;" : "+f"(x) : "f"(y));
		return x;
	}
	__device__ __forceinline__ void tops(const float (&c)[N / 2], uint32_t rows) const {
		bool all = column + N <= min(e.sample_vocab, e.cols);
#pragma unroll
		for (int h = 0; h < 2; h++)
			if (all) top<true>(c, h, rows);
			else top<false>(c, h, rows);
	}

	// store turns 32 columns at a time. RESIDUAL adds in L2, so that nothing waits for what was
	// there: each output is added to once. A row's 32 are a line of memory, if BN is a multiple of
	// 32: that is worth a quarter of the product's time.
	// Of the head's rows that are not whole the Tops take the place of the logits.
	template <bool ADDS> __device__ __forceinline__ void store(const float (&c)[N / 2]) const {
		int lane = threadIdx.x % 32, r = lane / 4, q = lane % 4, chunk = lane % 8, m = row + lane / 8, n = column + 4 * chunk;
		int cols = e.cols - n;
		uint32_t rows = row < e.rows ? ~0u >> 32 - min(e.rows - row, 16) : 0; // a bit each
		if (!ADDS && e.whole) {
			uint32_t whole = __ballot_sync(~0u, lane < 16 && rows >> lane & 1 && e.whole[row + lane]);
			if (uint32_t plain = rows & ~whole) tops(c, plain);
			rows = whole;
			if (rows == 0) return;
		}
		rows >>= lane / 8;
		float *to[4];
#pragma unroll
		for (int i = 0; i < 4; i++) to[i] = static_cast<float *>(e.out) + (ADDS ? this->to[i] : (m + 4 * i) * e.ld + n);
#pragma unroll
		for (int base = 0; base < N; base += 32) {
			__syncwarp();
#pragma unroll
			for (int j = 0; j < 4; j++)
				for (int h = 0; h < 2; h++)
					if (base / 8 + j < GROUPS) {
						int i = (base / 8 + j) * 4 + 2 * h;
						reinterpret_cast<float2 *>(place(mine, r + 8 * h, 2 * j + q / 2))[q % 2] = make_float2(c[i], c[i + 1]);
					}
			__syncwarp();
			float4 v[4];
#pragma unroll
			for (int i = 0; i < 4; i++) v[i] = *place(mine, 4 * i + lane / 8, chunk);
#pragma unroll
			for (int i = 0; i < 4; i++) {
				bool inside = base < cols && base + 4 * chunk < N && rows >> 4 * i & 1;
				if (ADDS) add_if(inside, to[i] + base, v[i]);
				else store_if(inside, to[i] + base, v[i]);
			}
		}
	}
};

// Angles are what 64 tokens' queries and keys turn by, in a stage of the ring: a row a token, 32
// bytes to the four pairs of eight columns. A row has those of 128 columns: in heads of 128 or 64,
// pairs 128 columns apart turn by the same. Other heads' angles are read from memory.
struct Angles {
	static constexpr int ROW = 128 * 4, BYTES = 64 * ROW;

	static __device__ __forceinline__ bool same(const Epilogue &e) { return 128 % e.head_dim == 0; }
	static __device__ __forceinline__ int turning(const Epilogue &e) { return (e.heads + e.kv_heads) * e.head_dim; } // columns
	static __device__ __forceinline__ bool staged(const Epilogue &e, int column) { return same(e) && column < turning(e); }

	// place is where eight columns' lie: those of four rows fall into all banks.
	static __device__ __forceinline__ uint32_t place(uint32_t row, uint32_t group) { return row * ROW + group / 4 * 128 + (group % 4 ^ row % 4) * 32; }

	// A warpgroup copies them, eight threads 128 bytes of a row. A thread asks for the positions of
	// its rows' tokens before there is room.
	uint32_t positions[4];

	__device__ __forceinline__ Angles(const Epilogue &e, int row) {
#pragma unroll
		for (int i = 0; i < 4; i++) positions[i] = e.positions[min(row + 16 * i + (int)threadIdx.x / 8, e.rows - 1)];
	}
	__device__ __forceinline__ void copy(const Epilogue &e, int column, uint32_t to) const {
		uint32_t group = threadIdx.x % 8 / 2, half = threadIdx.x % 2 * 16, dim = e.head_dim;
		to += place(threadIdx.x / 8, group) + half;
#pragma unroll
		for (int i = 0; i < 4; i++)
#pragma unroll
			for (int b = 0; b < ROW / 128; b++)
				copy_async(to + i * 16 * ROW + b * 128, reinterpret_cast<const char *>(e.rope) + (uint64_t)positions[i] * (dim * 4) + (((column + 32 * b + 8 * group) & (dim - 1)) * 4 + half));
	}
};

// Qkv ends a warp's sums of 16 rows × N columns of QKV, from (row, column) on: 64 columns, 32
// pairs, at a time, whose outputs are two words. Parts 128 columns apart follow one another, for
// pairs of both turn by the same angles in heads of 128 or 64. begin goes before the products,
// ahead and turned before the last of them are waited for: what the first part is made with is
// there by then. Beyond 256 columns registers do not hold angles on their way: they are STAGED in
// the ring, the warp's from `rows` of shared memory on, or read where they are needed if that is 0.
template <int N> struct Qkv {
	static constexpr int GROUPS = N / 8, PART = 8;
	static constexpr bool STAGED = N > 256;
	static constexpr int LATER = N <= 192 ? -1 : 0; // the part behind which there is room for the second's angles
	static constexpr int UNIT = 4;                  // strides and heads are multiples of 16 elements
	const Epilogue &e;
	uint32_t *mine;
	int row, column;
	uint32_t inverse; // of head_dim, times 2³²
	int positions[4], slots[4];
	float4 raw[PART]; // angles on their way
	float2 angle[PART][2];

	__device__ __forceinline__ bool same() const { return Angles::same(e); }
	__device__ __forceinline__ void begin() {
		int lane = threadIdx.x % 32;
		if (STAGED) invert();
#pragma unroll
		for (int i = 0; i < 4; i++) {
			int m = min(row + lane / 8 + 4 * i, e.rows - 1);
			if (!STAGED) positions[i] = e.positions[m];
			slots[i] = e.slots[m];
		}
		if (e.bias && 32 * lane < N && column + 32 * lane < e.cols) asm volatile("prefetch.global.L1 [%0];" ::"l"(e.bias + column + 32 * lane));
	}
	__device__ __forceinline__ void ahead() {
		invert();
		request(0);
	}
	__device__ __forceinline__ void turned(uint32_t rows) {
		if (STAGED) return load(0, rows);
		spread();
		if (LATER < 0 && same()) request(PART);
	}
	__device__ __forceinline__ void invert() { inverse = 0xFFFFFFFFu / (uint32_t)e.head_dim + 1; }
	__device__ __forceinline__ int head(int n) const { return __umulhi(n, inverse); }

	// request asks for a part's angles in lines of memory, a row's 16 pairs by eight threads: a
	// thread's own would be 32 bytes a row, and take as many requests as lines do.
	__device__ __forceinline__ void request(int first) {
		if (first >= GROUPS) return;
		int half = e.head_dim >> 1;
#pragma unroll
		for (int b = 0; b < 2; b++) {
			int n = column + 8 * first + 32 * b + threadIdx.x % 8 * 4, in = (n - head(n) * e.head_dim) >> 1;
#pragma unroll
			for (int i = 0; i < 4; i++) {
				float4 &to = raw[4 * b + i];
				asm volatile("ld.global.L1::no_allocate.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(to.x), "=f"(to.y), "=f"(to.z), "=f"(to.w) : "l"(e.rope + (int64_t)positions[i] * half + in));
			}
		}
	}
	// spread hands them to the threads that have the sums.
	__device__ __forceinline__ void spread() {
		int lane = threadIdx.x % 32, q = lane % 4;
#pragma unroll
		for (int b = 0; b < 2; b++) {
			__syncwarp();
#pragma unroll
			for (int i = 0; i < 4; i++) *place(mine, lane / 8 + 4 * i, lane % 8) = raw[4 * b + i];
			__syncwarp();
#pragma unroll
			for (int j = 0; j < 4; j++)
				for (int h = 0; h < 2; h++) angle[4 * b + j][h] = reinterpret_cast<const float2 *>(place(mine, lane / 4 + 8 * h, 2 * j + q / 2))[q % 2];
		}
	}

	// load reads a part's staged angles.
	__device__ __forceinline__ void load(int first, uint32_t rows) {
		int lane = threadIdx.x % 32, r = lane / 4, q = lane % 4;
		if (column >= Angles::turning(e)) return;
		if (first < 16 && rows) {
			each(first, [&](int j, int h, float2 &to) {
				asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(to.x), "=f"(to.y) : "r"(rows + Angles::place(r, first + j) + h * 8 * Angles::ROW + q * 8));
			});
			return;
		}
		const float2 *from[2];
#pragma unroll
		for (int h = 0; h < 2; h++) from[h] = e.rope + (int64_t)e.positions[min(row + r + 8 * h, e.rows - 1)] * (e.head_dim >> 1) + q;
		each(first, [&](int j, int h, float2 &to) {
			int n = column + 8 * (first + j);
			to = from[h][(n - head(n) * e.head_dim) >> 1];
		});
	}
	template <class F> __device__ __forceinline__ void each(int first, F fn) {
#pragma unroll
		for (int j = 0; j < PART && first + j < GROUPS; j++)
#pragma unroll
			for (int h = 0; h < 2; h++) fn(j, h, angle[j][h]);
	}

	// end calls release when the angles in `rows` are read.
	template <class F> __device__ __forceinline__ void end(const float (&c)[N / 2], uint32_t rows, F release) {
#pragma unroll
		for (int start = 0; start < 16; start += PART)
#pragma unroll
			for (int first = start; first < GROUPS; first += 16) {
				if (!STAGED && first > 0 && !same()) request(first);
				if (first == PART || first > 0 && !same()) {
					if (STAGED) load(first, rows);
					else spread();
				}
				__syncwarp();
				make(c, first);
				__syncwarp();
				if (STAGED && rows && first == PART) release();
				store(first);
				if (!STAGED && first == LATER && same()) request(PART);
			}
	}

	// Words of two rows' outputs lie so that 16 threads' stores of two, and eight's loads of four, fall
	// into all banks: a row of eight's first and third pairs, of each four, then 36 words on the others.
	static constexpr int LD = 72, OTHERS = 36;

	__device__ __forceinline__ void make(const float (&c)[N / 2], int first) {
		int lane = threadIdx.x % 32, q = lane % 4, turning = Angles::turning(e) - column;
		uint32_t *to = mine + lane / 4 * LD + q / 2 * OTHERS + q % 2 * 2;
		const float2 *biases = reinterpret_cast<const float2 *>(e.bias + column) + q;
		float2 bias[PART] = {};
#pragma unroll
		for (int j = 0; j < PART && first + j < GROUPS; j++)
			if (e.bias && column + 8 * (first + j) < e.cols) bias[j] = biases[4 * (first + j)];
#pragma unroll
		for (int j = 0; j < PART && first + j < GROUPS; j++) {
			float a[2], b[2];
#pragma unroll
			for (int h = 0; h < 2; h++) {
				const float *y = c + 4 * (first + j) + 2 * h;
				a[h] = y[0] + bias[j].x, b[h] = y[1] + bias[j].y;
				if (8 * (first + j) < turning) turn(angle[j][h], a[h], b[h]);
			}
			*reinterpret_cast<uint2 *>(to + 4 * j) = {pack_half(a[0], a[1]), pack_half(b[0], b[1])};
		}
	}

	// slot is how many elements into the pool the i-th of the thread's tokens lies, layer, head and dim
	// left out. A pool of a large card has more than 2³².
	__device__ __forceinline__ uint64_t slot(int i) const {
		return (uint64_t)(uint32_t)(slots[i] >> e.kv.block_shift) * (uint32_t)e.kv.block + (slots[i] & (e.kv.block_size - 1)) * (uint32_t)e.kv.token;
	}

	__device__ __forceinline__ void store(int first) const {
		int lane = threadIdx.x % 32, j = lane % 8, n = column + 8 * (first + j), m = row + lane / 8;
		if (n >= e.cols || first + j >= GROUPS) return;
		int head = this->head(n), h = head - e.heads, half_head = e.head_dim >> 1, rows = e.rows - m;
		bool query = h < 0;
		uint32_t ld = e.ld >> UNIT, stride = e.kv.head >> UNIT, value = e.kv.value >> UNIT;
		uint32_t at = query ? m * ld + head * (e.head_dim >> UNIT) : h < e.kv_heads ? h * stride : value + (h - e.kv_heads) * stride;
		half *base = (query ? static_cast<half *>(e.out) : e.kv.base + e.layer * e.kv.layer) + ((uint64_t)at << UNIT) + ((n >> 1) - head * half_head);
		uint4 v[2], w[2]; // of rows lane / 8 and + 4, and of those + 8
#pragma unroll
		for (int i = 0; i < 2; i++) {
			const uint32_t *from = mine + (lane / 8 + 4 * i) * LD + 4 * j;
			v[i] = *reinterpret_cast<const uint4 *>(from), w[i] = *reinterpret_cast<const uint4 *>(from + OTHERS);
		}
#pragma unroll
		for (int i = 0; i < 4; i++) {
			half *to = base + (query ? (uint64_t)(4 * i * ld) << UNIT : slot(i));
			uint4 x = v[i % 2], y = w[i % 2];
			int which = i < 2 ? 0x5410 : 0x7632;
			store_if(4 * i < rows, to, __byte_perm(x.x, x.z, which), __byte_perm(y.x, y.z, which));
			store_if(4 * i < rows, to + half_head, __byte_perm(x.y, x.w, which), __byte_perm(y.y, y.w, which));
		}
	}
};

#endif

} // namespace
