// Internal header of package cpu: the device, its row state, a step and the
// phases that the worker threads run.
//
// A program is a list of operations that Go records without calling C, then
// submits in one crossing; a step has two, the forward pass and sampling. Each
// operation's plan function (pg_<op>_plan) turns it into phases: a phase is
// `units` independent pieces of work that threads claim in ranges [first, first
// + count); the next phase starts when all units of the one before are
// complete, so phases need no locks among them. Results must not depend on how
// units are cut into ranges nor on which worker runs them.
//
// Every operation has a scalar form, the reference and what other processors
// build, an AVX2 and an AVX-512 form, chosen once at start (pg_device.isa); bf16
// dot products are a form of matrix products alone.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __x86_64__
// Functions that use what not every processor has carry these, so that one
// binary runs anywhere.
#define PG_AVX2 __attribute__((target("avx2,fma,f16c")))
#define PG_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")))
#define PG_AVX512BF16 __attribute__((target("avx512bf16,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")))
#define PG_AVX512VNNI __attribute__((target("avx512vnni,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")))
#endif

// Code paths; each has what those before it have.
enum pg_isa { PG_ISA_SCALAR, PG_ISA_AVX2, PG_ISA_AVX512, PG_ISA_AVX512BF16 };

// How weights of linear layers lie in memory; see weight.h.
enum pg_format { PG_BF16, PG_BF16_CODED, PG_INT8 };

// How the matrix kernels take a row of activations; see activations.c.
enum pg_rows_format { PG_ROWS_F32, PG_ROWS_BF16, PG_ROWS_INT8 };

// The operations: those of kernels.Op, copies of blocks, and packing of weights.
enum pg_op_kind {
	PG_EMBED, PG_RMSNORM, PG_QKV, PG_ATTENTION, PG_LINEAR, PG_GATE_UP, PG_HEAD, PG_SAMPLE, PG_COPY, PG_PACK, PG_KEEP,
};

struct pg_shape { // kernels.Shape
	int32_t layers, hidden, intermediate, heads, kv_heads, head_dim, vocab, sample_vocab;
	float rms_eps, rope_scale;
};

struct pg_limits { // kernels.Limits
	int32_t max_batched_tokens, max_seqs, max_model_len, max_logit_rows, block_size, max_top_logprobs;
};

// Strides of the KV pool in elements (kernels.PagedKV). Element d of the key of
// head h at token t of block b of layer l is at
//     b·block + l·layer + h·head + t·token + d        (value: + value)
struct pg_kv { int64_t block, layer, value, head, token; };

struct pg_token_bias { int32_t id; float bias; };

struct pg_sampling { // kernels.Sampling; lists are owned by the row
	float temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty;
	uint64_t seed;
	int32_t top_k, choice, prompt_len, min_tokens, logprobs;
	int32_t num_stop_ids, num_bias;
	int32_t *stop_ids;
	struct pg_token_bias *bias;
	bool penalties; // Sampling.UsesPenalties
};

// PG_IN_PROMPT is set in a row's count of an id that its prompt has; the other
// bits count the id in the output, and stop at their maximum.
#define PG_IN_PROMPT 0x8000u

struct pg_row {
	struct pg_sampling sampling;
	int32_t *table;    // [ceil(max_model_len / block_size)] block ids
	int32_t table_len; // entries in use
	int32_t last_token; // that Sample last drew; −1 (InvalidToken) after a failed row
	uint16_t *counts;  // [vocab]; kept up only while sampling.penalties
};

struct pg_op; struct pg_step; struct pg_device; struct pg_weight; struct pg_pool; struct pg_held;

typedef void (*pg_phase_fn)(const struct pg_device *d, struct pg_step *s, const struct pg_op *op,
                            int first, int count, int worker);

// pg_packed_stride is the bytes from a packed row of k activations to the next.
static inline int64_t pg_packed_stride(enum pg_rows_format format, int64_t k) {
	int64_t bytes = format == PG_ROWS_INT8 ? (k + 63) / 64 * 80 : (format == PG_ROWS_BF16 ? 2 : 4) * k;
	return ((bytes + 63) / 64 | 1) * 64;
}

enum pg_src { PG_SRC_ATTN, PG_SRC_MLP };

// An operation as Go recorded it.
struct pg_op {
	int32_t kind, layer, src;     // src: enum pg_src, of PG_LINEAR
	const struct pg_weight *w;    // NULL for attention and sampling
	const struct pg_weight *norm; // PG_HEAD
	const void *arg;              // PG_COPY, PG_PACK
	int64_t start_ns, end_ns;     // CLOCK_MONOTONIC, set as it ran
	int64_t busy_ns;              // of all workers together, while pg_pool_time is on
};

// A list of operations and the phases that they became.
struct pg_program {
	int32_t num_ops, max_ops;
	struct pg_op *ops;
	struct pg_phases *phases; // private to pool.c
};

// A step: its batch, derived metadata, programs, sampling and results. All
// arrays are reserved at set-up for the hard maxima. n = num_tokens.
struct pg_step {
	// The batch (kernels.Batch).
	int32_t num_tokens, num_seqs, num_decodes, num_logits;
	int32_t *tokens;      // [n] ids; −1: the last token of the sequence's row
	int32_t *rows;        // [num_seqs]
	int32_t *query_start; // [num_seqs + 1]
	int32_t *seq_lens;    // [num_seqs]
	int32_t *logit_rows;  // [num_logits]
	// Derived by Go, one a token.
	int32_t *token_seq; // sequence
	int32_t *positions; // position in the sequence
	int32_t *slots;     // block·block_size + offset of the position in the KV pool
	// Derived by the first QKV: cos and sin of the position's RoPE angles, by
	// rope_scale: [n][2][head_dim / 2].
	float *rope;
	bool angles_planned; // cleared at Launch
	bool normed_packed;  // d->packed will have Normed's rows; cleared at Launch

	// Sampling (kernels.SampleBatch).
	int32_t num_samples, num_checks; // the checks are the last samples
	int32_t *sample_index, *sample_rows, *sample_positions; // [num_samples]
	uint32_t **masks; // [num_samples] NULL = all allowed, or a bit per id, ceil(vocab / 32) words
	uint32_t *mask_words; // [max_logit_rows][ceil(vocab / 32)], what masks point into

	// Results (kernels.Result).
	int32_t *out_tokens; // [num_samples]
	float *out_logprobs;
	int32_t *out_ranks;
	int32_t *out_top_ids; // [num_samples][max_top_logprobs]
	float *out_top_logprobs;

	struct pg_program forward, sample;
	struct pg_program *planning; // the one that pg_push appends to

	// Work lists of the attention plan, pg_attention_plan_bytes; planned is
	// cleared at Launch, so that the lists are made once a step, not once a layer.
	void *attention_plan;
	bool attention_planned;

	// The batch of what is behind PG_KEEP: each of LogitRows' tokens, a decode. It has rows,
	// query_start, positions and logit_rows, of max_seqs, and a plan: what needs more comes before.
	// Its flags are cleared at KeepLogitRows.
	struct pg_step *kept;
};

// A reserved range of addresses for blocks: the first `bytes` may be used.
struct pg_blocks {
	char *base;
	int64_t reserved, bytes;
};

struct pg_device {
	struct pg_shape shape;
	struct pg_limits limits;
	struct pg_kv kv;
	enum pg_isa isa;
	bool vnni;           // int8 dot products
	int32_t format;      // enum pg_format of the linear weights
	int32_t threads;
	struct pg_pool *pool;
	struct pg_row *rows; // [max_seqs]
	float *inv_freq;     // [head_dim / 2]

	// Activations, float32. Row t of an activation of width w starts at
	// t·pg_stride(w); what lies between the rows is never read.
	float *hidden, *normed, *query, *attn, *mlp, *logits;
	float *head_in; // [max_logit_rows] normed rows of the head
	char *packed;   // rows as the matrix kernels take them, unless that is float32

	struct pg_blocks device_blocks, host_blocks;
	int64_t weights_used;     // bytes
	struct pg_blocks weights; // one behind the other, so that almost all pages are huge ones
	uint16_t *kv_blocks; // device block 0, float16
	float *attention_partials; // shared by the phases of one attention op, pg_attention_partials_bytes
	struct pg_held *held;      // for panels that are not packed yet (deferred.h); NULL: there were none
	char *scratch;             // per worker, see pg_scratch
	int64_t scratch_stride;
};

// pg_stride is the row stride, in floats, of an activation of the given width:
// an odd number of cache lines, so that the rows a kernel walks side by side
// fall into different sets of the cache.
static inline int64_t pg_stride(int64_t width) {
	int64_t lines = (width + 15) / 16;
	return (lines | 1) * 16;
}

// pg_format_of is how products with the device's linear weights take rows.
static inline enum pg_rows_format pg_format_of(const struct pg_device *d) {
	return d->format == PG_INT8 ? PG_ROWS_INT8 : d->isa >= PG_ISA_AVX512BF16 ? PG_ROWS_BF16 : PG_ROWS_F32;
}

// pg_scratch is a worker's own scratch memory, 64-byte aligned, undefined at
// the start of each claimed range: the largest that any op asked for by
// pg_<op>_scratch_bytes.
static inline void *pg_scratch(const struct pg_device *d, int worker) {
	return d->scratch + worker * d->scratch_stride;
}

// pg_push appends a phase to the program being planned, at most PG_MAX_PHASES an
// operation. Threads claim ranges of
// at most grain units, smaller ones near the end. No units: no phase.
#define PG_MAX_PHASES 4
void pg_push(struct pg_step *s, const struct pg_op *op, pg_phase_fn fn, int units, int grain);

static inline float pg_from_bf16(uint16_t b) {
	union { uint32_t u; float f; } v = {(uint32_t)b << 16};
	return v.f;
}

// pg_to_bf16 rounds to nearest, ties to even; NaN stays NaN.
static inline uint16_t pg_to_bf16(float f) {
	union { float f; uint32_t u; } v = {f};
	if (f != f) return (uint16_t)(v.u >> 16) | 0x40;
	return (uint16_t)((v.u + 0x7FFF + ((v.u >> 16) & 1)) >> 16);
}

static inline float pg_from_fp16(uint16_t h) {
	union { uint32_t u; float f; } v;
	uint32_t sign = (uint32_t)(h >> 15) << 31, exp = (h >> 10) & 31, frac = h & 1023;
	if (exp == 31) {
		v.u = sign | 0xFFu << 23 | frac << 13;
	} else if (exp == 0) {
		v.f = (float)frac / (1 << 24);
		v.u |= sign;
	} else {
		v.u = sign | (exp + 112) << 23 | frac << 13;
	}
	return v.f;
}

// pg_to_fp16 rounds n values to float16, to nearest, ties to even, as kernels.FloatToFP16
// does: what is beyond the greatest becomes that, NaN stays NaN. half.c.
typedef void (*pg_to_fp16_fn)(const float *x, int n, uint16_t *out);
void pg_to_fp16(const float *x, int n, uint16_t *out);
#ifdef __x86_64__
void pg_to_fp16_avx2(const float *x, int n, uint16_t *out);
void pg_to_fp16_avx512(const float *x, int n, uint16_t *out);
#endif

// Plans: one an operation.
void pg_embed_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op);
void pg_rmsnorm_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op);
void pg_qkv_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op);
void pg_linear_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op);
void pg_gate_up_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op);
// pg_head_norm_plan is the first phase of the head: head_in[i] =
// rmsnorm(hidden[logit_rows[i]]).
void pg_head_norm_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op);
void pg_head_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op);
// pg_keep_plan moves the rows of Hidden and Query that logit_rows names to the front. What is planned
// behind it is planned for s->kept.
void pg_keep_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op);
void pg_copy_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op);
void pg_pack_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op);

// attention.c: query [n][heads][head_dim] (row stride pg_stride(heads·head_dim))
// against the KV pool through the rows' tables, into attn of the same layout.
// The sizes are in bytes and hold for the hard maxima; 0 is allowed.
void pg_attention_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op);
int64_t pg_attention_plan_bytes(const struct pg_shape *m, const struct pg_limits *l, int threads);
int64_t pg_attention_partials_bytes(const struct pg_shape *m, const struct pg_limits *l, int threads);
int64_t pg_attention_scratch_bytes(const struct pg_shape *m, const struct pg_limits *l);

// sample.c: the entries of s->sample_*, each from its row of d->logits (row
// stride pg_stride(vocab)), which it may overwrite; sets the step's results and, but for
// checks, the row's last_token and, with penalties, its counts.
void pg_sample_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op);
int64_t pg_sample_scratch_bytes(const struct pg_shape *m, const struct pg_limits *l);
