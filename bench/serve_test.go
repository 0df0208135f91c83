package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestEventReader(t *testing.T) {
	const stream = "\ufeff: comment\r\ndata: a\n\ndata:b\r\rdata: c\r\ndata:  d\r\n\r\nevent: x\nid: 3\ndata\n\n\n\nretry: 5\ndatax: no\n\ndata: [DONE]\n\ndata: cut"
	want := []string{"a", "b", "c\n d", "", "[DONE]"}
	for name, in := range map[string]io.Reader{
		"at once": strings.NewReader(stream), "byte by byte": iotest.OneByteReader(strings.NewReader(stream)), "halves": iotest.HalfReader(strings.NewReader(stream)),
	} {
		t.Run(name, func(t *testing.T) {
			events := newEventReader(in)
			var got []string
			for {
				data, err := events.next()
				if err != nil {
					require.ErrorIs(t, err, io.EOF)
					break
				}
				got = append(got, string(data))
			}
			require.Equal(t, want, got)
		})
	}
}

// An event is there as soon as its empty line is: nothing waits for more.
func TestEventReaderDoesNotWait(t *testing.T) {
	in, out := io.Pipe()
	events := newEventReader(in)
	for _, end := range []string{"\n\n", "\r\n\r\n", "\r\r"} {
		go func() { _, _ = io.WriteString(out, "data: now"+end) }()
		data, err := events.next()
		require.NoError(t, err)
		require.Equal(t, "now", string(data))
	}
}

func FuzzEventReader(f *testing.F) {
	f.Add([]byte("data: a\n\ndata: b\r\ndata: c\r\n\r\n"))
	f.Add([]byte("\r\r\n\ndata\r:x\n\n"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		read := func(in io.Reader) (got []string) {
			for events := newEventReader(in); ; {
				data, err := events.next()
				if err != nil {
					return got
				}
				got = append(got, string(data))
			}
		}
		whole := read(bytes.NewReader(stream))
		require.Equal(t, whole, read(iotest.OneByteReader(bytes.NewReader(stream))), "how the bytes come makes no difference")
	})
}

// events answers as a server does: chunks of an answer, a usage, the end.
func events(w http.ResponseWriter, chunks ...string) {
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	for _, chunk := range chunks {
		fmt.Fprintf(w, "data: %s\n\n", chunk)
		w.(http.Flusher).Flush()
	}
}

func testClient(t *testing.T, handler http.HandlerFunc) *Client {
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	c, err := NewClient(server.URL + "/v1/")
	require.NoError(t, err)
	c.Model = "m"
	return c
}

func serveOne(t *testing.T, c *Client, p ServePrompt) *ServeSample {
	run, err := Serve(context.Background(), c, []ServePrompt{p}, ServeLoad{RequestRate: AtOnce, Burstiness: 1})
	require.NoError(t, err)
	return &run.Samples[0]
}

func TestClientCountsTokensOfAChat(t *testing.T) {
	var asked map[string]any
	c := testClient(t, func(w http.ResponseWriter, r *http.Request) {
		require.Equal(t, "/v1/chat/completions", r.URL.Path)
		require.Equal(t, "Bearer secret", r.Header.Get("Authorization"))
		require.NoError(t, json.NewDecoder(r.Body).Decode(&asked))
		events(w,
			`{"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}]}`,
			`{"choices":[{"delta":{"content":"Hel"}}]}`, `{"choices":[{"delta":{"content":"lo"}}]}`, `{"choices":[{"delta":{"reasoning_content":"hm"}}]}`,
			`{"choices":[{"delta":{},"finish_reason":"stop"}]}`,
			`{"choices":[],"usage":{"prompt_tokens":17,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":16}}}`, "[DONE]")
	})
	c.Chat, c.Key, c.Body = true, "secret", map[string]any{"temperature": 0.5, "ignore_eos": true}
	s := serveOne(t, c, ServePrompt{Text: "Hi", PromptTokens: 2, OutputTokens: 9})
	require.NoError(t, s.Err)
	require.Len(t, s.Tokens, 3, "neither the role nor the end is a token")
	require.Equal(t, []int{5, 17, 16}, []int{s.OutputTokens, s.PromptTokens, s.CachedTokens}, "the server's count wins")
	require.Equal(t, "Hello", s.Text)
	require.Equal(t, map[string]any{
		"model": "m", "stream": true, "stream_options": map[string]any{"include_usage": true}, "max_tokens": 9.0,
		"temperature": 0.5, "ignore_eos": true, "messages": []any{map[string]any{"role": "user", "content": "Hi"}},
	}, asked)
}

func TestClientOfACompletionWithoutUsage(t *testing.T) {
	c := testClient(t, func(w http.ResponseWriter, r *http.Request) {
		require.Equal(t, "/v1/completions", r.URL.Path)
		events(w, `{"choices":[{"text":"a","finish_reason":null}]}`, `{"choices":[{"text":"","finish_reason":null}]}`, `{"choices":[{"text":" b"}]}`,
			`{"choices":[{"text":"","finish_reason":"length"}]}`, "[DONE]")
	})
	s := serveOne(t, c, ServePrompt{IDs: []int32{1, 2, 3}, PromptTokens: 3, OutputTokens: 3})
	require.NoError(t, s.Err)
	require.Len(t, s.Tokens, 3, "a token without text counts, the end does not")
	require.Equal(t, []int{3, 3}, []int{s.OutputTokens, s.PromptTokens})
	require.False(t, s.Counted)
}

func TestFailuresAreCountedByKind(t *testing.T) {
	var n atomic.Int32
	answers := []http.HandlerFunc{
		func(w http.ResponseWriter, _ *http.Request) {
			events(w, `{"choices":[{"text":"fine","finish_reason":"stop"}]}`, "[DONE]")
		},
		func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"error":{"message":"queue full"}}`, http.StatusServiceUnavailable)
		},
		func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"detail":"queue full"}`, http.StatusServiceUnavailable)
		},
		func(w http.ResponseWriter, _ *http.Request) {
			events(w, `{"choices":[{"text":"a"}]}`, `{"error":{"message":"device lost"}}`)
		},
		func(w http.ResponseWriter, _ *http.Request) { events(w, `{"choices":[{"text":"a"}]}`) },
		func(w http.ResponseWriter, _ *http.Request) { events(w, `{"choices":[]}`, "[DONE]") },
		func(w http.ResponseWriter, _ *http.Request) { events(w, `{"choices":`) },
		func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") },
		func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	}
	c := testClient(t, func(w http.ResponseWriter, r *http.Request) { answers[n.Add(1)-1](w, r) })
	run, err := Serve(context.Background(), c, make([]ServePrompt, len(answers)), ServeLoad{RequestRate: AtOnce, Burstiness: 1, MaxConcurrency: 1})
	require.NoError(t, err)
	res := run.Result(nil)
	require.Equal(t, 1, res.Completed)
	require.Equal(t, map[string]int{
		"status 503": 2, "error in the stream": 1, "the stream ended early": 1, "no token came": 1, "an event is not JSON": 1,
		"the answer is no event stream": 1, "connection lost": 1,
	}, res.Failures)
	require.Equal(t, 8, res.Failed)
	require.Contains(t, res.Examples["status 503"], "queue full")

	var out bytes.Buffer
	PrintServe(&out, res, ServeOptions{Load: ServeLoad{RequestRate: AtOnce}, Metrics: []string{"ttft"}, Percentiles: []float64{99}})
	require.Contains(t, out.String(), "failed: 2 × status 503")
	require.Contains(t, out.String(), "chunks were counted")
}

func TestShortAnswersAreNoted(t *testing.T) {
	c := testClient(t, func(w http.ResponseWriter, _ *http.Request) {
		events(w, `{"choices":[{"text":"a","finish_reason":"stop"}]}`, `{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}`, "[DONE]")
	})
	notes := func() string {
		run, err := Serve(context.Background(), c, []ServePrompt{{Text: "Hi", OutputTokens: 5}}, ServeLoad{RequestRate: AtOnce, Burstiness: 1})
		require.NoError(t, err)
		return strings.Join(run.Result(nil).Notes(), "\n")
	}
	require.NotContains(t, notes(), "shorter")
	c.Body = map[string]any{"ignore_eos": true}
	require.Contains(t, notes(), "1 of 1 answers are shorter than was asked for")
}

func TestSlowAnswerTimesOut(t *testing.T) {
	c := testClient(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // a server sees that its client left only when it has read all
		<-r.Context().Done()
	})
	c.Timeout = time.Millisecond
	s := serveOne(t, c, ServePrompt{Text: "Hi"})
	require.Equal(t, "timeout", s.Failure)
	require.ErrorContains(t, s.Err, "1ms")
}

func TestUnreachableServerIsExplained(t *testing.T) {
	c, err := NewClient("http://127.0.0.1:0") // where nobody can listen
	require.NoError(t, err)
	_, err = c.FirstModel(context.Background())
	require.ErrorContains(t, err, "is it running?")
	for _, bad := range []string{"ftp://x", "http://", "::"} {
		_, err = NewClient(bad)
		require.ErrorContains(t, err, "--base-url", bad)
	}
}

func TestInterruptedRunKeepsWhatIsDone(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var n atomic.Int32
	c := testClient(t, func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 3 {
			events(w, `{"choices":[{"text":"a"}]}`)
			cancel()
			<-r.Context().Done()
			return
		}
		events(w, `{"choices":[{"text":"a","finish_reason":"stop"}]}`, "[DONE]")
	})
	run, err := Serve(ctx, c, make([]ServePrompt, 10), ServeLoad{RequestRate: AtOnce, Burstiness: 1, MaxConcurrency: 1})
	require.NoError(t, err)
	require.True(t, run.Interrupted)
	res := run.Result(nil)
	require.Equal(t, []int{2, 0, 8}, []int{res.Completed, res.Failed, res.Unfinished}, "what was stopped has not failed")

	o := ServeOptions{Model: "m", NumPrompts: 10, Load: ServeLoad{RequestRate: AtOnce, MaxConcurrency: 1}}
	r := ServeReport([]ServeCell{{Load: o.Load, Results: []*ServeResult{res}}}, nil, o)
	require.Contains(t, r.Notes, "Interrupted: 8 of 10 requests did not finish; throughput leaves out their tokens.")
	require.InDelta(t, 8, r.Cells[0].Metrics["unfinished"].Median, 0)
	require.Contains(t, r.Columns, "unfinished")
	require.EqualValues(t, 8, run.vllmResult(res, o, time.Now())["unfinished"])
}

func TestConcurrencyIsBounded(t *testing.T) {
	var now, most atomic.Int32
	c := testClient(t, func(w http.ResponseWriter, _ *http.Request) {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		events(w, `{"choices":[{"text":"a","finish_reason":"stop"}]}`, "[DONE]")
		now.Add(-1)
	})
	run, err := Serve(context.Background(), c, make([]ServePrompt, 50), ServeLoad{RequestRate: AtOnce, Burstiness: 1, MaxConcurrency: 3})
	require.NoError(t, err)
	res := run.Result(nil)
	require.Equal(t, 50, res.Completed)
	require.LessOrEqual(t, int(most.Load()), 4, "the handler may end after its client")
	require.LessOrEqual(t, res.PeakConcurrency, 3)
}

func TestArrivals(t *testing.T) {
	variation := func(b float64) float64 {
		at := arrivals(20000, ServeLoad{RequestRate: 100, Burstiness: b, Seed: 3})
		require.Equal(t, 200*time.Second, at[len(at)-1].Round(time.Microsecond), "the last is sent at n ÷ rate")
		var gaps []float64
		last := time.Duration(0)
		for _, a := range at {
			gaps = append(gaps, (a - last).Seconds())
			last = a
		}
		d := Describe(gaps)
		return d.StdDev / d.Mean
	}
	// The coefficient of variation of a gamma distribution is 1 ÷ √shape.
	for _, b := range []float64{0.25, 0.5, 1, 4, 100} {
		require.InEpsilon(t, 1/math.Sqrt(b), variation(b), 0.05, "burstiness %g", b)
	}
	require.Less(t, variation(math.Inf(1)), 1e-3, "even gaps")
	require.Equal(t, make([]time.Duration, 5), arrivals(5, ServeLoad{RequestRate: math.Inf(1), Burstiness: 1}))
	a := arrivals(9, ServeLoad{RequestRate: 2, Burstiness: 1, Seed: 1})
	require.Equal(t, a, arrivals(9, ServeLoad{RequestRate: 2, Burstiness: 1, Seed: 1}))
	require.NotEqual(t, a, arrivals(9, ServeLoad{RequestRate: 2, Burstiness: 1, Seed: 2}))
}

// knownRun has three requests whose metrics can be computed by hand.
func knownRun() *ServeRun {
	ms := func(values ...int) (d []time.Duration) {
		for _, v := range values {
			d = append(d, time.Duration(v)*time.Millisecond)
		}
		return d
	}
	sample := func(sent int, tokens []time.Duration, ended, in, out int) ServeSample {
		return ServeSample{Sample: Sample{Submitted: ms(sent)[0], Tokens: tokens, Ended: ms(ended)[0], PromptTokens: in}, OutputTokens: out, Counted: true}
	}
	return &ServeRun{Duration: 2 * time.Second, Samples: []ServeSample{
		sample(100, ms(150, 200, 300), 300, 10, 4), // three chunks of four tokens
		sample(200, ms(1350), 1350, 20, 1),
		{Sample: Sample{Submitted: ms(200)[0], Err: errors.New("x")}, Failure: "status 503"},
	}}
}

func TestServeResult(t *testing.T) {
	res := knownRun().Result(Goodput{"ttft": 60, "tpot": 60})
	require.Equal(t, []int{2, 1, 30, 5}, []int{res.Completed, res.Failed, res.InputTokens, res.OutputTokens})
	require.InDelta(t, 1, res.RequestThroughput, 1e-9)
	require.InDelta(t, 2.5, res.OutputThroughput, 1e-9)
	require.InDelta(t, 17.5, res.TotalThroughput, 1e-9)
	require.InDelta(t, 0.5, res.RequestGoodput, 1e-9, "the second's first token is too late")
	require.Equal(t, []float64{50, 1150}, res.Latencies["ttft"])
	require.Equal(t, []float64{50}, res.Latencies["tpot"], "(300 − 150) ÷ (4 tokens − 1); one token has none")
	require.Equal(t, []float64{50, 100}, res.Latencies["itl"])
	require.Equal(t, []float64{200, 1150}, res.Latencies["e2el"])
	require.InDelta(t, 3, res.PeakOutputThroughput, 1e-9)
	require.Equal(t, 2, res.PeakConcurrency)
}

// The keys are those of vLLM's result file without and with --save-detailed.
func TestSavedResultHasVLLMsKeys(t *testing.T) {
	run, dir := knownRun(), t.TempDir()
	o := ServeOptions{Backend: "openai", Model: "org/m", NumPrompts: 3, Load: ServeLoad{RequestRate: AtOnce, Burstiness: 1}, Metrics: []string{"ttft", "tpot", "itl"}, Percentiles: []float64{99, 99.9}}
	path, err := SaveServe(dir, "", run, run.Result(nil), o, time.Date(2026, 11, 26, 1, 2, 3, 0, time.UTC))
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "openai-infqps-m-20261126-010203.json"), path)
	read := func(path string) (out map[string]any) {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(data, &out))
		return out
	}
	got := read(path)
	want := strings.Fields(`date endpoint_type backend label model_id tokenizer_id num_prompts request_rate burstiness max_concurrency
		duration completed failed total_input_tokens total_output_tokens request_throughput request_goodput output_throughput
		total_token_throughput max_output_tokens_per_s max_concurrent_requests rtfx latencies queue_times`)
	for _, name := range []string{"ttft", "tpot", "itl"} {
		for _, of := range []string{"mean", "median", "std", "p99", "p99.9"} {
			want = append(want, of+"_"+name+"_ms")
		}
	}
	ours := []string{"unfinished", "failures", "client_send_lag_p99_ms", "client_wake_lag_p99_ms"}
	var keys []string
	for key := range got {
		keys = append(keys, key)
	}
	require.ElementsMatch(t, append(want, ours...), keys)
	require.Equal(t, "inf", got["request_rate"])
	require.Nil(t, got["request_goodput"])
	require.Nil(t, got["max_concurrency"])
	require.InDelta(t, 600, got["median_ttft_ms"], 1e-9)

	o.Detailed, o.Label, o.Load.RequestRate, o.Load.MaxConcurrency, o.Metadata = true, "a", 4, 8, map[string]string{"gpu": "none"}
	path, err = SaveServe(dir, "", run, run.Result(nil), o, time.Date(2026, 11, 26, 1, 2, 3, 0, time.UTC))
	require.NoError(t, err)
	require.Equal(t, "a-4.0qps-concurrency8-m-20261126-010203.json", filepath.Base(path))
	got = read(path)
	require.Equal(t, []any{0.05, 1.15, 0.0}, got["ttfts"])
	require.Equal(t, []any{[]any{0.05, 0.1}, []any{}, []any{}}, got["itls"])
	require.Equal(t, []any{"", "", "x"}, got["errors"])
	for _, key := range strings.Fields("input_lens output_lens start_times generated_texts gpu") {
		require.Contains(t, got, key)
	}
}

func TestServeReport(t *testing.T) {
	o := ServeOptions{Model: "m", Load: ServeLoad{RequestRate: AtOnce}}
	results := []*ServeResult{knownRun().Result(nil), knownRun().Result(nil)}
	for name, cells := range map[string][]ServeCell{
		"one load": {{Load: ServeLoad{RequestRate: AtOnce}, Results: results}},
		"sweep":    {{Load: ServeLoad{RequestRate: 1}, Results: results}, {Load: ServeLoad{RequestRate: 2}, Results: results}, {Load: ServeLoad{RequestRate: 4}}},
	} {
		t.Run(name, func(t *testing.T) {
			r := ServeReport(cells, map[string]any{"dataset_name": "random"}, o)
			require.NoError(t, r.Write(t.TempDir()))
			require.NotEmpty(t, r.Plots)
			require.InDelta(t, 600, r.Cells[0].Metrics["median_ttft_ms"].Median, 1e-9)
			require.Contains(t, r.Verdict, "2.50 output tok/s")
			require.Equal(t, name == "sweep", strings.HasPrefix(strings.Join(r.Notes, "\n"), "At request-rate 1 · max-concurrency unbounded: "), r.Notes)
		})
	}
	require.Contains(t, ServeReport([]ServeCell{{}}, nil, o).Verdict, "Nothing was measured")
}

func TestGoodputLimits(t *testing.T) {
	g, err := ParseGoodput([]string{"ttft:200", "e2el:1e3"})
	require.NoError(t, err)
	require.Equal(t, Goodput{"ttft": 200, "e2el": 1000}, g)
	for _, bad := range []string{"ttft", "ttft:", "itl:5", "tpot:-1", "tpot:NaN"} {
		_, err = ParseGoodput([]string{bad})
		require.ErrorContains(t, err, bad)
	}
}
