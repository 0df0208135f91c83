package engine

import (
	"fmt"
	"time"

	"github.com/pagoda-engine/pagoda/internal/invariant"
)

// auditInterval is the least time between two audits.
const auditInterval = 10 * time.Second

// audit verifies the invariants when nothing is left to do: then it costs nobody
// time, and no request is there that a wrong table could give another's tokens.
func (l *loop) audit(now time.Time) error {
	if l.audited == l.stats.Steps || now.Sub(l.auditedAt) < auditInterval {
		return nil
	}
	l.audited, l.auditedAt = l.stats.Steps, now
	if err := l.sched.Check(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvariant, err)
	}
	return nil
}

// check verifies every invariant and poisons freed blocks, in builds with tag
// invariants.
func (l *loop) check() {
	if !invariant.Enabled {
		return
	}
	if err := l.sched.Check(); err != nil {
		panic("engine: " + err.Error())
	}
	l.store.PoisonFree(l.kv, l.backend.WriteBlock)
}
