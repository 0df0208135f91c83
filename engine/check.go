package engine

import (
	"fmt"
	"time"

	"github.com/pagoda-engine/pagoda/internal/invariant"
)

// auditInterval is the least time between two audits.
const auditInterval = 10 * time.Second

// auditSlice is the blocks that an audit verifies before it looks whether somebody
// came: some 0.2 ms.
const auditSlice = 512

// audit verifies the invariants when nothing is left to do: then no request is there
// that a wrong table could give another's tokens. Who comes meanwhile waits for a slice of
// it, and it is due again afterwards. It is true when there is something to do.
func (l *loop) audit(now time.Time) bool {
	if l.audited == l.stats.Steps || now.Sub(l.auditedAt) < auditInterval {
		return false
	}
	for !l.receiveOne() {
		done, err := l.sched.CheckIdle(auditSlice)
		switch {
		case err != nil:
			l.fault = fmt.Errorf("%w: %w", ErrInvariant, err)
			return true
		case done:
			l.audited, l.auditedAt = l.stats.Steps, now
			return false
		case len(l.e.wake) > 0: // the engine is to end, say: sleep takes it
			return false
		}
	}
	return true
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
