package kernelstest

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/pagoda-engine/pagoda/kernels"
)

// geometry is a model's shape without its layers and rotary embedding.
type geometry struct {
	hidden, intermediate    int
	heads, kvHeads, headDim int
	vocab                   int
}

func (g geometry) String() string {
	return fmt.Sprintf("h%d_i%d_%dx%dx%d_v%d", g.hidden, g.intermediate, g.heads, g.kvHeads, g.headDim, g.vocab)
}

// The geometries: a tiny one, the head layouts of SmolLM2-135M, Qwen2.5-0.5B,
// 1.5B and 7B on small hidden sizes, and one with a large head.
var (
	tiny     = geometry{64, 100, 4, 2, 16, 257}
	smol     = geometry{96, 100, 9, 3, 64, 257}
	qwen05   = geometry{896, 4864, 14, 2, 64, 1000}
	qwen15   = geometry{96, 100, 12, 2, 128, 257}
	qwen7    = geometry{64, 100, 28, 4, 128, 1000}
	wideHead = geometry{64, 96, 2, 1, 256, 257}
	oddHead  = geometry{96, 64, 6, 2, 48, 1000}
	noGroup  = geometry{64, 96, 3, 3, 80, 257}
	qwen3    = geometry{96, 100, 8, 2, 128, 257}  // heads wider than hidden
	wide15   = geometry{1536, 100, 4, 2, 16, 257} // the true widths of the 1.5B and the 7B
	wide7    = geometry{3584, 100, 4, 2, 16, 257}
)

// shape completes g: two layers, RoPE of base 10,000.
func (g geometry) shape() kernels.Shape {
	s := kernels.Shape{
		Layers: 2, Hidden: g.hidden, Intermediate: g.intermediate,
		Heads: g.heads, KVHeads: g.kvHeads, HeadDim: g.headDim,
		Vocab: g.vocab, RMSEps: 1e-6, RopeScale: 1,
	}
	for i := range g.headDim / 2 {
		s.InvFreq = append(s.InvFreq, float32(math.Pow(1e4, -2*float64(i)/float64(g.headDim))))
	}
	return s
}

// limitsFor leaves room past the given numbers, for poison.
func limitsFor(tokens, seqs, modelLen, blockSize int) kernels.Limits {
	return kernels.Limits{
		MaxBatchedTokens: tokens + 5, MaxSeqs: seqs + 3, MaxModelLen: modelLen + blockSize,
		MaxLogitRows: max(tokens, seqs+3), BlockSize: blockSize, MaxTopLogprobs: 20,
	}
}

// dummy is a tensor of uniform values in ±scale.
func dummy(name string, scale float64, shape ...int) kernels.HostTensor {
	return kernels.HostTensor{Name: name, Shape: shape, Seed: seedOf(name), Scale: float32(scale)}
}

// fanIn is a [rows, cols] dummy that keeps the variance of its input.
func fanIn(name string, rows, cols int) kernels.HostTensor {
	return dummy(name, math.Sqrt(3/float64(cols)), rows, cols)
}

// normWeight is a [n] dummy around 1.
func normWeight(name string, n int) kernels.HostTensor {
	t := dummy(name, 0.5, n)
	t.Offset = 1
	return t
}

// tensor is a tensor with data: normal values that each type represents in its
// own way, so that only the rounding to bfloat16 is common.
func tensor(name string, dtype kernels.DType, deviation float64, shape ...int) kernels.HostTensor {
	t := kernels.HostTensor{Name: name, DType: dtype, Shape: shape}
	rng := rand.New(rand.NewPCG(seedOf(name), 2))
	for range t.NumElems() {
		v := float32(rng.NormFloat64() * deviation)
		switch dtype {
		case kernels.FP32:
			t.Data = binary.LittleEndian.AppendUint32(t.Data, math.Float32bits(v))
		case kernels.FP16:
			t.Data = binary.LittleEndian.AppendUint16(t.Data, toFP16(v))
		default:
			t.Data = binary.LittleEndian.AppendUint16(t.Data, kernels.FloatToBF16(v))
		}
	}
	return t
}

// toFP16 truncates to half precision; small values become zero.
func toFP16(v float32) uint16 {
	bits := math.Float32bits(v)
	sign, exp := uint16(bits>>16)&0x8000, int(bits>>23&0xFF)-112
	if exp <= 0 {
		return sign
	}
	return sign | uint16(exp<<10) | uint16(bits>>13)&0x3FF
}

// tokenCounts are the numbers of tokens of a step: around the tile sizes of
// matrix kernels, and not.
var tokenCounts = []int{1, 2, 3, 7, 8, 12, 13, 16, 33, 64, 100}

// decodes is n sequences with one query token each and context before it.
func decodes(n, context int) []span {
	spans := make([]span, n)
	for i := range spans {
		spans[i] = span{context, 1}
	}
	return spans
}
