package chat

import (
	"bytes"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// bracket is one that is open where gonjaTag reads.
type bracket struct {
	call     bool // holds the arguments of a call
	dict     bool // … of dict
	pairs    bool // … and a brace is open for its keyword arguments
	argument bool // an argument begins here
}

// notCalled are the words before a parenthesis that does not begin a call.
var notCalled = []string{"in", "not", "and", "or", "is", "if", "elif", "else"}

// notDict are the tokens before a dict that is not the function.
var notDict = []string{".", "|", "macro"}

// gonjaTag spells a tag of Jinja2 so that gonja reads the same:
//
//   - white space outside strings becomes spaces, for gonja's is space and tab only;
//   - None becomes none, a variable of ours, for gonja's is what is undefined;
//   - a backslash that ends a string is \x5c, for gonja takes the quote behind it for
//     escaped;
//   - the comma behind the last argument of a call or pair of a dict goes;
//   - dict(m, a=1, b=2) becomes dict(m, {'a': 1, 'b': 2}), for gonja forgets the
//     order of keyword arguments;
//   - {{ x if y else z }} becomes {{ (x)|printed if y else (z)|printed }}.
func gonjaTag(tag string) string {
	if tag[1] == '#' {
		return tag
	}
	begin, body, end := tagParts(tag)
	at, out := 0, []byte(begin)
	printing := tag[1] == '{' && end != "" && strings.Trim(body, whiteSpace) != "" // a parenthesis is to be closed
	if printing {
		out = append(out, " ("...)
	}
	open := []bracket{{}}
	last, before := "", "" // the last two tokens, white space skipped
	conditional := false
	for at < len(body) {
		if r, size := utf8.DecodeRuneInString(body[at:]); isSpace(r) {
			out, at = append(out, ' '), at+size
			continue
		}
		token := tokenAt(body[at:])
		written := token
		at += len(token)
		top := &open[len(open)-1]
		begins := token == ","
		switch {
		case token == "(" || token == "[" || token == "{":
			call := token == "(" && isOperand(last)
			top.argument, begins = false, true
			open = append(open, bracket{call: call, dict: call && last == "dict" && !slices.Contains(notDict, before)})
		case (token == ")" || token == "]" || token == "}") && len(open) == 1:
			return tag // closes nothing: gonja is to say so, of what the template has
		case token == ")" || token == "]" || token == "}":
			if token == "}" || top.call {
				out = cutComma(out)
			}
			if top.pairs {
				out = append(out, '}')
			}
			open = open[:max(1, len(open)-1)]
		case token == "None":
			written = "none"
		case token == "if" && printing && len(open) == 1 && last != ".":
			written, printing, conditional = ")|"+printFilter+" if", false, true
		case token == "else" && conditional && len(open) == 1 && last != ".":
			written, printing, conditional = "else (", true, false
		case strings.HasSuffix(token, `\\'`) || strings.HasSuffix(token, `\\"`):
			written = token[:len(token)-3] + `\x5c` + token[len(token)-1:]
		case top.dict && top.argument && isWord(token):
			rest := strings.TrimLeft(body[at:], whiteSpace)
			if !strings.HasPrefix(rest, "=") || strings.HasPrefix(rest, "==") {
				break
			}
			if !top.pairs {
				out, top.pairs = append(out, '{'), true
			}
			at = len(body) - len(rest) + len("=")
			written = "'" + token + "':"
		}
		open[len(open)-1].argument = begins
		out = append(out, written...)
		last, before = token, last
	}
	if printing {
		out = append(out, ")|"+printFilter+" "...)
	}
	return string(out) + end
}

// tagParts cuts a tag behind {{, {% or {{- and before what ends it, "" where nothing does.
func tagParts(tag string) (begin, body, end string) {
	begin, body = tag[:2], tag[2:]
	if at := len(body) - 2; at >= 0 && (body[at:] == "%}" || body[at:] == "}}") {
		body, end = body[:at], body[at:]
	}
	if begin != "{{" {
		return begin, body, end
	}
	if rest, trims := strings.CutPrefix(body, "-"); trims {
		begin, body = begin+"-", rest
	}
	if rest, trims := strings.CutSuffix(body, "-"); trims {
		body, end = rest, "-"+end
	}
	return begin, body, end
}

// tokenAt returns the string, the word or the character that text begins with.
func tokenAt(text string) string {
	if quote := text[0]; quote == '"' || quote == '\'' {
		for at := 1; at < len(text); at++ {
			switch text[at] {
			case '\\':
				at++
			case quote:
				return text[:at+1]
			}
		}
		return text
	}
	switch end := strings.IndexFunc(text, func(r rune) bool { return !isWordRune(r) }); end {
	case -1:
		return text
	case 0:
		_, size := utf8.DecodeRuneInString(text)
		return text[:size]
	default:
		return text[:end]
	}
}

func isWordRune(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }

func isWord(token string) bool {
	r, _ := utf8.DecodeRuneInString(token)
	return isWordRune(r)
}

// isOperand says whether a parenthesis behind the token calls it.
func isOperand(token string) bool {
	return token != "" && (isWord(token) || strings.Contains(`)]}"'`, token[:1])) && !slices.Contains(notCalled, token)
}

// cutComma removes the comma at the end of what is written, unless nothing stands before it.
func cutComma(out []byte) []byte {
	before, ends := bytes.CutSuffix(bytes.TrimRight(out, " "), []byte{','})
	before = bytes.TrimRight(before, " ")
	if !ends || bytes.IndexByte([]byte("({,"), before[len(before)-1]) >= 0 {
		return out
	}
	return before
}
