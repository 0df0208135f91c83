package kernels

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestLinearSpecCheck: what a checkpoint can have wrong is told with the tensor's name.
func TestLinearSpecCheck(t *testing.T) {
	shape := Shape{Hidden: 8, Intermediate: 12, Heads: 4, KVHeads: 2, HeadDim: 6}
	tensor := func(name string, shape ...int) HostTensor { return HostTensor{Name: name, Shape: shape} }
	good := func() LinearSpec {
		return LinearSpec{
			Kind: LinearQKV, Parts: []HostTensor{tensor("q", 24, 8), tensor("k", 12, 8), tensor("v", 12, 8)},
			Bias:   []HostTensor{tensor("qb", 24), tensor("kb", 12), tensor("vb", 12)},
			QKNorm: []HostTensor{tensor("qn", 6), tensor("kn", 6)},
		}
	}
	spec := good()
	cols, err := spec.Check(&shape)
	require.NoError(t, err)
	require.Equal(t, 8, cols)
	for want, spoil := range map[string]func(s *LinearSpec){
		"q: 2 parts, want query, key and value":      func(s *LinearSpec) { s.Parts, s.Bias = s.Parts[:2], nil },
		"k: shape [13 8], want [12 8]":               func(s *LinearSpec) { s.Parts[1].Shape[0] = 13 },
		"v: shape [12], want [12 8]":                 func(s *LinearSpec) { s.Parts[2].Shape = []int{12} },
		"qb: 2 biases: only QKV takes them":          func(s *LinearSpec) { s.Bias = s.Bias[:2] },
		"vb: shape [11], want [12]":                  func(s *LinearSpec) { s.Bias[2].Shape[0] = 11 },
		"qn: 1 norms":                                func(s *LinearSpec) { s.QKNorm = s.QKNorm[:1] },
		"kn: shape [7], want [6]":                    func(s *LinearSpec) { s.QKNorm[1].Shape[0] = 7 },
		"q: 3 bytes of data, want 384 for":           func(s *LinearSpec) { s.Parts[0].Data = make([]byte, 3) },
		"q: 3 parts, want gate and up":               func(s *LinearSpec) { s.Kind = LinearGateUp },
		"qb: 3 biases: only QKV takes them, one a p": func(s *LinearSpec) { s.Kind = LinearHead },
	} {
		s := good()
		spoil(&s)
		_, err := s.Check(&shape)
		require.ErrorContains(t, err, want)
	}
	down := LinearSpec{Parts: []HostTensor{tensor("down", 8, 12)}}
	cols, err = down.Check(&shape)
	require.NoError(t, err)
	require.Equal(t, 12, cols, "those of the tensor")
	require.Panics(t, func() { _, _ = (&LinearSpec{}).Check(&shape) })
}
