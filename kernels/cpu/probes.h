// Ceilings of the machine. See probes.c.
#pragma once

#include "kernels.h"

// pg_probe_read is the bytes per second that the threads read from memory
// together, pg_probe_fma the operations per second (a multiply-add is two) of the
// code path's matrix products: in float32, or as bf16 dot products. Both are the best of several passes; −1: no memory or
// no threads.
double pg_probe_read(enum pg_isa isa, int threads);
double pg_probe_fma(enum pg_isa isa, int threads);
