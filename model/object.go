package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"unicode/utf8"
)

// member is one "key": value of a JSON object, in the file's order.
type member struct {
	key   string
	value json.RawMessage
}

// members splits a JSON object. Beyond what encoding/json checks it refuses
// invalid UTF-8, duplicate keys (another reader might take the other one) and
// more than max members.
func members(data []byte, max int) ([]member, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("not valid UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	switch tok, err := dec.Token(); {
	case err == io.EOF:
		return nil, errors.New("not JSON: empty")
	case err != nil:
		return nil, notJSON(err)
	case tok != json.Delim('{'):
		return nil, errors.New("not a JSON object")
	}
	var list []member
	seen := make(map[string]bool)
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return nil, notJSON(err)
		}
		m := member{key: tok.(string)} // inside an object, Token returns keys as strings
		if err := dec.Decode(&m.value); err != nil {
			return nil, notJSON(err)
		}
		if seen[m.key] {
			return nil, fmt.Errorf("duplicate key %s", quote(m.key))
		}
		if len(list) == max {
			return nil, fmt.Errorf("more than %d members", max)
		}
		m.value = bytes.TrimSpace(m.value)
		seen[m.key] = true
		list = append(list, m)
	}
	if _, err := dec.Token(); err != nil {
		return nil, notJSON(err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("text after the JSON object")
	}
	return list, nil
}

// notJSON words a decoder's error.
func notJSON(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errors.New("not JSON: it ends in the middle")
	}
	return fmt.Errorf("not JSON: %w", err)
}

// maxMembers is far above the fields of any config.json.
const maxMembers = 1000

// object reads the fields of a JSON object one by one and collects what is
// wrong with them, so that one error lists it all. null counts as absent.
type object struct {
	path   string // "rope_scaling." below the top level
	fields map[string]json.RawMessage
	errs   *FileError // shared with child objects
}

// parseObject reads a file's top-level object.
func parseObject(file string, data []byte) (*object, error) {
	list, err := members(data, maxMembers)
	if err != nil {
		return nil, fileError(file, "JSON", "%v", err)
	}
	return newObject("", list, &FileError{File: file}), nil
}

func newObject(path string, list []member, errs *FileError) *object {
	o := &object{path: path, fields: make(map[string]json.RawMessage, len(list)), errs: errs}
	for _, m := range list {
		if string(m.value) != "null" {
			o.fields[m.key] = m.value
		}
	}
	return o
}

// fail records a problem of a field.
func (o *object) fail(field, format string, args ...any) {
	o.errs.add(o.path+field, format, args...)
}

// has says whether the field is there and not null.
func (o *object) has(field string) bool {
	_, ok := o.fields[field]
	return ok
}

// require records a problem when the field is absent.
func (o *object) require(field string) bool {
	if o.has(field) {
		return true
	}
	o.fail(field, "missing")
	return false
}

// child returns a nested object, or nil when the field is absent or faulty.
func (o *object) child(field string) *object {
	raw, ok := o.fields[field]
	if !ok {
		return nil
	}
	list, err := members(raw, maxMembers)
	if err != nil {
		o.fail(field, "%v", err)
		return nil
	}
	return newObject(o.path+field+".", list, o.errs)
}

// optInteger reads an integer in [lo, hi], which may be written as a float (50.0, as
// Python writes one that was computed); ok is false when it is absent or faulty.
func (o *object) optInteger(field string, lo, hi int) (v int, ok bool) {
	raw, ok := o.fields[field]
	if !ok {
		return 0, false
	}
	return o.parseInteger(field, raw, lo, hi)
}

func (o *object) parseInteger(field string, raw json.RawMessage, lo, hi int) (int, bool) {
	n, err := strconv.ParseInt(string(raw), 10, 64)
	const exact = 1 << 53 // a float64 holds each integer up to it
	if f, floatErr := strconv.ParseFloat(string(raw), 64); err != nil && floatErr == nil && f == math.Trunc(f) && math.Abs(f) <= exact {
		n, err = int64(f), nil
	}
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		o.fail(field, "is %s, must be an integer", quote(string(raw)))
		return 0, false
	}
	if err != nil || n < int64(lo) || n > int64(hi) {
		o.fail(field, "is %s, must be between %d and %d", quote(string(raw)), lo, hi)
		return 0, false
	}
	return int(n), true
}

// integer is optInteger for a required field; 0 stands for a faulty one.
func (o *object) integer(field string, lo, hi int) int {
	if !o.require(field) {
		return 0
	}
	v, _ := o.optInteger(field, lo, hi)
	return v
}

// optNumber reads a number in [lo, hi]; ok is false when it is absent or
// faulty.
func (o *object) optNumber(field string, lo, hi float64) (v float64, ok bool) {
	raw, ok := o.fields[field]
	if !ok {
		return 0, false
	}
	v, err := strconv.ParseFloat(string(raw), 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		o.fail(field, "is %s, must be a number", quote(string(raw)))
		return 0, false
	}
	if err != nil || math.IsNaN(v) || v < lo || v > hi {
		o.fail(field, "is %s, must be between %g and %g", quote(string(raw)), lo, hi)
		return 0, false
	}
	return v, true
}

// number is optNumber for a required field; 0 stands for a faulty one.
func (o *object) number(field string, lo, hi float64) float64 {
	if !o.require(field) {
		return 0
	}
	v, _ := o.optNumber(field, lo, hi)
	return v
}

// optBoolean reads true or false; absent is the default.
func (o *object) optBoolean(field string, absent bool) bool {
	raw, ok := o.fields[field]
	if !ok {
		return absent
	}
	if s := string(raw); s != "true" && s != "false" {
		o.fail(field, "is %s, must be true or false", quote(s))
		return absent
	}
	return string(raw) == "true"
}

// optText reads a string; ok is false when it is absent or faulty.
func (o *object) optText(field string) (s string, ok bool) {
	raw, ok := o.fields[field]
	if !ok {
		return "", false
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		o.fail(field, "is %s, must be a string", quote(string(raw)))
		return "", false
	}
	return s, true
}

// list splits an array of at most max elements; nil when absent or faulty.
func (o *object) list(field string, max int) []json.RawMessage {
	raw, ok := o.fields[field]
	if !ok {
		return nil
	}
	var items []json.RawMessage
	if err := json.Unmarshal(raw, &items); err != nil {
		o.fail(field, "is %s, must be a list", quote(string(raw)))
		return nil
	}
	if len(items) > max {
		o.fail(field, "has %d elements, at most %d are supported", len(items), max)
		return nil
	}
	return items
}

// texts reads a list of strings; ok is false when it is absent or faulty.
func (o *object) texts(field string, max int) (list []string, ok bool) {
	items := o.list(field, max)
	for _, raw := range items {
		var s *string // a null element stays nil
		if err := json.Unmarshal(raw, &s); err != nil || s == nil {
			o.fail(field, "holds %s, must hold strings", quote(string(raw)))
			return nil, false
		}
		list = append(list, *s)
	}
	return list, items != nil
}

// maxIDs bounds the end-of-sequence ids of a model; Qwen2.5 has two.
const maxIDs = 64

// tokenIDs reads one id, or a list of ids, below vocab.
func (o *object) tokenIDs(field string, vocab int) []int32 {
	raw, ok := o.fields[field]
	if !ok {
		return nil
	}
	items := []json.RawMessage{raw}
	if raw[0] == '[' {
		items = o.list(field, maxIDs)
	}
	var ids []int32
	for _, item := range items {
		id, ok := o.parseInteger(field, item, 0, vocab-1)
		if !ok {
			return nil
		}
		ids = append(ids, int32(id))
	}
	return ids
}
