// Which code paths the processor has, and which is the fastest.
//
// CPUID says whether bf16 dot products are there, not whether they pay: AMD's
// Zen 4 and 5 issue them as fast as multiply-adds (twice the FLOP/s), Intel's
// Sapphire Rapids at half the rate (the same FLOP/s, less precision). The maker
// decides and not a timing: the path changes low bits of every answer, so it must
// be the same at every start on a machine.
#include "device.h"

#ifdef __x86_64__
bool pg_has(enum pg_isa isa) {
	__builtin_cpu_init();
	bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
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

enum pg_isa pg_best_isa(void) {
	if (pg_has(PG_ISA_AVX512BF16) && __builtin_cpu_is("amd")) return PG_ISA_AVX512BF16;
	for (int isa = PG_ISA_AVX512; isa > PG_ISA_SCALAR; isa--)
		if (pg_has(isa)) return isa;
	return PG_ISA_SCALAR;
}
#else
bool pg_has(enum pg_isa isa) { return isa == PG_ISA_SCALAR; }
bool pg_has_vnni(void) { return false; }
enum pg_isa pg_best_isa(void) { return PG_ISA_SCALAR; }
#endif
