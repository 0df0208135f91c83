package engine

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/pagoda-engine/pagoda/kernels"
	"github.com/pagoda-engine/pagoda/kvcache"
	"github.com/pagoda-engine/pagoda/scheduler"
)

// loop is the state of the engine's goroutine, which alone touches it and all
// below it.
type loop struct {
	// hold is locked by the engine's goroutine but while it waits for the device or
	// for work, or completes the load: a dump may look at the rest then.
	hold sync.Mutex

	e          *Engine
	backend    kernels.Backend
	completer  kernels.Completer // nil = loading is complete
	runner     *runner
	guides     *guides
	sched      *scheduler.Scheduler
	kv         *kvcache.Manager
	store      *kvcache.Store
	requests   map[*scheduler.Sequence]*request
	taken      int64 // of Engine.arriving; publish counts them there no longer
	jobs       []job
	wanting    bool  // a job waits for blocks, and the scheduler knows
	fault      error // of the device, met outside a step
	stats      Stats
	records    records
	trace      *trace
	waker      waker
	news       []news           // of the step collected last, not told yet; memory of the waker's
	touched    int32            // see judge and keepWarm
	awaited    *step            // that the device is at work on, while collect waits
	profile    *Recording       // nil = none
	copiesOnly scheduler.Record // of a step without tokens

	began    time.Time             // the clock of block ages
	observed []*scheduler.Sequence // memory of observeBlocks

	transfers []transfer // swap copies under way, oldest first
	pending   *pending   // limits that are coming into force; nil = none

	audited   int64 // Stats.Steps at the last audit that was done
	auditedAt time.Time

	// For planning anew.
	sizes  sizes
	shape  kernels.Shape
	maxima kernels.Limits
}

// job is work that needs the device to itself, such as Logits. run says false
// when it lacks blocks, to be tried again after a step.
type job struct {
	run  func(*loop) (done bool)
	drop func(cause error) // called instead of run when the engine stops; cause is what stop has
}

// run serves until the engine is closed or its device fails.
func (l *loop) run() error {
	if l.e.info.Overlapped {
		return l.overlapped()
	}
	return l.synchronous()
}

// synchronous does one step after the other. The host's work and the device's
// alternate.
func (l *loop) synchronous() error {
	for l.receive() {
		l.runJobs()
		if l.fault != nil {
			break
		}
		next := l.schedule()
		if next == nil {
			l.rest()
			continue
		}
		l.launch(next)
		l.draw(next)
		if err := l.collect(next); err != nil {
			return err
		}
	}
	return l.fault
}

// overlapped launches step n+1 before it collects step n, so that the host's
// work on n happens while the device computes n+1. A request that n turns out to
// finish has then run one step too far: that token is dropped. A step with masks
// draws its tokens after step n is collected, since the masks follow from n's
// tokens; the device is still at its forward pass by then.
//
// Where step n has many readers, they are told once step n+2 is launched. Hundreds that
// wake take all the processors there are for as long as the host's work on a step takes,
// and would double it; like this they read while the host waits. Decodes are launched in
// some ten microseconds; before prompts, which take a hundred times as long, all are told.
func (l *loop) overlapped() error {
	var last *step // on the device
	for l.receive() {
		var next *step
		if last == nil {
			l.tell(nil) // what comes now may take long
		}
		if len(l.jobs) == 0 && l.pending == nil || last == nil { // both wait for an empty pipeline
			l.runJobs()
			if l.fault != nil {
				break
			}
			next = l.schedule()
		}
		if next != nil {
			if next.guided || next.out.NumDecodes < len(next.out.Scheduled) {
				l.tell(next)
			}
			l.launch(next)
			if !next.guided {
				l.draw(next)
			}
		}
		l.tell(next)
		if last != nil {
			if err := l.collect(last); err != nil {
				return err
			}
		} else if next == nil {
			l.rest()
		}
		if next != nil && next.guided {
			l.tell(next) // the masks may take long
			l.draw(next)
		}
		last = next
	}
	l.tell(nil)
	var err error
	if l.fault == nil && last != nil {
		err = l.collect(last)
	}
	l.tell(nil)
	return cmp.Or(err, l.fault)
}

// tell has the readers told of what was collected and not told at once. It counts as work
// on s, if that is a step.
func (l *loop) tell(s *step) {
	if len(l.news) == 0 {
		return
	}
	begin := time.Now()
	l.news = l.waker.tell(l.news)
	if s != nil {
		s.host += time.Since(begin)
	}
}

// schedule decides the next step and packs it; nil when there is nothing to
// run.
func (l *loop) schedule() *step {
	begin := time.Now()
	l.kv.Tick(begin.Sub(l.began))
	l.profile.begin(begin)
	out := l.sched.Schedule()
	l.countDecisions(out)
	l.move(out)
	l.profile.mark(PhaseSchedule)
	l.check()
	if l.taken+int64(len(out.Admitted)) > 0 { // who waits for this step would see them only when it is over
		l.publish()
	}
	if out.Empty() {
		if len(out.Decisions)+len(out.Admitted) > 0 { // copies alone: it is over at once
			l.sched.Record(out, &l.copiesOnly)
			l.records.add(&l.copiesOnly, nil, begin, 0).Host = time.Since(begin)
		}
		return nil
	}
	s := l.runner.pack(out)
	l.sched.RecordState(out, &s.record)
	for _, q := range s.resumed {
		if !q.started {
			l.markStarted(q)
			q.stream.cached, q.stream.admitted, q.stream.sequence = q.seq.CachedTokens, begin, q.seq.ID // before the first token: from then on readers look
		}
	}
	s.host = time.Since(begin)
	l.profile.mark(PhasePack)
	return s
}

// countDecisions takes the rows of preempted sequences back.
func (l *loop) countDecisions(out *scheduler.Output) {
	for i := range out.Decisions {
		d := &out.Decisions[i]
		switch d.Means {
		case scheduler.ByWaiting:
			l.stats.BlockWaits++
			continue
		case scheduler.BySwap:
			l.stats.PreemptionsSwap++
		case scheduler.ByRecompute:
			l.stats.PreemptionsRecompute++
			if d.SwapFull {
				l.stats.SwapPoolFull++
			}
		}
		l.runner.dropRow(requestOf(d.Seq))
	}
}

func (l *loop) launch(s *step) {
	s.start = time.Now()
	if s.guides {
		for i := range s.out.Scheduled {
			if q := s.request(i); q.guide != nil && !q.guide.begun {
				l.guides.begin(q, -1, 0)
			}
		}
	}
	l.runner.launch(s)
	s.host += time.Since(s.start)
	l.profile.launched(s, s.start)
}

// draw ends the step that was launched: with the masks, its tokens can be drawn.
func (l *loop) draw(s *step) {
	begin := time.Now()
	l.await(s)
	l.profile.masked(s, begin)
	l.runner.sample(s)
	l.profile.drawn(s)
	s.host += time.Since(begin)
}

// collect waits for a step, tells the scheduler, and hands the tokens out, or leaves them
// to tell.
func (l *loop) collect(s *step) error {
	l.profile.waiting()
	l.awaited = s
	l.hold.Unlock()
	result, err := l.backend.Wait(s.ticket)
	l.hold.Lock()
	l.awaited = nil
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDevice, err)
	}
	begin := time.Now()
	l.kv.Tick(begin.Sub(l.began))
	l.profile.waited()
	l.judge(s, result)
	l.sched.Update(s.out, s.results, result.Duration)
	if slices.ContainsFunc(s.ends, func(e ending) bool { return e.err == ErrNotNumbers }) {
		l.sched.ResetPrefixCache() // what it has computed may be cached, for others to fail by
	}
	l.deliver(s, result.Duration)
	kept := l.records.add(&s.record, s.out.Scheduled, s.start, l.stats.LastStep)
	kept.Host = s.host + time.Since(begin)
	l.delivered()
	l.check()
	return nil
}

// keepWarm looks at what judge and Update will, so that the processor that waits for a step has it
// in its caches when the results come. Of a step of 512 sequences that is 2,700 lines of memory. It is
// called within Wait, while hold is free: it writes nothing but touched, at which no dump looks.
func (l *loop) keepWarm() {
	if l.awaited == nil {
		return
	}
	touched, s := l.touched, l.awaited
	n := len(s.out.Scheduled)
	results, told := s.results[:n], l.news[:min(n, cap(l.news))] // which will be written
	_, parts := l.records.room(n)                                // likewise
	for i := range s.out.Scheduled {
		q := s.request(i)
		touched ^= int32(s.out.Scheduled[i].Start) ^ results[i].Token ^ parts[i].start
		if i < len(told) {
			touched ^= int32(told[i].tokens)
		}
		if last := len(q.seq.Tokens) - 1; last >= 0 {
			touched ^= q.seq.Tokens[last] ^ q.row ^ int32(q.seq.ID) ^ int32(q.seq.Table.Len())
		}
	}
	l.touched = touched
}

// publish shows the present numbers to Stats.
func (l *loop) publish() {
	kv := l.kv.Stats()
	s := &l.stats
	s.Running, s.Waiting, s.Swapped = l.sched.NumRunning(), l.sched.NumWaiting(), l.sched.NumSwapped()
	s.BlocksTotal, s.BlocksUsed, s.BlocksCached, s.BlocksFree, s.BlocksInFlight = kv.Total, kv.Used, kv.Cached, kv.Free, kv.InFlight
	s.BlocksShared, s.BlocksSaved, s.SlotsUsed = kv.Shared, kv.Saved, l.sched.UsedSlots()
	s.HostBlocksTotal, s.HostBlocksUsed, s.HostBlocksInFlight = kv.HostTotal, kv.HostUsed, kv.HostInFlight
	s.PrefixQueries, s.PrefixHits, s.Evictions = kv.Queries, kv.Hits, kv.Evictions
	s.Forks, s.CopiedBlocks = kv.Forks, kv.Copies
	l.e.stats.store(s)
	if l.taken > 0 {
		l.e.arriving.Add(-l.taken)
		l.taken = 0
	}
}
