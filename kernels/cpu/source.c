// Values of a checkpoint's tensors, rounded to bfloat16 (nearest even) or as float32.
#define _GNU_SOURCE
#include "source.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

// dummy is kernels.Dummy(seed, i)·scale + offset, rounded after each operation
// as Go does: contraction to a fused multiply-add would give other bits.
__attribute__((optimize("fp-contract=off")))
static uint16_t dummy(uint64_t seed, uint64_t i, float scale, float offset) {
	uint64_t z = seed + (i + 1) * 0x9E3779B97F4A7C15u;
	z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
	z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
	z ^= z >> 31;
	float u = (float)((int32_t)(z >> 40) - (1 << 23)) / (1 << 23);
	return pg_to_bf16(u * scale + offset);
}

void pg_fetch(const struct pg_source *src, int64_t i, int n, uint16_t *out) {
	if (!src->data) {
		for (int k = 0; k < n; k++) out[k] = dummy(src->seed, i + k, src->scale, src->offset);
		return;
	}
	switch (src->dtype) {
	case BF16:
		memcpy(out, (const uint16_t *)src->data + i, n * sizeof *out);
		return;
	case FP16:
		for (int k = 0; k < n; k++) {
			uint16_t h;
			memcpy(&h, (const char *)src->data + (i + k) * 2, 2);
			out[k] = pg_to_bf16(pg_from_fp16(h));
		}
		return;
	default:
		for (int k = 0; k < n; k++) {
			float f;
			memcpy(&f, (const char *)src->data + (i + k) * 4, 4);
			out[k] = pg_to_bf16(f);
		}
	}
}

float pg_fetch_float(const struct pg_source *src, int64_t i) {
	if (src->data && src->dtype == FP32) {
		float f;
		memcpy(&f, (const char *)src->data + i * 4, 4);
		return f;
	}
	if (src->data && src->dtype == FP16) {
		uint16_t h;
		memcpy(&h, (const char *)src->data + i * 2, 2);
		return pg_from_fp16(h);
	}
	uint16_t b;
	pg_fetch(src, i, 1, &b);
	return pg_from_bf16(b);
}

int64_t pg_element_bytes(const struct pg_source *src) { return src->dtype == FP32 ? 4 : 2; }

bool pg_read_file(int fd, char *out, int64_t bytes, int64_t at) {
	while (bytes > 0) {
		ssize_t n = pread(fd, out, bytes, at);
		if (n < 0 && errno == EINTR) continue;
		if (n <= 0) return false;
		out += n, at += n, bytes -= n;
	}
	return true;
}

float pg_largest(const struct pg_source *src, int64_t row, int cols) {
	int16_t max = 0;
	uint16_t chunk[PG_CHUNK];
	for (int k = 0; k < cols; k += PG_CHUNK) {
		int n = cols - k < PG_CHUNK ? cols - k : PG_CHUNK;
		pg_fetch(src, row * cols + k, n, chunk);
		for (int i = 0; i < n; i++) {
			int16_t bits = chunk[i] & 0x7FFF;
			max = bits > max ? bits : max;
		}
	}
	return pg_from_bf16((uint16_t)max);
}
