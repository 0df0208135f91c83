//go:build cuda

package cuda

import (
	"fmt"
	"unsafe"

	"github.com/pagoda-engine/pagoda/kernels"
)

// launch queues a kernel on the compute stream.
func (b *Backend) launch(op kernels.Op, l launch, params unsafe.Pointer) {
	if b.err != nil || b.omit != "" && b.omit == string(op)+b.run.part {
		return
	}
	// prepare lets the next start before it has written what layers read without waiting. embed waits
	// and only then does: a pass may begin with it, or behind prepare's end.
	if b.run.first {
		b.run.first = false
		if l.image != "embed" {
			l.PDL = 0
		}
	}
	if p := &b.profiler; p.state == describing {
		p.dry = append(p.dry, graphKernel{len(p.traced), l.kernel})
		return
	}
	k, err := b.kernel(l.image, l.kernel)
	if err != nil {
		b.fail(op, err)
		return
	}
	if err := k.Launch(&b.compute, &l.Launch, params); err != nil {
		b.fail(op, fmt.Errorf("%s, grid %v: %w", l.kernel, l.Grid, err))
	}
}

// fail makes the first error sticky, with the operation and the step's shape.
func (b *Backend) fail(op kernels.Op, err error) {
	if b.err == nil && err != nil {
		tokens := fmt.Sprint(b.run.tokens)
		if b.run.kept {
			tokens = fmt.Sprintf("%d of %d", b.run.tokens, b.run.step.tokens)
		}
		b.err = fmt.Errorf("cuda: %s (layer %d, %s tokens in %d sequences): %w", op, b.run.layer, tokens, b.run.seqs, err)
	}
}
