package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"slices"
)

// readBody reads a JSON body whole, within the deadline that the middleware set,
// and checks size, nesting and syntax. Having read it, net/http takes the
// deadline away and watches for the client's going. A body that is not short takes
// its place in a budget, which r gives back once it is decoded and encoded.
func (s *Server) readBody(w http.ResponseWriter, req *http.Request, r *request) ([]byte, *apiError) {
	if enc := req.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return nil, &apiError{status: http.StatusUnsupportedMediaType, kind: typeInvalidRequest, message: "compressed bodies are not supported"}
	}
	tooLarge := &apiError{status: http.StatusRequestEntityTooLarge, kind: typeInvalidRequest, message: "the body is larger than 8 MiB"}
	if req.ContentLength > maxBodyBytes {
		return nil, tooLarge
	}
	limited := http.MaxBytesReader(w, req.Body, maxBodyBytes)
	body, err := io.ReadAll(io.LimitReader(limited, shortText))
	if err == nil && len(body) == shortText {
		claimed := maxBodyBytes // of unknown length: as long as may be
		if req.ContentLength > 0 {
			claimed = int(req.ContentLength)
		}
		release, late := s.bodies.acquire(req.Context(), claimed)
		if late != nil {
			return nil, badRequest("the body could not be read")
		}
		r.release = release
		rest := bytes.NewBuffer(slices.Grow(body, max(0, int(req.ContentLength)-len(body)+bytes.MinRead)))
		_, err = rest.ReadFrom(limited)
		body = rest.Bytes()
	}
	var limit *http.MaxBytesError
	switch {
	case errors.As(err, &limit):
		return nil, tooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		w.Header().Set("Connection", "close")
		return nil, &apiError{status: http.StatusRequestTimeout, kind: typeInvalidRequest, message: "the body did not arrive in time"}
	case err != nil:
		return nil, badRequest("the body could not be read")
	}
	if nesting(body) > maxJSONDepth {
		return nil, badRequest("the body nests arrays and objects deeper than %d", maxJSONDepth)
	}
	if !json.Valid(body) {
		var v json.RawMessage
		return nil, badRequest("the body is not valid JSON%s", jsonReason(json.Unmarshal(body, &v)))
	}
	return body, nil
}

// jsonReason is ": " and what encoding/json says, which speaks of the input only.
func jsonReason(err error) string {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return ": " + syntax.Error()
	}
	return ""
}

// nesting is the depth of arrays and objects of JSON text. It does not recurse,
// and counts right on invalid text too, as far as a parser would get.
func nesting(text []byte) int {
	depth, deepest := 0, 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '{', '[':
			depth++
			deepest = max(deepest, depth)
		case '}', ']':
			depth--
		case '"':
			for i++; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
		}
	}
	return deepest
}

// rewriteObject copies a JSON object with its key order; edit may change values.
func rewriteObject(object []byte, edit func(key string, value json.RawMessage) json.RawMessage) (json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(object))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return nil, errors.New("not an object")
	}
	out := []byte{'{'}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, err
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, err
		}
		name, err := json.Marshal(key)
		if err != nil {
			return nil, err
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(append(out, name...), ':')
		out = append(out, edit(key.(string), value)...)
	}
	return append(out, '}'), nil
}
