package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/bench"
)

// fakeServer answers so many completions (0: all) with three tokens, the others with 503, and counts what it was asked.
func fakeServer(t *testing.T, answers int) (url string, asked *[]map[string]any) {
	asked = new([]map[string]any)
	var mu sync.Mutex // guards it while requests are there
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/models":
			fmt.Fprint(w, `{"data":[{"id":"fake"}]}`)
		case "/v1/completions":
			var in map[string]any
			if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
				t.Error(err)
			}
			mu.Lock()
			*asked = append(*asked, in)
			n := len(*asked)
			mu.Unlock()
			if answers > 0 && n > answers {
				http.Error(w, `{"error":{"message":"busy"}}`, http.StatusServiceUnavailable)
				return
			}
			w.Header().Set("Content-Type", "text/event-stream")
			for range 3 {
				fmt.Fprint(w, "data: {\"choices\":[{\"text\":\"a\"}]}\n\n")
			}
			fmt.Fprint(w, "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":3}}\n\ndata: [DONE]\n\n")
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL, asked
}

// pagoda runs a command line and returns what it printed.
func pagoda(args ...string) (string, error) {
	var out bytes.Buffer
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&out)
	err := root.Execute()
	return out.String(), err
}

func TestBenchServe(t *testing.T) {
	url, asked := fakeServer(t, 0)
	dir := t.TempDir()
	out, err := pagoda("bench", "serve", "--base-url", url, "-q", "--num-prompts", "6", "--max-concurrency", "1", "--repeats", "2", "--prompt-token-ids", "--vocab-size", "50",
		"--input-len", "5", "--output-len", "3", "--temperature", "0", "--goodput", "ttft:60000", "tpot:60000", "--output-dir", filepath.Join(dir, "report"),
		"--save-result", "--result-dir", dir, "--result-filename", "r.json")
	require.NoError(t, err, out)
	require.Regexp(t, `(?m)^Successful requests: +6$`, out)
	require.Regexp(t, `(?m)^Total generated tokens: +18$`, out)
	require.Regexp(t, `(?m)^P99 TTFT \(ms\): +[0-9.]+$`, out)
	require.Regexp(t, `(?m)^Request goodput \(req/s\): +[0-9.]+$`, out)
	require.Len(t, *asked, 1+2*6, "a request to check, then two runs")
	first := (*asked)[0]
	require.Len(t, first["prompt"], 5)
	require.Equal(t, []any{0.0, true, 3.0, "fake"}, []any{first["temperature"], first["ignore_eos"], first["max_tokens"], first["model"]})
	for _, name := range []string{"r-1.json", "r-2.json", "report/report.json", "report/report.html", "report/ttft.png"} {
		require.FileExists(t, filepath.Join(dir, name))
	}
	data, err := os.ReadFile(filepath.Join(dir, "r-2.json"))
	require.NoError(t, err)
	var saved map[string]any
	require.NoError(t, json.Unmarshal(data, &saved))
	require.EqualValues(t, 6, saved["completed"])
	require.Equal(t, saved["request_throughput"], saved["request_goodput"])

	out, err = pagoda("bench", "compare", filepath.Join(dir, "report"), filepath.Join(dir, "report"), "--output-dir", filepath.Join(dir, "compare"))
	require.NoError(t, err, out)
	require.Regexp(t, `no\s+measurable\s+improvement,\s+because\s+(\(1\)\s+)?the\s+parameters\s+were\s+not\s+in\s+use`, out)
	require.FileExists(t, filepath.Join(dir, "compare", "report.html"))
}

// TestBenchServeNumPrompts: without --num-prompts each load gets few enough.
func TestBenchServeNumPrompts(t *testing.T) {
	url, asked := fakeServer(t, 0)
	common := []string{"bench", "serve", "--base-url", url, "-q", "--prompt-token-ids", "--vocab-size", "50", "--input-len", "5", "--output-len", "3"}
	_, err := pagoda(common...)
	require.NoError(t, err)
	require.Len(t, *asked, 1+200)
	*asked = nil
	_, err = pagoda(append(common, "--max-concurrency", "4,16")...)
	require.NoError(t, err)
	require.Len(t, *asked, 1+2*100)
	_, err = pagoda(append(common, "--num-prompts", "0")...)
	require.ErrorContains(t, err, "--num-prompts")
}

func TestBenchServeThatFails(t *testing.T) {
	url, _ := fakeServer(t, 1)
	out, err := pagoda("bench", "serve", "--base-url", url, "-q", "--num-prompts", "4", "--prompt-token-ids", "--vocab-size", "50")
	require.ErrorContains(t, err, "no request succeeded, 4 failed")
	require.Contains(t, out, "failed: 4 × status 503 (the first: status 503: busy)")
	require.Equal(t, exitFailure, exitCode(err))

	url, _ = fakeServer(t, 1+4)
	dir := t.TempDir()
	out, err = pagoda("bench", "serve", "--base-url", url, "-q", "--num-prompts", "4", "--max-concurrency", "1,2", "--prompt-token-ids", "--vocab-size", "50",
		"--input-len", "5", "--output-len", "3", "--output-dir", dir)
	require.ErrorContains(t, err, "no request succeeded, 4 failed")
	require.Regexp(t, `(?m)^Successful requests: +4$`, out)
	data, err := os.ReadFile(filepath.Join(dir, "report.json"))
	require.NoError(t, err, "the load that went well is kept")
	var report bench.Report
	require.NoError(t, json.Unmarshal(data, &report))
	require.Len(t, report.Cells, 2)
	require.EqualValues(t, []float64{4, 0}, []float64{report.Cells[0].Metrics["completed"].Median, report.Cells[1].Metrics["completed"].Median})
}

func TestBenchServeRefusesWhatMakesNoSense(t *testing.T) {
	url, asked := fakeServer(t, 0)
	for want, args := range map[string][]string{
		"--request-rate":       {"--request-rate", "-1"},
		"--burstiness":         {"--burstiness", "0", "--request-rate", "4"},
		"--max-concurrency":    {"--max-concurrency", "0"},
		"--dataset-name":       {"--dataset-name", "sonnet"},
		"question.jsonl":       {"--dataset-name", "mt-bench"},
		"--goodput itl:5":      {"--goodput", "itl:5"},
		"--endpoint-type":      {"--endpoint-type", "embeddings"},
		"--percentile-metrics": {"--percentile-metrics", "tttf"},
		"--metric-percentiles": {"--metric-percentiles", "101"},
		"--vocab-size":         {"--prompt-token-ids"},
		"--extra-body":         {"--extra-body", "[]"},
		"--base-url":           {"extra"},
	} {
		_, err := pagoda(append([]string{"bench", "serve", "--base-url", url, "-q"}, args...)...)
		require.ErrorContains(t, err, want)
		require.Equal(t, exitUsage, exitCode(err), want)
	}
	require.Empty(t, *asked, "nothing was sent")
}

// TestBenchServeBlamesFlagsAlone: a conversation for an endpoint of text is found before
// anything is sent; a load that cannot be sent, or a tokenizer that is gone, is no mistake
// of the command line.
func TestBenchServeBlamesFlagsAlone(t *testing.T) {
	url, asked := fakeServer(t, 0)
	file := filepath.Join(t.TempDir(), "prompts.jsonl")
	require.NoError(t, os.WriteFile(file, []byte("{\"prompt\":\"Hi\"}\n{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}\n"), 0o600))
	_, err := pagoda("bench", "serve", "--base-url", url, "-q", "--dataset-name", "jsonl", "--dataset-path", file)
	require.ErrorContains(t, err, "line 2: conversations need --endpoint-type chat")
	require.Equal(t, exitUsage, exitCode(err))
	require.Empty(t, *asked)

	client, err := bench.NewClient(url)
	require.NoError(t, err)
	s := serveSession{client: client, codec: deadCodec{}, flags: &serveLoadFlags{quiet: true, data: bench.Dataset{Name: "random", InputLen: 4}}}
	load := bench.ServeCell{Load: bench.ServeLoad{RequestRate: bench.AtOnce, Burstiness: 1}}
	err = s.once(t.Context(), &load, []bench.ServePrompt{{Messages: []bench.Message{{Role: "user"}}}}, 0, 1)
	require.ErrorContains(t, err, "conversations")
	require.Equal(t, exitFailure, exitCode(err))
	err = s.warmUp(t.Context())
	require.ErrorIs(t, err, errGone)
	require.Equal(t, exitFailure, exitCode(err))
}

var errGone = errors.New("gone")

// deadCodec is a tokenizer of a server that has ended.
type deadCodec struct{}

func (deadCodec) Encode(string) ([]int32, error) { return nil, errGone }
func (deadCodec) Decode([]int32) (string, error) { return "", errGone }

func TestSecretsAreNotInTheReport(t *testing.T) {
	require.Equal(t, []string{"pagoda", "--api-key", "…", "--api-key=…", "--header", "…", "--header=…", "--seed", "1"},
		withoutSecrets([]string{"pagoda", "--api-key", "a", "--api-key=b", "--header", "Authorization=c", "--header=X-Key=d", "--seed", "1"}))
}
