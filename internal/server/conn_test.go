package server

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
)

// patience is how long a test waits for what must happen; it is never waited for
// when it does, however slow the machine.
const patience = 3 * time.Minute

type served struct {
	*Server
	addr        string
	client      *http.Client
	dial        func() (net.Conn, error)
	drain, stop context.CancelFunc
	result      chan error
}

// serve starts s on a loopback port; before is called with the server first.
func serve(t *testing.T, f *fakeEngine, cfg Config, before func(*Server)) *served {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := serveOn(t, ln, f, cfg, before)
	s.client = http.DefaultClient
	s.dial = func() (net.Conn, error) { return net.Dial("tcp", s.addr) }
	return s
}

// serveInBubble is serve within synctest.Test, where time passes when all goroutines
// wait, and at no other: a deadline is met or missed whatever the machine is doing.
// Connections have no buffers there: what is written waits for who reads.
func serveInBubble(t *testing.T, f *fakeEngine, cfg Config, before func(*Server)) *served {
	t.Helper()
	ln := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	s := serveOn(t, ln, f, cfg, before)
	s.dial = ln.dial
	s.client = &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return ln.dial() }}}
	t.Cleanup(s.client.CloseIdleConnections)
	return s
}

// pipes listens in memory.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) dial() (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.conns <- server:
		return client, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// Accept implements net.Listener.
func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (p *pipes) Close() error { p.once.Do(func() { close(p.closed) }); return nil }

// Addr implements net.Listener.
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }

func serveOn(t *testing.T, ln net.Listener, f *fakeEngine, cfg Config, before func(*Server)) *served {
	t.Helper()
	if cfg.DumpDir == "" {
		cfg.DumpDir = t.TempDir() // or the dump of an engine that fails stays
	}
	s := newTestServer(t, f, cfg)
	if before != nil {
		before(s)
	}
	drain, cancelDrain := context.WithCancel(context.Background())
	stop, cancelStop := context.WithCancel(context.Background())
	out := &served{Server: s, addr: ln.Addr().String(), drain: cancelDrain, stop: cancelStop, result: make(chan error, 1)}
	ended := make(chan struct{})
	go func() {
		out.result <- s.Serve(drain, stop, ln)
		close(ended)
	}()
	t.Cleanup(func() {
		cancelStop()
		cancelDrain()
		<-ended // a bubble's time ends with its test
	})
	return out
}

func (s *served) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-s.result:
		return err
	case <-time.After(patience):
		require.FailNow(t, "Serve does not return")
		return nil
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, patience, time.Millisecond, what)
}

func (s *served) post(t *testing.T, ctx context.Context, body string) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, "POST", "http://"+s.addr+"/v1/completions", strings.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	return s.client.Do(req)
}

func TestDisconnectFrees(t *testing.T) {
	for _, stream := range []bool{false, true} {
		f := newFakeEngine(strings.Repeat("x", 1000))
		f.gate = make(chan struct{})
		s := serve(t, f, Config{}, nil)
		ctx, cancel := context.WithCancel(context.Background())
		gone := make(chan error, 1)
		go func() {
			resp, err := s.post(t, ctx, fmt.Sprintf(`{"prompt":["x","y"],"n":2,"max_tokens":500,"stream":%v}`, stream))
			if err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
			}
			gone <- err
		}()
		f.gate <- struct{}{}
		require.Equal(t, int64(4), f.open.Load())
		cancel()
		require.ErrorIs(t, <-gone, context.Canceled)
		eventually(t, "all choices are freed", func() bool { return f.open.Load() == 0 })
	}
}

func TestSlowloris(t *testing.T) {
	for name, c := range map[string]struct{ send, want string }{
		"headers":           {"POST /v1/completions HTTP/1.1\r\nHost: x\r\nX-A", ""},
		"body":              {"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{", "HTTP/1.1 408"},
		"body nobody wants": {"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{", "HTTP/1.1 200"},
		"huge header":       {"GET /health HTTP/1.1\r\nHost: x\r\nX-A: " + strings.Repeat("a", maxHeaderBytes+8192) + "\r\n\r\n", "HTTP/1.1 431"},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := serveInBubble(t, newFakeEngine("x"), Config{}, func(s *Server) {
				s.headerTimeout, s.bodyTimeout = 300*time.Millisecond, 300*time.Millisecond
			})
			conn, err := s.dial()
			require.NoError(t, err)
			defer conn.Close()
			require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
			go func() { _, _ = io.WriteString(conn, c.send) }() // the server may close before it has all
			got, err := io.ReadAll(conn)
			require.NoError(t, err, "%s: the connection is kept", name)
			require.True(t, strings.HasPrefix(string(got), c.want), "%s: %.200s", name, got)
		})
	}
}

// TestBodyDeadlineDoesNotCutAnswers: the deadline of the body is over once it is
// read, however long the answer takes.
func TestBodyDeadlineDoesNotCutAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeEngine("ok")
		f.gate = make(chan struct{})
		s := serveInBubble(t, f, Config{}, func(s *Server) { s.bodyTimeout = 200 * time.Millisecond })
		answer := make(chan string, 1)
		go func() {
			resp, err := s.post(t, t.Context(), `{"prompt":"x"}`)
			if err != nil {
				answer <- err.Error()
				return
			}
			body, _ := io.ReadAll(resp.Body)
			answer <- string(body)
		}()
		f.gate <- struct{}{}
		time.Sleep(time.Hour) // the bubble's: the thing under test is that a deadline passes
		close(f.gate)
		require.Contains(t, <-answer, `"text":"ok"`)
	})
}

func TestSlowReaderIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeEngine("")
		f.info.MaxModelLen, f.info.PoolTokens = 1<<22, 1<<22
		f.reply = func(engine.Request) []int32 { return ids(strings.Repeat("x", 1<<20)) }
		s := serveInBubble(t, f, Config{}, func(s *Server) { s.writeTimeout = 100 * time.Millisecond })
		conn, err := s.dial()
		require.NoError(t, err)
		defer conn.Close()
		body := `{"prompt":"x","stream":true,"max_tokens":1000000}`
		_, err = fmt.Fprintf(conn, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		require.NoError(t, err)
		synctest.Wait()
		require.EqualValues(t, 1, f.open.Load(), "the request runs")
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		require.Zero(t, f.open.Load(), "the reader that does not read is cut")
	})
}

// TestSlowButSteadyReader: the write deadline is for a piece, not for the answer.
func TestSlowButSteadyReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeEngine(strings.Repeat("x", 8))
		f.gate = make(chan struct{})
		s := serveInBubble(t, f, Config{}, func(s *Server) { s.writeTimeout = time.Second })
		resp, err := func() (*http.Response, error) {
			go func() { f.gate <- struct{}{} }()
			return s.post(t, t.Context(), `{"prompt":"x","stream":true}`)
		}()
		require.NoError(t, err)
		in := bufio.NewReader(resp.Body)
		for range 8 {
			time.Sleep(400 * time.Millisecond)
			for _, line := range []string{"data: ", "\n"} { // an event
				got, err := in.ReadString('\n')
				require.NoError(t, err)
				require.True(t, strings.HasPrefix(got, line), got)
			}
			f.gate <- struct{}{}
		}
		rest, err := io.ReadAll(in)
		require.NoError(t, err)
		require.Contains(t, string(rest), "[DONE]")
	})
}

func TestEngineLost(t *testing.T) {
	f := newFakeEngine("abc")
	f.gate = make(chan struct{})
	s := serve(t, f, Config{}, nil)
	status := make(chan int, 1)
	go func() {
		resp, err := s.post(t, context.Background(), `{"prompt":"x"}`)
		if err != nil {
			status <- 0
			return
		}
		status <- resp.StatusCode
	}()
	eventually(t, "the request runs", func() bool { return f.open.Load() == 1 })
	f.err = fmt.Errorf("%w: device fault", engine.ErrClosed)
	close(f.done)
	require.Equal(t, 503, <-status)
	require.ErrorContains(t, s.wait(t), "device fault")
}

var crowd = flag.Int("crowd", 5, "percent of the crowd that TestCrowds makes")

// TestCrowds: whoever comes and goes, nothing is left of them: requests whose
// clients disconnect, readers that do not read, sockets that never say anything.
func TestCrowds(t *testing.T) {
	disconnects, readers, silent := 10_000**crowd/100, 1000**crowd/100, 500**crowd/100
	if testing.Short() {
		disconnects, readers, silent = 100, 10, 50
	}
	t.Logf("%d disconnects, %d slow readers, %d silent sockets", disconnects, readers, silent)
	f := newFakeEngine("")
	f.info.MaxModelLen, f.info.PoolTokens = 1<<22, 1<<22
	endless := ids(strings.Repeat("x", 1<<19))
	f.reply = func(engine.Request) []int32 { return endless }
	s := serve(t, f, Config{}, func(s *Server) { s.writeTimeout, s.headerTimeout = 200*time.Millisecond, 500*time.Millisecond })
	resp, err := s.post(t, t.Context(), `{"prompt":"x","max_tokens":1}`) // what is made once is made
	require.NoError(t, err)
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	before, files := runtime.NumGoroutine(), openFiles(t)

	const body = `{"prompt":"x","stream":true,"max_tokens":500000}`
	request := fmt.Sprintf("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	var held []net.Conn
	open := func(text string) net.Conn {
		conn, err := net.Dial("tcp", s.addr)
		require.NoError(t, err)
		_, err = io.WriteString(conn, text)
		require.NoError(t, err)
		return conn
	}
	for range readers {
		held = append(held, open(request))
	}
	for range silent {
		held = append(held, open("POST /v1/completions HTTP/1.1\r\nHo"))
	}
	for range disconnects {
		open(request).Close()
	}
	w := do(s.Handler(), "GET", "/health", "")
	require.Equal(t, 200, w.Code)
	eventually(t, "all requests are freed", func() bool { return f.open.Load() == 0 })
	for _, conn := range held {
		conn.Close()
	}
	eventually(t, "goroutines are back", func() bool { return runtime.NumGoroutine() <= before+2 })
	eventually(t, "files are back", func() bool { return openFiles(t) <= files+2 })
}

func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return len(entries)
}
