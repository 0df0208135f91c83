// Package cpu is the kernels.Backend of the host's processor: C by cgo, on a
// pool of worker threads.
//
// # Cast
//
//   - Backend: the Go side. It checks what it is given, fills C arrays and
//     records operations without calling C.
//   - pg_device, pg_step, pg_program (kernels.h): the device's memory, one step's
//     batch and results, and a list of operations that the workers run.
//   - pg_pool (pool.c): the workers. A program is submitted in one crossing; its
//     operations are cut into tiles that threads claim; waiting threads spin for
//     at most 20 µs, then sleep.
//   - pg_weight (weight.h): bfloat16 or int8 packed in panels of 32 outputs, one
//     layout for one token and for many. Where AVX-512 is, bfloat16 is coded in 12
//     bits, without loss, and what comes from files is packed after loading (deferred.h).
//   - one C file an operation: embed, norm, qkv, gemm, attention, keep, sample, kv.
//
// # Code paths
//
// "avx512bf16" needs AVX-512 F, BW, VL, DQ and BF16; "avx512" all but the last;
// "avx2" AVX2, FMA and F16C; "scalar" is plain C, the reference, and what other
// architectures build. One binary holds all; New chooses by CPUID and the
// processor's maker. Int8 weights use VNNI where it is.
//
// # Life of a step
//
// Launch fills the step, calls forward, which records, and submits: the workers
// run the forward pass while the caller goes on. Sample submits the draw behind
// it. Wait sleeps until that is done. Steps, copies and swaps run in the order
// they were issued; UpdateRows, CopyBlocks, SwapOut and SwapIn first wait for the
// step under way, since a processor has no second engine to copy with.
//
// # Invariants
//
//  1. Results do not depend on the batch, the chunking, the number of threads or
//     on which thread ran what, nor on what is packed yet: every sum has one fixed order. The Backend is
//     always batch-invariant, so Limits.BatchInvariant changes nothing.
//  2. Nothing is allocated a step, once the load is complete; Setup maps all of it, the
//     system gives pages when they are first touched.
//  3. Activations are float32. "avx512bf16" rounds what enters a matrix product to
//     bfloat16, int8 weights to int8, for every batch alike.
package cpu

/*
#cgo CFLAGS: -O3 -std=gnu11 -Wall -Wextra
#cgo LDFLAGS: -lm -lpthread
#include <stdlib.h>
#include "device.h"

// The contract's layouts that Go hands over as they are.
_Static_assert(sizeof(struct pg_token_bias) == 8, "kernels.TokenBias");
*/
import "C"

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"github.com/pagoda-engine/pagoda/internal/machine"
	"github.com/pagoda-engine/pagoda/kernels"
)

// Config configures a Backend.
type Config struct {
	// Threads is the number of worker threads; 0 = the processors that are
	// really there: affinity and the cgroup's quota.
	Threads int
	// ISA forces a code path, "avx512bf16", "avx512", "avx2" or "scalar"; "" = the
	// fastest that the processor has.
	ISA string
	// Int8 makes the linear weights and a tied embedding int8 as they load, one
	// scale an output; products take activations as int8 too, one scale for 32.
	Int8 bool
	// Uncoded keeps bfloat16 weights as they are. Otherwise the AVX-512 paths code those of
	// linear layers and a tied embedding in 12 bits: nothing is lost, and a decode step
	// reads a quarter less.
	Uncoded bool
	// MemoryLimit is what Info.TotalMemory reports, in bytes; 0 = the memory
	// that is available to the process.
	MemoryLimit int64
}

// Backend implements kernels.Backend.
type Backend struct {
	info   kernels.Info
	device *C.struct_pg_device
	shape  kernels.Shape
	limits kernels.Limits
	kv     kernels.PagedKV

	workspace      unsafe.Pointer // pg_setup's mapping; nil before
	workspaceBytes int64
	weights        []*weight
	deferred       deferred
	rows           []row
	acts           [kernels.Logits + 1]activation

	numBlocks, hostBlocks int // of the pool
	swaps                 kernels.Ticket
	swapTook              [16]time.Duration // of the last swaps

	steps     [C.PG_STEPS]step
	issued    kernels.Ticket // steps launched so far
	open      *step          // launched and not sampled
	recording bool           // inside Launch
	layer     int            // that is being recorded
	submitted C.uint64_t     // number of the last program
	err       error          // the first failure

	tap      func(kernels.Op, int, kernels.Activation, []float32)
	tapped   []float32
	profiler func(kernels.OpRecord)
	origin   int64 // pg_now_ns of SetProfiler
	records  []kernels.OpRecord

	stopIDs []int32 // scratch of UpdateRows
	bias    []kernels.TokenBias
}

var (
	_ kernels.Backend   = (*Backend)(nil)
	_ kernels.Completer = (*Backend)(nil)
)

// New starts the worker threads.
func New(cfg Config) (*Backend, error) {
	isa, err := choosePath(cfg.ISA)
	if err != nil {
		return nil, err
	}
	const maxThreads = 1024
	if cfg.Threads < 0 || cfg.Threads > maxThreads {
		return nil, fmt.Errorf("cpu: %d threads, want 0 (all processors) to %d", cfg.Threads, maxThreads)
	}
	threads := cfg.Threads
	if threads == 0 {
		threads = machine.Processors()
	}
	memory := cfg.MemoryLimit
	if memory <= 0 {
		memory, _ = machine.AvailableMemory()
	}
	d := (*C.struct_pg_device)(C.calloc(1, C.sizeof_struct_pg_device))
	d.isa, d.threads = isa, C.int32_t(threads)
	// Each path has the dot products of its age, so that a forced one is what that
	// processor would run.
	d.vnni = C.bool(isa >= C.PG_ISA_AVX512 && bool(C.pg_has_vnni()))
	switch {
	case cfg.Int8:
		d.format = C.PG_INT8
	case isa >= C.PG_ISA_AVX512 && !cfg.Uncoded:
		d.format = C.PG_BF16_CODED
	}
	pool, err := C.pg_pool_new(d, C.int(threads))
	if pool == nil {
		C.free(unsafe.Pointer(d))
		return nil, fmt.Errorf("cpu: starting %d threads: %w", threads, err)
	}
	d.pool = pool
	return &Backend{device: d, info: kernels.Info{
		Backend: "cpu", Device: machine.ProcessorName(), Path: pathName(isa, cfg.Int8), Threads: threads, TotalMemory: memory, ReadsFiles: true,
	}}, nil
}

// Info implements kernels.Backend.
func (b *Backend) Info() kernels.Info { return b.info }

func cShape(s kernels.Shape) C.struct_pg_shape {
	sampleVocab := s.SampleVocab
	if sampleVocab == 0 {
		sampleVocab = s.Vocab
	}
	return C.struct_pg_shape{
		layers: C.int32_t(s.Layers), hidden: C.int32_t(s.Hidden), intermediate: C.int32_t(s.Intermediate),
		heads: C.int32_t(s.Heads), kv_heads: C.int32_t(s.KVHeads), head_dim: C.int32_t(s.HeadDim),
		vocab: C.int32_t(s.Vocab), sample_vocab: C.int32_t(sampleVocab),
		rms_eps: C.float(s.RMSEps), rope_scale: C.float(s.RopeScale),
	}
}

func cLimits(l kernels.Limits) C.struct_pg_limits {
	return C.struct_pg_limits{
		max_batched_tokens: C.int32_t(l.MaxBatchedTokens), max_seqs: C.int32_t(l.MaxSeqs),
		max_model_len: C.int32_t(l.MaxModelLen), max_logit_rows: C.int32_t(l.MaxLogitRows),
		block_size: C.int32_t(l.BlockSize), max_top_logprobs: C.int32_t(l.MaxTopLogprobs),
	}
}

// WorkspaceBytes implements kernels.Backend.
func (b *Backend) WorkspaceBytes(shape kernels.Shape, limits kernels.Limits) int64 {
	s, l := cShape(shape), cLimits(limits)
	return int64(C.pg_workspace_bytes(b.device, &s, &l))
}

// checkShape returns what the kernels cannot do.
func checkShape(s kernels.Shape, l kernels.Limits) error {
	if s.HeadDim < 16 || s.HeadDim%16 != 0 || s.KVHeads < 1 || s.Heads < 1 || s.Heads%s.KVHeads != 0 {
		return fmt.Errorf("cpu: %d heads of %d over %d KV heads: the head size must be a multiple of 16 and the KV heads must divide the heads", s.Heads, s.HeadDim, s.KVHeads)
	}
	if s.Hidden%2 != 0 || s.Intermediate%2 != 0 {
		return fmt.Errorf("cpu: hidden size %d, intermediate size %d: weights are packed in pairs, so both must be even", s.Hidden, s.Intermediate)
	}
	if len(s.InvFreq) != s.HeadDim/2 {
		return fmt.Errorf("cpu: %d RoPE frequencies, want %d", len(s.InvFreq), s.HeadDim/2)
	}
	if s.SampleVocab > s.Vocab {
		return fmt.Errorf("cpu: SampleVocab %d exceeds Vocab %d", s.SampleVocab, s.Vocab)
	}
	if l.MaxBatchedTokens < 1 || l.MaxSeqs < 1 || l.MaxModelLen < 1 || l.MaxLogitRows < l.MaxSeqs {
		return fmt.Errorf("cpu: limits %+v: want positive ones and MaxLogitRows of at least MaxSeqs", l)
	}
	return nil
}

// Setup implements kernels.Backend. Memory comes page by page as it is used: what lies
// beyond the limits in force takes none.
func (b *Backend) Setup(shape kernels.Shape, limits, _ kernels.Limits) error {
	if b.workspace != nil {
		panic("cpu: Setup called twice")
	}
	if err := checkShape(shape, limits); err != nil {
		return err
	}
	d := b.device
	b.shape, b.limits, b.kv = shape, limits, kernels.NewPagedKV(shape, limits.BlockSize)
	d.shape, d.limits = cShape(shape), cLimits(limits)
	d.kv = C.struct_pg_kv{
		block: C.int64_t(b.kv.Block), layer: C.int64_t(b.kv.Layer), value: C.int64_t(b.kv.Value),
		head: C.int64_t(b.kv.Head), token: C.int64_t(b.kv.Token),
	}
	if err := b.reservePool(); err != nil {
		return err
	}
	var steps [C.PG_STEPS]C.struct_pg_step
	bytes := b.WorkspaceBytes(shape, limits)
	base, err := C.pg_setup(d, &steps[0])
	if base == nil {
		b.freePool()
		return fmt.Errorf("cpu: reserving %d bytes of workspace: %w: %w", bytes, kernels.ErrOutOfMemory, err)
	}
	b.workspace, b.workspaceBytes = base, bytes
	copy(unsafe.Slice((*float32)(unsafe.Pointer(d.inv_freq)), len(shape.InvFreq)), shape.InvFreq)
	for i := range b.steps {
		b.steps[i].init(steps[i], b)
	}
	b.initRows()
	b.initActivations()
	return nil
}

// SetLimits implements kernels.Backend. Pages that a smaller step does not touch
// cost nothing, so there is nothing to do.
func (b *Backend) SetLimits(l kernels.Limits) error {
	if l.MaxBatchedTokens > b.limits.MaxBatchedTokens || l.MaxSeqs > b.limits.MaxSeqs || l.MaxLogitRows > b.limits.MaxLogitRows {
		return fmt.Errorf("cpu: limits %+v exceed those of Setup, %+v", l, b.limits)
	}
	return nil
}

// Sync implements kernels.Backend.
func (b *Backend) Sync() error {
	b.drain()
	return b.err
}

// drain waits for everything that was submitted.
func (b *Backend) drain() { C.pg_wait(b.device.pool, b.submitted) }

// fail makes err sticky.
func (b *Backend) fail(err error) {
	if b.err == nil {
		b.err = err
	}
}

var errClosed = errors.New("cpu: the backend is closed")

// Close implements kernels.Backend. It waits for what was issued.
func (b *Backend) Close() error {
	if b.device == nil {
		return errClosed
	}
	b.drain()
	C.pg_pool_free(b.device.pool)
	b.deferred.close(b.device)
	for _, w := range b.weights {
		C.pg_weight_free(w.c)
	}
	if b.workspace != nil {
		C.pg_rows_free(b.device)
		for i := range b.steps {
			C.free(unsafe.Pointer(b.steps[i].c))
		}
		C.pg_workspace_free(b.workspace, C.int64_t(b.workspaceBytes))
		b.freePool()
	}
	C.free(unsafe.Pointer(b.device))
	*b = Backend{info: b.info, err: errClosed}
	return nil
}

// nanoseconds is a C time as a Duration.
func nanoseconds(ns C.int64_t) time.Duration { return time.Duration(ns) }
