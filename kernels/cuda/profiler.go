//go:build cuda

package cuda

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/pagoda-engine/pagoda/internal/cuda"
	"github.com/pagoda-engine/pagoda/kernels"
)

// profiler times operations: what the device ran for each of them by CUPTI, or,
// where that is not installed, each as a whole by events between them. A fault of
// its own ends the profile and nothing else.
type profiler struct {
	fn    func(kernels.OpRecord)
	began time.Time
	notes []string

	tracer *cuda.Tracer // nil: events
	looked bool         // for CUPTI
	clock  uint64       // the tracer's at began
	// traced are the operations as the host issued them; a place in it, from 1, is
	// the operation's id for the tracer.
	traced []kernels.OpRecord
	// graphs are the kernels of the graphs that were replayed, by their ids: those of
	// the first operation.
	graphs map[uint64][]graphKernel
	dry    []graphKernel // of the replay that is being described
	state  profiling

	origin cuda.Event
	events []cuda.Event // not in use
	from   cuda.Event   // of the operation under way
	issued time.Duration
}

// graphKernel is a kernel of a graph, and its operation's place in traced.
type graphKernel struct {
	op   int
	name string
}

// profiling is what operations mean to the profiler.
type profiling uint8

const (
	live       profiling = iota // they are issued
	capturing                   // they become a graph
	describing                  // a graph has them, which was launched: nothing is issued
)

// record is an operation between two events.
type record struct {
	kernels.OpRecord
	start, end cuda.Event
}

// libcupti is CUPTI's library of CUDA 13, whose records the shim reads.
const libcupti = "libcupti.so.13"

// tracerPaths are where it may be: with the system's libraries, beside this
// program, in a CUDA toolkit.
func tracerPaths() []string {
	paths := []string{libcupti}
	if self, err := os.Executable(); err == nil {
		paths = append(paths, filepath.Join(filepath.Dir(self), libcupti))
	}
	return append(paths, "/usr/local/cuda/extras/CUPTI/lib64/"+libcupti, "/usr/local/cuda/lib64/"+libcupti)
}

// ProfileNotes implements kernels.ProfileNoter.
func (b *Backend) ProfileNotes() []string { return b.profiler.notes }

// note adds a note, once.
func (p *profiler) note(s string) {
	if !slices.Contains(p.notes, s) {
		p.notes = append(p.notes, s)
	}
}

// SetProfiler implements kernels.Backend.
func (b *Backend) SetProfiler(fn func(kernels.OpRecord)) {
	b.flush()
	p := &b.profiler
	if p.fn != nil {
		b.endProfile()
	}
	if fn == nil || b.err != nil {
		return
	}
	b.drain()
	p.notes = nil
	p.began, p.fn = time.Now(), fn
	if b.startTracer() {
		b.fail("profile", b.graphs.renew()) // CUPTI has not seen how they were made
		return
	}
	if len(b.graphs.sizes) > 0 {
		p.note("decode steps ran operation by operation, not as CUDA graphs: gaps between operations are larger than without the profiler")
	}
	p.origin = p.event()
	p.check(p.origin.Record(&b.compute))
}

// startTracer says whether CUPTI records.
func (b *Backend) startTracer() bool {
	p := &b.profiler
	if p.tracer == nil && !p.looked {
		p.looked = true
		var err error
		if p.tracer, err = cuda.OpenTracer(tracerPaths()...); err != nil {
			p.tracer = nil
		}
	}
	const without = "operations are timed by CUDA events: no kernels, copies and occupancy"
	if p.tracer == nil {
		p.notes = append(p.notes, "CUPTI ("+libcupti+") is not installed, "+without+"; the Python package nvidia-cuda-cupti has it, put it beside the program or on LD_LIBRARY_PATH")
		return false
	}
	err := p.tracer.Start()
	if err == nil {
		p.began = time.Now()
		p.clock, err = p.tracer.Now()
	}
	if err != nil {
		p.tracer = nil // it will not get better
		p.notes = append(p.notes, err.Error()+": "+without)
		return false
	}
	p.traced, p.graphs = p.traced[:0], map[uint64][]graphKernel{}
	return true
}

// endProfile delivers what the tracer saw.
func (b *Backend) endProfile() {
	p := &b.profiler
	fn := p.fn
	p.fn = nil
	if p.tracer == nil {
		p.dropOrigin()
		return
	}
	b.drain()
	if err := p.tracer.Stop(); err != nil {
		p.notes = append(p.notes, fmt.Sprintf("the profiler failed at its end: %v", err))
	}
	if n := p.tracer.Dropped(); n > 0 {
		p.notes = append(p.notes, fmt.Sprintf("CUPTI dropped %d records for want of room: record fewer steps (--steps)", n))
	}
	b.fail("profile", b.graphs.renew()) // they may have become slower by being seen
	if b.err != nil {
		return
	}
	ops, strange := assemble(p.traced, p.graphs, p.tracer.Take(), p.clock)
	defer func() { p.traced, p.graphs = nil, nil }()
	if strange > 0 {
		p.notes = append(p.notes, fmt.Sprintf("the kernels of %d of %d CUDA graphs could not be told apart, their operations have no times: --enforce-eager records each by itself", strange, len(p.graphs)))
	}
	for _, r := range ops {
		fn(r)
	}
}

// check ends the profile when one of its own calls failed.
func (p *profiler) check(err error) {
	if err != nil && p.fn != nil {
		p.notes = append(p.notes, fmt.Sprintf("the profiler failed and stopped, steps go on: %v", err))
		if p.tracer != nil {
			_ = p.tracer.Stop() // the first error says more
		}
		p.dropOrigin()
		p.fn = nil
	}
}

func (p *profiler) dropOrigin() {
	if p.origin != (cuda.Event{}) {
		p.events, p.origin = append(p.events, p.origin), cuda.Event{}
	}
}

// event takes one that is not in use.
func (p *profiler) event() cuda.Event {
	if n := len(p.events); n > 0 {
		e := p.events[n-1]
		p.events = p.events[:n-1]
		return e
	}
	e, err := cuda.NewEvent()
	p.check(err)
	return e
}

// begin starts an operation of the compute stream or, when the tracer sees both,
// of the swap stream.
func (p *profiler) begin(b *Backend) {
	if p.fn == nil || p.state == capturing || b.err != nil {
		return
	}
	p.issued = time.Since(p.began)
	if p.state == describing {
		return
	}
	if p.tracer != nil {
		p.check(p.tracer.Push(uint64(len(p.traced) + 1)))
		return
	}
	p.from = p.event()
	p.check(p.from.Record(&b.compute))
}

// end ends it. Between steps it belongs to the next one.
func (p *profiler) end(b *Backend, op kernels.Op, bytes, flops int64) {
	if p.fn == nil || p.state == capturing || b.err != nil {
		return
	}
	r := kernels.OpRecord{
		Op: op, Part: b.run.part, Layer: b.run.layer, Bytes: bytes, FLOPs: flops, Issued: p.issued, IssueTime: time.Since(p.began) - p.issued,
	}
	s := b.run.step
	switch op {
	case kernels.OpCopy, kernels.OpSwapOut, kernels.OpSwapIn:
		r.Layer, s = -1, nil
	case kernels.OpPrepare, kernels.OpSample:
		r.Layer = -1
	}
	if p.tracer != nil {
		if p.state == live {
			p.check(p.tracer.Pop())
		}
		r.Step = b.issued + 1
		if s != nil {
			r.Step = s.ticket
		}
		p.traced = append(p.traced, r)
		return
	}
	to := p.event()
	p.check(to.Record(&b.compute))
	if s == nil { // it is reported with the step that is to come
		s = &b.steps[int(b.issued)%stepRing]
	}
	s.records = append(s.records, record{r, p.from, to})
}

// report hands a finished step's records to the profiler.
func (b *Backend) report(s *step) {
	p := &b.profiler
	var out []kernels.OpRecord
	for i := range s.records {
		r := &s.records[i]
		if p.fn != nil {
			start, err := r.start.Since(&p.origin)
			p.check(err)
			r.Start = max(start, 0)
			r.Duration, err = r.end.Since(&r.start)
			p.check(err)
			out = append(out, r.OpRecord)
		}
		p.events = append(p.events, r.start, r.end)
	}
	s.records = s.records[:0]
	slices.SortStableFunc(out, func(a, b kernels.OpRecord) int { return cmp.Compare(a.Start, b.Start) })
	for _, r := range out {
		if p.fn != nil {
			p.fn(r)
		}
	}
}

func (p *profiler) destroy() error {
	var errs []error
	for i := range p.events {
		errs = append(errs, p.events[i].Destroy())
	}
	return errors.Join(errs...)
}

// beginReplay and endReplay enclose the launch of a graph: the tracer ties its
// kernels to the id of its first operation.
func (p *profiler) beginReplay(b *Backend) {
	if p.fn != nil && b.err == nil {
		p.check(p.tracer.Push(uint64(len(p.traced) + 1)))
	}
}

func (p *profiler) endReplay(b *Backend, s *step, g *graph, samples int) {
	if p.fn != nil && b.err == nil {
		p.check(p.tracer.Pop())
	}
	if p.fn == nil || b.err != nil {
		return
	}
	id := uint64(len(p.traced) + 1)
	p.state = describing
	b.describe(s, g, samples)
	p.state = live
	p.graphs[id], p.dry = p.dry, nil
}

// describe goes through a graph's operations as if they were issued.
func (b *Backend) describe(s *step, g *graph, samples int) {
	shape := b.run
	b.run.step = s
	b.beginPrepare()
	b.prepareTurn(g.size)
	b.issue(s, b.identity[:g.size+1], nil, g.size, g.size, true, g.forward)
	b.begin(kernels.OpSample)
	b.runSample(g.size, true)
	b.end(kernels.OpSample, sampleBytes(samples, b.shape.Vocab), 0)
	b.run = shape
}
