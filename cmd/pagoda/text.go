package main

import (
	"fmt"
	"strings"

	"github.com/pagoda-engine/pagoda/model/tokenizer"
)

// textWriter turns tokens into text as they come and cuts it at a stop string.
type textWriter struct {
	decoder *tokenizer.Decoder // nil: ids are printed as numbers
	stop    []string
	held    string // text that may be the beginning of a stop string
	any     bool
	stopped bool
}

func newTextWriter(t *tokenizer.Tokenizer, stop []string) *textWriter {
	w := &textWriter{stop: stop}
	if t != nil {
		w.decoder = t.NewDecoder(true)
	}
	return w
}

// next returns the text that is settled by one more token.
func (w *textWriter) next(id int32) string {
	if w.decoder == nil {
		separator := " "
		if !w.any {
			separator, w.any = "", true
		}
		return fmt.Sprint(separator, id)
	}
	return w.cut(w.held + w.decoder.Next(id))
}

// cut stops at the first stop string in text, or holds back the longest suffix
// that may become one.
func (w *textWriter) cut(text string) string {
	if w.stopped {
		return ""
	}
	end := -1
	for _, s := range w.stop {
		if i := strings.Index(text, s); s != "" && i >= 0 && (end < 0 || i < end) {
			end = i
		}
	}
	if end >= 0 {
		w.stopped, w.held = true, ""
		return text[:end]
	}
	hold := 0
	for _, s := range w.stop {
		for n := min(len(s)-1, len(text)); n > hold; n-- {
			if strings.HasSuffix(text, s[:n]) {
				hold = n
			}
		}
	}
	w.held = text[len(text)-hold:]
	return text[:len(text)-hold]
}

// flush returns what was held back once no more tokens come.
func (w *textWriter) flush() string {
	if w.decoder == nil || w.stopped {
		return ""
	}
	text := w.cut(w.held + w.decoder.Flush())
	return text + w.held
}
