package server

import "encoding/json"

// jsonScanner checks JSON text that arrives byte by byte, such as what a model
// writes. It keeps a stack instead of recursing and takes constant time a byte.
type jsonScanner struct {
	stack  []byte // '{' or '[' of each array and object that is open
	state  scanState
	isKey  bool   // the string under way is a key
	hex    int    // digits of a \u escape that are still to come
	scalar []byte // the number or literal under way
}

// scanState is what may come next.
type scanState uint8

const (
	scanValue      scanState = iota // a value
	scanFirstValue                  // a value or ]
	scanFirstKey                    // a key or }
	scanKey                         // a key
	scanColon                       // :
	scanAfter                       // , or the end of what is open
	scanString                      // within a string
	scanEscape                      // after its \
	scanHex                         // within its \uXXXX
	scanScalar                      // within a number, true, false or null
	scanDone                        // nothing: the value is whole
)

// step takes the next byte; false when the text is no JSON, or nests too deep.
func (s *jsonScanner) step(c byte) bool {
	switch s.state {
	case scanString, scanEscape, scanHex:
		return s.inString(c)
	case scanScalar:
		if isScalarByte(c) {
			s.scalar = append(s.scalar, c)
			return true
		}
		if !json.Valid(s.scalar) {
			return false
		}
		s.ended()
	}
	if c == ' ' || c == '\t' || c == '\n' || c == '\r' {
		return true
	}
	switch s.state {
	case scanValue, scanFirstValue:
		if c == ']' && s.state == scanFirstValue {
			return s.pop('[')
		}
		return s.begin(c)
	case scanFirstKey, scanKey:
		if c == '}' && s.state == scanFirstKey {
			return s.pop('{')
		}
		s.state, s.isKey = scanString, true
		return c == '"'
	case scanColon:
		s.state = scanValue
		return c == ':'
	case scanAfter:
		return s.after(c)
	}
	return false
}

func isScalarByte(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || c == '-' || c == '+' || c == '.' || c == 'E'
}

// begin takes the first byte of a value.
func (s *jsonScanner) begin(c byte) bool {
	switch {
	case c == '{' || c == '[':
		if len(s.stack) == maxJSONDepth {
			return false
		}
		s.stack = append(s.stack, c)
		s.state = scanFirstKey
		if c == '[' {
			s.state = scanFirstValue
		}
	case c == '"':
		s.state, s.isKey = scanString, false
	case isScalarByte(c):
		s.state, s.scalar = scanScalar, append(s.scalar[:0], c)
	default:
		return false
	}
	return true
}

// after takes what follows a value in an array or object.
func (s *jsonScanner) after(c byte) bool {
	open := s.stack[len(s.stack)-1]
	switch {
	case c == ',' && open == '{':
		s.state = scanKey
	case c == ',':
		s.state = scanValue
	case c == '}':
		return s.pop('{')
	case c == ']':
		return s.pop('[')
	default:
		return false
	}
	return true
}

func (s *jsonScanner) pop(open byte) bool {
	if s.stack[len(s.stack)-1] != open {
		return false
	}
	s.stack = s.stack[:len(s.stack)-1]
	s.ended()
	return true
}

// ended: a value is whole.
func (s *jsonScanner) ended() {
	s.state = scanAfter
	if len(s.stack) == 0 {
		s.state = scanDone
	}
}

func (s *jsonScanner) inString(c byte) bool {
	switch {
	case s.state == scanHex:
		if s.hex--; s.hex == 0 {
			s.state = scanString
		}
		return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
	case s.state == scanEscape:
		s.state = scanString
		switch c {
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		case 'u':
			s.state, s.hex = scanHex, 4
		default:
			return false
		}
	case c == '\\':
		s.state = scanEscape
	case c == '"' && s.isKey:
		s.state = scanColon
	case c == '"':
		s.ended()
	case c < ' ':
		return false
	}
	return true
}
