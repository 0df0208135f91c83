// Ceilings that benchmarks are printed beside, measured the way the kernels
// would reach them: reads as 1 and as 4 streams a thread with software prefetch,
// over a buffer larger than the caches; multiply-adds, or bf16 dot products, on enough
// independent sums to hide their latency.
#define _GNU_SOURCE
#include "probes.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "pool.h"

#ifdef __x86_64__
#include "avx512.h"
#endif

#define READ_BYTES (768LL << 20)
#define FMA_ROUNDS (1 << 21)
#define PASSES 6
#define MAX_THREADS 1024

struct probe {
	pthread_barrier_t barrier;
	enum pg_isa isa;
	char *data;
	int64_t bytes; // a thread
	int threads;
	bool read;
};

struct probe_thread {
	struct probe *p;
	int index;
	int64_t start[PASSES], end[PASSES];
	pthread_t thread;
	volatile uint64_t sink; // keeps the work from being optimized away
};

static uint64_t read_scalar(const char *data, int64_t bytes) {
	const uint64_t *w = (const uint64_t *)data;
	int64_t quarter = bytes / 32;
	uint64_t sum = 0;
	for (int64_t i = 0; i < quarter; i++)
		sum += w[i] ^ w[quarter + i] ^ w[2 * quarter + i] ^ w[3 * quarter + i];
	return sum;
}

static float fma_scalar(int rounds) {
	float sum[32] = {0}, y = 0.5f;
	__asm__ volatile("" : "+m"(sum), "+m"(y));
	for (int i = 0; i < rounds / 2; i++)
		for (int c = 0; c < 32; c++) sum[c] = sum[c] * y + y;
	float total = 0;
	for (int c = 0; c < 32; c++) total += sum[c];
	return total;
}

#ifdef __x86_64__
static inline __attribute__((always_inline)) PG_AVX512 uint64_t read_streams(const char *data, int64_t bytes, const int streams) {
	int64_t part = bytes / streams;
	__m512i sum[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
	for (int64_t i = 0; i < part; i += 4 / streams * 64) {
#pragma GCC unroll 4
		for (int q = 0; q < 4; q++) {
			const char *line = data + q % streams * part + i + q / streams * 64;
			_mm_prefetch(line + 40 * 64, _MM_HINT_T0);
			sum[q] = _mm512_xor_si512(sum[q], _mm512_load_si512(line));
		}
	}
	__m512i s = _mm512_xor_si512(_mm512_xor_si512(sum[0], sum[1]), _mm512_xor_si512(sum[2], sum[3]));
	return (uint64_t)_mm512_reduce_add_epi64(s);
}

// Which number of streams reads most differs between processors.
static PG_AVX512 uint64_t read_avx512(const char *data, int64_t bytes, int pass) {
	return pass % 2 ? read_streams(data, bytes, 1) : read_streams(data, bytes, 4);
}

static PG_AVX512 float fma_avx512(int rounds) {
	__m512 sum[16], x = _mm512_set1_ps(0.5f);
	__asm__ volatile("" : "+v"(x));
	// Each sum is made opaque, or the compiler would keep one chain for all.
#pragma GCC unroll 16
	for (int c = 0; c < 16; c++) {
		sum[c] = x;
		__asm__ volatile("" : "+v"(sum[c]));
	}
	for (int i = 0; i < rounds; i++)
#pragma GCC unroll 16
		for (int c = 0; c < 16; c++) sum[c] = _mm512_fmadd_ps(sum[c], x, x);
	for (int c = 1; c < 16; c++) sum[0] = _mm512_add_ps(sum[0], sum[c]);
	return _mm512_reduce_add_ps(sum[0]);
}

static PG_AVX512BF16 float dot_avx512(int rounds) {
	__m512 sum[16];
	__m512bh x = (__m512bh)_mm512_set1_epi32(0x3F003F00); // 0.5
	__asm__ volatile("" : "+v"(x));
#pragma GCC unroll 16
	for (int c = 0; c < 16; c++) {
		sum[c] = _mm512_setzero_ps();
		__asm__ volatile("" : "+v"(sum[c]));
	}
	for (int i = 0; i < rounds; i++)
#pragma GCC unroll 16
		for (int c = 0; c < 16; c++) sum[c] = _mm512_dpbf16_ps(sum[c], x, x);
	for (int c = 1; c < 16; c++) sum[0] = _mm512_add_ps(sum[0], sum[c]);
	return _mm512_reduce_add_ps(sum[0]);
}

static PG_AVX2 float fma_avx2(int rounds) {
	__m256 sum[12], x = _mm256_set1_ps(0.5f);
	__asm__ volatile("" : "+x"(x));
#pragma GCC unroll 12
	for (int c = 0; c < 12; c++) {
		sum[c] = x;
		__asm__ volatile("" : "+x"(sum[c]));
	}
	for (int i = 0; i < rounds; i++)
#pragma GCC unroll 12
		for (int c = 0; c < 12; c++) sum[c] = _mm256_fmadd_ps(sum[c], x, x);
	for (int c = 1; c < 12; c++) sum[0] = _mm256_add_ps(sum[0], sum[c]);
	float out[8];
	_mm256_storeu_ps(out, sum[0]);
	return out[0];
}
#endif

// flops_per_round of the loops above.
static int flops_per_round(enum pg_isa isa) {
	switch (isa) {
	case PG_ISA_AVX512BF16: return 16 * 32 * 2;
	case PG_ISA_AVX512: return 16 * 16 * 2;
	case PG_ISA_AVX2: return 12 * 8 * 2;
	default: return 16 * 2;
	}
}

static float multiply_add(enum pg_isa isa) {
	switch (isa) {
#ifdef __x86_64__
	case PG_ISA_AVX512BF16: return dot_avx512(FMA_ROUNDS);
	case PG_ISA_AVX512: return fma_avx512(FMA_ROUNDS);
	case PG_ISA_AVX2: return fma_avx2(FMA_ROUNDS);
#endif
	default: return fma_scalar(FMA_ROUNDS);
	}
}

static void run_pass(struct probe_thread *t, int pass) {
	struct probe *p = t->p;
	if (!p->read) {
		t->sink += (uint64_t)multiply_add(p->isa);
		return;
	}
	const char *part = p->data + t->index * p->bytes;
#ifdef __x86_64__
	if (p->isa >= PG_ISA_AVX512) {
		t->sink += read_avx512(part, p->bytes, pass);
		return;
	}
#endif
	(void)pass;
	t->sink += read_scalar(part, p->bytes);
}

static void *run_thread(void *arg) {
	struct probe_thread *t = arg;
	struct probe *p = t->p;
	if (p->read) {
		// Each thread touches its own part, so that it lies on its memory node.
		for (int64_t i = 0; i < p->bytes; i += 64) p->data[t->index * p->bytes + i] = 1;
	}
	for (int i = 0; i < PASSES; i++) {
		pthread_barrier_wait(&p->barrier);
		t->start[i] = pg_now_ns();
		run_pass(t, i);
		t->end[i] = pg_now_ns();
	}
	return NULL;
}

// run_probe returns the seconds of the shortest pass, from the first thread's
// start to the last one's end; −1 on failure.
static double run_probe(struct probe *p) {
	struct probe_thread *threads = calloc(p->threads, sizeof *threads);
	if (!threads) return -1;
	pthread_barrier_init(&p->barrier, NULL, p->threads + 1);
	int started = 0;
	for (; started < p->threads; started++) {
		threads[started] = (struct probe_thread){.p = p, .index = started};
		if (pthread_create(&threads[started].thread, NULL, run_thread, &threads[started]) != 0) abort();
	}
	for (int i = 0; i < PASSES; i++) pthread_barrier_wait(&p->barrier);
	for (int t = 0; t < p->threads; t++) pthread_join(threads[t].thread, NULL);
	double best = -1;
	for (int i = 0; i < PASSES; i++) {
		int64_t start = threads[0].start[i], end = threads[0].end[i];
		for (int t = 1; t < p->threads; t++) {
			if (threads[t].start[i] < start) start = threads[t].start[i];
			if (threads[t].end[i] > end) end = threads[t].end[i];
		}
		double seconds = (end - start) * 1e-9;
		if (best < 0 || seconds < best) best = seconds;
	}
	pthread_barrier_destroy(&p->barrier);
	free(threads);
	return best;
}

double pg_probe_read(enum pg_isa isa, int threads) {
	if (threads < 1 || threads > MAX_THREADS) return -1;
	struct probe p = {.isa = isa, .threads = threads, .read = true, .bytes = READ_BYTES / threads / 4096 * 4096};
	p.data = mmap(NULL, READ_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p.data == MAP_FAILED) return -1;
	madvise(p.data, READ_BYTES, MADV_HUGEPAGE);
	double seconds = run_probe(&p);
	munmap(p.data, READ_BYTES);
	return seconds < 0 ? -1 : (double)p.bytes * threads / seconds;
}

double pg_probe_fma(enum pg_isa isa, int threads) {
	if (threads < 1 || threads > MAX_THREADS) return -1;
	struct probe p = {.isa = isa, .threads = threads};
	double seconds = run_probe(&p);
	return seconds < 0 ? -1 : (double)FMA_ROUNDS * flops_per_round(isa) * threads / seconds;
}
