package chat

import (
	"fmt"
	"strings"
)

const whiteSpace = " \t\r\n\f\v"

var newlines = strings.NewReplacer("\r\n", "\n", "\r", "\n")

// controlWhitespace applies Jinja's trim_blocks and lstrip_blocks to a source:
// the newline behind a block or comment goes, and so does the white space before
// one that begins its line; {%+ and +%} prevent it. Gonja has both options too,
// but strips before every block, which joins the words of
// "{{ word }} {% endfor %}". What {%- and -%} strip is left to gonja.
//
// It also ends lines as Jinja does, with \n alone, has gonjaTag spell each tag, and
// refuses one with more than maxOperators, for gonja parses and evaluates expressions
// by recursion.
func controlWhitespace(source string) (string, error) {
	var out strings.Builder
	text := newlines.Replace(source) // what is not yet copied
	raw := false                     // behind {% raw %}: only {% endraw %} ends it
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
		if operators > maxOperators {
			return "", fmt.Errorf("chat template: a tag with more than %d operators and brackets: %.40q…", maxOperators, tag)
		}
		tag = gonjaTag(tag)
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
