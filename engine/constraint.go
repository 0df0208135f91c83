package engine

import (
	"errors"
	"fmt"
	"math/bits"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Constraint restricts the tokens of one choice: to a grammar, a schema, a list.
// Its methods are called off the engine's goroutine, by one goroutine at a time,
// while the device computes.
type Constraint interface {
	// Mask sets the bit of each id that may come next, id's being bit id%32 of
	// mask[id/32], and clears all others. The ids that end the request are ids like
	// all others. done says that the output is whole and nothing may follow it: the
	// request ends without another token.
	Mask(mask []uint32) (done bool, err error)
	// Accept takes the token that was drawn. It is not called for one that ends the
	// request.
	Accept(token int32) error
	// Close releases what the Constraint holds; it is called once, last.
	Close()
}

// ErrConstraint is why a request failed whose Constraint did. Its neighbours do not
// notice.
var ErrConstraint = errors.New("the output's constraint failed")

// ErrMaskLate is why a request failed whose Constraint took too long over a mask:
// the machine has too much to do.
var ErrMaskLate = errors.New("the mask of the output's constraint was late")

// errConstraintBug is a panic of a Constraint.
var errConstraintBug = errors.New("panic in a constraint")

// NoStopID is Event.StopID of a request that its Constraint ended.
const NoStopID int32 = -1

// guidePatience is how long one step waits for masks. Requests whose mask is not
// there then fail: all others wait with them. Masks take some ten microseconds,
// usually.
const guidePatience = time.Second

// guide is a request's Constraint with the mask of its next token. Between two
// tokens it makes one round: the last token is accepted, the next mask computed. The
// engine's goroutine begins a round as soon as it knows the token, and waits for it
// before the next one is drawn.
//
//	step n    … forward │ sample │ token known
//	round                        └ accept, mask ┐
//	step n+1  …                    forward …    └ sample
type guide struct {
	make func() (Constraint, error)

	// The round's, between begin and ready.
	constraint Constraint
	mask       []uint32
	sampled    int     // ids from there on are never drawn
	token      int32   // to accept first; −1 = none
	barred     []int32 // ids that the sampler does not draw: stop ids before min_tokens
	done       bool
	err        error
	ready      chan struct{} // one slot

	state atomic.Int32

	// The engine's goroutine's.
	begun   bool // a first round was
	settled bool // the last round's outcome is known
}

// The states of a guide. Whoever leaves busy or idle for over sees to it that the
// Constraint is closed, once no round uses it.
const (
	guideIdle int32 = iota
	guideBusy       // in a round, or waiting for one
	guideOver       // its request has ended
)

func newGuide(f func() (Constraint, error)) *guide {
	return &guide{make: f, ready: make(chan struct{}, 1)}
}

// round computes the next mask.
func (g *guide) round() (done bool, err error) {
	defer func() {
		if bug := recover(); bug != nil {
			err = fmt.Errorf("%w: %v", errConstraintBug, bug)
		}
	}()
	if g.constraint == nil {
		if g.constraint, err = g.make(); err != nil {
			return false, err
		}
	}
	if g.token >= 0 {
		if err := g.constraint.Accept(g.token); err != nil {
			return false, err
		}
	}
	if done, err = g.constraint.Mask(g.mask); done || err != nil {
		return done, err
	}
	for id := g.sampled; id < 32*len(g.mask); id++ {
		g.mask[id/32] &^= 1 << (id % 32)
	}
	allowed := 0
	for _, word := range g.mask {
		allowed += bits.OnesCount32(word)
	}
	if allowed == 0 {
		return false, errors.New("no token is allowed")
	}
	return allowed == g.barredBits(), nil
}

// barredBits is the number of ids that the mask allows and the sampler does not
// draw. If these are all, the request can only end, short as it is.
func (g *guide) barredBits() int {
	n := 0
	for i, id := range g.barred {
		if g.mask[id/32]>>(id%32)&1 == 1 && !slices.Contains(g.barred[:i], id) {
			n++
		}
	}
	return n
}

// close closes the Constraint, if it was ever made.
func (g *guide) close() {
	defer func() { _ = recover() }() // a Constraint's bug must not end the process
	if g.constraint != nil {
		g.constraint.Close()
		g.constraint = nil
	}
}

// guides is the goroutines that make rounds. They start with the first one.
type guides struct {
	words    int // of a mask
	sampled  int // Info.SampleVocab
	patience time.Duration
	mu       sync.Mutex
	more     sync.Cond // queue or closed has changed
	queue    []*guide
	closed   bool
	workers  sync.WaitGroup
	running  bool
}

func newGuides(vocab, sampled int) *guides {
	g := &guides{words: (vocab + 31) / 32, sampled: sampled, patience: guidePatience}
	g.more.L = &g.mu
	return g
}

// begin starts a round of q's guide after token, −1 for the first. It never waits.
func (p *guides) begin(q *request, token int32, outputs int) {
	g := q.guide
	if !g.begun {
		g.begun, g.mask, g.sampled = true, make([]uint32, p.words), p.sampled
	}
	g.settled, g.token, g.barred = false, token, nil
	if outputs < int(q.sampling.MinTokens) {
		g.barred = q.sampling.StopIDs
	}
	g.state.Store(guideBusy)
	p.push(g)
}

func (p *guides) push(g *guide) {
	if !p.running {
		p.running = true
		for range min(runtime.GOMAXPROCS(0), 8) {
			p.workers.Go(p.work)
		}
	}
	p.mu.Lock()
	p.queue = append(p.queue, g)
	p.mu.Unlock()
	p.more.Signal()
}

// work makes rounds until there are none and will be none.
func (p *guides) work() {
	for {
		p.mu.Lock()
		for len(p.queue) == 0 && !p.closed {
			p.more.Wait()
		}
		if len(p.queue) == 0 {
			p.mu.Unlock()
			return
		}
		g := p.queue[0]
		p.queue = p.queue[1:]
		p.mu.Unlock()
		if g.state.Load() == guideBusy {
			g.done, g.err = g.round()
		}
		if g.state.CompareAndSwap(guideBusy, guideIdle) {
			g.ready <- struct{}{}
		} else {
			g.close()
		}
	}
}

// end is called when q ends. Its Constraint is closed by a worker, now or after the
// round that uses it.
func (p *guides) end(q *request) {
	if q.guide == nil || !q.guide.begun {
		return
	}
	if q.guide.state.Swap(guideOver) == guideIdle {
		p.push(q.guide)
	}
}

// stop ends the workers, after the guides of all requests have ended.
func (p *guides) stop() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.more.Broadcast()
	p.workers.Wait()
}

// await waits for the masks of the step, and ends the requests that have none: those
// whose output is whole, that failed, or that are late.
func (l *loop) await(s *step) {
	if !s.guided {
		return
	}
	begin := time.Now()
	late := time.NewTimer(l.guides.patience)
	defer late.Stop()
	masks := s.masks[:0]
	for i := range s.out.Scheduled {
		e, q := &s.out.Scheduled[i], s.request(i)
		if !e.Sample {
			continue
		}
		var mask []uint32
		if q.guide != nil && e.Live() {
			mask = l.awaitOne(q, late)
		}
		masks = append(masks, mask)
	}
	for range s.checked { // none
		masks = append(masks, nil)
	}
	s.masks, s.sample.Masks = masks, masks
	l.stats.MaskWait += time.Since(begin)
}

// awaitOne returns the mask of q's next token; nil if q has ended.
func (l *loop) awaitOne(q *request, late *time.Timer) []uint32 {
	g := q.guide
	if !g.settled {
		select {
		case <-g.ready:
		default:
			select {
			case <-g.ready:
			case <-late.C:
				late.Reset(0) // for those behind it
				l.conclude(q, verdict{finish: FinishError, err: fmt.Errorf("%w: none within %v", ErrMaskLate, l.guides.patience)})
				return nil
			}
		}
		g.settled = true
	}
	switch {
	case errors.Is(g.err, errConstraintBug):
		l.e.cfg.Log.Error("a request fails", "error", g.err)
		l.conclude(q, verdict{finish: FinishError, err: g.err})
	case g.err != nil:
		l.conclude(q, verdict{finish: FinishError, err: fmt.Errorf("%w: %w", ErrConstraint, g.err)})
	case g.done:
		l.conclude(q, verdict{finish: FinishStop, stopID: NoStopID})
	default:
		return g.mask
	}
	return nil
}

// conclude ends a request between two of its tokens.
func (l *loop) conclude(q *request, v verdict) {
	l.sched.Abort(&q.seq)
	l.end(q, v)
}
