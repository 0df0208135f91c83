// Packed weights.
//
// A linear weight [rows, cols] is cut into panels of 32 output columns (rows of
// the checkpoint's matrix), two halves a and b of 16. A step of a panel is 128
// bytes, one cache line a half; a 32-bit lane holds consecutive k of one output:
//
//     bfloat16   a0: k k+1   a1: k k+1   …   a15: k k+1 │ b0: k k+1 …   2 k a step
//     int8       a0: k…k+3   a1: k…k+3   …   a15: k…k+3 │ b0: k…k+3 …   4 k a step
//
// A dot-product instruction takes a line as it is; for multiply-adds a shift
// left by 16 of the lanes gives k of 16 outputs in float32 and a mask of the
// upper half gives k+1, so that widening costs two instructions a line and no
// shuffle. That layout serves every code path, and one token (several panels side
// by side, as streams) as well as many (a tile of 12 tokens × 32 outputs). Packing
// is a transpose of 32-bit values. Which outputs a and b are follows from the
// kind; pg_weight_row says it:
//
//     plain    a, b = 32p … 32p+15 and 32p+16 … 32p+31
//     gate_up  a = gate, b = up, of the same 16 values 16p … 16p+15
//     qkv      panels do not cross heads; a, b = the two halves of a head that
//              RoPE rotates against each other, 16 pairs a panel
//
// so that SwiGLU and RoPE work on registers. Outputs that do not exist are zero.
//
// int8 values are w/scale + 128 as unsigned bytes, one scale an output: the
// largest |w| becomes 127. What cols lacks of a multiple of 64 is 128, zero.
//
// Coded bfloat16 (coded.c) is the same values in 12 bits, since a decode step of few
// tokens takes as long as its weights take to be read. Of the 8 bits of an exponent,
// trained weights use less than 3: a panel's weights lie within 15 powers of two but
// for one in ten thousand (SmolLM2). So two steps are three lines, a pair:
//
//     signs and mantissas of a step   64 bytes │ of the next   64 bytes │ codes   64 bytes
//
// where a byte of codes has those of the same weight of both steps, the first's in its
// low half. A code is how many powers of two the weight lies below the panel's largest (or its bound);
// 15 is the exponent 0 (zero, denormals). What lies further below is zero there and
// stands in the panel's list of exceptions, whose products are added when its sums are
// done. A panel with many of those is kept as it is. In each 16 bytes, 8 weights of a precede 8 of b, so that interleaving with the
// exponents makes the lines above. Nothing is lost: compare DFloat11 (Zhang et al.,
// "70% Size, 100% Accuracy", 2025), which codes exponents by Huffman.
#pragma once

#include "kernels.h"

#define PG_COLUMNS 32

#define PG_STEP_BYTES (PG_COLUMNS * 4)
#define PG_GROUP 32 // k of an int8 activation's scale
#define PG_PAIR_BYTES 192
#define PG_CODES 16

// A weight that a panel's codes cannot say; column is 0…31, a0…a15 b0…b15.
struct pg_exception { int32_t k, column; float value; };

// What a panel of coded bfloat16 has beside its pairs, a cache line.
struct pg_codes {
	// By code, the upper 7 bits of the exponent, and its lowest bit as the highest of a byte.
	_Alignas(64) uint8_t high[PG_CODES];
	uint8_t low[PG_CODES];
	int32_t num_exceptions;
	struct pg_exception *exceptions; // a column's in ascending k
	char *kept; // of a panel that is not coded: it, as bfloat16; otherwise NULL
};

enum pg_layout { PG_PLAIN, PG_GATE_UP_LAYOUT, PG_QKV_LAYOUT, PG_ROWS, PG_VECTOR };

struct pg_weight {
	int32_t layout;     // enum pg_layout
	int32_t rows, cols; // of the checkpoint's parts, one below the other
	int32_t head_dim;   // PG_QKV_LAYOUT
	int32_t format;     // enum pg_format
	int32_t panels, steps; // steps of a panel
	int32_t ready;         // panels that are packed; what is behind is packed as it is used (deferred.h)
	int32_t num_sources;
	struct pg_source *sources; // of a weight that is not ready, in files
	int64_t value_bytes, beside_bytes, bytes; // of data, of what is beside it, and of all
	char *data;    // panels, or PG_ROWS: [rows][cols] bfloat16
	char *beside;  // the memory of what follows
	float *bias;   // [panels][32] as a0…a15 b0…b15, or NULL; PG_VECTOR: the vector
	float *norms;  // qkv: RMSNorm of query and key heads, [2][head_dim], or NULL
	float *scales; // int8: [panels][32]
	struct pg_codes *codes; // coded: [panels]
	int32_t num_kept;       // of the panels that are ready
};

static inline int64_t pg_panel_bytes(const struct pg_weight *w) {
	if (w->format == PG_BF16_CODED) return (int64_t)(w->steps + 1) / 2 * PG_PAIR_BYTES;
	return (int64_t)w->steps * PG_STEP_BYTES;
}

// pg_kept_bytes is what a panel takes that is not coded.
static inline int64_t pg_kept_bytes(const struct pg_weight *w) { return (int64_t)w->steps * PG_STEP_BYTES; }

// pg_head_panels is the number of panels of a head.
static inline int pg_head_panels(int head_dim) { return (head_dim / 2 + 15) / 16; }

// pg_weight_row is the row of output j (0…15) of half 0 (a) or 1 (b) of a panel,
// −1 if there is none.
static inline int64_t pg_weight_row(const struct pg_weight *w, int panel, int half, int j) {
	switch (w->layout) {
	case PG_GATE_UP_LAYOUT: {
		int width = w->rows / 2, i = panel * 16 + j;
		return i < width ? (int64_t)half * width + i : -1;
	}
	case PG_QKV_LAYOUT: {
		int per = pg_head_panels(w->head_dim), i = panel % per * 16 + j, dims = w->head_dim / 2;
		return i < dims ? (int64_t)(panel / per) * w->head_dim + half * dims + i : -1;
	}
	default: {
		int64_t row = (int64_t)panel * PG_COLUMNS + half * 16 + j;
		return row < w->rows ? row : -1;
	}
	}
}

static inline int pg_weight_panels(const struct pg_weight *w) {
	switch (w->layout) {
	case PG_GATE_UP_LAYOUT: return (w->rows / 2 + 15) / 16;
	case PG_QKV_LAYOUT: return w->rows / w->head_dim * pg_head_panels(w->head_dim);
	default: return (w->rows + PG_COLUMNS - 1) / PG_COLUMNS;
	}
}

// A source tensor of a weight (kernels.HostTensor), row-major.
struct pg_source {
	const void *data; // NULL: in a file, or random values
	int32_t fd;       // of the file; −1: none
	int64_t at;       // where it begins there
	int32_t dtype;    // kernels.DType
	int32_t rows;
	uint64_t seed;
	float scale, offset;
};

// pg_weight_new packs the sources, one below the other, with the device's
// threads. bias_sources is NULL or one vector a source, norm_sources NULL or the
// two of norms; these are never in a file. NULL and errno: ENOMEM, or EIO for a file
// that cannot be read, that of source *unreadable. A weight whose panels are deferred wants its
// sources' files to stay open: deferred.h.
struct pg_weight *pg_weight_new(struct pg_device *d, int layout, int cols, int head_dim, int num,
                                const struct pg_source *sources, const struct pg_source *bias_sources,
                                const struct pg_source *norm_sources, int *unreadable);
// pg_weight_count sets w->bytes and w->num_kept, which grow as panels are packed.
void pg_weight_count(struct pg_weight *w);
// pg_codes_clear frees what codes have.
void pg_codes_clear(struct pg_codes *codes);
// pg_weight_free leaves the weight's bytes to pg_blocks_free of the device's weights, which
// comes after it.
void pg_weight_free(struct pg_weight *w);
