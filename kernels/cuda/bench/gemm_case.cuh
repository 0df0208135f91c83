// A projection with random data, its float64 reference, and what the GEMM
// benches share.
#pragma once

#include "bench.cuh"

namespace bench {

static const char *kind_names[] = {"store", "residual", "swiglu", "qkv"};

// Kernels are those of a way to make a product, by EpilogueKind.
template <class P> using Kernels = void (*[4])(P);
#define KERNELS_OF(NAME) {NAME##_store, NAME##_residual, NAME##_swiglu, NAME##_qkv}

template <int KIND> __global__ void reference_kernel(GemmParams p) {
	int n = (blockIdx.x * blockDim.x + threadIdx.x) * 2, m = blockIdx.y;
	if (n >= p.n) return;
	double y[2] = {};
	for (int k = 0; k < p.k; k++)
		for (int i = 0; i < 2; i++) y[i] += (double)__half2float(p.x[m * p.ldx + k]) * (double)__half2float(*weight_at(p.w, p.panel, n + i, k));
	epilogue2<KIND>(p.e, m, n, (float)y[0], (float)y[1]);
}

inline int up(int n, int to) { return (n + to - 1) / to * to; }

// Projection holds `copies` weights. Rows of x past m are NaN, outputs poison.
struct Projection {
	GemmParams p{};
	int kind, copies;
	Memory<half> w, x, out_half;
	Memory<half> query, kv;
	Memory<float> out_float, bias, partials;
	Memory<float2> rope;
	Memory<int32_t> positions, slots, counters;
	std::vector<float> out_before;
	int64_t weight_elems;

	Projection(int m, int n, int k, int kind, int head_dim, int copies) : kind(kind), copies(copies) {
		int kp = up(k, 64), np = up(n, 128);
		weight_elems = (int64_t)np * kp;
		w.resize(weight_elems * copies);
		float scale = sqrtf(3.0f / k);
		fill(w.data, w.size, scale);
		if (n != np || k != kp) { // padding is zero
			for (int c = 0; c < copies; c++) {
				half *at = w.data + c * weight_elems;
				if (n != np) CHECK(cudaMemset2D(at + (int64_t)n * 64, np * 128, 0, (np - n) * 128, kp / 64));
				if (k != kp) CHECK(cudaMemset2D(at + (int64_t)(kp / 64 - 1) * np * 64 + k % 64, 128, 0, (kp - k) * 2, n));
			}
		}
		x.resize((int64_t)up(m, 256) * kp);
		x.set(0xFF);
		fill(x.data, (int64_t)m * kp, 1);
		if (k != kp) CHECK(cudaMemset2D(x.data + k, kp * 2, 0, (kp - k) * 2, m));
		p.x = x.data, p.w = w.data, p.ldx = kp, p.panel = (int64_t)np * 64, p.m = m, p.n = n, p.k = kp;
		p.e.rows = m, p.e.cols = n;
		int out_width = kind == SWIGLU ? n / 2 : n;
		p.e.ld = up(out_width, 64);
		if (kind == QKV) {
			int heads = n / head_dim, kv_heads = heads >= 3 ? heads / 9 + 1 : 1;
			p.e.heads = heads - 2 * kv_heads, p.e.kv_heads = kv_heads, p.e.head_dim = head_dim, p.e.layer = 1;
			p.e.ld = up(p.e.heads * head_dim, 64);
			bias.resize(n);
			fill(bias.data, n, 2);
			rope.resize(512 * head_dim / 2);
			fill((float *)rope.data, rope.size * 2, 1);
			std::vector<int32_t> pos(m), slot(m);
			for (int i = 0; i < m; i++) pos[i] = (i * 7 + 3) % 512, slot[i] = (i * 5 + 16) % (up(m, 16) * 5 + 16);
			positions.upload(pos), slots.upload(slot);
			p.e.bias = bias.data, p.e.rope = rope.data, p.e.positions = positions.data, p.e.slots = slots.data;
			p.e.kv.block_size = 16, p.e.kv.block_shift = 4;
			p.e.kv.token = head_dim, p.e.kv.head = 16 * head_dim, p.e.kv.value = p.e.kv.head * kv_heads;
			p.e.kv.layer = 2 * p.e.kv.value, p.e.kv.block = 2 * p.e.kv.layer;
			kv.resize(p.e.kv.block * (up(m, 16) * 5 / 16 + 2));
		}
		out_half.resize(kind == SWIGLU ? m * p.e.ld : 0);
		query.resize(kind == QKV ? m * p.e.ld : 0);
		out_float.resize(kind == STORE || kind == RESIDUAL ? m * p.e.ld : 0);
		p.e.out = out_half.size ? (void *)out_half.data : query.size ? (void *)query.data : out_float.data;
		p.e.kv.base = kv.data;
	}

	// room reserves partials (floats) and counters.
	void room(size_t floats, size_t tiles) {
		if (partials.size < floats) partials.resize(floats), partials.set(0xFF);
		if (counters.size < tiles) counters.resize(tiles), counters.set(0);
		p.partials = partials.data, p.counters = counters.data;
	}

	void poison() {
		out_half.set(0xFF), out_float.set(0xFF), query.set(0xFF), kv.set(0xFF);
		if (kind == RESIDUAL) {
			if (out_before.empty()) {
				fill(out_float.data, out_float.size, 1);
				out_before = out_float.download();
			}
			out_float.upload(out_before);
		}
	}

	void reference() {
		poison();
		dim3 grid((p.n / 2 + 127) / 128, p.m);
		switch (kind) {
		case STORE: reference_kernel<STORE><<<grid, 128>>>(p); break;
		case RESIDUAL: reference_kernel<RESIDUAL><<<grid, 128>>>(p); break;
		case SWIGLU: reference_kernel<SWIGLU><<<grid, 128>>>(p); break;
		default: reference_kernel<QKV><<<grid, 128>>>(p);
		}
		CHECK(cudaDeviceSynchronize());
		want_half = out_half.download(), want_float = out_float.download(), want_query = query.download(), want_kv = kv.download();
	}

	void check(const std::string &what) {
		CHECK(cudaDeviceSynchronize());
		compare(what, out_half.download(), want_half, 5e-4);
		compare(what, out_float.download(), want_float, 1e-5);
		compare(what + " query", query.download(), want_query, 5e-4);
		compare(what + " kv", kv.download(), want_kv, 5e-4);
	}

	std::string name() const {
		char s[96];
		snprintf(s, sizeof s, "%-8s m %-4d n %-6d k %-5d", kind_names[kind], p.m, p.n, p.k);
		return s;
	}

private:
	std::vector<half> want_half, want_query, want_kv;
	std::vector<float> want_float;
};

struct Shape {
	const char *name;
	int n, k, kind, head_dim;
};

// The projections of Qwen2.5-7B, 1.5B and 0.5B.
static const Shape shapes[] = {
	{"7B qkv", 4608, 3584, QKV, 128},      {"7B o", 3584, 3584, RESIDUAL, 0},    {"7B gate_up", 37888, 3584, SWIGLU, 0},
	{"7B down", 3584, 18944, RESIDUAL, 0}, {"7B head", 152064, 3584, STORE, 0},  {"1.5B qkv", 2048, 1536, QKV, 128},
	{"1.5B o", 1536, 1536, RESIDUAL, 0},   {"1.5B gate_up", 17920, 1536, SWIGLU, 0}, {"1.5B down", 1536, 8960, RESIDUAL, 0},
	{"0.5B qkv", 1152, 896, QKV, 64},      {"0.5B o", 896, 896, RESIDUAL, 0},    {"0.5B gate_up", 9728, 896, SWIGLU, 0},
	{"0.5B down", 896, 4864, RESIDUAL, 0}, {"0.5B head", 151936, 896, STORE, 0},
};

inline bool is_number(const std::string &w) { return w.find_first_not_of("0123456789") == std::string::npos; }

// chosen says whether the command's words ask for the shape.
inline bool chosen(const Shape &s) {
	bool any = false, asked = false;
	for (const std::string &w : words)
		if (!is_number(w)) any = true, asked |= std::string(s.name).rfind(w, 0) == 0;
	return asked || !any;
}

// tokens_or are the numbers of tokens that the command's words ask for, of those that a kernel takes, or the usual ones.
inline std::vector<int> tokens_or(std::vector<int> usual, int most) {
	std::vector<int> asked;
	bool any = false;
	for (const std::string &w : words)
		if (is_number(w) && (any = true) && std::stoi(w) <= most) asked.push_back(std::stoi(w));
	return any ? asked : usual;
}

// Copies of the weights that together leave the L2 cache behind.
inline int rotation(int n, int k) { return std::max(2, std::min(64, (int)(400e6 / (2.0 * n * k)) + 1)); }

// fastest_stream is the time of the fastest deal of gemm_stream.cu, and its name.
double fastest_stream(Projection &t, int copies, std::string &name);

} // namespace bench
