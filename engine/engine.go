package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/pagoda-engine/pagoda/kernels"
	"github.com/pagoda-engine/pagoda/model"
)

// Info describes model, device and limits. Reconfigure changes NumBlocks,
// HostBlocks and MaxNumSeqs, AddEOSID changes EOSIDs; the rest does not change while
// an Engine lives.
type Info struct {
	Model       string
	Device      kernels.Info
	MaxModelLen int // tokens of a sequence, prompt and output
	Vocab       int // ids are 0 … Vocab−1
	SampleVocab int // ids that can be drawn are 0 … SampleVocab−1
	EOSIDs      []int32
	Generation  *model.GenerationConfig // never nil; fields that are nil are not given
	BlockSize   int                     // tokens
	NumBlocks   int                     // that sequences can hold
	HostBlocks  int                     // of the swap pool
	BlockBytes  int64
	MaxNumSeqs  int
	MaxLogprobs int
	MaxQueued   int  // requests that may wait
	Priority    bool // the scheduling policy is priority
	Overlapped  bool // the overlapped loop runs

	// For rooflines.
	WeightBytes           int64 // on the device, as far as loading knows (kernels.Completer)
	StreamedWeightBytes   int64 // that a decode step reads: all but an embedding that is not the head
	KVBytesPerToken       int64
	LayerFLOPsPerToken    int64 // of all linear layers but the head
	AttentionFLOPsPerPair int64 // of a query with one key, over all layers and heads
	HeadFLOPs             int64 // of one row of logits
}

// The states of an Engine.
const (
	stateOpen     int32 = iota
	stateDraining       // no new requests; those there are finish
	stateClosed         // all requests are aborted
)

// Engine serves requests on one model. Its methods may be called from any
// goroutine.
type Engine struct {
	cfg       Config // as it started
	info      Info   // likewise
	effective atomic.Pointer[effective]

	// The way in. queued and queuedTokens count the requests that have not
	// started and their prompts' tokens; queued bounds what is in inbox.
	inbox        chan *request
	queued       atomic.Int64
	queuedTokens atomic.Int64
	arriving     atomic.Int64            // requests that stats does not have yet, each choice counted
	alones       atomic.Int64            // calls of alone
	aborts       atomic.Pointer[request] // stack, linked by abortNext
	calls        chan func(*loop)        // unbuffered: a call that was sent is executed
	wake         chan struct{}           // one slot

	// gate orders Submit against the end and new limits: once a writer of state held
	// it, no further request enters inbox; once replan did, none that was checked by
	// the larger pool.
	gate  sync.RWMutex
	state atomic.Int32

	stats statsCell
	done  chan struct{}
	err   error // why it stopped; set before done is closed
	loop  *loop // for Steps and Dump, which hold it
}

// effective is what Reconfigure replaces as a whole.
type effective struct {
	cfg      Config
	info     Info
	settings []Setting
	ledger   []LedgerEntry
	from     string // where the memory limit comes from
	limit    int64  // bytes
}

// source is where an engine's model comes from: known before anything is
// allocated, then opened and loaded on the engine's goroutine.
type source struct {
	info        Info // the model's part
	shape       kernels.Shape
	modelMaxLen int
	weights     int64 // bytes, estimated
	gathered    int64 // bytes of them that a step does not stream
	open        func(*Config) (kernels.Backend, error)
	load        func(kernels.Backend) (*loaded, error)
	close       func() // releases what load reads from
}

// loaded is a model on its device.
type loaded struct {
	forward     func(*kernels.Batch)
	weightBytes int64
	notes       []string
}

// New loads the model and starts the engine. It fails with an error that wraps
// ErrConfig, ErrModel, ErrMemory or ErrDevice; what does not fit is refused
// before anything is allocated.
func New(cfg Config) (*Engine, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	src, err := openModel(&cfg)
	if err != nil {
		return nil, err
	}
	return start(cfg, src)
}

// start runs the engine's goroutine until it serves or has failed to.
func start(cfg Config, src source) (*Engine, error) {
	e := &Engine{
		cfg:   cfg,
		info:  src.info,
		inbox: make(chan *request, cfg.MaxQueuedReqs),
		calls: make(chan func(*loop)),
		wake:  make(chan struct{}, 1),
		done:  make(chan struct{}),
	}
	ready := make(chan error, 1)
	go func() {
		// The thread, to which device state is bound, ends with the goroutine.
		runtime.LockOSThread()
		l, err := e.setup(src)
		if err == nil {
			e.loop = l
		}
		ready <- err
		if err == nil {
			l.stop(l.run())
			l.hold.Unlock()
		}
	}()
	if err := <-ready; err != nil {
		return nil, err
	}
	for _, s := range e.Settings() {
		cfg.Log.Debug("setting", "name", s.Name, "value", s.Value, "reason", s.Reason)
	}
	return e, nil
}

// Info describes model, device and the limits in force.
func (e *Engine) Info() Info { return e.effective.Load().info }

// AddEOSID adds an id to those that end a request where it is not among them: the
// tokenizer's own, which the model's files need not name. It may be told after New, for
// a tokenizer opens while weights load, but before the first Submit.
func (e *Engine) AddEOSID(id int32) {
	if id < 0 || int(id) >= e.info.Vocab {
		panic(fmt.Sprintf("engine: the end of sequence is id %d of %d", id, e.info.Vocab))
	}
	if slices.Contains(e.info.EOSIDs, id) {
		return
	}
	e.info.EOSIDs = append(slices.Clip(e.info.EOSIDs), id)
	now := *e.effective.Load()
	now.info.EOSIDs = e.info.EOSIDs
	e.effective.Store(&now)
}

// Settings lists the effective configuration with the reason of each value.
func (e *Engine) Settings() []Setting { return e.effective.Load().settings }

// Ledger is the memory plan in force, line by line.
func (e *Engine) Ledger() []LedgerEntry { return e.effective.Load().ledger }

// ResetPrefixCache forgets all cached prefixes. Requests that run keep the blocks
// they share.
func (e *Engine) ResetPrefixCache(ctx context.Context) error {
	return e.call(ctx, func(l *loop) { l.sched.ResetPrefixCache() })
}

// Stats returns the numbers of the last step, with those who came since. It takes no lock.
func (e *Engine) Stats() Stats {
	arriving := e.arriving.Load() // first: who arrives now is seen twice for a moment, but never not at all
	s := e.stats.load()
	s.Waiting += int(arriving)
	s.Jobs = int(e.alones.Load())
	return s
}

// Done is closed when the engine has stopped: by Close or Shutdown, or because
// its device failed.
func (e *Engine) Done() <-chan struct{} { return e.done }

// Err says why the engine stopped: nil while it runs and after Close and
// Shutdown, otherwise an error that wraps ErrDevice or ErrInvariant.
func (e *Engine) Err() error {
	select {
	case <-e.done:
		return e.err
	default:
		return nil
	}
}

// Close aborts all requests, releases the device and waits for both. It returns
// the device's error if it had failed. Closing twice is allowed.
func (e *Engine) Close() error {
	e.enter(stateClosed)
	<-e.done
	return e.err
}

// Shutdown refuses new requests, lets those there are finish, and closes. When
// ctx ends first, the rest is aborted and ctx's error returned.
func (e *Engine) Shutdown(ctx context.Context) error {
	e.enter(stateDraining)
	select {
	case <-e.done:
		return e.err
	case <-ctx.Done():
		return errors.Join(e.Close(), ctx.Err())
	}
}

// enter moves on to a later state.
func (e *Engine) enter(state int32) {
	e.gate.Lock()
	e.state.Store(max(state, e.state.Load()))
	e.gate.Unlock()
	e.poke()
}

// closedError is ErrClosed with what is known of the reason.
func (e *Engine) closedError() error { return closedBy(e.Err()) }

// closedBy is ErrClosed with its cause, if that is an error.
func closedBy(cause error) error {
	if cause != nil {
		return fmt.Errorf("%w: %w", ErrClosed, cause)
	}
	return ErrClosed
}

// call runs fn on the engine's goroutine, between two of its calls to the
// device, and waits for it.
func (e *Engine) call(ctx context.Context, fn func(*loop)) error {
	finished := make(chan struct{})
	select {
	case e.calls <- func(l *loop) { fn(l); close(finished) }:
		<-finished
		return nil
	case <-e.done:
		return e.closedError()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Steps returns the records of the last n steps that are kept, oldest first; of an
// engine that hangs too, unless it hangs while it launches a step.
func (e *Engine) Steps(n int) []StepRecord {
	if !e.loop.tryHold(dumpPatience) {
		return nil
	}
	defer e.loop.hold.Unlock()
	return e.loop.records.last(n)
}
