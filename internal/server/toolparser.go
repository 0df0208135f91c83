package server

import (
	"bytes"
	"encoding/json"
)

// The tags that models of the Hermes family, Qwen2.5 among them, write around a
// tool call:
//
//	<tool_call>
//	{"name": "get_weather", "arguments": {"city": "Paris"}}
//	</tool_call>
const (
	callOpen  = "<tool_call>"
	callClose = "</tool_call>"

	whiteSpace = " \t\r\n" // as JSON has it
)

// toolParser tells tool calls from text while a model writes. It looks at each
// byte once, so the result does not depend on how the text was split, and the
// joined deltas of a stream are the calls of the same answer without streaming.
//
// A call is shown as soon as its name is known, and its arguments as they come,
// byte by byte as the model spelled them. Arguments that are a string have to wait
// for their end: one that holds a JSON object stands for that object. A call whose
// JSON turns out to be broken is text: all of it if nothing was shown yet, else a
// last delta has it, which an answer without streaming can still act on.
//
// Text is what stands before the first call, without the white space that parts
// them; what a model says after a call is dropped, as vLLM does.
type toolParser struct {
	state parserState
	held  []byte // text that may belong to a tag, and the white space before it
	limit int    // most calls; 0 = any number
	whole int    // calls that are complete
	begun int    // calls shown
	torn  bool   // the answer ended within a call

	// The call under way.
	scan  jsonScanner
	raw   []byte // all of it, its tag too
	key   []byte // of the outer object
	value []byte // of that key, as far as it is not shown
	in    valueKind
	bare  bool   // it is a number or a literal
	named bool   // its name is shown
	args  bool   // it has arguments
	early []byte // arguments that came before the name

	out   []callDelta
	shown int // bytes of text of the piece under way
}

type parserState uint8

const (
	inText parserState = iota
	inCall
	afterCall // until its closing tag
)

// valueKind is what a value of the outer object is good for.
type valueKind uint8

const (
	noValue valueKind = iota
	nameValue
	argumentsValue  // shown as it comes
	stringArguments // shown when it is whole
	otherValue
)

// callDelta is a part of a tool call: its name, once, or more of its arguments.
type callDelta struct {
	index     int
	id, name  string // of its first delta
	arguments string
	broken    bool   // it was none after all:
	text      string // what the model wrote
	at        int    // where that belongs in the text of the same piece
}

// newToolParser returns a parser that takes at most limit calls (0: any number).
func newToolParser(limit int) *toolParser { return &toolParser{limit: limit} }

// full says that no more calls are wanted.
func (p *toolParser) full() bool { return p.limit > 0 && p.whole >= p.limit }

// feed takes the next piece of the answer and returns what it adds.
func (p *toolParser) feed(piece string) (text string, calls []callDelta) {
	var shown []byte
	for i := range len(piece) {
		if p.full() {
			break
		}
		p.shown = len(shown)
		shown = append(shown, p.step(piece[i])...)
	}
	if p.state == inText {
		shown = append(shown, p.release()...)
	}
	p.showArguments()
	return string(shown), p.take()
}

// flush is the end of the answer.
func (p *toolParser) flush() (text string, calls []callDelta) {
	switch p.state {
	case inText:
		if p.whole == 0 {
			text = string(p.held)
		}
		p.held = nil
	case inCall:
		p.shown = 0
		text, p.torn = p.broken(), true
	}
	return text, p.take()
}

func (p *toolParser) take() []callDelta {
	out := p.out
	p.out = nil
	return out
}

// step takes a byte and returns text that is known to be none of a call.
func (p *toolParser) step(c byte) (text []byte) {
	switch p.state {
	case inText:
		p.held = append(p.held, c)
		if c == '>' && bytes.HasSuffix(p.held, []byte(callOpen)) {
			before := p.held[:len(p.held)-len(callOpen)]
			if text = bytes.TrimRight(before, whiteSpace); p.whole > 0 {
				text, before = nil, nil
			}
			p.open(string(before[len(text):]))
		}
	case inCall:
		p.raw = append(p.raw, c)
		if !p.stepCall(c) {
			return []byte(p.broken())
		}
	case afterCall:
		p.held = append(p.held, c)
		switch {
		case bytes.HasSuffix(p.held, []byte(callClose)):
			p.state, p.held = inText, nil
		case bytes.HasSuffix(p.held, []byte(callOpen)):
			p.open("")
		case len(p.held) >= len(callClose):
			p.held = append(p.held[:0], p.held[len(p.held)-len(callClose)+1:]...)
		}
	}
	return text
}

// release is the held text that can belong to no tag.
func (p *toolParser) release() []byte {
	keep := min(len(callOpen)-1, len(p.held))
	for !bytes.HasSuffix(p.held, []byte(callOpen[:keep])) {
		keep--
	}
	text := bytes.TrimRight(p.held[:len(p.held)-keep], whiteSpace)
	out := bytes.Clone(text)
	p.held = append(p.held[:0], p.held[len(text):]...)
	if p.whole > 0 {
		return nil
	}
	return out
}

// open begins a call. space was left out before it.
func (p *toolParser) open(space string) {
	p.state, p.held = inCall, nil
	p.scan, p.raw = jsonScanner{}, []byte(space+callOpen)
	p.key, p.value, p.early = nil, nil, nil
	p.in, p.named, p.args = noValue, false, false
}

// broken ends a call that is none and returns it as text, if it was not shown.
func (p *toolParser) broken() string {
	p.state, p.held = inText, nil
	raw := string(p.raw)
	if !p.named {
		return raw
	}
	p.out = append(p.out, callDelta{index: p.begun - 1, broken: true, text: raw, at: p.shown})
	return ""
}

// stepCall takes a byte of a call's JSON; false when it is broken.
func (p *toolParser) stepCall(c byte) bool {
	before, depth := p.scan.state, len(p.scan.stack)
	if !p.scan.step(c) {
		return false
	}
	after := p.scan.state
	switch {
	case depth == 0: // white space, then the outer object
		return after == scanValue || c == '{'
	case depth == 1 && (before == scanFirstKey || before == scanKey) && after == scanString:
		p.key = append(p.key[:0], c)
	case depth == 1 && p.scan.isKey && isString(before):
		p.key = append(p.key, c)
	case depth == 1 && before == scanValue && after != scanValue:
		p.beginValue(c)
	case p.in != noValue:
		p.value = append(p.value, c)
	}
	if p.in != noValue && len(p.scan.stack) <= 1 && (after == scanAfter || after == scanKey || after == scanDone) {
		if p.bare { // its end is known from the byte that follows
			p.value = p.value[:len(p.value)-1]
		}
		if !p.endValue() {
			return false
		}
	}
	return after != scanDone || p.endCall()
}

func isString(s scanState) bool { return s == scanString || s == scanEscape || s == scanHex }

func (p *toolParser) beginValue(c byte) {
	var key string
	_ = json.Unmarshal(p.key, &key) // the scanner took it
	p.value, p.bare = append(p.value[:0], c), isScalarByte(c)
	switch {
	case key == "name" && !p.named:
		p.in = nameValue
	case key == "arguments" && !p.args && c == '"':
		p.in = stringArguments
	case key == "arguments" && !p.args:
		p.in = argumentsValue
	default:
		p.in = otherValue
	}
}

// endValue acts on a value of the outer object; false when the call is broken.
func (p *toolParser) endValue() bool {
	kind := p.in
	switch kind {
	case nameValue:
		var name string
		if json.Unmarshal(p.value, &name) != nil || name == "" {
			return false
		}
		p.in = noValue
		p.out = append(p.out, callDelta{index: p.begun, id: newCallID(), name: name})
		p.begun++
		p.named = true
		p.addArguments(p.early)
	case stringArguments:
		var text string
		if json.Unmarshal(p.value, &text) != nil {
			return false
		}
		if object := []byte(text); bytes.HasPrefix(bytes.TrimSpace(object), []byte("{")) && json.Valid(object) {
			p.value = object
		}
		p.in, p.args = argumentsValue, true
		p.showArguments()
	case argumentsValue:
		p.showArguments()
		p.args = true
	}
	p.in = noValue
	return true
}

// showArguments shows what has come of them, once the call has a name.
func (p *toolParser) showArguments() {
	if p.state != inCall || p.in != argumentsValue {
		return
	}
	value := p.value
	p.value = nil
	if !p.named {
		p.early = append(p.early, value...)
		return
	}
	p.addArguments(value)
}

func (p *toolParser) addArguments(value []byte) {
	if len(value) == 0 {
		return
	}
	if n := len(p.out); n > 0 && !p.out[n-1].broken && p.out[n-1].index == p.begun-1 {
		p.out[n-1].arguments += string(value)
		return
	}
	p.out = append(p.out, callDelta{index: p.begun - 1, arguments: string(value)})
}

// endCall: the outer object is whole; false when it is no call.
func (p *toolParser) endCall() bool {
	if !p.named {
		return false
	}
	if !p.args {
		p.addArguments([]byte("{}"))
	}
	p.state, p.held = afterCall, nil
	p.whole++
	return true
}

// newCallID is an id as OpenAI's look.
func newCallID() string { return "call_" + newID()[:24] }
