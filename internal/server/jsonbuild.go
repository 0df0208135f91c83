package server

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// JSON that is put together from what clients sent, so that it keeps their key
// order and spelling.

// quote is a string as JSON.
func quote(s string) json.RawMessage {
	return bytes.TrimSuffix(encodeJSON(new(bytes.Buffer), s), []byte("\n"))
}

// objectOf is an object of keys (string) and values (json.RawMessage) by turns.
func objectOf(keysAndValues ...any) json.RawMessage {
	out := []byte{'{'}
	for i := 0; i < len(keysAndValues); i += 2 {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(append(out, quote(keysAndValues[i].(string))...), ':')
		out = append(out, keysAndValues[i+1].(json.RawMessage)...)
	}
	return append(out, '}')
}

func listOf(items []json.RawMessage) json.RawMessage {
	return append(append([]byte{'['}, bytes.Join(rawBytes(items), []byte{','})...), ']')
}

func rawBytes(items []json.RawMessage) [][]byte {
	out := make([][]byte, len(items))
	for i, item := range items {
		out[i] = item
	}
	return out
}

// indexed names an entry of a list.
func indexed(name string, i int) string { return name + "[" + strconv.Itoa(i) + "]" }
