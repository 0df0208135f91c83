package model

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"unicode/utf8"
)

// FileError says everything that is wrong with one file of a model.
type FileError struct {
	File     string    // path of the file
	Problems []Problem // at least one
}

// Problem is one fault of a file.
type Problem struct {
	Field  string // the field or tensor; "header", "size" and the like for the file as a whole
	Reason string // what is wrong, and what would be right
}

// maxShown bounds the lines of an error message: a hostile file may have
// thousands of faults.
const maxShown = 100

// Error gives one line for a single problem, else one line a problem.
func (e *FileError) Error() string {
	if len(e.Problems) == 1 {
		return fmt.Sprintf("%s: %s: %s", e.File, e.Problems[0].Field, e.Problems[0].Reason)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d problems:", e.File, len(e.Problems))
	for i, p := range e.Problems {
		if i == maxShown {
			fmt.Fprintf(&b, "\n  … and %d more", len(e.Problems)-i)
			break
		}
		fmt.Fprintf(&b, "\n  %s: %s", p.Field, p.Reason)
	}
	return b.String()
}

// add appends a problem.
func (e *FileError) add(field, format string, args ...any) {
	e.Problems = append(e.Problems, Problem{field, fmt.Sprintf(format, args...)})
}

// orNil returns e as an error if it has problems.
func (e *FileError) orNil() error {
	if len(e.Problems) == 0 {
		return nil
	}
	return e
}

// fileError is a FileError with one problem.
func fileError(file, field, format string, args ...any) *FileError {
	e := &FileError{File: file}
	e.add(field, format, args...)
	return e
}

// cause is the operating system's reason without the path, which a FileError
// names already.
func cause(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// maxQuoted bounds the bytes of a file's own text that a message repeats.
const maxQuoted = 80

// quote renders text of a file for a message: shortened, and as it is when it
// looks like a name, else quoted, so that no control character reaches a
// terminal.
func quote(s string) string {
	short := s
	if len(short) > maxQuoted {
		cut := maxQuoted
		for cut > 0 && !utf8.RuneStart(short[cut]) {
			cut--
		}
		short = short[:cut] + "…"
	}
	if q := strconv.Quote(short); q[1:len(q)-1] != short || strings.ContainsAny(short, " :") || short == "" {
		return q
	}
	return short
}
