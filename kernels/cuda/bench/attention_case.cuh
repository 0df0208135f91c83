// A paged KV pool with random data and a batch over it, with the float64
// reference of attention.
#pragma once

#include "bench.cuh"

namespace bench {

struct Span {
	int context, query; // keys before the query tokens, query tokens
};

struct ReferenceParams {
	const half *query;
	half *out;
	PagedKV kv;
	Batch batch;
	int64_t ld;
	int layer, heads, kv_heads, head_dim;
};

// A CTA of 128 threads for each token and head; scores in shared memory.
static __global__ void attention_reference(ReferenceParams p) {
	extern __shared__ double scores[];
	__shared__ double largest, sum;
	int t = blockIdx.x, h = blockIdx.y, s = p.batch.token_seq[t], last = p.batch.positions[t];
	const int32_t *table = block_table(p.batch, s);
	const half *q = p.query + t * p.ld + h * p.head_dim;
	int head = h / (p.heads / p.kv_heads);
	for (int j = threadIdx.x; j <= last; j += blockDim.x) {
		const half *key = key_at(p.kv, table, p.layer, head, j);
		double dot = 0;
		for (int d = 0; d < p.head_dim; d++) dot += (double)__half2float(q[d]) * (double)__half2float(key[d]);
		scores[j] = dot / sqrt((double)p.head_dim);
	}
	__syncthreads();
	if (threadIdx.x == 0) {
		largest = -INFINITY, sum = 0;
		for (int j = 0; j <= last; j++) largest = fmax(largest, scores[j]);
		for (int j = 0; j <= last; j++) sum += scores[j] = exp(scores[j] - largest);
	}
	__syncthreads();
	for (int d = threadIdx.x; d < p.head_dim; d += blockDim.x) {
		double o = 0;
		for (int j = 0; j <= last; j++) o += scores[j] * (double)__half2float((key_at(p.kv, table, p.layer, head, j) + p.kv.value)[d]);
		p.out[t * p.ld + h * p.head_dim + d] = __float2half((float)(o / sum));
	}
}

// Pages is a batch with its pool: one layer of `layers` is filled, every slot
// that no sequence has written is NaN, tables are shuffled.
struct Pages {
	int heads, kv_heads, head_dim, layers, layer, tokens = 0, longest = 0, decodes = 0;
	int64_t kv_tokens = 0, ld;
	PagedKV kv{};
	Batch batch{};
	Memory<half> pool, query, out;
	Memory<int32_t> header, token_seq, positions, rows, query_start, seq_lens, tables;
	std::vector<Span> spans;
	std::vector<half> want;

	Pages(int heads, int kv_heads, int head_dim, int block_size, int layers, std::vector<Span> spans, int padding = 0, bool dense = false)
	    : heads(heads), kv_heads(kv_heads), head_dim(head_dim), layers(layers), layer(layers - 1), spans(spans) {
		kv.block_size = block_size;
		while ((1 << kv.block_shift) < block_size) kv.block_shift++;
		kv.token = head_dim, kv.head = kv.token * block_size, kv.value = kv.head * kv_heads, kv.layer = 2 * kv.value, kv.block = kv.layer * layers;
		int seqs = spans.size(), stride = 0, blocks = 1;
		std::vector<int32_t> h(16), seq, pos, row(seqs + padding), start(1), length(seqs + padding);
		for (int s = 0; s < seqs; s++) {
			int all = spans[s].context + spans[s].query;
			stride = std::max(stride, (all + block_size - 1) / block_size);
			longest = std::max(longest, all);
			kv_tokens += all;
			if (spans[s].query == 1 && decodes == s) decodes++;
			for (int i = 0; i < spans[s].query; i++) seq.push_back(s), pos.push_back(spans[s].context + i);
			start.push_back(seq.size());
			length[s] = all;
			row[s] = (s * 7 + 3) % (seqs + 5); // rows are not sequences
			while (std::count(row.begin(), row.begin() + s, row[s])) row[s] = (row[s] + 1) % (seqs + 5);
		}
		for (int i = 0; i < padding; i++) start.push_back(seq.size());
		tokens = seq.size();
		stride += 3;
		h[H_TOKENS] = tokens, h[H_SEQS] = seqs + padding, h[H_DECODES] = decodes == seqs ? seqs + padding : decodes;
		std::vector<int32_t> ids, table((seqs + 5) * stride, 0);
		for (int s = 0; s < seqs; s++) blocks += (length[s] + block_size - 1) / block_size;
		for (int b = 1; b < blocks; b++) ids.push_back(b);
		srand(7);
		for (int i = ids.size() - 1; i > 0; i--) std::swap(ids[i], ids[rand() % (i + 1)]);
		size_t next = 0;
		for (int s = 0; s < seqs; s++)
			for (int b = 0; b * block_size < length[s]; b++) table[row[s] * stride + b] = ids[next++];
		pool.resize((int64_t)blocks * kv.block);
		kv.base = pool.data;
		if (dense) {
			fill(pool.data, pool.size, 1);
		} else {
			pool.set(0xFF);
			std::vector<half> cells = pool.download();
			for (int s = 0; s < seqs; s++)
				for (int t = 0; t < length[s]; t++)
					for (int i = 0; i < 2 * kv_heads * head_dim; i++) {
						int64_t at = table[row[s] * stride + t / block_size] * kv.block + layer * kv.layer + i / (kv_heads * head_dim) * kv.value +
						             i / head_dim % kv_heads * kv.head + t % block_size * kv.token + i % head_dim;
						cells[at] = __float2half((rand() % 2001 - 1000) / 1000.0f);
					}
			pool.upload(cells);
		}
		ld = (heads * head_dim + 63) / 64 * 64;
		query.resize((tokens + 8) * ld), out.resize((tokens + 8) * ld);
		fill(query.data, tokens * ld, head_dim == 64 ? 6 : 2);
		header.upload(h), token_seq.upload(seq), positions.upload(pos), rows.upload(row), query_start.upload(start), seq_lens.upload(length), tables.upload(table);
		batch = {header.data, nullptr, token_seq.data, positions.data, nullptr, rows.data, query_start.data, seq_lens.data, nullptr, tables.data, stride};
	}

	void reference(int first, int count) {
		out.set(0xFF);
		ReferenceParams p{query.data, out.data, kv, batch, ld, layer, heads, kv_heads, head_dim};
		CHECK(cudaFuncSetAttribute(attention_reference, cudaFuncAttributeMaxDynamicSharedMemorySize, 200 << 10));
		attention_reference<<<dim3(tokens, heads), 128, longest * 8>>>(p);
		CHECK(cudaDeviceSynchronize());
		want = out.download();
		std::vector<half> nan(1);
		memset(nan.data(), 0xFF, 2);
		for (int64_t i = 0; i < (int64_t)want.size(); i++)
			if (i / ld < first || i / ld >= first + count || i % ld >= heads * head_dim) want[i] = nan[0];
	}
};

} // namespace bench
