// The head of a step: prepare brings the host's message (message.go) into device memory and unpacks it
// into the step's arrays and the row state, one CTA of 1,024 threads:
//
//   0. the message, of which a graph does not know which of the ring's it is nor how long: steps
//      are counted, on both sides, and what most are long is asked for at once
//   1. block ids into the rows' tables, sampling parameters into reset rows
//   2. for each token: sequence, position, slot = table[position / size]·size +
//      position mod size, and its id, which for FromDevice is the row's last token
//   3. padding up to the bucket of a graph: id 0, position 0, slot 0, length 0
//   4. the sample entries
//
// keep_logit_rows, before the last layer's attention, makes of it a step of decodes of the tokens alone
// whose logits are wanted: its first CTA the batch, the others a thread a line of 16 bytes of the rows of
// Hidden and Query. Bytes: 2·n·(4·hidden + 2·heads·head_dim); a row waits for the line of one eight rows before.
//
// A message may have any of: updates, a batch, sample entries. Bytes: the message
// over PCIe and once, about 16 a token: the latency of PCIe.
#include "sampling.cuh"

enum {
	M_TOKENS = 5, M_SEQS,  // filled up to these numbers, 0 = no batch
	M_BATCH,               // offset of the batch in words
	M_WRITES, M_WRITES_AT, // block ids: pairs (entry of tables, id)
	M_RESETS, M_RESETS_AT, // rows: M_RESET_WORDS each
	M_SAMPLE,              // offset of the sample entries, 0 = none
	M_SLOT,                // of the result ring
	M_WORDS,               // of the message
	M_STEP,                // steps before this one
};

// A reset: row, offset of stop ids, offset of biases, then the row's parameters.
#define M_RESET_WORDS (3 + sizeof(RowParams) / 4)

struct PrepareParams {
	const int32_t *from; // the host's, in its pinned memory; null: the ring's whose turn it is
	const int32_t *ring; // [ring_steps][ring_words]
	uint32_t *turn;      // steps so far
	int32_t *message;    // in device memory
	int32_t *header, *tokens, *token_seq, *positions, *slots, *rows, *query_start, *seq_lens, *logit_rows, *tables;
	int64_t table_stride;
	RowState *state;
	int32_t *stop_ids;  // [max_seqs][MAX_STOP_IDS]
	TokenBias *bias;    // [max_seqs][MAX_BIAS]
	SampleEntry *entries;
	int32_t block_shift;
	int32_t words;                  // that are asked for before the length is known
	int32_t ring_words, ring_steps; // ring_steps: 0 = the message is not a step's first
};
static_assert(sizeof(PrepareParams) == 168, "prepare.go");

// copy_words copies words begin..end of pinned memory, from a multiple of 4 on, 64 KiB asked for at a time; up to
// three behind them, too. A copy engine would do it only when the blocks that are on their way in are there,
// tens of milliseconds later.
static __device__ void copy_words(const int32_t *from, int32_t *to, int begin, int end) {
	constexpr int AHEAD = 4;
	for (int first = begin + threadIdx.x * 4; first < end; first += AHEAD * blockDim.x * 4) {
		int4 v[AHEAD];
#pragma unroll
		for (int i = 0; i < AHEAD; i++) {
			int at = first + i * blockDim.x * 4;
			if (at < end) asm volatile("ld.volatile.global.v4.s32 {%0, %1, %2, %3}, [%4];" : "=r"(v[i].x), "=r"(v[i].y), "=r"(v[i].z), "=r"(v[i].w) : "l"(from + at) : "memory");
		}
#pragma unroll
		for (int i = 0; i < AHEAD; i++) {
			int at = first + i * blockDim.x * 4;
			if (at < end) *reinterpret_cast<int4 *>(to + at) = v[i];
		}
	}
}

// fetch_message: were a step's message another's, it would be an answer's wrong tokens.
static __device__ void fetch_message(const PrepareParams &p) {
	uint32_t turn = *p.turn;
	const int32_t *from = p.from ? p.from : p.ring + (int64_t)(turn % p.ring_steps) * p.ring_words;
	copy_words(from, p.message, 0, p.words);
	__syncthreads();
	if (p.ring_steps && threadIdx.x == 0) {
		if ((uint32_t)p.message[M_STEP] != turn) __trap();
		*p.turn = turn + 1;
	}
	copy_words(from, p.message, p.words, p.message[M_WORDS]);
	__syncthreads();
}

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
	grid_trigger(); // embed waits; what else a pass begins with starts behind the end (Backend.launch)
	fetch_message(p);
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

#define KEEP_MOST 1024 // eight a thread of the batch's CTA, in registers
#define KEEP_THREADS 128
static_assert(KEEP_MOST % KEEP_THREADS == 0, "a thread has whole rounds");

struct KeepParams {
	char *hidden, *query; // rows of hidden_ld and query_ld bytes
	int64_t hidden_ld, query_ld;
	const int32_t *logit_rows;
	int32_t *header, *token_seq, *positions, *rows, *query_start, *seq_lens;
	int32_t count;                     // logit rows, at most KEEP_MOST
	int32_t hidden_lines, query_lines; // of 16 bytes, of a row
	int32_t pad;
};
static_assert(sizeof(KeepParams) == 104, "prepare.go");

// keep_batch makes the batch one of decodes: of each token of logit_rows a sequence that ends with it.
static __device__ void keep_batch(const KeepParams &p) {
	int row[KEEP_MOST / KEEP_THREADS], last[KEEP_MOST / KEEP_THREADS];
#pragma unroll
	for (int k = 0; k < KEEP_MOST / KEEP_THREADS; k++) {
		int i = threadIdx.x + k * KEEP_THREADS;
		if (i >= p.count) continue;
		int t = p.logit_rows[i];
		row[k] = p.rows[p.token_seq[t]], last[k] = p.positions[t];
	}
	__syncthreads();
#pragma unroll
	for (int k = 0; k < KEEP_MOST / KEEP_THREADS; k++) {
		int i = threadIdx.x + k * KEEP_THREADS;
		if (i >= p.count) continue;
		p.rows[i] = row[k], p.seq_lens[i] = last[k] + 1, p.positions[i] = last[k];
		p.token_seq[i] = i, p.query_start[i] = i;
	}
	if (threadIdx.x == 0) {
		p.query_start[p.count] = p.count;
		p.header[H_TOKENS] = p.header[H_SEQS] = p.header[H_DECODES] = p.count;
	}
}

// keep_logit_rows moves those rows of the residual stream and of the queries to the front, a
// thread a line of all of them, in their order: row i comes from i or behind it, so what is still to be
// read is behind what is written.
PG_KERNEL void __launch_bounds__(KEEP_THREADS) keep_logit_rows(const __grid_constant__ KeepParams p) {
	grid_wait();
	if (blockIdx.x == 0) {
		keep_batch(p);
		return;
	}
	int line = (blockIdx.x - 1) * KEEP_THREADS + threadIdx.x;
	bool of_query = line >= p.hidden_lines;
	if (of_query && (line -= p.hidden_lines) >= p.query_lines) return;
	char *at = (of_query ? p.query : p.hidden) + 16 * line;
	int64_t ld = of_query ? p.query_ld : p.hidden_ld;
	for (int first = 0; first < p.count; first += 8) {
		int4 v[8];
#pragma unroll
		for (int k = 0; k < 8; k++)
			if (first + k < p.count) v[k] = *reinterpret_cast<const int4 *>(at + p.logit_rows[first + k] * ld);
#pragma unroll
		for (int k = 0; k < 8; k++)
			if (first + k < p.count) *reinterpret_cast<int4 *>(at + (first + k) * ld) = v[k];
	}
}

// FetchParams: pinned memory of the host, and where its words go: masks.
struct FetchParams {
	const int32_t *from;
	int32_t *to;
	int64_t words;
};
static_assert(sizeof(FetchParams) == 24, "prepare.go");

// fetch copies them as prepare does its message: 16 bytes a thread.
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
