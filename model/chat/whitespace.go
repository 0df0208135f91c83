package chat

import (
	"fmt"
	"strings"
	"unicode"
)

const whiteSpace = " \t\r\n\f\v"

// controlWhitespace applies Jinja's trim_blocks and lstrip_blocks to a source:
// the newline behind a block or comment goes, and so does the white space before
// one that begins its line; {%+ and +%} prevent it. Gonja has both options too,
// but strips before every block, which joins the words of
// "{{ word }} {% endfor %}". What {%- and -%} strip is left to gonja.
//
// It also lets tags say none for None, and refuses one with more than maxOperators, for gonja parses and
// evaluates expressions by recursion.
func controlWhitespace(source string) (string, error) {
	var out strings.Builder
	text := source // what is not yet copied
	raw := false   // behind {% raw %}: only {% endraw %} ends it
	lineStart := true
	for {
		at := nextTag(text, raw)
		if at < 0 {
			out.WriteString(text)
			return out.String(), nil
		}
		length, operators := scanTag(text[at:])
		data, tag := text[:at], text[at:at+length]
		text = text[at+len(tag):]
		tag = lowerNone(tag)
		if operators > maxOperators {
			return "", fmt.Errorf("chat template: a tag with more than %d operators and brackets: %.40q…", maxOperators, tag)
		}
		if tag[:2] == "{{" {
			out.WriteString(data + tag)
			lineStart = false
			continue
		}
		tag, keepLeft := cut(tag, 2)
		tag, keepRight := cut(tag, len(tag)-3)
		if !keepLeft {
			data = stripLine(data, lineStart)
		}
		wasRaw := raw
		raw = tag[1] == '%' && blockName(tag) == "raw"
		if wasRaw && tag[2] == '-' { // gonja does not strip inside raw
			data = strings.TrimRight(data, whiteSpace)
		}
		out.WriteString(data + tag)
		lineStart = false
		switch {
		case raw && strings.HasSuffix(tag, "-%}"):
			text = strings.TrimLeft(text, whiteSpace)
		case !raw && !keepRight && strings.HasPrefix(text, "\n"):
			text, lineStart = text[1:], true
		}
	}
}

// nextTag finds the next tag in a source, −1 when there is none.
func nextTag(text string, raw bool) int {
	for at := 0; ; at += 2 {
		i := strings.IndexByte(text[at:], '{')
		if i < 0 || at+i+1 >= len(text) {
			return -1
		}
		at += i
		rest := text[at:]
		switch {
		case raw && rest[1] == '%' && blockName(rest) == "endraw", !raw && strings.IndexByte("%{#", rest[1]) >= 0:
			return at
		}
		at-- // "{{%" holds a tag at its second byte
	}
}

// scanTag returns the length of the tag that text begins with, strings and
// braces inside it skipped, and how many operators and brackets it has. The
// length is all of text when the tag does not end, which the parser will report.
func scanTag(text string) (length, operators int) {
	if text[1] == '#' {
		if end := strings.Index(text, "#}"); end >= 0 {
			return end + 2, 0
		}
		return len(text), 0
	}
	end := map[byte]string{'%': "%}", '{': "}}"}[text[1]]
	braces := 0
	for at := 2; at < len(text); at++ {
		switch c := text[at]; {
		case braces == 0 && strings.HasPrefix(text[at:], end):
			return at + 2, operators
		case strings.IndexByte("([.|+-*/%~=<>", c) >= 0:
			operators++
		case c == '{':
			braces++
			operators++
		case c == '}':
			braces--
		case c == '"' || c == '\'':
			for at++; at < len(text) && text[at] != c; at++ {
				if text[at] == '\\' {
					at++
				}
			}
		}
	}
	return len(text), operators
}

// lowerNone spells None in a tag as none, which is a variable of ours; gonja's None
// is what is undefined.
func lowerNone(tag string) string {
	if tag[1] == '#' || !strings.Contains(tag, "None") {
		return tag
	}
	text := []byte(tag)
	isWord := func(at int) bool {
		return at < len(tag) && (tag[at] == '_' || tag[at] >= 0x80 || unicode.IsLetter(rune(tag[at])) || unicode.IsDigit(rune(tag[at])))
	}
	for at := 2; at < len(tag); at++ {
		switch c := tag[at]; {
		case c == '"' || c == '\'':
			for at++; at < len(tag) && tag[at] != c; at++ {
				if tag[at] == '\\' {
					at++
				}
			}
		case !isWord(at-1) && strings.HasPrefix(tag[at:], "None") && !isWord(at+len("None")):
			text[at] = 'n'
		}
	}
	return string(text)
}

// cut removes a plus sign at a place of a tag.
func cut(tag string, at int) (string, bool) {
	if at < 2 || tag[at] != '+' {
		return tag, false
	}
	return tag[:at] + tag[at+1:], true
}

// stripLine removes the white space behind the last newline of data when there
// is nothing else behind it.
func stripLine(data string, lineStart bool) string {
	line := strings.LastIndexByte(data, '\n') + 1
	if line == 0 && !lineStart || strings.Trim(data[line:], " \t\r\f\v") != "" {
		return data
	}
	return data[:line]
}

// blockName returns the first word of {% … %}.
func blockName(tag string) string {
	words := strings.TrimLeft(tag[2:], "+-"+whiteSpace)
	if end := strings.IndexFunc(words, func(r rune) bool { return !('a' <= r && r <= 'z' || r == '_') }); end >= 0 {
		return words[:end]
	}
	return words
}
