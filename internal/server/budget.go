package server

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/pagoda-engine/pagoda/model/tokenizer"
)

// Encoding takes about 20 bytes of memory for each byte of text, and none of it
// is the engine's, which has a plan. So the text that is encoded at one time is
// bounded. Short texts have a bound of their own: a long one does not delay them.
const (
	shortText     = 64 << 10
	encodingBytes = maxBodyBytes // of short texts at one time, and of long ones

	// bodyBytes is the sum of all bodies that are not short and are being read,
	// decoded or encoded.
	bodyBytes = 16 * maxBodyBytes
)

// byteBudget lets work on a bounded number of bytes go on at one time, in the
// order of asking.
type byteBudget struct {
	total int

	mu      sync.Mutex
	used    int
	waiting []*claim
}

// claim is one that waits for its turn.
type claim struct {
	bytes int
	turn  chan struct{} // closed when it has come
}

// acquire waits for n bytes. More than there are count as all of them.
func (b *byteBudget) acquire(ctx context.Context, n int) (release func(), err error) {
	c := &claim{bytes: min(n, b.total), turn: make(chan struct{})}
	b.mu.Lock()
	b.waiting = append(b.waiting, c)
	b.admit()
	b.mu.Unlock()
	release = func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.used -= c.bytes
		b.admit()
	}
	select {
	case <-c.turn:
		return release, nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, other := range b.waiting {
		if other == c {
			b.waiting = append(b.waiting[:i], b.waiting[i+1:]...)
			b.admit() // those behind it may fit
			return nil, ctx.Err()
		}
	}
	b.used -= c.bytes // its turn came just now
	b.admit()
	return nil, ctx.Err()
}

// admit gives those their turn that fit, first come, first served.
func (b *byteBudget) admit() {
	for len(b.waiting) > 0 && b.used+b.waiting[0].bytes <= b.total {
		c := b.waiting[0]
		b.waiting = b.waiting[1:]
		b.used += c.bytes
		close(c.turn)
	}
}

// encode turns text into ids by f, within the bounds.
func (s *Server) encode(ctx context.Context, r *request, param, text string, f func() ([]int32, error)) ([]int32, *apiError) {
	// Of a long text it is not worth finding out how many tokens it has, if that is too many in any case.
	if least := s.leastTokens(text); len(text) > shortText && r.truncate == 0 && !r.counted && least+max(1, r.maxTokens) > s.info.MaxModelLen {
		e := tooLong(param, least, r.maxTokens, s.info.MaxModelLen)
		e.message = strings.Replace(e.message, "prompt has", "prompt has at least", 1)
		return nil, e
	}
	if len(text) > tokenizer.MaxTextBytes {
		return nil, badField(param, "must make at most %d bytes of text, not %d", tokenizer.MaxTextBytes, len(text))
	}
	begin := time.Now()
	budget := &s.longTexts
	if len(text) <= shortText {
		budget = &s.shortTexts
	}
	release, err := budget.acquire(ctx, len(text))
	if err != nil {
		return nil, s.cancelled()
	}
	defer release()
	ids, err := f()
	s.metrics.tokenize.Observe(time.Since(begin).Seconds())
	if err != nil {
		s.log.Debug("text not encoded", "param", param, "err", err)
		return nil, badField(param, "cannot be encoded")
	}
	return ids, nil
}

// shrinks is the most by which a normalizer that composes characters (NFC)
// shortens text: three Hangul letters of 3 bytes become one of 3.
const shrinks = 3

// leastTokens is a number of tokens that text has at least: no token stands for
// more than the longest one's bytes. White space does not count, since tokens may
// swallow any amount of it.
func (s *Server) leastTokens(text string) int {
	if len(text) < s.longestToken {
		return 0
	}
	n := 0
	for i := range len(text) {
		switch text[i] {
		case ' ', '\t', '\n', '\r', '\v', '\f':
		default:
			n++
		}
	}
	return n / (shrinks * s.longestToken)
}

// longestToken is the bytes of the longest token.
func longestToken(t Tokenizer, vocab int) int {
	longest := 1
	if t == nil {
		return longest
	}
	for id := range vocab {
		longest = max(longest, len(t.TokenBytes(int32(id))), len(t.TokenString(int32(id))))
	}
	return longest
}
