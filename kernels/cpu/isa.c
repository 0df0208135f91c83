// Which code paths the processor has, and which is the fastest.
//
// CPUID says whether bf16 dot products are there, not whether they pay: AMD's
// Zen 4 and 5 issue them as fast as multiply-adds (twice the FLOP/s), Intel's
// Sapphire Rapids at half the rate (the same FLOP/s, less precision). A start-up
// timing decides.
#define _GNU_SOURCE
#include "device.h"

#include <time.h>

#ifdef __x86_64__
#include <immintrin.h>

bool pg_has(enum pg_isa isa) {
	__builtin_cpu_init();
	bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
	bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	              __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
	switch (isa) {
	case PG_ISA_SCALAR: return true;
	case PG_ISA_AVX2: return avx2;
	case PG_ISA_AVX512: return avx512;
	case PG_ISA_AVX512BF16: return avx512 && __builtin_cpu_supports("avx512bf16");
	}
	return false;
}

bool pg_has_vnni(void) { return pg_has(PG_ISA_AVX512) && __builtin_cpu_supports("avx512vnni"); }

enum { ROUNDS = 4000, CHAINS = 12 }; // 13 µs at one an ns

// The time that the thread itself ran: being held off its core does not count.
static int64_t own_ns(void) {
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static PG_AVX512 int64_t time_fma(void) {
	__m512 sum[CHAINS], x = _mm512_set1_ps(.5f);
	int64_t start = own_ns();
#pragma GCC unroll 12
	for (int c = 0; c < CHAINS; c++) __asm__ volatile("vpxorq %0, %0, %0" : "=v"(sum[c]));
	for (int i = 0; i < ROUNDS; i++)
#pragma GCC unroll 12
		for (int c = 0; c < CHAINS; c++) sum[c] = _mm512_fmadd_ps(x, x, sum[c]);
#pragma GCC unroll 12
	for (int c = 0; c < CHAINS; c++) __asm__ volatile("" ::"v"(sum[c]));
	return own_ns() - start;
}

static PG_AVX512BF16 int64_t time_dot(void) {
	__m512 sum[CHAINS];
	__m512bh x = (__m512bh)_mm512_set1_epi32(0x3F003F00);
	int64_t start = own_ns();
#pragma GCC unroll 12
	for (int c = 0; c < CHAINS; c++) __asm__ volatile("vpxorq %0, %0, %0" : "=v"(sum[c]));
	for (int i = 0; i < ROUNDS; i++)
#pragma GCC unroll 12
		for (int c = 0; c < CHAINS; c++) sum[c] = _mm512_dpbf16_ps(sum[c], x, x);
#pragma GCC unroll 12
	for (int c = 0; c < CHAINS; c++) __asm__ volatile("" ::"v"(sum[c]));
	return own_ns() - start;
}

// dot_pays: a dot product takes less than 1.6 times a multiply-add, of which it
// replaces two. The shortest of a few alternating trials counts.
static bool dot_pays(void) {
	int64_t fma = INT64_MAX, dot = INT64_MAX;
	for (int i = 0; i < 5; i++) {
		int64_t a = time_fma(), b = time_dot();
		fma = a < fma ? a : fma;
		dot = b < dot ? b : dot;
	}
	return dot * 10 < fma * 16;
}

enum pg_isa pg_best_isa(void) {
	if (pg_has(PG_ISA_AVX512BF16) && dot_pays()) return PG_ISA_AVX512BF16;
	for (int isa = PG_ISA_AVX512; isa > PG_ISA_SCALAR; isa--)
		if (pg_has(isa)) return isa;
	return PG_ISA_SCALAR;
}
#else
bool pg_has(enum pg_isa isa) { return isa == PG_ISA_SCALAR; }
bool pg_has_vnni(void) { return false; }
enum pg_isa pg_best_isa(void) { return PG_ISA_SCALAR; }
#endif
