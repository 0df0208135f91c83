package chat

import (
	"crypto/rand"
	"slices"
	"strings"

	"github.com/nikolalohinski/gonja/v2/exec"
)

// marks are texts that no request can contain: private-use characters around
// random digits, which no filter of a template changes by accident.
type marks struct {
	open  string // the control token behind it is text of the client
	close string // the control token before it is
	end   string // the final message ends here (ContinueFinalMessage)
}

const markBegins, markEnds = '\U000F5A00', '\U000F5A01'

func newMarks() marks {
	digits := make([]byte, 33)
	rand.Read(digits)
	for i, b := range digits {
		digits[i] = '0' + b%10
	}
	mark := func(kind string) string { return string(markBegins) + string(digits) + kind + string(markEnds) }
	return marks{open: mark("1"), close: mark("2"), end: mark("3")}
}

// finder looks for the control tokens in strings.
type finder struct {
	marks
	tokens   []string // longest first
	replacer *strings.Replacer
}

func newFinder(m marks, controlTokens []string) *finder {
	f := &finder{marks: m}
	for _, token := range controlTokens {
		if token != "" {
			f.tokens = append(f.tokens, token)
		}
	}
	slices.SortStableFunc(f.tokens, func(a, b string) int { return len(b) - len(a) })
	var pairs []string
	for _, token := range f.tokens {
		pairs = append(pairs, token, m.open+token)
	}
	f.replacer = strings.NewReplacer(pairs...)
	return f
}

// mark returns s with marks beside the control tokens that it spells, leftmost
// and longest first.
func (f *finder) mark(s string) string {
	if len(f.tokens) == 0 {
		return s
	}
	marked := f.replacer.Replace(s)
	if rest, begins := strings.CutPrefix(marked, f.open); begins {
		token := f.prefixToken(rest)
		return token + f.close + rest[len(token):]
	}
	return marked
}

func (f *finder) prefixToken(s string) string {
	for _, token := range f.tokens {
		if strings.HasPrefix(s, token) {
			return token
		}
	}
	return ""
}

func (f *finder) suffixToken(s string) string {
	for _, token := range f.tokens {
		if strings.HasSuffix(s, token) {
			return token
		}
	}
	return ""
}

// trim is Python's strip, lstrip or rstrip as if there were no marks: those it
// passes stay where the text now begins or ends. A token that comes to begin the
// text has its mark behind it, as in mark; where no text is left, no mark is.
func (f *finder) trim(s string, cut func(rune) bool, left, right bool) string {
	before, behind := "", ""
	if left {
		for {
			s = strings.TrimLeftFunc(s, cut)
			mark := f.leading(s)
			if mark == "" {
				break
			}
			before, s = before+mark, s[len(mark):]
		}
	}
	if right {
		for {
			s = strings.TrimRightFunc(s, cut)
			mark := f.trailing(s)
			if mark == "" {
				break
			}
			behind, s = mark+behind, s[:len(s)-len(mark)]
		}
	}
	if rest, lost := strings.CutSuffix(before, f.open); lost {
		if token := f.prefixToken(s); token != "" {
			return rest + token + f.close + s[len(token):] + behind
		}
	}
	return f.bare(before + s + behind)
}

// bare returns "" for marks that stand beside nothing, so that a template finds
// such a string as empty as it is; the end of the final message is no such mark.
func (f *finder) bare(s string) string {
	for rest := s; ; {
		mark := f.leading(rest)
		switch {
		case rest == "":
			return ""
		case mark == "" || mark == f.end:
			return s
		}
		rest = rest[len(mark):]
	}
}

// leading returns the mark that s begins with, trailing the one that it ends
// with; "" for none.
func (f *finder) leading(s string) string  { return f.markAt(s, strings.HasPrefix) }
func (f *finder) trailing(s string) string { return f.markAt(s, strings.HasSuffix) }

func (f *finder) markAt(s string, is func(s, mark string) bool) string {
	for _, mark := range []string{f.open, f.close, f.end} {
		if is(s, mark) {
			return mark
		}
	}
	return ""
}

// strip removes the marks of a rendered text and returns the byte ranges, in
// what is left, of the tokens they stood beside. A mark that has lost its token
// leaves an empty range: no token may be made of the text on its two sides.
func (f *finder) strip(marked string) (string, [][2]int) {
	var text strings.Builder
	var literal [][2]int
	text.Grow(len(marked))
	for {
		at, mark := f.next(marked)
		if mark == "" {
			text.WriteString(marked)
			return text.String(), literal
		}
		text.WriteString(marked[:at])
		marked = marked[at+len(mark):]
		here := text.Len()
		start, end := here, here
		if mark == f.open {
			end += len(f.prefixToken(marked))
		} else {
			start -= len(f.suffixToken(text.String()))
		}
		if n := len(literal); n > 0 {
			start = max(start, literal[n-1][1])
		}
		literal = append(literal, [2]int{start, max(start, end)})
	}
}

// next finds the first open or close mark.
func (f *finder) next(s string) (at int, mark string) {
	at = len(s)
	if i := strings.Index(s, f.open); i >= 0 {
		at, mark = i, f.open
	}
	if i := strings.Index(s[:at], f.close); i >= 0 {
		at, mark = i, f.close
	}
	return at, mark
}

// engineValue turns decoded JSON into what gonja understands, each string and
// key through text. An empty object is a Go map, for gonja holds a Dict to be
// true even when it is empty.
func engineValue(value any, text func(string) string) any {
	switch value := value.(type) {
	case string:
		return text(value)
	case []any:
		elements := make(list, len(value))
		for i, element := range value {
			elements[i] = engineValue(element, text)
		}
		return elements
	case nil:
		return none(false)
	case *object:
		if len(value.members) == 0 {
			return map[string]any{}
		}
		dict := &exec.Dict{Pairs: make([]*exec.Pair, len(value.members))}
		for i, m := range value.members {
			dict.Pairs[i] = &exec.Pair{Key: exec.AsValue(text(m.key)), Value: exec.AsValue(engineValue(m.value, text))}
		}
		return dict
	default:
		return value
	}
}
