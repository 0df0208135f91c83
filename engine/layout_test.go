package engine

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/scheduler"
)

// TestDecodeTouchesThreeLines: what a steady decode needs of a request lies in three lines
// of 64 bytes side by side, and what its reader writes in none of them.
func TestDecodeTouchesThreeLines(t *testing.T) {
	const line, lines = 64, 3
	var q request
	base := unsafe.Offsetof(q.seq)
	hot := map[string]uintptr{
		"stopIDs": unsafe.Offsetof(q.stopIDs), "fewStops": unsafe.Offsetof(q.fewStops), "guide": unsafe.Offsetof(q.guide), "row": unsafe.Offsetof(q.row),
		"minTokens": unsafe.Offsetof(q.minTokens), "maxTokens": unsafe.Offsetof(q.maxTokens), "moved": unsafe.Offsetof(q.moved), "logprobs": unsafe.Offsetof(q.logprobs),
		"Tokens": base + unsafe.Offsetof(q.seq.Tokens), "MaxLen": base + unsafe.Offsetof(q.seq.MaxLen), "NumComputed": base + unsafe.Offsetof(q.seq.NumComputed),
		"Launched": base + unsafe.Offsetof(q.seq.Launched), "Pending": base + unsafe.Offsetof(q.seq.Pending), "ID": base + unsafe.Offsetof(q.seq.ID),
		"PromptLen": base + unsafe.Offsetof(q.seq.PromptLen), "Status": base + unsafe.Offsetof(q.seq.Status), "Table": base + unsafe.Offsetof(q.seq.Table),
		"what the table has published": base + unsafe.Offsetof(q.seq.Table) + 4*unsafe.Sizeof(0) - 1,
	}
	for range 100 {
		q := newTestRequest()
		first := uintptr(unsafe.Pointer(q)) / line
		for name, offset := range hot {
			require.Less(t, (uintptr(unsafe.Pointer(q))+offset)/line, first+lines, "%s", name)
		}
		for name, field := range map[string]unsafe.Pointer{"state": unsafe.Pointer(&q.stream.state), "next": unsafe.Pointer(&q.stream.next)} {
			require.GreaterOrEqual(t, uintptr(field)/line, first+lines, "%s", name)
		}
	}
}

//go:noinline
func newTestRequest() *request { return &request{row: -1} }

// TestRequestOf: a sequence's request is found by its place in it.
func TestRequestOf(t *testing.T) {
	q := &request{id: "a", seq: scheduler.Sequence{ID: 7}}
	require.Same(t, q, requestOf(&q.seq))
}
