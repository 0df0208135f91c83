// Checks and times attention_prefill.cu and attention_sm90.cu.
#include "../attention_prefill.cu"
#include "attention_case.cuh"
#include "tensor_map.cuh"

using namespace bench;

// Of attention_sm90.cu, a translation unit of its own.
PG_KERNEL void attention_sm90_64(const __grid_constant__ Sm90PrefillParams p);
PG_KERNEL void attention_sm90_128(const __grid_constant__ Sm90PrefillParams p);

namespace {

struct Variant {
	int head_dim, rows;
	void (*kernel)(PrefillParams);
	size_t shared;
	void (*sm90)(Sm90PrefillParams) = nullptr;
	int threads = 128;
	void (*merge)(PrefillParams) = nullptr;
	std::string name() const { return (sm90 ? "sm90 " : "mma ") + std::to_string(rows); }
};

template <int D, int MI> constexpr size_t shared_bytes() { return Attention<D, MI>::QUERY + 2 * Attention<D, MI>::STAGE; }

constexpr size_t sm90_bytes(int d, int queries, int stages) { return 1024 + (queries + stages * 2 * 128) * d * 2 + stages * 32 + queries / 4 + 8 * 40; }

const Variant variants[] = {
	{64, 128, attention_prefill_64, shared_bytes<64, 2>(), nullptr, 128, attention_prefill_merge_64},
	{128, 128, attention_prefill_128, shared_bytes<128, 2>(), nullptr, 128, attention_prefill_merge_128},
	{64, 64, attention_prefill_64_short, shared_bytes<64, 1>(), nullptr, 128, attention_prefill_merge_64_short},
	{128, 64, attention_prefill_128_short, shared_bytes<128, 1>(), nullptr, 128, attention_prefill_merge_128_short},
	{64, 192, nullptr, sm90_bytes(64, 384, 4), attention_sm90_64, 512},
	{128, 128, nullptr, sm90_bytes(128, 128, 3), attention_sm90_128, 384},
};

constexpr int SMS = 132;

struct Prefill {
	Pages &pages;
	const Variant &v;
	bool decodes;
	int per, items = 0; // tiles of keys of a piece, 0 = nothing is cut
	Memory<int32_t> header;
	Memory<int4> list;
	Memory<float> partials;

	Prefill(Pages &pages, const Variant &v, bool decodes, int per = 0) : pages(pages), v(v), decodes(decodes), per(per), header(4) {
		items = count(per);
		list.resize(items + 1);
		if (per) partials.resize((size_t)ctas() * v.rows * (v.head_dim + 2));
	}
	int count(int per) const {
		int group = pages.heads / pages.kv_heads, n = 0;
		for (size_t s = decodes ? 0 : pages.decodes; s < pages.spans.size(); s++) {
			int rows = pages.spans[s].query * group;
			for (int row = 0; row < rows; row += v.rows) {
				int tiles = (pages.spans[s].context + (std::min(row + v.rows, rows) - 1) / group) / KEYS + 1;
				n += per ? (tiles + per - 1) / per : 1;
			}
		}
		return n;
	}
	// cut cuts into pieces of at least `least` tiles that are at most `slots` CTAs.
	int cut(int slots, int least) const {
		for (int n = least; n < 1000; n++)
			if (count(n) * pages.kv_heads <= slots) return n;
		return 0;
	}
	int ctas() const { return (items + 2) * pages.kv_heads; } // two items too many, as under a graph
	void plan(cudaStream_t stream) {
		PrefillPlanParams p{pages.batch, header.data, list.data, pages.heads / pages.kv_heads, v.rows, decodes, per};
		launch(attention_prefill_plan, dim3(1), 1024, 0, p, stream);
	}
	// run may overlap with what it follows (pdl) if that is not the plan, which it reads at once.
	void run(cudaStream_t stream, int layer, bool pdl = false) {
		Sm90PrefillParams sm90{};
		PrefillParams &p = sm90.p;
		p = {pages.query.data, pages.out.data, pages.kv, pages.batch, header.data, list.data, partials.data, pages.ld, layer, pages.kv_heads,
		     pages.heads / pages.kv_heads, (float)(M_LOG2E / sqrt((double)pages.head_dim))};
		if (v.sm90) {
			sm90.pool = group_map(pages.kv.base, pages.pool.size, pages.head_dim, pages.kv.block_size / 8);
			launch(v.sm90, dim3(std::min(SMS, items * pages.kv_heads)), v.threads, v.shared, sm90, stream, pdl);
			return;
		}
		launch(v.kernel, dim3(ctas()), v.threads, v.shared, p, stream, pdl);
		if (per) launch(v.merge, dim3(ctas()), 128, 0, p, stream, true);
	}
};

void check_case(int heads, int kv_heads, int d, int block, std::vector<Span> spans, int padding, const char *name) {
	Pages pages(heads, kv_heads, d, block, 2, spans, padding);
	for (const Variant &v : variants) {
		if (v.head_dim != d) continue;
		for (bool decodes : {false, true}) {
			int first = decodes ? 0 : pages.decodes;
			pages.reference(first, pages.tokens - first);
			for (int per : {0, 1, 3}) {
				if (per && !v.merge) continue;
				Prefill prefill(pages, v, decodes, per);
				if (per) prefill.partials.set(0xFF);
				pages.out.set(0xFF);
				prefill.plan(0);
				prefill.run(0, pages.layer);
				CHECK(cudaDeviceSynchronize());
				compare("prefill " + std::string(name) + " " + std::to_string(heads) + "/" + std::to_string(kv_heads) + "/" + std::to_string(d) + " block " + std::to_string(block) + " " + v.name() + " pieces of " + std::to_string(per),
				        pages.out.download(), pages.want, 6e-3);
			}
		}
	}
}

// invariant checks that a token's result has the same bits alone and in its chunk.
void check_invariant(int heads, int kv_heads, int d) {
	const Variant &v = variants[d == 64 ? 2 : 3];
	Pages whole(heads, kv_heads, d, 16, 2, {{0, 300}}, 0, true);
	Prefill prefill(whole, v, true);
	prefill.plan(0);
	prefill.run(0, 1);
	std::vector<half> want = whole.out.download();
	int wrong = 0;
	for (int at : {0, 1, 17, 63, 64, 200, 299}) {
		Pages alone(heads, kv_heads, d, 16, 2, {{at, 1}}, 0, true);
		Memory<int32_t> rows; // the same pool, table and query
		alone.kv = whole.kv;
		alone.batch.tables = whole.batch.tables, alone.batch.table_stride = whole.batch.table_stride, alone.batch.rows = whole.batch.rows;
		CHECK(cudaMemcpy(alone.query.data, whole.query.data + at * whole.ld, whole.ld * 2, cudaMemcpyDeviceToDevice));
		Prefill one(alone, v, true);
		one.plan(0);
		one.run(0, 1);
		std::vector<half> got = alone.out.download();
		if (memcmp(got.data(), want.data() + at * whole.ld, heads * d * 2)) wrong++;
	}
	if (wrong) failures++;
	printf("%s prefill invariance %d/%d/%d: %d of 7 tokens differ\n", wrong ? "FAIL" : "ok  ", heads, kv_heads, d, wrong);
}

// time_chunks times short chunks after long contexts, their keys whole and in pieces.
void time_chunks(int heads, int kv_heads, int d) {
	const struct {
		int seqs;
		Span span;
	} cases[] = {{1, {1024, 16}}, {1, {4080, 16}}, {1, {30000, 1}}, {1, {29984, 16}}, {1, {29984, 64}}, {1, {29984, 256}}, {8, {4080, 16}}};
	for (auto &c : cases) {
		int64_t bytes = (int64_t)c.seqs * (c.span.context + c.span.query) * kv_heads * d * 4;
		int layers = std::max<int64_t>(2, std::min<int64_t>(28, 200e6 / bytes + 1)), n = std::max(8, layers);
		Pages pages(heads, kv_heads, d, 16, layers, std::vector<Span>(c.seqs, c.span), 0, true);
		printf("%d/%d/%d %d × %d after %d, floor %.1f |", heads, kv_heads, d, c.seqs, c.span.query, c.span.context, bytes / READ_BYTES * 1e6);
		for (const Variant &v : variants) {
			if (v.head_dim != d || !v.merge) continue;
			auto one = [&](int per) {
				Prefill prefill(pages, v, false, per);
				prefill.plan(0);
				double us = time(n, [&](int i, cudaStream_t s) { prefill.run(s, i % layers, true); }, 5);
				printf(" %d rows in %d %.1f |", v.rows, per, us);
			};
			one(0);
			Prefill whole(pages, v, false);
			for (int slots : {132, 264, 396})
				if (int per = whole.cut(slots, 1); per > 0 && (v.rows == 64 || slots < 396)) one(per);
		}
		printf("\n");
		fflush(stdout);
	}
}

} // namespace

void bench_prefill(bool check, bool times) {
	const int geometries[][3] = {{28, 4, 128}, {14, 2, 64}, {12, 2, 128}, {9, 3, 64}, {8, 8, 128}, {16, 1, 64}};
	if (check) {
		for (auto &g : geometries) {
			for (int block : {16, 32, 64}) {
				check_case(g[0], g[1], g[2], block, {{0, 1}, {14, 1}, {64, 1}, {0, 15}, {0, 17}, {16, 3}, {15, 2}, {100, 64}}, 0, "edges");
				check_case(g[0], g[1], g[2], block, {{0, 700}}, 0, "one");
				check_case(g[0], g[1], g[2], block, {{1023, 1}, {1024, 1}, {511, 3}, {1400, 12}, {37, 64}}, 0, "mixed");
			}
			check_invariant(g[0], g[1], g[2]);
		}
		printf("prefill: checked, %d failures\n", failures);
	}
	if (!times) return;
	printf("prefill: µs of short chunks, their keys whole (in 0) and in pieces of some tiles\n");
	for (auto &g : geometries)
		if (g[0] >= 12 && g[1] > 1) time_chunks(g[0], g[1], g[2]);
	printf("prefill: µs (TFLOP/s)\n");
	for (auto &g : geometries) {
		if (g[0] < 12 || g[1] == 1) continue;
		const std::vector<Span> cases[] = {{{0, 512}}, {{0, 1024}}, {{0, 2048}}, {{0, 8192}}, {{0, 30000}}, {{6144, 2048}}, {{30000, 256}}, std::vector<Span>(8, Span{0, 1024}), {{30000, 8}}};
		for (auto &spans : cases) {
			Pages pages(g[0], g[1], g[2], 16, 2, spans, 0, true);
			double flops = 0;
			for (auto &s : spans) flops += 4.0 * g[2] * g[0] * (s.query * (double)s.context + s.query * (s.query + 1.0) / 2);
			printf("%d/%d/%d %zu × %d after %d |", g[0], g[1], g[2], spans.size(), spans[0].query, spans[0].context);
			for (const Variant &v : variants) {
				if (v.head_dim != g[2]) continue;
				Prefill prefill(pages, v, false);
				prefill.plan(0);
				double us = time(3, [&](int, cudaStream_t s) { prefill.run(s, 1); }, 5);
				double plan = time(3, [&](int, cudaStream_t s) { prefill.plan(s); }, 5);
				printf(" %s %.1f (%.0f) plan %.1f |", v.name().c_str(), us, flops / us / 1e6, plan);
			}
			printf("\n");
			fflush(stdout);
		}
	}
}
