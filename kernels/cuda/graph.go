//go:build cuda

package cuda

import (
	"errors"
	"slices"
	"unsafe"

	"github.com/pagoda-engine/pagoda/internal/cuda"
	"github.com/pagoda-engine/pagoda/kernels"
)

// graph is a decode step of one size: its message, fetched and unpacked, forward pass and sampler.
type graph struct {
	size    int    // tokens, sequences and logit rows
	forward func() // that was captured; keeps its address from being used again
	exec    cuda.Graph
	failed  bool // capturing it failed: the size stays eager
}

// takes says whether the graph can sample these logit rows: no more than it has; each once, for one entry that wants
// the likeliest id alone would leave no logits for the other; and at least one, for who samples nothing will read logits.
func (g *graph) takes(index []int32) bool {
	n := len(index)
	for i := 1; i < n; i++ {
		if index[i] <= index[i-1] {
			return false
		}
	}
	return n > 0 && n <= g.size
}

// graphs are the captured decode steps.
type graphs struct {
	sizes  []int // ascending
	all    []*graph
	wanted *graph // to be captured once the step under way is issued
	masked bool   // the last step had masks
	last   *graph // that find found: mostly the next one, too
}

// graphSizes are those that the limits allow.
func graphSizes(cfg *Config, l kernels.Limits) (fit []int) {
	if cfg.Eager {
		return nil
	}
	sizes := cfg.GraphSizes
	if sizes == nil {
		sizes = defaultGraphSizes(l.MaxSeqs)
	}
	most := min(l.MaxSeqs, l.MaxBatchedTokens)
	for _, size := range sizes {
		if size >= 1 && size <= most {
			fit = append(fit, size)
		}
	}
	return fit
}

// defaultGraphSizes are dense where a padding row costs much and end at most.
func defaultGraphSizes(most int) []int {
	sizes := []int{1, 2, 4}
	for n := 8; n < most; {
		sizes = append(sizes, n)
		switch {
		case n < 256:
			n += 8
		case n < 512:
			n += 32
		default:
			n += 64
		}
	}
	return append(slices.DeleteFunc(sizes, func(n int) bool { return n >= most }), most)
}

// bucket is the size that a step of n sequences takes, 0 = none.
func (g *graphs) bucket(n int) int {
	i, _ := slices.BinarySearch(g.sizes, n)
	if i == len(g.sizes) || n == 0 {
		return 0
	}
	return g.sizes[i]
}

// address tells closures apart.
func address(f func()) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&f)) }

// find returns the graph for a step, or nil; then it may note that the step's
// size is to be captured: the second time that the same closure runs it. With
// masks, steps run eagerly: the forward pass must not wait for Sample.
func (g *graphs) find(b *Backend, batch *kernels.Batch, forward func()) *graph {
	g.wanted = nil
	n := batch.NumSeqs()
	if len(g.sizes) == 0 || b.tap != nil || b.profiler.fn != nil && b.profiler.tracer == nil || batch.NumTokens() != n || batch.NumDecodes != n || len(batch.LogitRows) > n {
		return nil
	}
	size := g.bucket(n)
	if size == 0 {
		return nil
	}
	e := g.last
	if e == nil || e.size != size {
		at := slices.IndexFunc(g.all, func(e *graph) bool { return e.size == size })
		if at < 0 {
			g.all = append(g.all, &graph{size: size, forward: forward})
			return nil
		}
		e = g.all[at]
		g.last = e
	}
	switch {
	case e.failed:
		return nil
	case address(e.forward) != address(forward):
		b.fail("graph", e.destroy())
		*e = graph{size: size, forward: forward}
		return nil
	case e.exec.Nodes == 0:
		g.wanted = e
		return nil
	case g.masked:
		return nil
	}
	return e
}

// captureWanted captures what find noted, while the device works on the step that
// was issued eagerly.
func (g *graphs) captureWanted(b *Backend) {
	e := g.wanted
	g.wanted = nil
	if e == nil || b.err != nil {
		return
	}
	// The step's own shape stays what Wait and errors report.
	shape := b.run
	b.profiler.state = capturing
	defer func() { b.run, b.profiler.state = shape, live }()
	if err := b.compute.BeginCapture(); err != nil {
		b.fail("graph capture", err)
		return
	}
	b.beginPrepare()
	b.prepareTurn(e.size)
	b.issue(shape.step, b.identity[:e.size+1], nil, e.size, e.size, true, e.forward)
	b.runSample(e.size, true)
	exec, err := b.compute.EndCapture()
	if err != nil { // memory may be short: the size stays eager
		e.failed = true
		return
	}
	e.exec = exec
}

// renew frees all graphs: each is captured anew when a step would take it. None runs.
func (g *graphs) renew() error {
	var errs []error
	for _, e := range g.all {
		errs = append(errs, e.destroy())
		e.exec = cuda.Graph{}
	}
	return errors.Join(errs...)
}

// keep replaces the sizes and frees the graphs of others: none of them runs.
func (g *graphs) keep(sizes []int) error {
	var errs []error
	g.sizes, g.wanted, g.last = sizes, nil, nil
	g.all = slices.DeleteFunc(g.all, func(e *graph) bool {
		gone := !slices.Contains(sizes, e.size)
		if gone {
			errs = append(errs, e.destroy())
		}
		return gone
	})
	return errors.Join(errs...)
}

func (e *graph) destroy() error {
	if e.exec.Nodes == 0 {
		return nil
	}
	return e.exec.Destroy()
}

func (g *graphs) destroy() error {
	var errs []error
	for _, e := range g.all {
		errs = append(errs, e.destroy())
	}
	return errors.Join(errs...)
}

// replay launches a step's graph, which finds its message by counting steps.
func (b *Backend) replay(s *step, g *graph) {
	s.message.set(mWords, s.message.n)
	began, err := g.exec.Replay(&b.compute, b.last, &s.start, &s.end)
	b.fail("graph", err)
	s.began, b.last = began, &s.end
}
