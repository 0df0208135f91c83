package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// command runs pagoda in this process and returns what it printed.
func command(args ...string) (string, error) {
	var out bytes.Buffer
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(&out)
	err := root.Execute()
	return out.String(), err
}

// pressed is a simulation with too few blocks.
var pressed = []string{
	"simulate", "--quiet", "--requests", "120", "--num-gpu-blocks-override", "400", "--max-num-seqs", "32", "--num-cpu-blocks", "60",
	"--prefixes", "2", "--prefix-len", "80", "--n-share", "0.1", "--abort-share", "0.1", "--request-rate", "50", "--burstiness", "0.4",
}

func with(args []string, more ...string) []string {
	return append(append([]string(nil), args...), more...)
}

// TestSimulate goes the whole way: simulate and record, print, replay, ask what if,
// and be told of a changed byte.
func TestSimulate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "run.trace")
	text, err := command(with(pressed, "--record", path)...)
	require.NoError(t, err)
	for _, word := range []string{"finished", "steps", "preemptions", "hit rate"} {
		require.Contains(t, text, word)
	}

	object, err := command(with(pressed, "--json")...)
	require.NoError(t, err)
	var summary map[string]any
	require.NoError(t, json.Unmarshal([]byte(object), &summary))
	require.EqualValues(t, 120, summary["requests"])
	require.EqualValues(t, 120, summary["finished"].(float64)+summary["aborted"].(float64))
	require.Greater(t, summary["preemptions"], 5.0)
	require.Contains(t, summary, "hit_rate")
	require.Contains(t, summary, "steps")
	_, err = command("simulate", "--requests", "5", "--input-len", "1000")
	require.NoError(t, err, "the 95th percentile follows the mean")
	again, err := command(with(pressed, "--json")...)
	require.NoError(t, err)
	var other map[string]any
	require.NoError(t, json.Unmarshal([]byte(again), &other))
	delete(summary, "wall_seconds")
	delete(other, "wall_seconds")
	require.Equal(t, summary, other)

	steps, err := command("trace", path)
	require.NoError(t, err)
	require.Contains(t, steps, "leaves for the host, because")
	last, err := command("trace", path, "-n", "5", "--every-step")
	require.NoError(t, err)
	require.Less(t, strings.Count(last, "\n"), 40)

	perfetto := filepath.Join(dir, "run.pt.trace.json")
	_, err = command("trace", path, "--format", "perfetto", "-o", perfetto)
	require.NoError(t, err)
	file, err := os.ReadFile(perfetto)
	require.NoError(t, err)
	require.True(t, json.Valid(file))

	replayed, err := command("simulate", "--trace", path)
	require.NoError(t, err)
	require.Contains(t, replayed, "identical decisions: ")
	_, err = command("simulate", "--trace", path, "--max-num-seqs", "3")
	require.ErrorAs(t, err, &usageError{})
	require.ErrorContains(t, err, "--what-if")
	what, err := command("simulate", "--trace", path, "--what-if", "--max-num-seqs", "3", "--json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal([]byte(what), &other))
	require.LessOrEqual(t, other["mean_running"], 3.0)
	require.EqualValues(t, 400, other["num_gpu_blocks"])
	_, err = command("simulate", "--trace", path, "--what-if", "--swap-space", "1")
	require.ErrorContains(t, err, "--num-cpu-blocks")

	trace, err := os.ReadFile(path)
	require.NoError(t, err)
	zipped, err := os.Create(filepath.Join(dir, "cut.trace.gz"))
	require.NoError(t, err)
	zip := gzip.NewWriter(zipped)
	_, err = zip.Write(trace[:len(trace)/2])
	require.NoError(t, errors.Join(err, zip.Close(), zipped.Close()))
	half, err := command("simulate", "--trace", zipped.Name())
	require.NoError(t, err)
	require.Contains(t, half, "identical decisions: ")
	require.NotEqual(t, replayed, half)
	_, err = command("simulate", "--trace", zipped.Name(), "--what-if", "--max-num-seqs", "3")
	require.NoError(t, err, "what is there can be asked about, too")

	require.NoError(t, os.WriteFile(path, bytes.Replace(trace, []byte(`"waiting":1,`), []byte(`"waiting":2,`), 1), 0o644))
	_, err = command("simulate", "--trace", path)
	require.ErrorContains(t, err, "the replay differs from the trace: step ")
	require.Equal(t, exitFailure, exitCode(err))
}

// TestSimulateMixedTokens: a bound on steps with decodes shortens the longest wait for a
// token; a recording keeps its own bound, or none, whatever the preset has.
func TestSimulateMixedTokens(t *testing.T) {
	dir := t.TempDir()
	longest := func(args ...string) float64 {
		text, err := command(append([]string{"simulate", "--json", "--quiet"}, args...)...)
		require.NoError(t, err)
		var s struct {
			ITL struct {
				Max float64 `json:"max_ms"`
			} `json:"itl"`
		}
		require.NoError(t, json.Unmarshal([]byte(text), &s))
		return s.ITL.Max
	}
	load := []string{"--requests", "40", "--input-len", "2000", "--input-len-p95", "3000", "--output-len", "40", "--output-len-p95", "40", "--request-rate", "30"}
	times := map[string]float64{}
	for _, mixed := range []string{"0", "2048", "256"} {
		path := filepath.Join(dir, mixed)
		times[mixed] = longest(with(load, "--max-num-mixed-tokens", mixed, "--record", path)...)
		_, err := command("simulate", "--trace", path)
		require.NoError(t, err)
		again := longest("--trace", path, "--what-if", "--preset", "h200-7b")
		require.InEpsilon(t, times[mixed], again, 0.2, mixed)
	}
	require.Less(t, 2*times["256"], times["2048"])
	require.Less(t, 2*times["2048"], times["0"])
	what := longest("--trace", filepath.Join(dir, "0"), "--what-if", "--preset", "h200-7b", "--max-num-mixed-tokens", "256")
	require.InEpsilon(t, times["256"], what, 0.2)
}

func TestSimulateUsage(t *testing.T) {
	for _, args := range [][]string{
		{"simulate", "--requests", "0"}, {"simulate", "--preset", "abacus"}, {"simulate", "--step-time", "soon"},
		{"simulate", "--what-if"}, {"simulate", "--preemption-mode", "prayer"}, {"simulate", "--abort-share", "2"},
		{"simulate", "--max-num-seqs", "100", "--max-num-batched-tokens", "10"}, {"simulate", "--trace", "/no/such/file"},
		{"simulate", "--block-size", "0"}, {"simulate", "--input-len", "100", "--input-len-p95", "9"}, {"simulate", "x"},
		{"simulate", "--max-num-queued-reqs", "0"}, {"simulate", "--max-num-queued-reqs", "-1"}, {"simulate", "--num-gpu-blocks-override", "-5"},
		{"simulate", "--max-num-batched-tokens", "-1"}, {"simulate", "--watermark", "-0.1"}, {"simulate", "--watermark", "NaN"},
		{"simulate", "--trace", "-", "--what-if"}, {"simulate", "--trace", "-", "--what-if", "--fit", "-"},
		{"simulate", "--num-gpu-blocks-override", "9000000000000000"},
		{"bench", "preemption", "demo", "--block-size", "0"}, {"bench", "preemption", "demo", "--preemption-mode", "swap"},
		{"bench", "preemption", "demo", "--num-gpu-blocks-override", "9"}, {"bench", "preemption", "demo", "--trace-file", "x"},
		{"trace"}, {"trace", "a", "--url", "b"}, {"trace", "a", "--format", "poem"}, {"trace", "/no/such/file"}, {"trace", "a", "-n", "-1"},
	} {
		_, err := command(args...)
		require.Error(t, err, args)
		require.Equal(t, exitUsage, exitCode(err), "%v: %v", args, err)
	}
}

// TestRecordingsAreKept: no command writes over the recording that it reads.
func TestRecordingsAreKept(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "run.trace")
	_, err := command("simulate", "-q", "--requests", "5", "--record", path)
	require.NoError(t, err)
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	link := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink(path, link))
	for _, args := range [][]string{
		{"trace", path, "-o", path}, {"trace", path, "-o", link}, {"simulate", "-q", "--fit", path, "--record", path},
		{"simulate", "-q", "--trace", path, "--what-if", "--record", link},
	} {
		_, err := command(args...)
		require.ErrorContains(t, err, "would overwrite the recording", "%v", args)
		require.Equal(t, exitUsage, exitCode(err), args)
		after, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, before, after)
	}

	// Nor over anything else when there is nothing to read.
	_, err = command("trace", filepath.Join(dir, "none"), "-o", path)
	require.Error(t, err)
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, before, after)
}

// TestReplayIgnoresTheEnvironment: it is set for other commands, and a replay has
// the settings of its recording. What is on the command line is refused.
func TestReplayIgnoresTheEnvironment(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run.trace")
	_, err := command("simulate", "-q", "--requests", "5", "--record", path)
	require.NoError(t, err)
	t.Setenv("PAGODA_MAX_NUM_SEQS", "3")
	t.Setenv("PAGODA_SEED", "4")
	t.Setenv("PAGODA_REQUESTS", "7")
	text, err := command("simulate", "--trace", path)
	require.NoError(t, err)
	require.Contains(t, text, "identical decisions: ")
	text, err = command("simulate", "-q", "--trace", path, "--what-if")
	require.NoError(t, err)
	require.Contains(t, text, "requests     5")
	_, err = command("simulate", "-q", "--trace", path, "--what-if", "--seed", "4", "--no-async-scheduling", "--turns", "2")
	require.ErrorContains(t, err, "--seed, --turns would change them")
	require.Equal(t, exitUsage, exitCode(err))
}

// TestPreemptionOfOneBlock: the warm-up fits the smallest pool, too.
func TestPreemptionOfOneBlock(t *testing.T) {
	t.Setenv("PAGODA_TRACE_FILE", filepath.Join(t.TempDir(), "none"))
	text, err := command("bench", "preemption", "demo", "-q", "--requests", "1", "--prompt-tokens", "15", "--output-tokens", "2", "--repeats", "1", "--share", "1")
	require.NoError(t, err)
	require.Regexp(t, `recompute .* 15 *\n`, text)
	require.NoFileExists(t, os.Getenv("PAGODA_TRACE_FILE"))
}

// TestTraceOfServer reads what GET /debug/steps answers.
func TestTraceOfServer(t *testing.T) {
	asked := ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		asked = req.URL.String()
		if req.URL.Path != "/debug/steps" {
			http.NotFound(w, req)
			return
		}
		_, _ = w.Write([]byte(`{"step":7,"scheduled":[{"id":3,"start":0,"tokens":5,"sample":true}],"tokens":5,"decodes":0,"running":1,"waiting":2,"head":4,"wait_reason":"kv blocks","pool":{"free":3,"used":1,"cached":0,"used_slots":5},"start":"2026-01-01T00:00:00Z","host_ns":1000,"device_ns":2000000}` + "\n"))
	}))
	defer server.Close()
	text, err := command("trace", "--url", server.URL+"/", "-n", "12")
	require.NoError(t, err)
	require.Equal(t, "/debug/steps?n=12", asked)
	require.Contains(t, text, "2.00 ms")
	require.Contains(t, text, "prefill 3 [0,5)")
	require.Contains(t, text, "2 wait, 4 first: kv blocks")
	_, err = command("trace", "--url", server.URL+"/elsewhere")
	require.ErrorContains(t, err, "404")
}
