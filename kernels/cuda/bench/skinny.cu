// Checks and times gemm_skinny.cu: every variant, cut and uncut.
#include "../gemm_skinny.cu"
#include "gemm_case.cuh"

using namespace bench;

namespace {

struct Variant {
	int bn, mt;
	void (*kernel)(GemmParams);
	size_t shared;
	int chunk() const { return 4 * 2048 / bn; }
};

template <int BN, int MT, int STAGES> constexpr size_t shared_bytes() { return WARPS * Skinny<BN, MT, STAGES>::RING; }

const Variant variants[] = {
	{16, 8, gemm_skinny_16_8, shared_bytes<16, 8, 4>()},    {32, 8, gemm_skinny_32_8, shared_bytes<32, 8, 5>()},
	{16, 16, gemm_skinny_16_16, shared_bytes<16, 16, 4>()}, {32, 16, gemm_skinny_32_16, shared_bytes<32, 16, 5>()},
	{64, 16, gemm_skinny_64_16, shared_bytes<64, 16, 5>()}, {64, 32, gemm_skinny_64_32, shared_bytes<64, 32, 4>()},
	{64, 64, gemm_skinny_64_64, shared_bytes<64, 64, 3>()},
};

constexpr int SLOTS = 264;

// run launches the variant on copy c; the line is dealt out to at most `slots`
// CTAs, in whole tiles if whole.
void run(Projection &t, const Variant &v, int slots, bool whole, int c, cudaStream_t stream, bool pdl) {
	GemmParams p = t.p;
	int chunks = (p.k + v.chunk() - 1) / v.chunk();
	p.tiles = (p.n + v.bn - 1) / v.bn;
	p.per = whole ? (p.tiles + slots - 1) / slots * chunks : (p.tiles * chunks + slots - 1) / slots;
	p.w += c * t.weight_elems;
	launch(v.kernel, dim3((p.tiles * chunks + p.per - 1) / p.per), 128, v.shared, p, stream, pdl);
}

void check_case(int m, int n, int k, int kind, int head_dim) {
	Projection t(m, n, k, kind, head_dim, 1);
	t.reference();
	for (const Variant &v : variants) {
		if (m > v.mt) continue;
		t.room((size_t)2 * SLOTS * v.bn * v.mt, (n + 15) / 16);
		for (int slots : {SLOTS, 37, 5})
			for (bool whole : {true, false})
				for (int again = 0; again < 2; again++) { // the counters must be back at zero
					t.poison();
					run(t, v, slots, whole, 0, 0, again);
					t.check("skinny " + std::to_string(v.bn) + "x" + std::to_string(v.mt) + (whole ? " whole " : " cut ") + std::to_string(slots) + " " + t.name());
				}
	}
}

} // namespace

void bench_skinny(bool check, bool times) {
	if (check) {
		for (int m : {1, 3, 8, 13, 16, 29, 33, 64}) {
			check_case(m, 896, 896, RESIDUAL, 0);
			check_case(m, 1000, 100, STORE, 0);
			check_case(m, 1152, 448, QKV, 64);
			check_case(m, 2048, 1536, QKV, 128);
			check_case(m, 1208, 2048, SWIGLU, 0);
		}
		printf("skinny: checked, %d failures\n", failures);
	}
	if (!times) return;
	printf("skinny: µs (%% of bytes / 4.60 TB/s); p = programmatic dependent launch\n");
	for (const Shape &s : shapes) {
		int copies = rotation(s.n, s.k), n = std::max(copies, 8);
		for (int m : {1, 8, 16, 32, 64}) {
			if (!chosen(s, m)) continue;
			Projection t(m, s.n, s.k, s.kind, s.head_dim, copies);
			t.poison();
			double floor = 2.0 * s.n * s.k / READ_BYTES * 1e6;
			printf("%-12s m %-2d floor %6.1f |", s.name, m, floor);
			for (const Variant &v : variants) {
				if (m > v.mt || v.mt > 8 && m * 4 <= v.mt) continue;
				t.room((size_t)2 * SLOTS * v.bn * v.mt, (s.n + 15) / 16);
				for (bool whole : {true, false}) {
					double us = time(n, [&](int i, cudaStream_t stream) { run(t, v, SLOTS, whole, i % copies, stream, false); }, 7);
					double pdl = time(n, [&](int i, cudaStream_t stream) { run(t, v, SLOTS, whole, i % copies, stream, true); }, 7);
					printf(" %dx%d%s %.1f (%.0f%%) p %.1f (%.0f%%) |", v.bn, v.mt, whole ? "w" : "c", us, 100 * floor / us, pdl, 100 * floor / pdl);
				}
			}
			printf("\n");
			fflush(stdout);
		}
	}
}
