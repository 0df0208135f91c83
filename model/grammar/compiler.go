package grammar

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"
)

// The errors of Compile that are not about the Spec itself.
var (
	// ErrTooSlow: the Spec takes longer to compile than is allowed.
	ErrTooSlow = errors.New("the specification takes too long to compile")
	// ErrBusy: others are being compiled, and the time went by in waiting.
	ErrBusy = errors.New("too many specifications are being compiled")
)

// Limits bound a Compiler; 0 = the default.
type Limits struct {
	Time     time.Duration // of one Spec, waiting included; default 10 s
	Parallel int           // compiled at once; default half of the processors
	Kept     int           // Grammars; default 256
	Bytes    int           // of memory that they take, about; default 256 MiB
}

func (l *Limits) fill() {
	for _, f := range []struct {
		field *int
		value int
	}{{&l.Parallel, max(1, runtime.GOMAXPROCS(0)/2)}, {&l.Kept, 256}, {&l.Bytes, 256 << 20}} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	if l.Time == 0 {
		l.Time = 10 * time.Second
	}
}

// Compiler compiles Specs for one tokenizer and keeps the Grammars that were used
// last. It is safe for concurrent use. Its Vocabulary is made when it is first
// needed: servers that are never asked for structure do not pay for it.
type Compiler struct {
	limits      Limits
	vocabulary  func() (*Vocabulary, error)
	slots       chan struct{} // one a compilation
	compileSpec func(*Vocabulary, Spec) (*Grammar, error)

	mu      sync.Mutex
	entries map[Spec]*entry
	order   []*entry // least recently used first
	bytes   int
}

// entry is a Spec that is compiled or being compiled.
type entry struct {
	spec    Spec
	begun   bool // it is no longer waiting for its turn
	grammar *Grammar
	err     error
	done    chan struct{}
}

// NewCompiler returns a Compiler for the tokenizer.
func NewCompiler(t Tokens, limits Limits) *Compiler {
	limits.fill()
	return &Compiler{
		limits:      limits,
		vocabulary:  sync.OnceValues(func() (*Vocabulary, error) { return NewVocabulary(t) }),
		slots:       make(chan struct{}, limits.Parallel),
		compileSpec: (*Vocabulary).Compile,
		entries:     map[Spec]*entry{},
	}
}

// Vocabulary returns the tokenizer's, which the first call makes.
func (c *Compiler) Vocabulary() (*Vocabulary, error) { return c.vocabulary() }

// Compile returns the Grammar of s, which those who ask for it at the same time
// share. A compilation that takes too long goes on without whoever waited; its
// place is free again when it ends.
func (c *Compiler) Compile(ctx context.Context, s Spec) (*Grammar, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	if _, err := c.vocabulary(); err != nil { // its time is not the Spec's
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.limits.Time)
	defer cancel()
	for {
		c.mu.Lock()
		e := c.entries[s]
		if e == nil {
			e = &entry{spec: s, done: make(chan struct{})}
			c.entries[s] = e
			go c.compile(ctx, e)
		} else {
			c.touch(e)
		}
		c.mu.Unlock()
		select {
		case <-e.done:
			if errors.Is(e.err, context.Canceled) && ctx.Err() == nil {
				continue // whoever began it went away while it waited for its turn
			}
			return e.grammar, e.err
		case <-ctx.Done():
			return nil, c.late(ctx, e)
		}
	}
}

// late says why nothing came of e in time.
func (c *Compiler) late(ctx context.Context, e *entry) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !e.begun {
		return ErrBusy
	}
	return fmt.Errorf("%w (%v)", ErrTooSlow, c.limits.Time)
}

// compile fills e in. ctx is that of whoever asked first; it counts until there is
// a place to compile in.
func (c *Compiler) compile(ctx context.Context, e *entry) {
	select {
	case c.slots <- struct{}{}:
		c.mu.Lock()
		e.begun = true
		c.mu.Unlock()
		if v, err := c.vocabulary(); err != nil {
			e.err = err
		} else {
			e.grammar, e.err = c.compileSpec(v, e.spec)
		}
		<-c.slots
	case <-ctx.Done():
		e.err = ErrBusy
		if errors.Is(ctx.Err(), context.Canceled) {
			e.err = ctx.Err()
		}
	}
	c.mu.Lock()
	c.keep(e)
	c.mu.Unlock()
	close(e.done)
}

// keep makes room for e, which is compiled. What did not depend on the Spec alone
// is not kept.
func (c *Compiler) keep(e *entry) {
	if errors.Is(e.err, ErrBusy) || errors.Is(e.err, context.Canceled) || e.size() > c.limits.Bytes {
		delete(c.entries, e.spec)
		return
	}
	c.order = append(c.order, e)
	c.bytes += e.size()
	for len(c.order) > c.limits.Kept || c.bytes > c.limits.Bytes {
		oldest := c.order[0]
		c.order = c.order[1:]
		c.bytes -= oldest.size()
		delete(c.entries, oldest.spec)
	}
}

// touch makes e the one used last, if it is compiled.
func (c *Compiler) touch(e *entry) {
	for i, other := range c.order {
		if other == e {
			c.order = append(append(c.order[:i:i], c.order[i+1:]...), e)
			return
		}
	}
}

// size is the memory that e takes; an error is as long as its Spec at most, nearly.
func (e *entry) size() int {
	if e.grammar == nil {
		return len(e.spec.Text)
	}
	return e.grammar.bytes + len(e.spec.Text)
}
