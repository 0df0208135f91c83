// The head of a step: fetch brings the host's message (message.go) into device memory, a
// CTA for 4 KiB; prepare unpacks it into the step's arrays and the row state, one CTA of
// 1,024 threads:
//
//   1. block ids into the rows' tables, sampling parameters into reset rows
//   2. for each token: sequence, position, slot = table[position / size]·size +
//      position mod size, and its id, which for FromDevice is the row's last token
//   3. padding up to the bucket of a graph: id 0, position 0, slot 0, length 0
//   4. the sample entries
//
// A message may have any of: updates, a batch, sample entries. Bytes: the message
// over PCIe and once, about 16 a token: 2 to 4 µs, the latency of PCIe.
#include "sampling.cuh"

enum {
	M_TOKENS = 5, M_SEQS,  // filled up to these numbers, 0 = no batch
	M_BATCH,               // offset of the batch in words
	M_WRITES, M_WRITES_AT, // block ids: pairs (entry of tables, id)
	M_RESETS, M_RESETS_AT, // rows: M_RESET_WORDS each
	M_SAMPLE,              // offset of the sample entries, 0 = none
	M_SLOT,                // of the result ring
};

// A reset: row, offset of stop ids, offset of biases, then the row's parameters.
#define M_RESET_WORDS (3 + sizeof(RowParams) / 4)

struct PrepareParams {
	const int32_t *message;
	int32_t *header, *tokens, *token_seq, *positions, *slots, *rows, *query_start, *seq_lens, *logit_rows, *tables;
	int64_t table_stride;
	RowState *state;
	int32_t *stop_ids;  // [max_seqs][MAX_STOP_IDS]
	TokenBias *bias;    // [max_seqs][MAX_BIAS]
	SampleEntry *entries;
	int32_t block_shift, pad;
};
static_assert(sizeof(PrepareParams) == 136, "prepare.go");

static __device__ void update_rows(const PrepareParams &p) {
	const int32_t *m = p.message, *writes = m + m[M_WRITES_AT];
	for (int i = threadIdx.x; i < m[M_WRITES]; i += blockDim.x) p.tables[writes[2 * i]] = writes[2 * i + 1];
	for (int i = threadIdx.x / 32; i < m[M_RESETS]; i += blockDim.x / 32) {
		const int32_t *reset = m + m[M_RESETS_AT] + i * M_RESET_WORDS;
		int row = reset[0], lane = threadIdx.x % 32;
		const RowParams *params = reinterpret_cast<const RowParams *>(reset + 3);
		if (lane < sizeof(RowParams) / 4) reinterpret_cast<int32_t *>(&p.state[row].params)[lane] = reset[3 + lane];
		if (lane == 0) p.state[row].last_token = -1;
		for (int j = lane; j < params->num_stop_ids; j += 32) p.stop_ids[row * MAX_STOP_IDS + j] = m[reset[1] + j];
		for (int j = lane; j < params->num_bias; j += 32)
			p.bias[row * MAX_BIAS + j] = {m[reset[2] + 2 * j], __int_as_float(m[reset[2] + 2 * j + 1])};
	}
}

static __device__ void unpack_sequences(const PrepareParams &p, const int32_t *batch, int tokens, int seqs) {
	const int32_t *rows = batch + tokens, *starts = rows + seqs, *lens = starts + seqs + 1, *logits = lens + seqs;
	int padded = p.message[M_SEQS];
	for (int i = threadIdx.x; i <= padded; i += blockDim.x) {
		p.query_start[i] = i <= seqs ? starts[i] : tokens;
		if (i == padded) break;
		p.rows[i] = i < seqs ? rows[i] : 0;
		p.seq_lens[i] = i < seqs ? lens[i] : 0;
	}
	int count = p.message[H_LOGITS];
	for (int i = threadIdx.x; i < count || i < padded; i += blockDim.x) p.logit_rows[i] = i < count ? logits[i] : 0;
}

static __device__ void unpack_tokens(const PrepareParams &p, const int32_t *batch, int tokens, int seqs) {
	const int32_t *rows = batch + tokens, *starts = rows + seqs, *lens = starts + seqs + 1;
	for (int t = threadIdx.x; t < p.message[M_TOKENS]; t += blockDim.x) {
		int id = 0, seq = seqs, position = 0, slot = 0;
		if (t < tokens) {
			int low = 0, high = seqs; // the last sequence that starts at or before t
			while (high - low > 1) {
				int middle = (low + high) / 2;
				if (starts[middle] <= t) low = middle;
				else high = middle;
			}
			seq = low;
			position = lens[seq] - (starts[seq + 1] - t);
			int block = p.tables[rows[seq] * p.table_stride + (position >> p.block_shift)];
			slot = block << p.block_shift | (position & ((1 << p.block_shift) - 1));
			id = batch[t] >= 0 ? batch[t] : max(p.state[rows[seq]].last_token, 0); // a failed row goes on with id 0
		}
		p.tokens[t] = id;
		p.token_seq[t] = seq;
		p.positions[t] = position;
		p.slots[t] = slot;
	}
}

PG_KERNEL void __launch_bounds__(1024) prepare(const __grid_constant__ PrepareParams p) {
	grid_wait();
	const int32_t *m = p.message;
	update_rows(p);
	__syncthreads();
	if (m[M_TOKENS] > 0) {
		const int32_t *batch = m + m[M_BATCH];
		unpack_sequences(p, batch, m[H_TOKENS], m[H_SEQS]);
		unpack_tokens(p, batch, m[H_TOKENS], m[H_SEQS]);
		if (threadIdx.x < H_SAMPLES) p.header[threadIdx.x] = m[threadIdx.x];
	}
	if (m[M_SAMPLE] > 0) {
		const SampleEntry *entries = reinterpret_cast<const SampleEntry *>(m + m[M_SAMPLE]);
		for (int i = threadIdx.x; i < m[H_SAMPLES]; i += blockDim.x) p.entries[i] = entries[i];
		if (threadIdx.x == 0) {
			p.header[H_SAMPLES] = m[H_SAMPLES];
			p.header[M_SLOT] = m[M_SLOT];
		}
	}
}

// FetchParams: pinned memory of the host, and where its words go.
struct FetchParams {
	const int32_t *from;
	int32_t *to;
	int64_t words;
};
static_assert(sizeof(FetchParams) == 24, "prepare.go");

// fetch copies what the host has for a step: 16 bytes a thread. A copy engine would do it
// only when the blocks that are on their way in are there, tens of milliseconds later.
PG_KERNEL void __launch_bounds__(256) fetch(const __grid_constant__ FetchParams p) {
	grid_wait();
	int64_t at = ((int64_t)blockIdx.x * 256 + threadIdx.x) * 4;
	if (at + 4 <= p.words) {
		int4 v;
		asm volatile("ld.volatile.global.v4.s32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p.from + at) : "memory");
		*reinterpret_cast<int4 *>(p.to + at) = v;
	} else {
		for (; at < p.words; at++) p.to[at] = *(const volatile int32_t *)(p.from + at);
	}
}
