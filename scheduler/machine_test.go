package scheduler

import (
	"fmt"
	"slices"
	"time"

	"github.com/pagoda-engine/pagoda/kvcache"
)

// machine plays a client, an engine and a device against a Scheduler and its
// Manager. What the device's and the host's blocks hold is modelled naively: a
// slot holds a hash of all tokens up to its own, as a KV entry depends on them.
// Copies take effect at the last moment at which they may, when they are reported
// as done; until then their destination holds garbage. A sequence's next token is a
// function of its last slot's hash: whatever happens to a sequence, its tokens must
// be the same. Every operation ends with the check of all invariants.
type machine struct {
	setup
	choose func(n int) int // 0 … n−1: the source of all decisions
	counts *counts

	s  *Scheduler
	kv *kvcache.Manager

	live      []*client
	bySeq     map[*Sequence]*client
	flying    []flight
	moving    []move
	device    []slot
	host      []slot
	inMove    [maxBlocks]int // copies under way that name the device block
	hostMove  [maxBlocks]int
	blocks    int // present limits
	hostLimit int
	updated   int64
	era       int  // counts resets of the prefix cache
	shrank    bool // the promise to protected sequences may be broken
	stalled   int  // Schedules in a row in which the oldest waited, nothing being copied
	spare     []flight
}

// setup is what a machine is made from.
type setup struct {
	blocks, host, size int
	cfg                Config
	overlap, noPrefix  bool
	calm               bool          // few aborts, so that sequences live to be preempted again and again
	stopOdds           uint64        // one token in so many ends its sequence; 0 = only MaxLen does
	stepTime           time.Duration // the law of the device: of a step, of a prefill token
	tokenTime          time.Duration
}

const maxBlocks = 1 << 8

// slot is one token's KV.
type slot struct {
	hash uint64
	era  int   // when the oldest of what it depends on was computed
	step int64 // that computes it
}

// client is a live sequence with the hash after each token, those under way
// included.
type client struct {
	*Sequence
	hashes []uint64
	done   func(*client) // called when it finished by itself; may be nil
}

// flight is a step in flight with what it will bring.
type flight struct {
	out     *Output
	results []Result
}

// move is a batch of copies under way.
type move struct {
	id     TransferID
	toHost bool
	copies []kvcache.Copy
}

func newMachine(s setup, choose func(int) int, c *counts) *machine {
	kv, err := kvcache.NewManager(kvcache.Config{
		NumBlocks: s.blocks, HostBlocks: s.host, BlockSize: s.size, DisablePrefixCaching: s.noPrefix,
	})
	if err != nil {
		panic(err)
	}
	sched, err := New(s.cfg, kv)
	if err != nil {
		panic(err)
	}
	return &machine{
		setup: s, choose: choose, counts: c, s: sched, kv: kv, bySeq: map[*Sequence]*client{},
		device: make([]slot, maxBlocks*s.size), host: make([]slot, maxBlocks*s.size),
		blocks: s.blocks, hostLimit: s.host,
	}
}

func (m *machine) fail(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// extend is the hash after one more token.
func extend(hash uint64, token int32) uint64 {
	hash = (hash ^ uint64(uint32(token))) * 0x9E3779B97F4A7C15
	return hash ^ hash>>29
}

// sample is the token that follows a hash, from a small alphabet, so that outputs
// meet other prompts.
func (m *machine) sample(hash uint64) (token int32, stop bool) {
	return int32(hash >> 33 % 2), m.stopOdds > 0 && hash>>40%m.stopOdds == 0
}

func seedHash(salt string) uint64 {
	h := uint64(1)
	for _, b := range []byte(salt) {
		h = extend(h, int32(b)+1000)
	}
	return h
}

// submit adds a sequence, unless it can never fit.
func (m *machine) submit(q *Sequence) *client {
	if m.s.BlocksNeeded(q.MaxLen) > m.kv.Capacity() {
		m.counts.add(neverFits)
		return nil
	}
	c := &client{Sequence: q}
	h := seedHash(q.CacheSalt)
	for _, token := range q.Tokens {
		h = extend(h, token)
		c.hashes = append(c.hashes, h)
	}
	m.s.Add(q)
	if q.parked {
		m.counts.add(parkedFork)
	}
	m.live = append(m.live, c)
	m.bySeq[q] = c
	return c
}

// gone forgets a client that ended.
func (m *machine) gone(c *client) {
	m.live = slices.DeleteFunc(m.live, func(o *client) bool { return o == c })
	delete(m.bySeq, c.Sequence)
}

func (m *machine) abort(c *client) {
	if len(c.forks) > 0 {
		m.counts.add(promotedFork)
	}
	m.counts.add(m.abortState(c))
	m.s.Abort(c.Sequence)
	m.s.Abort(c.Sequence) // twice does nothing
	m.gone(c)
}

// abortState names the state that an abort finds c in.
func (m *machine) abortState(c *client) state {
	switch q := c.Sequence; {
	case q.parked:
		return abortParked
	case q.Status == Swapped && q.transfer != 0:
		return abortSwapOut
	case q.Status == Swapped:
		return abortOnHost
	case q.Status == Waiting && q.epoch > 0:
		return abortPreempted
	case q.Status == Waiting:
		return abortWaiting
	case q.transfer != 0:
		return abortSwapIn
	case q.Launched < q.PromptLen:
		return abortPrefill
	case q.Pending > 0:
		return abortInFlight
	}
	return abortDecode
}

// schedule asks for the next step and performs it.
func (m *machine) schedule() *Output {
	preempted := m.owners()
	out := m.s.Schedule()
	m.countOutput(out, preempted)
	m.issue(out.SwapOut, true)
	m.issue(out.SwapIn, false)
	for _, c := range out.Copies {
		if m.inMove[c.Dst] > 0 {
			m.fail("block %d is written by a fork's copy while a swap copy names it", c.Dst)
		}
		copy(m.device[int(c.Dst)*m.size:][:m.size], m.device[int(c.Src)*m.size:][:m.size])
	}
	for i := range out.Admitted {
		m.verifyHit(&out.Admitted[i], out)
	}
	m.verifyOutput(out)
	if out.Empty() {
		if len(m.flying) == 0 && len(m.moving) == 0 && len(m.live) > 0 {
			m.fail("I9: %d sequences live, nothing scheduled, in flight or being copied (%s)", len(m.live), out.WaitReason)
		}
		return out
	}
	f := m.newFlight(out)
	for i := range out.Scheduled {
		m.launch(&out.Scheduled[i], &f.results[i])
	}
	m.flying = append(m.flying, f)
	return out
}

func (m *machine) newFlight(out *Output) flight {
	var f flight
	if n := len(m.spare); n > 0 {
		f, m.spare = m.spare[n-1], m.spare[:n-1]
	}
	f.out = out
	f.results = append(f.results[:0], make([]Result, len(out.Scheduled))...)
	return f
}

// issue begins copies: until they are done, what they write is garbage.
func (m *machine) issue(t Transfer, toHost bool) {
	if t.ID == 0 {
		return
	}
	for _, c := range t.Copies {
		device, host := c.Src, c.Dst
		if !toHost {
			device, host = c.Dst, c.Src
		}
		if toHost && m.hostMove[host] > 0 || !toHost && m.inMove[device] > 0 {
			m.fail("transfer %d writes a block that another copy names", t.ID)
		}
		if toHost {
			clear(m.host[int(host)*m.size:][:m.size])
		} else {
			clear(m.device[int(device)*m.size:][:m.size])
		}
		m.inMove[device]++
		m.hostMove[host]++
	}
	m.moving = append(m.moving, move{t.ID, toHost, slices.Clone(t.Copies)})
}

// copyDone lets the i-th transfer under way take effect and reports it.
func (m *machine) copyDone(i int) {
	t := m.moving[i]
	m.moving = append(m.moving[:i], m.moving[i+1:]...)
	for _, c := range t.copies {
		device, host := m.device[int(c.Src)*m.size:], m.host[int(c.Dst)*m.size:]
		if t.toHost {
			copy(host[:m.size], device[:m.size])
			m.inMove[c.Src]--
			m.hostMove[c.Dst]--
			continue
		}
		device, host = m.device[int(c.Dst)*m.size:], m.host[int(c.Src)*m.size:]
		copy(device[:m.size], host[:m.size])
		m.inMove[c.Dst]--
		m.hostMove[c.Src]--
	}
	m.s.CopyDone(t.id, time.Duration(len(t.copies))*m.cfg.SwapOut)
}

// at is where the sequence's position p is stored.
func (m *machine) at(q *Sequence, p int) int {
	return int(q.Table.IDs()[p/m.size])*m.size + p%m.size
}

// launch reads what e attends to and writes what it computes.
func (m *machine) launch(e *Scheduled, r *Result) {
	q, c := e.Seq, m.bySeq[e.Seq]
	era := m.era
	for p := range e.Start {
		have := &m.device[m.at(q, p)]
		if have.hash != c.hashes[p] {
			m.fail("sequence %d reads block %d, which holds other content at position %d of %d", q.ID, q.Table.IDs()[p/m.size], p, e.Start)
		}
		era = min(era, have.era)
	}
	end := e.Start + e.NumTokens
	for p := e.Start; p < end; p++ {
		if id := q.Table.IDs()[p/m.size]; m.inMove[id] > 0 || m.kv.IsShared(id) || id == 0 {
			m.fail("sequence %d writes block %d: shared %t, named by %d copies", q.ID, id, m.kv.IsShared(id), m.inMove[id])
		}
		m.device[m.at(q, p)] = slot{c.hashes[p], era, m.s.step}
	}
	if e.Sample != (end == len(c.hashes)) {
		m.fail("sequence %d computes up to %d of %d tokens, sample %t", q.ID, end, len(c.hashes), e.Sample)
	}
	if e.Sample {
		last := c.hashes[end-1]
		token, stop := m.sample(last)
		c.hashes = append(c.hashes, extend(last, token))
		*r = Result{Token: token, Finish: stop || end+1 == q.MaxLen}
	}
}

// update reports the oldest step in flight.
func (m *machine) update() {
	f := m.flying[0]
	m.flying = append(m.flying[:0], m.flying[1:]...)
	for i := range f.out.Scheduled {
		e := &f.out.Scheduled[i]
		if !e.Live() {
			m.counts.add(overrun)
		} else if e.Sample && e.Seq.Status != Running {
			m.counts.add(tokenAfterPreemption)
		}
	}
	took := m.stepTime + time.Duration(f.out.NumTokens)*m.tokenTime
	m.updated = f.out.Step
	m.s.Update(f.out, f.results, took)
	for i := range f.out.Scheduled {
		q := f.out.Scheduled[i].Seq
		if c := m.bySeq[q]; c != nil && q.Status == Finished {
			m.finished(c)
		}
	}
	m.spare = append(m.spare, f)
}

// finished wants the tokens that the sequence would have got alone.
func (m *machine) finished(c *client) {
	m.counts.add(finished)
	h := seedHash(c.CacheSalt)
	for i, token := range c.Tokens {
		if want, _ := m.sample(h); i >= c.PromptLen && token != want {
			m.fail("sequence %d has token %d at %d, alone it gets %d", c.ID, token, i, want)
		}
		h = extend(h, token)
	}
	m.gone(c)
	if c.done != nil {
		c.done(c)
	}
}

// setLimits changes what can be changed, as far as the live sequences allow.
func (m *machine) setLimits(l Limits, blocks, host int) bool {
	if blocks-1 < m.s.LargestNeed() {
		return false
	}
	m.shrank = m.shrank || blocks < m.blocks
	m.blocks, m.hostLimit = blocks, host
	if err := m.s.SetLimits(l, blocks, host); err != nil {
		m.fail("limits: %v", err)
	}
	return true
}

func (m *machine) reset() {
	m.s.ResetPrefixCache()
	m.era++
	for _, c := range m.live {
		if c.Table.Len() > 0 {
			m.counts.add(resetLive)
			return
		}
	}
}

// drain lets everything that lives come to its end: no more input, every copy and
// step is reported in turn.
func (m *machine) drain(bound int) {
	for n := 0; len(m.live) > 0 || len(m.flying) > 0 || len(m.moving) > 0; n++ {
		if n > bound {
			m.fail("livelock: %d sequences are left after %d steps", len(m.live), bound)
		}
		if len(m.flying) < 2 {
			m.schedule()
			m.check()
		}
		for len(m.moving) > 0 {
			m.copyDone(0)
			m.check()
		}
		for len(m.flying) > 1 || len(m.flying) > 0 && (!m.overlap || len(m.live) == 0 || n%2 == 0) {
			m.update()
			m.check()
		}
	}
	if used := m.kv.Stats().Used + m.kv.Stats().InFlight + m.kv.Stats().HostUsed + m.kv.Stats().HostInFlight; used > 0 {
		m.fail("%d blocks are left in use", used)
	}
}
