package cpu

// #include "device.h"
// #include "probes.h"
import "C"

import (
	"fmt"

	"github.com/pagoda-engine/pagoda/internal/machine"
	"github.com/pagoda-engine/pagoda/kernels"
)

// activation is the Go side's view of an activation buffer.
type activation struct {
	values              []float32
	rows, width, stride int
}

func (b *Backend) initActivations() {
	d := b.device
	for a, p := range map[kernels.Activation]*C.float{
		kernels.Hidden: d.hidden, kernels.Normed: d.normed, kernels.Query: d.query,
		kernels.Attn: d.attn, kernels.MLP: d.mlp, kernels.Logits: d.logits,
	} {
		rows, width := b.limits.MaxBatchedTokens, b.shape.Width(a)
		if a == kernels.Logits {
			rows = b.limits.MaxLogitRows
		}
		stride := int(C.pg_stride(C.int64_t(width)))
		b.acts[a] = activation{values: view[float32](p, rows*stride), rows: rows, width: width, stride: stride}
	}
}

// row is row i of the activation.
func (a *activation) row(i int) []float32 { return a.values[i*a.stride : i*a.stride+a.width] }

// ReadActivation implements kernels.Inspector.
func (b *Backend) ReadActivation(a kernels.Activation, rows int) []float32 {
	return b.readActivation(nil, a, rows)
}

// readActivation appends to out.
func (b *Backend) readActivation(out []float32, a kernels.Activation, rows int) []float32 {
	act := &b.acts[a]
	if rows < 0 || rows > act.rows {
		panic(fmt.Sprintf("cpu: %d rows of an activation of %d", rows, act.rows))
	}
	b.drain()
	for i := range rows {
		out = append(out, act.row(i)...)
	}
	return out
}

// WriteActivation implements kernels.Inspector.
func (b *Backend) WriteActivation(a kernels.Activation, values []float32) {
	act := &b.acts[a]
	if len(values)%act.width != 0 || len(values) > act.rows*act.width {
		panic(fmt.Sprintf("cpu: %d values for an activation of [%d, %d]", len(values), act.rows, act.width))
	}
	b.drain()
	for i := 0; i*act.width < len(values); i++ {
		copy(act.row(i), values[i*act.width:(i+1)*act.width])
	}
}

// SetTap implements kernels.Backend.
func (b *Backend) SetTap(fn func(op kernels.Op, layer int, out kernels.Activation, values []float32)) {
	b.tap = fn
}

// runTapped runs the operation that was just recorded, as a program of its own,
// and hands its output to the tap.
func (b *Backend) runTapped(s *step, name kernels.Op, out kernels.Activation) {
	p := &s.c.forward
	b.submit(s, p)
	b.drain()
	C.pg_program_quiet(p)
	if b.profiler != nil {
		b.collect(s, s.forwardOps[:p.num_ops])
	}
	rows := int(s.c.num_tokens)
	if out == kernels.Logits {
		rows = int(s.c.num_logits)
	}
	layer := int(s.forwardOps[0].layer)
	p.num_ops = 0
	b.tapped = b.readActivation(b.tapped[:0], out, rows)
	b.tap(name, layer, out, b.tapped)
}

// SetProfiler implements kernels.Backend.
func (b *Backend) SetProfiler(fn func(kernels.OpRecord)) {
	b.drain()
	C.pg_pool_time(b.device.pool, fn != nil)
	b.profiler, b.origin, b.records = fn, int64(C.pg_now_ns()), b.records[:0]
}

// report hands the records of what ran up to step s to the profiler.
func (b *Backend) report(s *step) {
	if b.profiler == nil {
		return
	}
	b.collect(s, s.forwardOps[:s.c.forward.num_ops])
	b.collect(s, s.sampleOps)
	for _, r := range b.records {
		b.profiler(r)
	}
	b.records = b.records[:0]
}

var opNames = map[C.int32_t]kernels.Op{
	C.PG_EMBED: kernels.OpEmbed, C.PG_RMSNORM: kernels.OpRMSNorm, C.PG_QKV: kernels.OpQKV,
	C.PG_ATTENTION: kernels.OpAttention, C.PG_LINEAR: kernels.OpLinear, C.PG_GATE_UP: kernels.OpGateUp,
	C.PG_HEAD: kernels.OpHead, C.PG_SAMPLE: kernels.OpSample, C.PG_KEEP: kernels.OpPrepare,
}

func (b *Backend) collect(s *step, ops []C.struct_pg_op) {
	of := &s.all
	for i := range ops {
		op := &ops[i]
		if op.kind == C.PG_KEEP {
			of = &s.kept
		}
		bytes, flops := b.cost(s, of, op)
		b.records = append(b.records, kernels.OpRecord{
			Op: opNames[op.kind], Part: partOf(op), Layer: int(op.layer), Start: nanoseconds(op.start_ns - C.int64_t(b.origin)),
			Duration: nanoseconds(op.end_ns - op.start_ns), Busy: nanoseconds(op.busy_ns), Bytes: bytes, FLOPs: flops,
		})
	}
}

// partOf tells the two plain products of a layer apart.
func partOf(op *C.struct_pg_op) string {
	switch {
	case op.kind != C.PG_LINEAR:
		return ""
	case op.src == C.PG_SRC_MLP:
		return "mlp"
	}
	return "attn"
}

// cost is the bytes that an operation must move and its floating-point
// operations, by the formulas in the heads of the C files.
func (b *Backend) cost(s *step, of *counts, op *C.struct_pg_op) (bytes, flops int64) {
	m := &b.shape
	n, logits, hidden := of.tokens, of.logits, int64(m.Hidden)
	heads, kvHeads, dim := int64(m.Heads), int64(m.KVHeads), int64(m.HeadDim)
	// A product of n rows by a weight: activations in, out, and the weight.
	product := func(n, out int64) (int64, int64) {
		w := op.w
		if n == 0 { // the head of a step without logits reads nothing
			return 0, 0
		}
		return int64(w.bytes) + 4*n*(int64(w.cols)+out), 2 * n * int64(w.rows) * int64(w.cols)
	}
	switch op.kind {
	case C.PG_EMBED:
		return n * hidden * (2 + 4), 0
	case C.PG_RMSNORM:
		return 4 * (2*n + 1) * hidden, 4 * n * hidden
	case C.PG_QKV:
		return product(n, heads*dim+kvHeads*dim) // K and V have 2 bytes each
	case C.PG_ATTENTION:
		return 4*of.context*kvHeads*dim + 8*n*heads*dim, 4 * of.attended * heads * dim
	case C.PG_LINEAR:
		return product(n, 2*hidden) // read and written
	case C.PG_GATE_UP:
		return product(n, int64(m.Intermediate))
	case C.PG_HEAD:
		return product(logits, int64(m.Vocab))
	case C.PG_KEEP:
		return 8 * n * (hidden + heads*dim), 0
	}
	return 4 * int64(s.c.num_samples) * int64(m.Vocab), 0
}

// ProbeReadBandwidth measures the bytes per second that the given number of
// threads read from memory together, on the fastest code path; 0 threads = all
// processors. It takes about a second.
func ProbeReadBandwidth(threads int) float64 {
	return float64(C.pg_probe_read(C.pg_best_isa(), C.int(probeThreads(threads))))
}

// ProbeFMAPeak measures the operations per second (a multiply-add is two) of the
// given number of threads, on the path that has the most: float32 multiply-adds or
// bf16 dot products; 0 threads = all processors.
func ProbeFMAPeak(threads int) float64 {
	best := 0.0
	for _, p := range codePaths[1:] {
		if C.pg_has(p.isa) {
			best = max(best, float64(C.pg_probe_fma(p.isa, C.int(probeThreads(threads)))))
		}
	}
	if best == 0 {
		best = float64(C.pg_probe_fma(C.PG_ISA_SCALAR, C.int(probeThreads(threads))))
	}
	return best
}

func probeThreads(threads int) int {
	if threads <= 0 {
		return machine.Processors()
	}
	return threads
}

// Probe implements kernels.Prober, with as many threads as the Backend has.
func (b *Backend) Probe() kernels.Ceilings {
	return kernels.Ceilings{
		ReadBytesPerSecond: ProbeReadBandwidth(b.info.Threads), FLOPsPerSecond: ProbeFMAPeak(b.info.Threads),
	}
}
