// Checks and times attention_decode.cu.
#include "../attention_decode.cu"
#include "attention_case.cuh"

using namespace bench;

namespace {

// Decode is the kernel's memory for a batch, and its launches.
struct Decode {
	Pages &pages;
	int grid;
	Memory<int32_t> header, counters;
	Memory<int4> seqs, starts;
	Memory<float> partials;

	Decode(Pages &pages, int grid) : pages(pages), grid(grid), header(4), counters(4096), seqs(2048), starts(grid), partials((size_t)2 * grid * HEADS * (pages.head_dim + 2)) {
		counters.set(0), partials.set(0xFF), starts.set(0xFF);
	}
	DecodePlan where() { return {header.data, seqs.data, starts.data}; }
	void plan(cudaStream_t stream) {
		DecodePlanParams p{pages.batch, where(), pages.kv_heads, grid};
		launch(attention_decode_plan, dim3(1), 1024, 4097 * 4, p, stream);
	}
	void run(cudaStream_t stream, int layer, bool pdl) {
		DecodeParams p{pages.query.data, pages.out.data, pages.kv, pages.tables.data, where(), partials.data, counters.data, pages.ld,
		               layer, pages.kv_heads, pages.heads / pages.kv_heads, grid, (float)(M_LOG2E / sqrt((double)pages.head_dim)), 0};
		launch(pages.head_dim == 64 ? attention_decode_64 : attention_decode_128, dim3(grid), 128, 96 << 10, p, stream, pdl);
	}
};

void check_case(int heads, int kv_heads, int d, int block, std::vector<Span> spans, int padding, const char *name) {
	Pages pages(heads, kv_heads, d, block, 2, spans, padding);
	pages.reference(0, pages.decodes);
	for (int grid : {264, 40, 3}) {
		Decode decode(pages, grid);
		for (int again = 0; again < 3; again++) {
			pages.out.set(0xFF);
			decode.plan(0);
			decode.run(0, pages.layer, again == 1);
			CHECK(cudaDeviceSynchronize());
			compare("decode " + std::string(name) + " " + std::to_string(heads) + "/" + std::to_string(kv_heads) + "/" + std::to_string(d) + " block " + std::to_string(block) + " grid " + std::to_string(grid),
			        pages.out.download(), pages.want, 6e-3);
		}
	}
}

std::vector<Span> decodes(int n, int context) { return std::vector<Span>(n, Span{context, 1}); }

} // namespace

void bench_decode(bool check, bool times) {
	const int geometries[][3] = {{28, 4, 128}, {14, 2, 64}, {12, 2, 128}, {9, 3, 64}, {8, 8, 128}, {8, 1, 64}};
	if (check) {
		for (auto &g : geometries)
			for (int block : {16, 32, 64}) {
				check_case(g[0], g[1], g[2], block, {{0, 1}, {14, 1}, {15, 1}, {16, 1}, {62, 1}, {63, 1}, {64, 1}, {130, 1}, {1000, 1}}, 0, "edges");
				check_case(g[0], g[1], g[2], block, {{2600, 1}}, 0, "one long");
				check_case(g[0], g[1], g[2], block, decodes(45, 33), 19, "padded");
				check_case(g[0], g[1], g[2], block, {{70, 1}, {5, 1}, {900, 1}, {10, 33}, {48, 16}}, 0, "mixed");
			}
		printf("decode: checked, %d failures\n", failures);
	}
	if (!times) return;
	printf("decode: µs (%% of bytes / 4.60 TB/s); p = programmatic dependent launch\n");
	for (auto &g : geometries) {
		if (g[0] < 12) continue;
		for (int batch : {1, 8, 32, 64, 128, 256, 512})
			for (int context : {128, 1183, 4095, 30000}) {
				int64_t bytes = (int64_t)batch * (context + 1) * g[1] * g[2] * 4;
				if (bytes > 1200e6 || (context == 128 && batch > 32)) continue;
				int layers = std::max<int64_t>(2, std::min<int64_t>(28, 300e6 / bytes + 1));
				for (int block : {16, 64}) {
					if (block == 64 && context != 1183) continue;
					Pages pages(g[0], g[1], g[2], block, layers, decodes(batch, context), 0, true);
					Decode decode(pages, 264);
					decode.plan(0);
					double floor = bytes / READ_BYTES * 1e6;
					int n = std::max(8, layers);
					double us = time(n, [&](int i, cudaStream_t s) { decode.run(s, i % layers, false); }, 7);
					double pdl = time(n, [&](int i, cudaStream_t s) { decode.run(s, i % layers, true); }, 7);
					double plan = time(20, [&](int, cudaStream_t s) { decode.plan(s); }, 5);
					printf("%d/%d/%d block %d batch %-3d context %-5d floor %6.1f | %.1f (%.0f%%) p %.1f (%.0f%%) | plan %.1f\n", g[0], g[1], g[2], block, batch, context + 1, floor, us, 100 * floor / us, pdl,
					       100 * floor / pdl, plan);
					fflush(stdout);
				}
			}
	}
}
