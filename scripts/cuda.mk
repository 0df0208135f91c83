# What BACKEND=cuda adds to the Makefile: the compiler, which comes as Python
# wheels, the kernels, and the library that stands for the driver.

CUDA_HOME  := $(CURDIR)/.cache/cuda/nvidia/cu13
NVCC       := $(CUDA_HOME)/bin/nvcc
TRAMPOLINE := .cache/cuda-build/libcuda.a
TAGS       := -tags cuda
TEST_TAGS  := -tags cuda,faults

# One image a file of kernels: machine code for the generic and the Hopper path,
# and PTX for what comes later. sm_86 and sm_89 come from the same PTX as sm_80.
# Compressed for size: many kernels are nearly the same.
NVCCFLAGS := -std=c++17 -O3 --Werror all-warnings -fatbin --compress-mode=size \
	-gencode 'arch=compute_80,code=[compute_80,sm_80,sm_86,sm_89]' \
	-gencode arch=compute_90a,code=sm_90a
IMAGES := $(patsubst kernels/cuda/%.cu,kernels/cuda/cubin/%.fatbin,$(wildcard kernels/cuda/*.cu))

export CGO_CFLAGS  := -O2 -g -Wno-deprecated-declarations -I$(CURDIR)/third_party/cuda-shim -I$(CUDA_HOME)/include
export CGO_LDFLAGS := -L$(CURDIR)/.cache/cuda-build

CUDA := $(TRAMPOLINE) cuda-images
.PHONY: cuda-images test-cuda dist

$(NVCC): requirements-cuda.txt
	scripts/cuda-compiler.sh

$(TRAMPOLINE): scripts/cuda-trampoline.sh third_party/cuda-shim/trampoline.c third_party/cuda-shim/cuda.h $(NVCC)
	@scripts/need.sh gcc
	CUDA_HOME=$(CUDA_HOME) scripts/cuda-trampoline.sh

# The files compile side by side, whatever make was told.
cuda-images: $(NVCC)
	@rm -f $(filter-out $(IMAGES),$(wildcard kernels/cuda/cubin/*.fatbin))
	@$(MAKE) --no-print-directory -j$(shell nproc) BACKEND=cuda $(IMAGES)

kernels/cuda/cubin/%.fatbin: kernels/cuda/%.cu $(wildcard kernels/cuda/*.cuh) scripts/cuda.mk
	@mkdir -p $(@D)
	@echo nvcc $<
	@$(NVCC) $(NVCCFLAGS) -o $@ $<

# What the tags add: plans, layouts and messages; on a GPU, everything else too.
test-cuda: $(CUDA)
	$(GO) test $(TEST_TAGS) $(TIMEOUT) ./kernels/cuda ./internal/cuda ./internal/nvml ./engine

## dist: an archive for a GPU machine that has no Go, under dist/ (BACKEND=cuda)
dist: $(TOKENIZERS) $(CUDA)
	scripts/dist.sh
