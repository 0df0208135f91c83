// All layers of a step of one token, in one launch: a CTA a multiprocessor, which stays.
//
//   for each layer: hidden += out · attention(qkv(norm(hidden)));  hidden += down · swiglu(gate_up(norm(hidden)))
//
// One sequence's decode has little to compute and much to read. In kernels of its own each product waits
// for the one before to end, for its release, its code and its first weights: of the 0.5B's 18 µs a
// layer bytes are a third. Here weights run on through all of that, for they depend on nothing: a warp of
// each CTA streams the CTA's share of every product of every layer, one behind the other, through a ring
// (bulk copies), as fast as memory gives them and no faster.
//
// Work: a CTA has a run of rows of each product, all of k, so that no sum is cut: its eight warps
// share k, by mma.sync, and their sums meet in shared memory. The element of the residual stream that
// belongs to a row of out and down stays in a register of the thread that ends it. Attention is split along the
// tokens, a piece of 128 or more a CTA, and merged by warps that have four dims of a head each.
//
// What a CTA makes, others need at once. There is no barrier: data is its own flag, as in NCCL's
// low-latency protocol. A value is sent with the epoch, a number that no layer or step of the last 2³² has had,
// in one word of 64 bits, and whoever needs it reads until it is there. Every product needs all
// of the one before, so that a word is written again only when all have read it:
//
//   hidden ─ qkv ─ pieces ─ attention ─ hidden ─ mlp ─ hidden
//
// All CTAs must be resident, or those that wait would for ever: a CTA takes most of a multiprocessor's shared
// memory, there are as many as multiprocessors, and what comes before them ends by itself. What comes behind
// begins when all are here. So a card has one of these at a time: a process has one Backend that decodes on it, and
// processes take turns (not so under MPS).
//
// Bytes: 2·n·k of every product's weights and the context's KV once, from memory; each CTA
// reads all words, 8 bytes an element of hidden and 4 of the others, from L2. FLOPs: 2·n·k.
//
// Measured (BenchmarkDecode/0.5b/1, H100 80GB HBM3, of 3.35 TB/s, 2026-11-28): a step of the 0.5B 0.531 → 0.463 ms, 64 %;
// performance.md, "One token in one launch", has where it goes, and what was in vain.
#include "layers.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

namespace {

// Layers is a CTA's part of the step.
struct Layers {
	const LayersParams &p;
	Words words;
	Ring ring;
	Memory &m;
	half *row;     // what a product multiplies
	float *hidden; // what is normed
	Attention attention;
	uint32_t epoch;

	static __device__ __forceinline__ int lane() { return threadIdx.x % 32; }
	static __device__ __forceinline__ int warp() { return threadIdx.x / 32; }

	// produce streams the weights, not faster than the card reads them: what CTAs wait for comes behind what they asked
	// for before, in whatever else is full then.
	__device__ __forceinline__ void produce() {
		uint64_t policy = evict_first_policy();
		uint32_t last = clock();
		int issued = 0;
#pragma unroll 1
		for (int at = 0; at < p.count * PRODUCTS; at++) {
			Share s = m.shares[at % PRODUCTS];
			const TensorMap *map = &p.layers[at / PRODUCTS].maps[at % PRODUCTS];
			if (at / PRODUCTS + 1 < p.count) prefetch_map(p.layers[at / PRODUCTS + 1].maps[at % PRODUCTS]);
			int panels = (int)blockIdx.x * s.rows < s.cols ? s.panels : 0;
#pragma unroll 1
			for (int panel = 0; panel < panels; panel += s.per, issued++) {
				if (issued >= p.stages) barrier_wait(ring.empty(), ring.turn ^ 1);
				barrier_expect(ring.full(), s.per * s.rows * 128);
#pragma unroll 1
				for (int i = 0; i < s.per; i += s.per / BOXES) {
					while ((uint32_t)clock() - last < p.pace) {}
					last = clock();
					copy_panels_once(ring.place() + i * s.rows * 128, *map, panel + i, blockIdx.x * s.rows, ring.full(), policy);
				}
				ring.next();
			}
		}
	}

	// word is where the j-th two columns of the row lie, so that a lane's eight of a panel, of each eight columns the
	// two that a product takes from it, are 32 bytes.
	static __device__ __forceinline__ int word(int j) { return (j & ~31) | (j & 3) << 3 | (j >> 2 & 7); }

	static __device__ __forceinline__ int place(int i) { return threadIdx.x + i * CONSUMERS; } // of a thread's i-th pair

	// receive puts pairs of words where they belong, once they are there: in order, or as word says.
	__device__ __forceinline__ void receive(const uint64_t *from, int pairs, uint32_t sent, uint32_t *to, bool turned) {
		constexpr int EACH = 5;
#pragma unroll 1
		for (; pairs > 0; pairs -= EACH * CONSUMERS, from += 2 * EACH * CONSUMERS, to += 2 * EACH * CONSUMERS) { // whole panels
			Pair pair[EACH];
#pragma unroll
			for (int i = 0; i < EACH; i++)
				if (place(i) < pairs) pair[i].read(from + 2 * place(i));
			for (bool all = false; !all;) {
				all = true;
#pragma unroll
				for (int i = 0; i < EACH; i++)
					if (place(i) < pairs && !pair[i].there(sent)) {
						all = false;
						pair[i].read(from + 2 * place(i));
					}
			}
			int at = 2 * place(0), next = 1;
			if (turned) at = word(at), next = 8;
#pragma unroll
			for (int i = 0; i < EACH; i++) // CONSUMERS are whole panels, too
				if (place(i) < pairs) to[at + 2 * i * CONSUMERS] = (uint32_t)pair[i].a, to[at + 2 * i * CONSUMERS + next] = (uint32_t)pair[i].b;
		}
	}

	// norm makes the row of hidden, of which each thread has what it received.
	__device__ __forceinline__ void norm(const float2 (&w)[EACH_NORM]) {
		float2 v[EACH_NORM];
		float square = 0;
#pragma unroll
		for (int i = 0; i < EACH_NORM; i++) {
			v[i] = {0, 0};
			if (2 * place(i) < p.width) v[i] = reinterpret_cast<const float2 *>(hidden)[place(i)];
			square += v[i].x * v[i].x + v[i].y * v[i].y;
		}
		square = warp_sum(square);
		if (lane() == 0) m.squares[warp()] = square;
		consumers_sync();
		const float4 *squares = reinterpret_cast<const float4 *>(m.squares);
		float4 lo = squares[0], hi = squares[1];
		float scale = norm_scale(lo.x + lo.y + lo.z + lo.w + (hi.x + hi.y + hi.z + hi.w), p.inverse, p.eps);
		int at = word(place(0));
#pragma unroll
		for (int i = 0; i < EACH_NORM; i++)
			if (2 * place(i) < p.width) reinterpret_cast<uint32_t *>(row)[at + i * CONSUMERS] = pack_half(v[i].x * scale * w[i].x, v[i].y * scale * w[i].y);
	}

	// each calls fn(first, last, place) of the panels of each stage once they are there.
	template <class Fn> __device__ __forceinline__ void each(const Share &s, Fn fn) {
#pragma unroll 1
		for (int panel = 0; panel < s.panels; panel += s.per) {
			barrier_wait(ring.full(), ring.turn);
			fn(panel, min(panel + s.per, s.panels), ring.place());
			__syncwarp();
			if (lane() == 0) barrier_arrive(ring.empty());
			ring.next();
		}
	}

	// multiply_many leaves the sums of the CTA's rows of row · wᵀ in m.sums, by warp: each has 16 columns of every
	// other panel. Weights are the 16-row operand, the token all eight columns of the
	// other. Rows past the CTA's are read, whatever lies there, and left out at the end.
	__device__ __forceinline__ void multiply_many(const Share &s) {
		float c[MANY][4] = {};
		int k = warp() % 4, half = warp() / 4, line = lane() % 16, column = 2 * k + lane() / 16;
		const uint2 *x = reinterpret_cast<const uint2 *>(row) + lane() % 4 * 4 + k;
		each(s, [&](int first, int last, uint32_t place) {
#pragma unroll 1
			for (int at = first + ((half - first) & 1); at < last; at += 2) {
				uint32_t box = (at - first) * s.rows + line, from = place + box * 128 + ((column ^ (box & 7)) << 4), a[MANY][4];
				uint2 b = x[at * 16];
#pragma unroll
				for (int i = 0; i < MANY; i++) load_matrices(a[i], from + i * 16 * 128);
#pragma unroll
				for (int i = 0; i < MANY; i++) multiply_add(c[i], a[i], b.x, b.y);
			}
		});
		if (lane() % 4 == 0)
#pragma unroll
			for (int i = 0; i < MANY; i++) m.sums[warp()][16 * i + lane() / 4] = c[i][0], m.sums[warp()][16 * i + 8 + lane() / 4] = c[i][2];
	}

	// multiply_few is the same of few rows: a warp has whole panels. Weights are the operand of eight, the token eight
	// rows of the other; each step of k has sums of its own, for a product waits for the one before it.
	__device__ __forceinline__ void multiply_few(const Share &s) {
		float c[4][FEW][4] = {};
		const uint4 *x = reinterpret_cast<const uint4 *>(row) + lane() % 4 * 2;
		int line = lane() % 8, column = lane() / 8;
		each(s, [&](int first, int last, uint32_t place) {
#pragma unroll 1
			for (int at = first + ((warp() - first) & (WARPS - 1)); at < last; at += WARPS) {
				uint32_t box = (at - first) * s.rows + line, from = place + box * 128, b[FEW][2][4];
				uint4 v[2] = {x[at * 8], x[at * 8 + 1]};
#pragma unroll
				for (int i = 0; i < FEW; i++)
					if (i == 0 || 8 * i < s.rows)
#pragma unroll
						for (int h = 0; h < 2; h++) load_matrices(b[i][h], from + (((column + 4 * h) ^ (box & 7)) << 4) + i * 8 * 128);
#pragma unroll
				for (int i = 0; i < FEW; i++)
					if (i == 0 || 8 * i < s.rows)
#pragma unroll
						for (int h = 0; h < 2; h++) {
							uint32_t even[4] = {v[h].x, 0, v[h].y, 0}, odd[4] = {v[h].z, 0, v[h].w, 0};
							multiply_add(c[2 * h][i], even, b[i][h][0], b[i][h][1]);
							multiply_add(c[2 * h + 1][i], odd, b[i][h][2], b[i][h][3]);
						}
			}
		});
		if (lane() < 4)
#pragma unroll
			for (int i = 0; i < FEW; i++)
				*reinterpret_cast<float2 *>(&m.sums[warp()][8 * i + 2 * lane()]) = {c[0][i][0] + c[1][i][0] + c[2][i][0] + c[3][i][0], c[0][i][1] + c[1][i][1] + c[2][i][1] + c[3][i][1]};
	}

	// QkvOut is where a thread's column of qkv goes, and what it is ended with: asked for before the sums. Where keys and values go is
	// qkv_destination's, of a head's size that is known: a division less.
	struct QkvOut {
		float bias = 0, cosine = 1, sine = 0;
		half *kv = nullptr; // of keys and values
	};
	__device__ __forceinline__ QkvOut qkv_out(int layer, int n) const {
		QkvOut o;
		int head = n / D, dim = n % D / 2, h = head - p.e.heads;
		if (const float *bias = p.layers[layer].bias) o.bias = bias[n];
		if (h < p.e.kv_heads) {
			float2 angle = p.e.rope[(int64_t)p.e.positions[0] * (D / 2) + dim];
			o.cosine = angle.x, o.sine = n % 2 ? angle.y : -angle.y;
		}
		if (h >= 0) {
			int slot = p.e.slots[0];
			o.kv = p.e.kv.base + (int64_t)(slot >> p.e.kv.block_shift) * p.e.kv.block + layer * p.e.kv.layer + (slot & (p.e.kv.block_size - 1)) * p.e.kv.token +
			       (h < p.e.kv_heads ? h * p.e.kv.head : p.e.kv.value + (h - p.e.kv_heads) * p.e.kv.head) + dim + n % 2 * (D / 2);
		}
		return o;
	}

	__device__ __forceinline__ void consume() {
		int mine = blockIdx.x * m.shares[PRODUCT_OUT].rows + threadIdx.x; // the residual's element that is this thread's
		bool has = threadIdx.x < m.shares[PRODUCT_OUT].rows && mine < p.width;
		epoch = *p.epoch + 1;
		attention.cut();
		grid_wait();
		float residual = 0;
		if (has) {
			residual = __ldcg(p.hidden + mine);
			send(words.end + mine, residual, epoch); // of the layer before the first, so to speak
		}
#pragma unroll 1
		for (int layer = 0; layer < p.count; layer++) {
			attention.request(layer, attention.start());
			epoch++;
#pragma unroll 1
			for (int product = 0; product < PRODUCTS; product++) {
				Share s = m.shares[product];
				int n = blockIdx.x * s.rows + threadIdx.x;
				if ((int)blockIdx.x * s.rows < s.cols) {
					bool ends = threadIdx.x < s.rows && n < s.cols; // a row
					QkvOut out;
					if (product == PRODUCT_QKV && ends) out = qkv_out(layer, n);
					bool norms = product % 2 == 0;
					float2 w[EACH_NORM];
					const uint64_t *from = product == PRODUCT_OUT ? words.attn : words.mlp;
					int pairs = (product == PRODUCT_OUT ? p.e.heads * D : p.intermediate) / 4;
					if (norms) {
						const float2 *weights = reinterpret_cast<const float2 *>(p.layers[layer].norms[product / 2]);
#pragma unroll
						for (int i = 0; i < EACH_NORM; i++)
							if (2 * place(i) < p.width) w[i] = __ldg(weights + place(i));
						from = product == PRODUCT_QKV ? words.end : words.middle;
						pairs = p.width / 2;
					}
					receive(from, pairs, epoch - (product == PRODUCT_QKV), norms ? reinterpret_cast<uint32_t *>(hidden) : reinterpret_cast<uint32_t *>(row), !norms);
					if (norms) norm(w);
					consumers_sync();
					if (product == PRODUCT_GATE_UP) multiply_many(s);
					else multiply_few(s);
					consumers_sync();
					float y = 0;
#pragma unroll
					for (int i = 0; i < WARPS; i++) y += m.sums[i][min((int)threadIdx.x, MAX_ROWS - 1)];
					if (product == PRODUCT_QKV) {
						y += out.bias;
						half v = to_half(y * out.cosine + __shfl_xor_sync(~0u, y, 1) * out.sine);
						if (ends) send(words.qkv + n / D * D + n % D / 2 + n % 2 * (D / 2), (uint32_t)__half_as_ushort(v), epoch);
						if (out.kv) *out.kv = v;
					} else if (product == PRODUCT_GATE_UP) {
						y = gated(y, __shfl_down_sync(~0u, y, 1)); // of rows of gates
						float next = __shfl_down_sync(~0u, y, 2);
						if (ends && threadIdx.x % 4 == 0) send(words.mlp + n / 4, pack_half(y, next), epoch);
					} else if (has) {
						residual += y;
						if (product == PRODUCT_OUT) send(words.middle + mine, residual, epoch);
						else if (layer + 1 < p.count) send(words.end + mine, residual, epoch);
						else p.hidden[mine] = residual;
					}
				}
				if (product == PRODUCT_QKV) {
					attention.attend(layer, epoch);
					attention.merge(epoch);
				}
			}
		}
		if (blockIdx.x == 0 && threadIdx.x == 0) *p.epoch = epoch;
		copy_wait<0>();
	}
};

} // namespace

PG_KERNEL void __launch_bounds__(CONSUMERS + 128, 1) layers(const __grid_constant__ LayersParams p) {
	grid_trigger(); // all CTAs are here by then
	extern __shared__ __align__(1024) char memory[];
	char *rings = memory + p.stages * p.stage, *row = rings + F::RINGS, *hidden = row + p.row;
	Memory &m = *reinterpret_cast<Memory *>(hidden + p.normed);
	uint32_t barriers = shared_address(&m + 1);
	for (int i = threadIdx.x; i < p.row / 16; i += blockDim.x) reinterpret_cast<uint4 *>(row)[i] = {};
	// Past the longest width it stays so; a shorter row has what is left of others there, times weights of zero.
	for (int i = threadIdx.x; i < p.count * PRODUCTS; i += blockDim.x) // the host wrote them
		asm volatile("fence.proxy.tensormap::generic.acquire.sys [%0], 128;" ::"l"(&p.layers[i / PRODUCTS].maps[i % PRODUCTS]) : "memory");
	if (threadIdx.x < PRODUCTS) m.shares[threadIdx.x] = p.shares[threadIdx.x];
	if (threadIdx.x == 0) {
		for (int i = 0; i < p.stages; i++) {
			barrier_init(barriers + 16 * i, 1);
			barrier_init(barriers + 16 * i + 8, WARPS);
		}
		barriers_ready();
	}
	__syncthreads();
	Words w;
	w.qkv = p.words;
	w.pieces = w.qkv + (p.e.heads + 2 * p.e.kv_heads) * D;
	w.attn = w.pieces + (int64_t)p.e.kv_heads * p.pieces * HEADS * (D + 2);
	w.middle = w.attn + p.e.heads * D / 2;
	w.end = w.middle + p.width;
	w.mlp = w.end + p.width;
	Layers l{p, w, Ring{shared_address(memory), barriers, p.stages, p.stage}, m, reinterpret_cast<half *>(row), reinterpret_cast<float *>(hidden), {p, w, m, rings}};
	if (threadIdx.x >= CONSUMERS) {
		fewer_registers<40>();
		if (threadIdx.x == CONSUMERS) l.produce();
	} else {
		more_registers<232>();
		l.consume();
	}
}

#endif
