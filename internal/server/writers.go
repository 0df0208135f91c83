package server

import "net/http"

// trackedWriter knows whether an answer has begun.
type trackedWriter struct {
	http.ResponseWriter
	wrote     bool
	anthropic bool // errors have Anthropic's shape
	status    int
	bytes     int64
}

// WriteHeader implements http.ResponseWriter.
func (t *trackedWriter) WriteHeader(status int) {
	t.wrote, t.status = true, status
	t.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (t *trackedWriter) Write(data []byte) (int, error) {
	t.wrote = true
	n, err := t.ResponseWriter.Write(data)
	t.bytes += int64(n)
	return n, err
}

// Unwrap is for http.ResponseController.
func (t *trackedWriter) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// probeWriter drops everything but the headers.
type probeWriter struct{ header http.Header }

// Header implements http.ResponseWriter.
func (p *probeWriter) Header() http.Header { return p.header }

// WriteHeader implements http.ResponseWriter.
func (p *probeWriter) WriteHeader(int) {}

// Write implements http.ResponseWriter.
func (p *probeWriter) Write(data []byte) (int, error) { return len(data), nil }
