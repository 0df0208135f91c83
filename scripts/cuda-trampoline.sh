#!/usr/bin/env bash
# Builds .cache/cuda-build/libcuda.a, the library that -lcuda finds: see
# third_party/cuda-shim/trampoline.c. CUDA_HOME names the headers.
set -euo pipefail
cd "$(dirname "$0")/.."
cuda=${CUDA_HOME:-.cache/cuda/nvidia/cu13}
out=.cache/cuda-build
mkdir -p $out
names=$(echo '#include <cuda.h>' | gcc -Ithird_party/cuda-shim "-I$cuda/include" -E -P -x c - | tr '\n' ' ' |
	grep -oE 'CUresult +cu[A-Z][A-Za-z0-9_]* *\(' | grep -oE 'cu[A-Z][A-Za-z0-9_]*' | sort -u | grep -vx cuInit)
[ "$(wc -w <<<"$names")" -gt 300 ] || { echo "cuda-trampoline: too few functions in $cuda/include/cuda.h" >&2; exit 1; }

for name in $names; do echo "NAME(\"$name\")"; done >$out/names.h
{
	i=0
	case $(uname -m) in
	x86_64)
		for name in $names; do
			echo ".globl $name; .hidden $name; .type $name,@function"
			echo "$name: movq pagoda_cuda_table+$((8 * i))(%rip), %r11; testq %r11, %r11; je 1f; jmp *%r11; 1: movl \$$i, %r11d; jmp resolve"
			i=$((i + 1))
		done
		cat <<-'ASM'
			resolve: # keeps the arguments, which the function at hand will take
			pushq %rdi; pushq %rsi; pushq %rdx; pushq %rcx; pushq %r8; pushq %r9
			subq $136, %rsp
			movups %xmm0, (%rsp); movups %xmm1, 16(%rsp); movups %xmm2, 32(%rsp); movups %xmm3, 48(%rsp)
			movups %xmm4, 64(%rsp); movups %xmm5, 80(%rsp); movups %xmm6, 96(%rsp); movups %xmm7, 112(%rsp)
			movl %r11d, %edi
			call pagoda_cuda_resolve
			movq %rax, %r11
			movups (%rsp), %xmm0; movups 16(%rsp), %xmm1; movups 32(%rsp), %xmm2; movups 48(%rsp), %xmm3
			movups 64(%rsp), %xmm4; movups 80(%rsp), %xmm5; movups 96(%rsp), %xmm6; movups 112(%rsp), %xmm7
			addq $136, %rsp
			popq %r9; popq %r8; popq %rcx; popq %rdx; popq %rsi; popq %rdi
			jmp *%r11
		ASM
		;;
	aarch64)
		for name in $names; do
			echo ".globl $name; .hidden $name; .type $name,%function"
			echo "$name: adrp x16, pagoda_cuda_table+$((8 * i)); ldr x16, [x16, :lo12:pagoda_cuda_table+$((8 * i))]; cbz x16, 1f; br x16; 1: mov w17, #$i; b resolve"
			i=$((i + 1))
		done
		cat <<-'ASM'
			resolve:
			stp x29, x30, [sp, #-208]!
			stp x0, x1, [sp, #16]; stp x2, x3, [sp, #32]; stp x4, x5, [sp, #48]; stp x6, x7, [sp, #64]
			stp q0, q1, [sp, #80]; stp q2, q3, [sp, #112]; stp q4, q5, [sp, #144]; stp q6, q7, [sp, #176]
			mov w0, w17
			bl pagoda_cuda_resolve
			mov x16, x0
			ldp x0, x1, [sp, #16]; ldp x2, x3, [sp, #32]; ldp x4, x5, [sp, #48]; ldp x6, x7, [sp, #64]
			ldp q0, q1, [sp, #80]; ldp q2, q3, [sp, #112]; ldp q4, q5, [sp, #144]; ldp q6, q7, [sp, #176]
			ldp x29, x30, [sp], #208
			br x16
		ASM
		;;
	*) echo "cuda-trampoline: no jumps for $(uname -m)" >&2; exit 1 ;;
	esac
	echo '.section .note.GNU-stack,"",%progbits'
} >$out/jumps.s
gcc -O2 -fPIC "-I$out" -c third_party/cuda-shim/trampoline.c -o $out/trampoline.o
gcc -c $out/jumps.s -o $out/jumps.o
rm -f $out/libcuda.a
ar rcs $out/libcuda.a $out/trampoline.o $out/jumps.o
