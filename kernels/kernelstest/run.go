package kernelstest

import (
	"testing"

	"github.com/pagoda-engine/pagoda/kernels"
)

// Run checks that the Backends of newBackend do what package kernels says, each
// case on a fresh one that it closes. It takes seconds.
//
// Results must be within tol of the Oracle's, tokens equal. Where the contract
// says that neighbours do not matter, results must be bit-equal.
func Run(t *testing.T, tol Tolerance, newBackend func(t *testing.T) kernels.Backend) {
	s := &suite{tol: tol, newBackend: newBackend}
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
}
