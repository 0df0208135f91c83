//go:build cuda

package cuda

import "unsafe"

// attentionPlainParams is AttentionPlainParams.
type attentionPlainParams struct {
	query, attn                    ptr
	ld                             int64
	batch                          batchPtrs
	kv                             pagedKV
	layer, heads, kvHeads, headDim int32
	scale                          float32
	tokens                         int32
}

var _ [192]byte = [unsafe.Sizeof(attentionPlainParams{})]byte{}

// maxHeadDim is the largest head that attention_plain.cu has room for.
const maxHeadDim = 256

// planAttentionPlain is a CTA a token and query head; there may be more tokens than a grid's second dimension has.
func planAttentionPlain(tokens, heads int) launch {
	return grid("attention_plain", "attention_plain", tokens, heads, 128)
}
