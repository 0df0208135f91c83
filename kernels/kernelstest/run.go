package kernelstest

import (
	"hash/fnv"
	"io"
	"testing"

	"github.com/pagoda-engine/pagoda/kernels"
)

// Run checks that the Backends of newBackend do what package kernels says, each
// case on a fresh one that it closes. It takes seconds.
//
// Results must be within tol of the Oracle's, tokens equal. Where the contract
// says that neighbours do not matter, results must be bit-equal.
func Run(t *testing.T, tol Tolerance, newBackend func(t *testing.T) kernels.Backend) {
	RunEvery(t, 1, tol, newBackend)
}

// RunEvery is Run with about every n-th case alone (n ≥ 1) of attention, forward passes and products by shape,
// which are most of its time: by their names, so that each Backend's test has others, and always the same.
func RunEvery(t *testing.T, n int, tol Tolerance, newBackend func(t *testing.T) kernels.Backend) {
	s := &suite{tol: tol, newBackend: newBackend, every: n}
	for _, group := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"embed", s.embed},
		{"rmsnorm", s.rmsnorm},
		{"qkv", s.qkv},
		{"attention", s.attention},
		{"linear", s.linear},
		{"gate_up", s.gateUp},
		{"head", s.head},
		{"load", s.load},
		{"pool", s.pool},
		{"rows", s.rows},
		{"sampling", s.sampling},
		{"forward", s.forward},
		{"invariance", s.invariance},
		{"hooks", s.hooks},
	} {
		t.Run(group.name, group.run)
	}
}

// suite is one call of Run.
type suite struct {
	tol        Tolerance
	newBackend func(t *testing.T) kernels.Backend
	every      int
}

// oneOfMany is t.Run of a case that RunEvery may leave out.
func (s *suite) oneOfMany(t *testing.T, name string, run func(t *testing.T)) {
	h := fnv.New32a()
	io.WriteString(h, t.Name()+"/"+name)
	if h.Sum32()%uint32(s.every) == 0 {
		t.Run(name, run)
	}
}
