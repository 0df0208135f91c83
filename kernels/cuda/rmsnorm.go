//go:build cuda

package cuda

import (
	"strings"
	"unsafe"

	"github.com/pagoda-engine/pagoda/kernels"
)

// rmsnormParams is RMSNormParams.
type rmsnormParams struct {
	hidden, w, rows, out ptr
	ld, ldOut            int64
	width                int32
	eps                  float32
}

var _ [56]byte = [unsafe.Sizeof(rmsnormParams{})]byte{}

// planRMSNorm is a CTA a row, at most four elements a thread of small rows: the kernel's number is
// the quadruples that a thread keeps. The number of threads depends on the width alone: it decides the
// order of the sum.
func planRMSNorm(rows, hidden int) launch {
	quads := ceilDiv(hidden, 4)
	threads := min(512, roundUp(quads, 32))
	kernel := "rmsnorm_4"
	switch ceilDiv(quads, threads) {
	case 1:
		kernel = "rmsnorm_1"
	case 2:
		kernel = "rmsnorm_2"
	}
	return grid("rmsnorm", kernel, rows, 1, threads).overlapped()
}

// leavesNorm says whether the kernel of a residual's way leaves what the norm behind it is made of.
func (p *productPlan) leavesNorm() bool {
	switch p.image {
	case "gemm_wide":
		return !strings.HasSuffix(p.kernel, tilesSuffix) && !strings.HasPrefix(p.kernel, wideVariant{288, 64}.kernel()) // a warp has no token of so many outputs
	case "gemm_skinny":
		return strings.HasSuffix(p.kernel, clustersSuffix)
	}
	return false
}

// takesNorm says whether the kernel of a way to make a product behind a norm, of m tokens, makes of that what is left to do:
// those of gemm_sm90.cu that have registers for it, where each CTA's tiles are of the same tokens.
func (p *productPlan) takesNorm(kind epilogueKind, m int) bool {
	switch p.image {
	case "gemm_wide":
		return !strings.HasSuffix(p.kernel, tilesSuffix)
	case "gemm_sm90":
		return p.sameTokens(m) && (kind == epilogueSwiGLU || 2*p.wBox <= sm90ScaledQKV)
	}
	return false
}

// folds says whether a Linear waits for the norm behind it, whose work it shares with the product behind that.
func (b *Backend) folds(l linear) bool {
	s, m := &b.shape, b.run.tokens
	if m < 2 || m > foldedTokens || b.tap != nil || b.cfg.unfolded || b.omit == string(kernels.OpRMSNorm) {
		return false
	}
	next := gemmShape{m: m, n: 2 * s.Intermediate, k: stride(s.Hidden), kind: epilogueSwiGLU, invariant: b.limits.BatchInvariant}
	if l.x.like == kernels.MLP {
		if b.run.layer == s.Layers-1 {
			return false // the head's norm is of other rows
		}
		next.n, next.kind = (s.Heads+2*s.KVHeads)*s.HeadDim, epilogueQKV
	}
	this, ok := b.planGemm(b.linearShape(l))
	if !ok || !this.leavesNorm() {
		return false
	}
	behind, ok := b.planGemm(next)
	return ok && behind.takesNorm(next.kind, m)
}

func (b *Backend) linearShape(l linear) gemmShape {
	return gemmShape{m: b.run.tokens, n: l.w.rows, k: l.w.width, kind: epilogueResidual, invariant: b.limits.BatchInvariant}
}

// fold issues the Linear that waits for the norm, and says of how many pieces a row's sum of squares is then; 0 if none waits.
func (b *Backend) fold(norm *weight) int32 {
	l := b.run.held
	if l.w == nil {
		return 0
	}
	plan, _ := b.planGemm(b.linearShape(l))
	b.run.held = linear{}
	b.linear(l, norm, plan.tiles)
	return plan.tiles
}

// release issues the Linear that waits for a norm, where something else comes.
func (b *Backend) release() {
	if l := b.run.held; l.w != nil {
		b.run.held = linear{}
		b.linear(l, nil, 0)
	}
}
