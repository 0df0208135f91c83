package sim

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/scheduler"
)

var rewrite = flag.Bool("rewrite", false, "write the output of TestText to testdata")

// TestText prints testdata/steps.trace, a recorded run of twelve sequences in which
// much happens, and compares it with testdata/steps.txt.
func TestText(t *testing.T) {
	trace, err := os.ReadFile("testdata/steps.trace")
	require.NoError(t, err)
	var text bytes.Buffer
	write := func(w *Text) {
		require.NoError(t, ReadSteps(reader(trace), w.Step))
		require.NoError(t, w.Close())
	}
	write(NewText(&text, 0))
	const path = "testdata/steps.txt"
	if *rewrite {
		require.NoError(t, os.WriteFile(path, text.Bytes(), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), text.String())
	for _, word := range []string{"starts:", "fork", "leaves for the host, because", "resumes from the host", "wait,", "ends with it", "evicts", "transfer", "aborted", "prefill ends here"} {
		require.Contains(t, text.String(), word, "the run shows too little")
	}

	_, _, err = Replay(reader(trace))
	require.NoError(t, err, "the run is of another scheduler: record it again with simulate --trace steps.trace --what-if --record")

	var one bytes.Buffer
	write(NewText(&one, 3))
	lines := strings.Split(one.String(), "\n")
	require.Greater(t, len(lines), 5)
	require.Less(t, len(lines), strings.Count(text.String(), "\n"))

	var every bytes.Buffer
	all := NewText(&every, 0)
	all.Every = true
	write(all)
	steps := 0
	require.NoError(t, ReadSteps(reader(trace), func(s *Step) error {
		if !s.idle() {
			steps++
		}
		return nil
	}))
	require.Len(t, regexp.MustCompile(`(?m)^ +\d+ +\d+\.`).FindAllString(every.String(), -1), steps, "a line a step")
}

func TestDecisionText(t *testing.T) {
	for want, d := range map[string]scheduler.RecordDecision{
		"5 gives up its blocks, because 2 needs a block: frees 9; costs: recompute 3.00 ms, the swap pool is full": {
			Means: scheduler.ByRecompute, Seq: 5, For: 2, Blocks: 9, Swap: -1, Recompute: 3 * time.Millisecond, Wait: -1, SwapFull: true},
		"5 leaves for the host, because a limit was lowered: frees 9; costs: swap 20.0 us": {
			Means: scheduler.BySwap, Seq: 5, Blocks: 9, Swap: 20 * time.Microsecond},
		"5 sits this step out, until a block comes free; costs: swap 1.500 s, wait 1.0 us": {
			Means: scheduler.ByWaiting, Seq: 5, For: 5, Swap: 1500 * time.Millisecond, Recompute: -1, Wait: 1000},
	} {
		require.Equal(t, want, decisionText(&d))
	}
}

type chromeEvent struct {
	Name, Ph, S string
	Pid         int
	Tid         int64
	Ts          float64
	Dur         float64
	Args        map[string]any
}

// perfetto writes a trace and reads it back.
func perfetto(t *testing.T, trace []byte, only scheduler.SequenceID) []chromeEvent {
	t.Helper()
	var out bytes.Buffer
	p := NewPerfetto(&out, only)
	require.NoError(t, ReadSteps(reader(trace), p.Step))
	require.NoError(t, p.Close())
	var file struct {
		DisplayTimeUnit string
		TraceEvents     []chromeEvent
	}
	require.NoError(t, json.Unmarshal(out.Bytes(), &file))
	require.Equal(t, "ms", file.DisplayTimeUnit)
	return file.TraceEvents
}

// TestPerfetto: the file is valid, on each track the slices nest, and it says what
// happened: all tokens, all preemptions, all ends.
func TestPerfetto(t *testing.T) {
	for name, c := range configs() {
		t.Run(name, func(t *testing.T) {
			w := everything(150, 6)
			w.AbortShare = 0
			s, trace := simulate(t, c, w)
			events := perfetto(t, trace, 0)
			type track struct {
				pid int
				tid int64
			}
			slicesOf, names, count := map[track][]chromeEvent{}, map[track]string{}, map[string]int{}
			tokens := 0.0
			for _, e := range events {
				where := track{e.Pid, e.Tid}
				require.False(t, math.IsNaN(e.Ts) || e.Ts < 0 || e.Dur < 0)
				switch e.Ph {
				case "X":
					slicesOf[where] = append(slicesOf[where], e)
					if n, ok := e.Args["tokens"].(float64); ok && e.Pid == sequencePid {
						tokens += n
					}
				case "M":
					names[where], _ = e.Args["name"].(string)
				case "i":
					require.Equal(t, "t", e.S)
					count[e.Name]++
				case "C":
					require.NotEmpty(t, e.Args)
					count[e.Name]++
				default:
					t.Fatalf("phase %q", e.Ph)
				}
			}
			for where, all := range slicesOf {
				require.NotEmpty(t, names[where])
				checkNesting(t, names[where], all)
			}
			require.EqualValues(t, s.ComputedTokens, tokens)
			require.EqualValues(t, s.Steps, len(slicesOf[track{enginePid, stepTrack}]))
			require.EqualValues(t, s.PreemptionsSwap, count["preemption: swap"])
			require.EqualValues(t, s.PreemptionsRecompute, count["preemption: recompute"])
			require.GreaterOrEqual(t, count["finished"], 150)
			require.GreaterOrEqual(t, count["kv blocks"], int(s.Steps))
			if s.SwapOutBlocks > 0 {
				require.NotEmpty(t, slicesOf[track{enginePid, outTrack}])
				require.NotEmpty(t, slicesOf[track{enginePid, inTrack}])
			}

			for _, e := range perfetto(t, trace, 7) {
				require.True(t, e.Pid == enginePid || e.Tid == 7 || e.Ph == "M", "%+v", e)
			}
		})
	}
}

// checkNesting wants slices that are disjoint or contain each other. Microseconds
// as floats are exact to about a nanosecond.
func checkNesting(t *testing.T, name string, all []chromeEvent) {
	t.Helper()
	const slack = 0.002
	slices.SortStableFunc(all, func(a, b chromeEvent) int {
		return cmp.Or(cmp.Compare(a.Ts, b.Ts), -cmp.Compare(a.Dur, b.Dur))
	})
	var open []float64 // ends
	for _, e := range all {
		for len(open) > 0 && open[len(open)-1] <= e.Ts+slack {
			open = open[:len(open)-1]
		}
		if len(open) > 0 {
			require.LessOrEqual(t, e.Ts+e.Dur, open[len(open)-1]+slack, "%s: %+v", name, e)
		}
		open = append(open, e.Ts+e.Dur)
	}
}

// TestReadSteps: steps do not overlap on the device, though the overlapped loop
// decides them early, and a trace that was cut off is read as far as it goes.
func TestReadSteps(t *testing.T) {
	c := small(600, 600)
	c.Overlapped = true
	s, trace := simulate(t, c, everything(100, 9))
	read := func(trace []byte) (steps []*Step) {
		require.NoError(t, ReadSteps(reader(trace), func(s *Step) error { steps = append(steps, s); return nil }))
		return steps
	}
	steps := read(trace)
	var end, busy time.Duration
	work := int64(0)
	for _, step := range steps {
		require.GreaterOrEqual(t, step.Start, end)
		end = step.End()
		if len(step.Scheduled) > 0 {
			require.True(t, step.Measured)
			require.Equal(t, c.StepTime.Of(step.Load), step.Took)
			work++
			busy += step.Took
		}
	}
	require.Equal(t, s.Steps, work)
	require.InDelta(t, s.VirtualSeconds, busy.Seconds(), s.VirtualSeconds*0.2)

	cut := read(trace[:len(trace)/2])
	require.Greater(t, len(cut), len(steps)/10)
	require.Equal(t, steps[0], cut[0])
	require.Equal(t, steps[len(cut)/2], cut[len(cut)/2])
}

func TestFromEngine(t *testing.T) {
	start := time.Unix(100, 0)
	ran := []scheduler.RecordScheduled{{ID: 1, Tokens: 1}}
	steps := FromEngine([]engine.StepRecord{
		{Record: scheduler.Record{Step: 5, Scheduled: ran}, Start: start, Device: 3 * time.Millisecond},
		{Record: scheduler.Record{Step: 6, Scheduled: ran, Predicted: 2 * time.Millisecond}, Start: start.Add(time.Millisecond)},
		{Record: scheduler.Record{Step: 7, Predicted: time.Second}, Start: start.Add(time.Second)},
	})
	require.Equal(t, []time.Duration{0, 3 * time.Millisecond, time.Second}, []time.Duration{steps[0].Start, steps[1].Start, steps[2].Start})
	require.Equal(t, []time.Duration{3 * time.Millisecond, 2 * time.Millisecond, 0}, []time.Duration{steps[0].Took, steps[1].Took, steps[2].Took})
	require.True(t, steps[0].Measured)
	require.False(t, steps[1].Measured)
	require.True(t, steps[1].About(1))
	require.False(t, steps[1].About(2))
	require.Empty(t, FromEngine(nil))
}

// TestExplain: the words of Text, for one record.
func TestExplain(t *testing.T) {
	r := engine.StepRecord{Record: scheduler.Record{
		Scheduled: []scheduler.RecordScheduled{{ID: 4, Start: 9, Tokens: 1}, {ID: 18, Start: 128, Tokens: 481}}, Decodes: 1,
		Admitted:  []scheduler.RecordAdmission{{ID: 18, How: scheduler.Fresh, Hit: 128}},
		Decisions: []scheduler.RecordDecision{{Means: scheduler.BySwap, Seq: 12, For: 9, Blocks: 34, Swap: 1200 * time.Microsecond}},
		Waiting:   5, Head: 19, WaitReason: scheduler.WaitBlocks,
	}}
	require.Equal(t, []string{
		"decode 4, prefill 18 [128,609)",
		"12 leaves for the host, because 9 needs a block: frees 34; costs: swap 1.20 ms",
		"18 starts: 128 of its tokens are cached",
		"5 wait, 19 first: kv blocks",
	}, Explain(&r))
	r.WaitReason = scheduler.WaitLoan
	require.Contains(t, Explain(&r), "5 wait, 19 first: kv blocks are kept for a loan (prompt_logprobs)")
}
