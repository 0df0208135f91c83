// Package otlp sends spans to an OpenTelemetry collector: OTLP over HTTP in its
// JSON form (opentelemetry-proto, docs/specification.md, "OTLP/HTTP"). The
// official SDK would bring gRPC and protocol buffers, some eighty packages, into the
// server for this one request.
package otlp

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"
)

// TraceID and SpanID identify as W3C Trace Context has it.
type (
	TraceID [16]byte
	SpanID  [8]byte
)

// Span is one operation. Its attributes' values are strings, bools, ints or floats.
type Span struct {
	Trace      TraceID
	ID, Parent SpanID // Parent zero = a root
	Name       string
	Start, End time.Time
	Attributes map[string]any
	Error      string // "" = it went well
}

const (
	batch    = 512 // spans of one request to the collector
	bound    = 4096
	interval = 5 * time.Second
	timeout  = 10 * time.Second
	patience = time.Second
)

// Exporter sends spans from a goroutine of its own. What a collector does not take
// in time is dropped and counted; nobody waits for it.
type Exporter struct {
	endpoint, service string
	log               *slog.Logger
	client            *http.Client
	spans             chan Span
	end, giveUp       context.CancelFunc // of taking spans, of sending them
	done              chan struct{}
	patience          time.Duration // of Close

	mu      sync.Mutex
	dropped int
	failing bool // said once a time that it begins
}

// New starts an exporter to endpoint, the whole URL, as
// http://localhost:4318/v1/traces.
func New(endpoint, service string, log *slog.Logger) (*Exporter, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("%q is no URL of an OTLP/HTTP collector: want one such as http://localhost:4318/v1/traces", endpoint)
	}
	ctx, end := context.WithCancel(context.Background())
	sending, giveUp := context.WithCancel(context.Background())
	e := &Exporter{
		endpoint: endpoint, service: service, log: log, client: &http.Client{Timeout: timeout},
		spans: make(chan Span, bound), end: end, giveUp: giveUp, done: make(chan struct{}), patience: patience,
	}
	go e.run(ctx, sending)
	return e, nil
}

// Add queues a span. It never waits.
func (e *Exporter) Add(s Span) {
	select {
	case e.spans <- s:
	default:
		e.mu.Lock()
		e.dropped++
		e.mu.Unlock()
	}
}

// Dropped is the number of spans that were lost so far.
func (e *Exporter) Dropped() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.dropped
}

// Close sends what is queued, and gives it and what is under way a second.
func (e *Exporter) Close() {
	e.end()
	late := time.AfterFunc(e.patience, e.giveUp)
	<-e.done
	late.Stop()
	e.giveUp()
	e.client.CloseIdleConnections()
}

func (e *Exporter) run(ctx, sending context.Context) {
	defer close(e.done)
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	var waiting []Span
	for {
		select {
		case s := <-e.spans:
			if waiting = append(waiting, s); len(waiting) < batch {
				continue
			}
		case <-ticker.C:
		case <-ctx.Done():
			for len(e.spans) > 0 && len(waiting) < bound {
				waiting = append(waiting, <-e.spans)
			}
			e.send(sending, waiting)
			return
		}
		e.send(sending, waiting)
		waiting = waiting[:0]
	}
}

// send posts the spans; a failure loses them.
func (e *Exporter) send(ctx context.Context, spans []Span) {
	if len(spans) == 0 {
		return
	}
	err := e.post(ctx, encode(e.service, spans))
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil {
		e.dropped += len(spans)
		if !e.failing {
			e.log.Warn("traces are lost", "endpoint", e.endpoint, "error", err, "lost", e.dropped)
		}
	}
	e.failing = err != nil
}

func (e *Exporter) post(ctx context.Context, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.endpoint, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	response, err := e.client.Do(req)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(response.Body, 200))
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("%s: %s", response.Status, text)
	}
	return nil
}

// The JSON form of an ExportTraceServiceRequest: 64-bit integers are strings, ids
// are hexadecimal.
type (
	exportRequest struct {
		ResourceSpans []resourceSpans `json:"resourceSpans"`
	}
	resourceSpans struct {
		Resource   resource     `json:"resource"`
		ScopeSpans []scopeSpans `json:"scopeSpans"`
	}
	resource struct {
		Attributes []keyValue `json:"attributes"`
	}
	scopeSpans struct {
		Scope scope      `json:"scope"`
		Spans []jsonSpan `json:"spans"`
	}
	scope struct {
		Name string `json:"name"`
	}
	jsonSpan struct {
		TraceID           string     `json:"traceId"`
		SpanID            string     `json:"spanId"`
		ParentSpanID      string     `json:"parentSpanId,omitempty"`
		Name              string     `json:"name"`
		Kind              int        `json:"kind"`
		StartTimeUnixNano string     `json:"startTimeUnixNano"`
		EndTimeUnixNano   string     `json:"endTimeUnixNano"`
		Attributes        []keyValue `json:"attributes"`
		Status            status     `json:"status"`
	}
	status struct {
		Code    int    `json:"code,omitempty"`
		Message string `json:"message,omitempty"`
	}
	keyValue struct {
		Key   string         `json:"key"`
		Value map[string]any `json:"value"`
	}
)

const (
	kindServer  = 2
	statusError = 2
)

func encode(service string, spans []Span) []byte {
	out := make([]jsonSpan, len(spans))
	for i := range spans {
		s := &spans[i]
		out[i] = jsonSpan{
			TraceID: hex.EncodeToString(s.Trace[:]), SpanID: hex.EncodeToString(s.ID[:]), Name: s.Name, Kind: kindServer,
			StartTimeUnixNano: strconv.FormatInt(s.Start.UnixNano(), 10), EndTimeUnixNano: strconv.FormatInt(s.End.UnixNano(), 10),
			Attributes: attributes(s.Attributes),
		}
		if s.Parent != (SpanID{}) {
			out[i].ParentSpanID = hex.EncodeToString(s.Parent[:])
		}
		if s.Error != "" {
			out[i].Status = status{statusError, s.Error}
		}
	}
	text, err := json.Marshal(exportRequest{[]resourceSpans{{
		Resource:   resource{attributes(map[string]any{"service.name": service})},
		ScopeSpans: []scopeSpans{{scope{"pagoda"}, out}},
	}}})
	if err != nil {
		panic(fmt.Sprintf("otlp: %v", err)) // an attribute that is no number: NaN, Inf
	}
	return text
}

func attributes(values map[string]any) []keyValue {
	var out []keyValue
	for _, key := range slices.Sorted(maps.Keys(values)) {
		var value map[string]any
		switch v := values[key].(type) {
		case int:
			value = map[string]any{"intValue": strconv.Itoa(v)}
		case float64:
			value = map[string]any{"doubleValue": v}
		case bool:
			value = map[string]any{"boolValue": v}
		default:
			value = map[string]any{"stringValue": fmt.Sprint(v)}
		}
		out = append(out, keyValue{key, value})
	}
	return out
}

// ParseTraceparent reads the header of W3C Trace Context:
// 00-<trace id>-<parent span id>-<flags>. ok is false when it says nothing valid;
// sampled is false when the caller does not record its part.
func ParseTraceparent(header string) (trace TraceID, parent SpanID, sampled, ok bool) {
	const length = 2 + 1 + 32 + 1 + 16 + 1 + 2
	if len(header) < length || header[2] != '-' || header[35] != '-' || header[52] != '-' || header[:2] == "ff" ||
		header[:2] == "00" && len(header) != length {
		return trace, parent, false, false
	}
	var flags [1]byte
	for _, part := range []struct {
		to   []byte
		from string
	}{{trace[:], header[3:35]}, {parent[:], header[36:52]}, {flags[:], header[53:55]}} {
		if _, err := hex.Decode(part.to, []byte(part.from)); err != nil {
			return TraceID{}, SpanID{}, false, false
		}
	}
	if trace == (TraceID{}) || parent == (SpanID{}) {
		return TraceID{}, SpanID{}, false, false
	}
	return trace, parent, flags[0]&1 != 0, true
}
