//go:build cuda

package cuda

import (
	"fmt"

	"github.com/pagoda-engine/pagoda/internal/cuda"
	"github.com/pagoda-engine/pagoda/kernels"
)

// outOfMemory is an error that is kernels.ErrOutOfMemory, too.
type outOfMemory struct{ error }

func (e outOfMemory) Unwrap() []error { return []error{kernels.ErrOutOfMemory, e.error} }

// memory marks an error as a want of memory where it is one.
func memory(err error) error {
	if cuda.OutOfMemory(err) {
		return outOfMemory{err}
	}
	return err
}

// SetLimits implements kernels.Backend. Pointers stay, so graphs do, too, but those of
// sizes that no step takes any more.
func (b *Backend) SetLimits(l kernels.Limits) error {
	if l.MaxBatchedTokens > b.limits.MaxBatchedTokens || l.MaxSeqs > b.limits.MaxSeqs || l.MaxLogitRows > b.limits.MaxLogitRows {
		return fmt.Errorf("cuda: limits %+v exceed those of Setup, %+v", l, b.limits)
	}
	if b.flush(); len(b.updates.touched) > 0 {
		b.sendUpdates() // of rows that may be none of the new limits'
	}
	if b.drainSteps(); b.err != nil { // swaps under way do not touch what changes
		return b.err
	}
	return b.backWorkspace(l)
}

// backWorkspace brings the limits into force: memory for what they take and none
// for the rest. Kernels count on zeros where nothing was written.
func (b *Backend) backWorkspace(l kernels.Limits) error {
	lower := layoutWorkspace(b.shape, l, b.arch.sms, 0)
	fresh, err := b.place.Back(b.ws.used(&lower))
	if err != nil {
		return memory(fmt.Errorf("cuda: %d bytes of workspace: %w", lower.bytes, err))
	}
	for _, span := range fresh {
		if err := b.compute.Clear(b.place.Base+ptr(span.At), span.Bytes); err != nil {
			return fmt.Errorf("cuda: clearing the workspace: %w", err)
		}
	}
	b.now = l
	b.updates.limit = updateWords(l) // a message with more has no room on the device
	b.initActivations()
	return b.graphs.keep(graphSizes(&b.cfg, l))
}

// used is what lower limits, whose layout is given, take of the arrays.
func (w *workspace) used(lower *workspace) []cuda.Span {
	spans := make([]cuda.Span, len(w.areas))
	for i := range spans {
		spans[i] = cuda.Span{At: w.areas[i].At, Bytes: min(lower.areas[i].Bytes, w.areas[i].Bytes)}
	}
	return spans
}
