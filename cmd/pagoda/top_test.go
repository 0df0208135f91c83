package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/internal/server"
)

// fixedFrames are a full frame and one after it, as a server sends them.
func fixedFrames() []string {
	blocks := func() string {
		var b []string
		for id := 1; id <= 6; id++ {
			b = append(b, fmt.Sprintf(`[%d,"u",3,16,"ab00cd00ef00",100,900,1,2,28]`, id))
		}
		for id := 7; id <= 60; id++ {
			b = append(b, fmt.Sprintf(`[%d,"u",1,%d,"",200,200,%d]`, id, 1+id%16, 1+id%3))
		}
		for id := 61; id <= 90; id++ {
			b = append(b, fmt.Sprintf(`[%d,"c",0,16,"00112233445%d",100,900]`, id, id%10))
		}
		return strings.Join(append(b, `[91,"i",0,0,"",1,2]`), ",")
	}()
	var requests []string
	for seq := 1; seq <= 9; seq++ {
		status, held := "running", 20
		if seq > 6 {
			status, held = "waiting", 0
		}
		requests = append(requests, fmt.Sprintf(`{"id":"chatcmpl-%032d","choice":%d,"seq":%d,"status":%q,"prompt":131,"output":%d,"max":300,"computed":150,"cached":112,"blocks":%d}`,
			seq, seq/6, seq, status, 10*seq, held))
	}
	full := `{"seq":4,"full":true,"now_ms":60000,"info":{"model":"demo\u001b[31m","version":"v","block_size":16,"block_bytes":65536,"max_model_len":1024,"max_logprobs":20,"chat":true,"text":true},` +
		`"stats":{"running":6,"waiting":4,"swapped":1,"blocks_total":160,"blocks_used":60,"blocks_cached":30,"blocks_free":69,"blocks_in_flight":1,"blocks_shared":6,"blocks_saved":12,"blocks_shown":160,` +
		`"host_total":64,"host_used":16,"slot_use":0.874,"prompt_tokens":1000,"cached_tokens":672,"looked_up_tokens":1000,"generated_tokens":500,"steps":70,"step_us":12340,"preemptions":2,"swaps":1,"evictions":8,"finished":3},` +
		`"requests":[` + strings.Join(requests, ",") + `],"more":1,"steps":[{"n":69,"at_ms":57000,"prefill":9,"decodes":9,"why":["decode 1"]},` +
		`{"n":70,"at_ms":59000,"took_us":12340,"prefill":100,"decodes":6,"running":6,"waiting":4,"swaps":1,"used":60,"total":160,"why":["decode 1 2 3 4 5 6, prefill 7 [0,100)","9 leaves for the host, because 2 needs a block: frees 16; costs: swap 1.20 ms, recompute 4.50 ms","copies 16 blocks to the host (transfer 3)","4 wait, 8 first: kv blocks"]}],` +
		`"blocks":[` + blocks + `]}`
	return []string{full, strings.Replace(`{"seq":5,"now_ms":60200,"stats":STATS,"requests":[],"steps":[{"n":71,"at_ms":60100,"prefill":0,"decodes":6,"waiting":4,"why":["decode 1"]}],"blocks":[[7,"f",0,0,"",200,300]]}`,
		"STATS", regexp.MustCompile(`"stats":(\{[^}]*\})`).FindStringSubmatch(full)[1], 1)}
}

// TestTopLines: the picture of a fixed state, as it fits a terminal of 80 by 24.
func TestTopLines(t *testing.T) {
	var v topView
	frames := fixedFrames()
	require.ErrorContains(t, new(topView).apply([]byte(frames[1])), "does not begin with a full frame")
	require.NoError(t, v.apply([]byte(frames[0])))
	want := `
Pagoda  demo[31m                     3.0 tok/s  prefill 50.0 tok/s  step 12.3 ms
requests   6 running  4 waiting  3 finished  2 preempted  8 evictions
KV blocks  ██████████████░░░░░░░░░░░░░░░░░░░░░░░ 60/160 38 %  30 cached  69 free
swap pool  ██████████░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░ 16/64 25 %  1 swapped out
prefix     67 % hits  6 blocks shared, saves 768 KiB  87 % of used slots filled

######cdbcdbcdbcdbcdbcdbcdbcdbcdbcdbcdbcdbcdbcdbcdbcdbcdbcdb--------------------
----------~.....................................................................

step 70, 1.0 s ago: 100 prefill, 6 decode, 4 waiting
  decode 1 2 3 4 5 6, prefill 7 [0,100)
  9 leaves for the host, because 2 needs a block: frees 16; costs: swap 1.20 ms…
  and 2 more reasons

    seq  request                     state     prompt  cached      output blocks
      1  chatcmpl-0000000000000000…  running      131     112      10/300     20
      2  chatcmpl-0000000000000000…  running      131     112      20/300     20
      3  chatcmpl-0000000000000000…  running      131     112      30/300     20
      4  chatcmpl-0000000000000000…  running      131     112      40/300     20
      5  chatcmpl-0000000000000000…  running      131     112      50/300     20
      6  chatcmpl-0000000000000…/1   running      131     112      60/300     20
      7  chatcmpl-0000000000000…/1   waiting      131     112      70/300      0
      8  chatcmpl-0000000000000…/1   waiting      131     112      80/300      0
         and 2 more
`
	require.Equal(t, strings.TrimPrefix(want, "\n"), strings.Join(v.lines(80, 24, false), "\n")+"\n")

	require.NoError(t, v.apply([]byte(frames[1])))
	next := strings.Join(v.lines(80, 24, false), "\n")
	require.Contains(t, next, "######.dbcdb", "a block that changed")
	require.Contains(t, next, "step 70, 1.2 s ago", "the last step with a reason")
	require.Contains(t, next, "none")
}

// TestTopFits: whatever the size, no line is too wide and there are not too many.
func TestTopFits(t *testing.T) {
	escapes := regexp.MustCompile("\x1b\\[[0-9;]*m")
	var v topView
	require.NoError(t, v.apply([]byte(fixedFrames()[0])))
	for _, blocks := range []int{0, 1, 160, 30_000} {
		v.frame.Stats.BlocksShown = blocks
		for _, size := range [][2]int{{80, 24}, {40, 10}, {200, 60}, {61, 3}, {80, 1}, {30, 8}, {20, 5}, {3, 9}, {0, 2}} {
			plain := v.lines(size[0], size[1], false)
			coloured := v.lines(size[0], size[1], true)
			require.LessOrEqual(t, len(plain), size[1])
			require.Len(t, coloured, len(plain))
			for i, line := range coloured {
				bare := escapes.ReplaceAllString(line, "")
				require.LessOrEqual(t, runes(bare), max(size[0], 1), "%v: %q", size, bare)
				require.NotContains(t, bare, "\x1b")
				require.Equal(t, runes(plain[i]), runes(bare))
			}
		}
	}
	v.frame.Stats.BlocksShown = 30_000
	require.Contains(t, strings.Join(v.lines(80, 24, false), "\n"), "a cell is 63 blocks")
}

// TestTopFollows: what is shown gets old while no frame comes, and is drawn again when
// the screen changes.
func TestTopFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stream, server := io.Pipe()
		defer server.Close()
		resized, ended := make(chan os.Signal), make(chan error, 1)
		var drawn atomic.Int64
		var title atomic.Value
		go func() {
			ended <- follow(t.Context(), stream, resized, func(v *topView) error {
				drawn.Add(1)
				title.Store(v.lines(80, 24, false)[0])
				return nil
			})
		}()
		synctest.Wait()
		require.Zero(t, drawn.Load(), "nothing has come")
		for _, frame := range fixedFrames() {
			fmt.Fprintf(server, "data: %s\n\n", frame)
		}
		synctest.Wait()
		require.EqualValues(t, 2, drawn.Load())
		require.Contains(t, title.Load(), " 6.0 tok/s")
		resized <- syscall.SIGWINCH
		synctest.Wait()
		require.EqualValues(t, 3, drawn.Load())
		time.Sleep(3500 * time.Millisecond) // of the bubble's clock
		synctest.Wait()
		require.EqualValues(t, 6, drawn.Load())
		require.Contains(t, title.Load(), " 0.0 tok/s", "the steps are over")
		server.Close()
		require.NoError(t, <-ended)
	})
}

// TestTopCommand: once into a pipe, as JSON, and what goes wrong.
func TestTopCommand(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch {
		case req.URL.Path != "/ui/api/stream":
			w.WriteHeader(http.StatusNotFound)
		case req.Header.Get("Authorization") != "Bearer k":
			w.WriteHeader(http.StatusUnauthorized)
		default:
			fmt.Fprint(w, ":\n\n")
			for _, frame := range fixedFrames() {
				fmt.Fprintf(w, "data: %s\n\n", frame)
			}
		}
	}))
	defer web.Close()
	for _, args := range [][]string{{}, {"--once"}} { // the output is no terminal
		out, err := run(t, append([]string{"top", "--url", web.URL + "/", "--api-key", "k"}, args...)...)
		require.NoError(t, err)
		require.Equal(t, 1, strings.Count(out, "KV blocks"))
		require.NotContains(t, out, "\x1b")
	}
	out, err := run(t, "top", "--url", web.URL, "--api-key", "k", "--json")
	require.NoError(t, err)
	var f server.Frame
	require.NoError(t, json.Unmarshal([]byte(out), &f))
	require.Len(t, f.Blocks, 91)
	require.Equal(t, []int64{1, 2, 28}, f.Blocks[0].Owners)

	_, err = run(t, "top", "--url", web.URL)
	require.Equal(t, exitUsage, exitCode(err))
	require.ErrorContains(t, err, "--api-key")
	_, err = run(t, "top", "--url", web.URL+"/other")
	require.ErrorContains(t, err, "--no-ui")
	_, err = run(t, "top", "--url", "http://[")
	require.Equal(t, exitUsage, exitCode(err))
}

// TestTopOfRealServer: what the real engine and server show, read by the real
// command.
func TestTopOfRealServer(t *testing.T) {
	s := startServer(t, engine.Config{NumGPUBlocksOverride: 100, MaxNumSeqs: 4})
	answer, err := s.ask(t.Context(), "Tell me a story about a fox.", 40)
	require.NoError(t, err)
	require.NotEmpty(t, answer.text)
	out, err := run(t, "top", "--url", s.url, "--json")
	require.NoError(t, err)
	var f server.Frame
	require.NoError(t, json.Unmarshal([]byte(out), &f))
	st := s.engine.Stats()
	require.Equal(t, []int{100, 0, st.BlocksCached}, []int{f.Stats.BlocksTotal, f.Stats.BlocksUsed, f.Stats.BlocksCached})
	cached := 0
	for _, b := range f.Blocks {
		if b.State == "c" {
			cached++
			require.Len(t, b.Hash, 12)
		}
	}
	require.Equal(t, st.BlocksCached, cached)
	require.Positive(t, cached)
	require.Contains(t, strings.Join(f.Steps[0].Why, "; "), "starts: nothing of it is cached")
	out, err = run(t, "top", "--url", s.url)
	require.NoError(t, err)
	require.Contains(t, out, "1 finished")
}
