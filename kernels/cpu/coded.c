// Coding of bfloat16 weights in 12 bits; weight.h has the format. Decoding is part of the
// register tiles (gemm_avx512.c).
//
// FLOPs: none; some 25 instructions for 64 weights, beside the transpose that makes their
// lines.
#include "coded.h"

#include <stdlib.h>

#ifdef __x86_64__
#include "avx512.h"

enum { ZERO = PG_CODES - 1 };

PG_AVX512 uint16_t pg_largest_bf16(const char *row, int n) {
	__m512i max = _mm512_setzero_si512(), sign = _mm512_set1_epi16(0x7FFF);
	for (int i = 0; i < n; i += 32) {
		__mmask32 there = n - i < 32 ? (__mmask32)((1u << (n - i)) - 1) : ~(__mmask32)0;
		max = _mm512_max_epu16(max, _mm512_and_si512(_mm512_maskz_loadu_epi16(there, row + 2 * i), sign));
	}
	uint16_t lanes[32], largest = 0;
	_mm512_storeu_si512(lanes, max);
	for (int i = 0; i < 32; i++) largest = lanes[i] > largest ? lanes[i] : largest;
	return largest;
}

void pg_code_begin(struct pg_coder *c, struct pg_codes *codes, uint16_t largest, char *out) {
	int base = largest >> 7;
	*c = (struct pg_coder){.codes = codes, .out = out, .base = base};
	for (int i = 0; i < PG_CODES; i++) {
		int exponent = i == ZERO || i > base ? 0 : base - i;
		codes->high[i] = exponent >> 1;
		codes->low[i] = exponent << 7;
	}
	codes->num_exceptions = 0;
	codes->exceptions = NULL;
	codes->kept = NULL;
}

// except lists the weights of a step that far says, half a's in its lower half.
static bool except(struct pg_coder *c, const char *lines, uint64_t far) {
	struct pg_codes *codes = c->codes;
	for (; far; far &= far - 1) {
		int at = __builtin_ctzll(far), half = at / 32, i = at % 32;
		uint16_t bits = ((const uint16_t *)lines)[at];
		if (codes->num_exceptions == c->most) return false;
		if (codes->num_exceptions == c->room) {
			int room = c->room ? 2 * c->room : 16;
			struct pg_exception *more = realloc(codes->exceptions, room * sizeof *more);
			if (!more) return false;
			codes->exceptions = more;
			c->room = room;
		}
		codes->exceptions[codes->num_exceptions++] = (struct pg_exception){
			.k = 2 * c->step + i % 2, .column = half * 16 + i / 2, .value = pg_from_bf16(bits),
		};
	}
	return true;
}

// split cuts a line's 32 weights into signs and mantissas, and codes; it returns which
// of them no code can say.
PG_INLINE __mmask32 split(__m512i line, int base, __m512i *rest, __m512i *codes) {
	__m512i exponent = _mm512_and_si512(_mm512_srli_epi16(line, 7), _mm512_set1_epi16(0xFF));
	__m512i below = _mm512_sub_epi16(_mm512_set1_epi16((short)base), exponent);
	__mmask32 zero = _mm512_testn_epi16_mask(exponent, exponent);
	__mmask32 far = _mm512_cmpge_epu16_mask(below, _mm512_set1_epi16(ZERO)) & ~zero;
	*codes = _mm512_mask_mov_epi16(below, zero | far, _mm512_set1_epi16(ZERO));
	__m512i sign = _mm512_and_si512(_mm512_srli_epi16(line, 8), _mm512_set1_epi16(0x80));
	__m512i mantissa = _mm512_and_si512(line, _mm512_set1_epi16(0x7F));
	*rest = _mm512_maskz_mov_epi16(~far, _mm512_or_si512(sign, mantissa));
	return far;
}

PG_INLINE void put(char *out, __m512i line, bool cached) {
	if (cached) _mm512_store_si512(out, line);
	else _mm512_stream_si512((void *)out, line);
}

PG_INLINE bool code_steps(struct pg_coder *c, const char *lines, int steps, bool cached) {
	for (int i = 0; i < steps; i += 2, lines += 2 * PG_STEP_BYTES, c->out += PG_PAIR_BYTES) {
		__m512i codes[2];
		for (int s = 0; s < 2; s++, c->step++) {
			const char *line = lines + s * PG_STEP_BYTES;
			__m512i rest_a, rest_b, codes_a, codes_b;
			uint64_t far = split(_mm512_loadu_si512(line), c->base, &rest_a, &codes_a);
			far |= (uint64_t)split(_mm512_loadu_si512(line + 64), c->base, &rest_b, &codes_b) << 32;
			put(c->out + s * 64, _mm512_packus_epi16(rest_a, rest_b), cached);
			codes[s] = _mm512_packus_epi16(codes_a, codes_b);
			if (far && !except(c, line, far)) return false;
		}
		put(c->out + 128, _mm512_or_si512(codes[0], _mm512_slli_epi16(codes[1], 4)), cached);
	}
	return true;
}

PG_AVX512 bool pg_code_steps(struct pg_coder *c, const char *lines, int steps) {
	return c->cached ? code_steps(c, lines, steps, true) : code_steps(c, lines, steps, false);
}

void pg_code_end(struct pg_coder *c) {
	_mm_sfence(); // the streamed lines
	struct pg_codes *codes = c->codes;
	if (!codes->exceptions) return;
	struct pg_exception *fitted = realloc(codes->exceptions, codes->num_exceptions * sizeof *fitted);
	if (fitted) codes->exceptions = fitted;
}
#endif

void pg_coded_row(const struct pg_weight *w, int panel, int column, float *out) {
	const struct pg_codes *codes = w->codes + panel;
	const char *pair = w->data + panel * pg_panel_bytes(w);
	int half = column / 16, word = column % 16 * 2; // of a line
	for (int k = 0; k < w->cols; k++) {
		const uint8_t *bytes = (const uint8_t *)pair + (int64_t)(k / 4) * PG_PAIR_BYTES;
		int step = k / 2 % 2, i = word + k % 2, at = i / 8 * 16 + half * 8 + i % 8;
		int code = bytes[128 + at] >> 4 * step & 15;
		uint8_t rest = bytes[64 * step + at], high = codes->high[code] | (rest & 0x80), low = codes->low[code] | (rest & 0x7F);
		out[k] = pg_from_bf16((uint16_t)(high << 8 | low));
	}
	for (int i = 0; i < codes->num_exceptions; i++)
		if (codes->exceptions[i].column == column) out[codes->exceptions[i].k] = codes->exceptions[i].value;
}
