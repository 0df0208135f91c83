package cpu

// #include "device.h"
import "C"

import (
	"fmt"
	"strings"

	"github.com/pagoda-engine/pagoda/internal/machine"
)

// The code paths, slowest first; each needs what those before it need.
var codePaths = []struct {
	name  string
	isa   C.enum_pg_isa
	needs string
}{
	{"scalar", C.PG_ISA_SCALAR, "nothing"},
	{"avx2", C.PG_ISA_AVX2, "AVX2, FMA and F16C"},
	{"avx512", C.PG_ISA_AVX512, "AVX-512 F, BW, VL and DQ"},
	{"avx512bf16", C.PG_ISA_AVX512BF16, "AVX-512 F, BW, VL, DQ and BF16"},
}

// choosePath resolves Config.ISA; "" is the fastest path of this make of processor.
func choosePath(name string) (C.enum_pg_isa, error) {
	if name == "" {
		return C.pg_best_isa(), nil
	}
	var names []string
	for _, p := range codePaths {
		names = append(names, p.name)
		if p.name != name {
			continue
		}
		if !C.pg_has(p.isa) {
			return 0, fmt.Errorf("cpu: code path %q needs %s, which %s lacks; leave it empty to choose", name, p.needs, machine.ProcessorName())
		}
		return p.isa, nil
	}
	return 0, fmt.Errorf("cpu: unknown code path %q, want one of %s, or empty for the fastest", name, strings.Join(names, ", "))
}

// pathName is the code path's name as Info has it.
func pathName(isa C.enum_pg_isa, int8 bool) string {
	name := codePaths[isa].name
	if int8 {
		name += ", int8"
	}
	return name
}
