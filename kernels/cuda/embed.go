//go:build cuda

package cuda

import "unsafe"

// embedParams is EmbedParams.
type embedParams struct {
	tokens, w, hidden ptr
	panel, ld         int64

	entries, state, header, whole ptr // 0: not of a graph
	width, _                      int32
}

var _ [80]byte = [unsafe.Sizeof(embedParams{})]byte{}

// planEmbed is a CTA a token: a thread for eight columns, and a warp more, which looks at the sample entry meanwhile. Warps
// are whole, for the kernel goes on in whole panels.
func planEmbed(tokens, hidden int) launch {
	return grid("embed", "embed", tokens, 1, min(256, roundUp(ceilDiv(hidden, 8), 32)+32)).overlapped()
}
