package server

import (
	"crypto/sha256"
	"slices"
	"sync"
	"time"

	"github.com/pagoda-engine/pagoda/engine"
)

// Bounds of what is kept of requests for the page: with the most of everything
// about 25 MB. What is beyond is counted and not kept.
const (
	keptRequests   = 64
	keptTextBytes  = 32 << 10 // of a rendered prompt
	keptPromptIDs  = 4096     // of a request, as are the next ones
	keptOutputIDs  = 4096
	keptChoices    = 16
	keptTopPerID   = 5
	mostLifeEvents = 400
)

// inspector keeps the last requests for the page. A nil one keeps nothing.
type inspector struct {
	mu   sync.Mutex
	kept []*inspection // oldest first
}

// inspection is what is kept of a request. mu of the inspector guards it.
type inspection struct {
	of      *inspector
	id      string
	owner   [sha256.Size]byte // hash of the key that sent it
	began   time.Time
	ready   time.Time // when it was submitted, its prompts encoded
	subject string
	text    string // as rendered, or as given
	textCut int    // bytes that are not kept
	prompts [][]int32
	tokens  []int // of each prompt, those that are not kept included
	r       sampledBy
	stream  bool
	choices []*inspectedChoice
	room    int // output ids that may still be kept
}

// sampledBy is how tokens were drawn.
type sampledBy struct {
	Temperature       float32  `json:"temperature"`
	TopP              float32  `json:"top_p"`
	TopK              int32    `json:"top_k"`
	MinP              float32  `json:"min_p"`
	RepetitionPenalty float32  `json:"repetition_penalty"`
	PresencePenalty   float32  `json:"presence_penalty"`
	FrequencyPenalty  float32  `json:"frequency_penalty"`
	Seed              *uint64  `json:"seed"` // null: a random one
	MaxTokens         int      `json:"max_tokens"`
	N                 int      `json:"n"`
	Stop              []string `json:"stop,omitempty"`
	Tools             bool     `json:"tools,omitempty"`
}

type inspectedChoice struct {
	in           *inspection
	sequence     engine.SequenceID
	cached       int
	admitted     time.Time
	first, last  time.Time
	tokens       []inspectedToken
	total        int
	finish       engine.FinishReason
	preemptions  int
	withLogprobs bool
}

// inspectedToken is one token of an output.
type inspectedToken struct {
	id      int32
	rank    int32
	logprob float32
	top     []likelyID
}

// likelyID is one of the likeliest in a token's place; there are many.
type likelyID struct {
	id      int32
	logprob float32
}

// add keeps a request that was submitted; another is forgotten for it.
func (in *inspector) add(g *generation) {
	if in == nil {
		return
	}
	r := g.r
	q := &inspection{
		of: in, id: g.id, owner: r.owner, began: g.arrival, ready: g.submitted, stream: r.stream, room: keptOutputIDs,
		r: sampledBy{
			Temperature: r.sampling.Temperature, TopP: r.sampling.TopP, TopK: r.sampling.TopK, MinP: r.sampling.MinP,
			RepetitionPenalty: r.sampling.RepetitionPenalty, PresencePenalty: r.sampling.PresencePenalty, FrequencyPenalty: r.sampling.FrequencyPenalty,
			MaxTokens: r.maxTokens, N: r.n, Stop: r.stops, Tools: r.tooling.parsed(),
		},
	}
	if r.seeded {
		seed := r.sampling.Seed
		q.r.Seed = &seed
	}
	q.subject, q.text, q.textCut = r.subject, r.rendered, r.renderedCut
	left := keptPromptIDs
	for _, ids := range g.prompts {
		n := min(left, len(ids))
		left -= n
		q.prompts, q.tokens = append(q.prompts, slices.Clone(ids[:n])), append(q.tokens, len(ids))
	}
	for _, c := range g.choices[:min(len(g.choices), keptChoices)] {
		c.inspected = &inspectedChoice{in: q, withLogprobs: r.logprobs}
		q.choices = append(q.choices, c.inspected)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.kept) == keptRequests {
		i := in.leastMissed()
		in.kept = slices.Delete(in.kept, i, i+1)
	}
	in.kept = append(in.kept, q)
}

// leastMissed is the oldest that has ended. While none has, it is the newest: those
// that came first run first, and what runs is looked at.
func (in *inspector) leastMissed() int {
	if i := slices.IndexFunc(in.kept, (*inspection).ended); i >= 0 {
		return i
	}
	return len(in.kept) - 1
}

// ended says that no choice runs or waits.
func (q *inspection) ended() bool {
	return len(q.choices) > 0 && !slices.ContainsFunc(q.choices, func(c *inspectedChoice) bool { return c.finish == engine.FinishNone })
}

// token keeps what an event brought.
func (c *inspectedChoice) token(ev engine.Event, now time.Time) {
	if c == nil {
		return
	}
	c.in.of.mu.Lock()
	defer c.in.of.mu.Unlock()
	if c.total == 0 {
		c.first, c.sequence, c.cached, c.admitted = now, ev.Sequence, ev.CachedTokens, ev.Admitted
	}
	c.total++
	c.last = now
	if c.in.room == 0 {
		return
	}
	c.in.room--
	t := inspectedToken{id: ev.Token}
	if c.withLogprobs {
		t.logprob, t.rank = ev.Logprob, ev.Rank
		for i, id := range ev.TopIDs[:min(len(ev.TopIDs), keptTopPerID)] {
			t.top = append(t.top, likelyID{id, ev.TopLogprobs[i]})
		}
	}
	c.tokens = append(c.tokens, t)
}

// end keeps how the choice ended.
func (c *inspectedChoice) end(finish engine.FinishReason, preemptions int) {
	if c == nil {
		return
	}
	c.in.of.mu.Lock()
	defer c.in.of.mu.Unlock()
	if c.finish == engine.FinishNone {
		c.finish, c.preemptions = finish, preemptions
		if c.last.IsZero() {
			c.last = time.Now()
		}
	}
}

// keepRendered keeps the text that a prompt is made of, for the page.
func (s *Server) keepRendered(r *request, text, subject string) {
	if s.inspector == nil || r.rendered != "" {
		return
	}
	r.subject = shortened(subject)
	n := min(len(text), keptTextBytes)
	r.rendered, r.renderedCut = string([]byte(text[:n])), len(text)-n // a copy: the rest is not to be held
}

// each calls f for the requests of an owner, the newest first, under the lock,
// until it says false.
func (in *inspector) each(owner [sha256.Size]byte, f func(q *inspection) (more bool)) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, q := range slices.Backward(in.kept) {
		if q.owner == owner && !f(q) {
			return
		}
	}
}
