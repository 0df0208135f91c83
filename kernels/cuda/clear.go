//go:build cuda

package cuda

import "github.com/pagoda-engine/pagoda/kernels"

// clearRows makes zeros of what a larger step left in the rows behind those of this one: tiles of small steps multiply them, too,
// and a card at its power limit is the slower the more bits that turns over. (Of rows up to foldedTokens; and the head's are cleared
// by tokens, so that behind a step with prompts a few may stay: they cost power, no more.)
func (b *Backend) clearRows(tokens int) {
	clear := func(a kernels.Activation, data ptr, rows int) {
		if left, row := min(b.written, rows)-tokens, b.acts[a].rowBytes(); left > 0 {
			b.fail("launch", b.compute.Clear(data+ptr(tokens*row), int64(left*row)))
		}
	}
	for _, a := range []kernels.Activation{kernels.Normed, kernels.Attn, kernels.MLP} {
		clear(a, b.acts[a].data, b.now.MaxBatchedTokens) // beyond there may be no memory
	}
	clear(kernels.Normed, b.ws.headIn, b.now.MaxLogitRows)
	b.written = min(tokens, foldedTokens)
}
