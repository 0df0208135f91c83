// Values of a checkpoint's tensors. source.c.
#pragma once

#include "weight.h"

enum { BF16, FP16, FP32 }; // kernels.DType
enum { PG_CHUNK = 64 }; // columns at a time that are fetched from rows of any kind

// pg_fetch reads n elements of the source from element i on, as bfloat16.
void pg_fetch(const struct pg_source *src, int64_t i, int n, uint16_t *out);

// pg_fetch_float reads element i without rounding it.
float pg_fetch_float(const struct pg_source *src, int64_t i);

int64_t pg_element_bytes(const struct pg_source *src);

// pg_read_file reads all of a range; false: it cannot.
bool pg_read_file(int fd, char *out, int64_t bytes, int64_t at);

// pg_largest is the greatest |w| of a row, as bfloat16. As integers, magnitudes have the
// order of their bits, and a NaN is the greatest.
float pg_largest(const struct pg_source *src, int64_t row, int cols);
