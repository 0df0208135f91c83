package server

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pagoda-engine/pagoda/engine"
)

// ownerOf is whose prompts a request may see: those sent with the same key.
func (s *Server) ownerOf(req *http.Request) [sha256.Size]byte {
	if len(s.keys) == 0 {
		return [sha256.Size]byte{}
	}
	_, key := credentials(req)
	return sha256.Sum256([]byte(key))
}

// shownRequest is a line of the page's list of requests.
type shownRequest struct {
	ID      string  `json:"id"`
	Created float64 `json:"created"` // Unix seconds
	Prompt  int     `json:"prompt"`  // tokens
	Cached  int     `json:"cached"`
	Output  int     `json:"output"`
	Choices int     `json:"choices"`
	Finish  string  `json:"finish"`  // "" = it runs
	Subject string  `json:"subject"` // what the user said
	TTFTMs  float64 `json:"ttft_ms,omitempty"`
	TookMs  float64 `json:"took_ms,omitempty"`
}

// shownDetail is all that the page shows of a request.
type shownDetail struct {
	shownRequest
	Sampling   sampledBy     `json:"sampling"`
	Stream     bool          `json:"stream"`
	EncodeMs   float64       `json:"encode_ms"` // from arrival to submission
	Text       string        `json:"text"`
	TextCut    int           `json:"text_cut,omitempty"` // bytes
	Prompts    []shownPrompt `json:"prompts"`
	ChoiceList []shownChoice `json:"choice_list"`
}

type shownPrompt struct {
	Tokens []shownToken `json:"tokens"`
	Total  int          `json:"total"`
}

type shownToken struct {
	ID      int32        `json:"id"`
	Text    string       `json:"text"`
	Special bool         `json:"special,omitempty"`
	Logprob *float32     `json:"logprob,omitempty"`
	Rank    int32        `json:"rank,omitempty"`
	Top     []shownToken `json:"top,omitempty"`
}

type shownChoice struct {
	Sequence    int64        `json:"seq"` // 0 = it never ran
	Finish      string       `json:"finish"`
	Preemptions int          `json:"preemptions"`
	QueueMs     float64      `json:"queue_ms"`
	TTFTMs      float64      `json:"ttft_ms"`
	TookMs      float64      `json:"took_ms"`
	Tokens      []shownToken `json:"tokens"`
	Total       int          `json:"total"`
	Life        []lifeEvent  `json:"life"`
	LifeCut     bool         `json:"life_cut,omitempty"` // its first steps are no longer kept

	began    time.Time
	readyMs  float64 // when it joined the queue, since began
	sequence engine.SequenceID
}

// line is what the list has of q. Called under the inspector's lock.
func (s *Server) line(q *inspection) shownRequest {
	l := shownRequest{ID: q.id, Created: float64(q.began.UnixMilli()) / 1000, Choices: len(q.choices), Subject: q.subject}
	for _, n := range q.tokens {
		l.Prompt += n
	}
	for i, c := range q.choices {
		l.Output += c.total
		if i == 0 {
			l.Cached, l.Finish = c.cached, string(c.finish)
			if c.total > 0 {
				l.TTFTMs = ms(c.first.Sub(q.began))
			}
		}
		l.TookMs = max(l.TookMs, ms(c.last.Sub(q.began)))
	}
	if !q.ended() {
		l.Finish, l.TookMs = "", 0
	}
	return l
}

func ms(d time.Duration) float64 { return float64(max(d, 0).Microseconds()) / 1000 }

func (s *Server) handleInspectedList(w http.ResponseWriter, req *http.Request) {
	list := []shownRequest{}
	s.inspector.each(s.ownerOf(req), func(q *inspection) bool {
		list = append(list, s.line(q))
		return true
	})
	s.writeJSON(w, http.StatusOK, map[string]any{"requests": list})
}

func (s *Server) handleInspected(w http.ResponseWriter, req *http.Request) {
	var found *shownDetail
	s.inspector.each(s.ownerOf(req), func(q *inspection) bool {
		if q.id == req.PathValue("id") {
			found = s.detail(q)
		}
		return found == nil
	})
	if found == nil {
		s.writeError(w, &apiError{status: http.StatusNotFound, kind: typeInvalidRequest,
			message: fmt.Sprintf("no such request is kept; at most %d are", keptRequests)})
		return
	}
	for i := range found.ChoiceList {
		c := &found.ChoiceList[i]
		if c.sequence == 0 {
			continue
		}
		if err := s.tellLife(req.Context(), c); err != nil {
			s.writeError(w, s.mapError(err, ""))
			return
		}
	}
	s.writeJSON(w, http.StatusOK, found)
}

// detail copies q for the page. Called under the inspector's lock.
func (s *Server) detail(q *inspection) *shownDetail {
	d := &shownDetail{
		shownRequest: s.line(q), Sampling: q.r, Stream: q.stream, EncodeMs: ms(q.ready.Sub(q.began)),
		Text: strings.ToValidUTF8(q.text, "\uFFFD"), TextCut: q.textCut, Prompts: []shownPrompt{}, ChoiceList: []shownChoice{},
	}
	for i, ids := range q.prompts {
		p := shownPrompt{Tokens: make([]shownToken, len(ids)), Total: q.tokens[i]}
		for j, id := range ids {
			p.Tokens[j] = s.shownToken(id)
		}
		d.Prompts = append(d.Prompts, p)
	}
	for _, c := range q.choices {
		out := shownChoice{
			Sequence: int64(c.sequence), Finish: string(c.finish), Preemptions: c.preemptions, Total: c.total,
			Tokens: make([]shownToken, len(c.tokens)), Life: []lifeEvent{}, began: q.began, readyMs: ms(q.ready.Sub(q.began)), sequence: c.sequence,
		}
		if c.total > 0 {
			out.QueueMs, out.TTFTMs, out.TookMs = ms(c.admitted.Sub(q.ready)), ms(c.first.Sub(q.began)), ms(c.last.Sub(q.began))
		}
		for i, t := range c.tokens {
			shown := s.shownToken(t.id)
			if c.withLogprobs {
				shown.Logprob, shown.Rank = &t.logprob, t.rank
				for _, o := range t.top {
					other := s.shownToken(o.id)
					other.Logprob = &o.logprob
					shown.Top = append(shown.Top, other)
				}
			}
			out.Tokens[i] = shown
		}
		d.ChoiceList = append(d.ChoiceList, out)
	}
	return d
}

// shownToken is a token with its text; bytes that are no text are escaped.
func (s *Server) shownToken(id int32) shownToken {
	t := shownToken{ID: id}
	if s.tokenizer == nil {
		return t
	}
	t.Text, t.Special = s.tokenizer.TokenBytes(id), s.tokenizer.IsSpecial(id)
	if !utf8.ValidString(t.Text) {
		var escaped strings.Builder
		for _, b := range []byte(t.Text) {
			fmt.Fprintf(&escaped, "\\x%02X", b)
		}
		t.Text = escaped.String()
	}
	return t
}

// reason is the sentence of a record that has one reason.
func (s *Server) reason(r *engine.StepRecord) string {
	if s.explain == nil {
		return ""
	}
	if lines := s.explain(r); len(lines) > 1 {
		return lines[1]
	}
	return ""
}

// lastUserText is what the last of the user's messages says, for a list; "" when it
// is no plain text, or long to look for.
func lastUserText(messages json.RawMessage) string {
	const most = 64 << 10
	var list []struct {
		Role    string
		Content json.RawMessage
	}
	if len(messages) > most || json.Unmarshal(messages, &list) != nil {
		return ""
	}
	for _, m := range slices.Backward(list) {
		var text string
		if m.Role == "user" {
			_ = json.Unmarshal(m.Content, &text)
			return text
		}
	}
	return ""
}

// shortened is the beginning of a text in one line.
func shortened(text string) string {
	const most = 120
	words := strings.ToValidUTF8(text[:min(len(text), 8*most)], "")
	line := []rune(strings.Join(strings.Fields(words), " "))
	if len(line) > most {
		return string(line[:most-1]) + "…"
	}
	return string(line)
}
