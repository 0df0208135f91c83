package scheduler

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kvcache"
)

var rewrite = flag.Bool("rewrite", false, "write what the scheduler does into testdata/*.txt")

// TestTranscripts plays testdata/*.txt: commands, each followed by what the
// scheduler did. Blank lines and lines that begin with # are kept. With
// -rewrite the answers are written anew, to be reviewed as a diff. The form is
// etcd raft's.
//
//	new blocks=11 size=16 seqs=4 budget=64 [threshold=400] [policy=priority] [prefix=off]
//	add NAME prompt=55 [max=70] [family=1] [salt=s] [priority=2]   prompts of a family share prefixes
//	schedule                  the next step, now in flight
//	update [NAME=stop …]      the oldest step in flight is done; names finish
//	abort NAME
//	run N                     schedule + update, N times
func TestTranscripts(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			got := play(t, string(text))
			if *rewrite {
				require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
				return
			}
			require.Equal(t, string(text), got)
		})
	}
}

// play runs the commands of a transcript and returns it with fresh answers.
func play(t *testing.T, text string) string {
	p := &player{t: t, names: map[*Sequence]string{}, byName: map[string]*Sequence{}}
	var out strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "  "): // an old answer
		case line == "" || strings.HasPrefix(line, "#"):
			fmt.Fprintln(&out, line)
		default:
			fmt.Fprintln(&out, line)
			for answer := range strings.Lines(p.command(line)) {
				fmt.Fprint(&out, "  ", answer)
			}
		}
	}
	return out.String()
}

type player struct {
	t        *testing.T
	s        *Scheduler
	kv       *kvcache.Manager
	names    map[*Sequence]string
	byName   map[string]*Sequence
	inFlight []*Output
}

func (p *player) command(line string) string {
	words := strings.Fields(line)
	var plain []string
	args := map[string]string{}
	for _, w := range words[1:] {
		if key, value, ok := strings.Cut(w, "="); ok {
			args[key] = value
		} else {
			plain = append(plain, w)
		}
	}
	number := func(key string, missing int) int {
		if args[key] == "" {
			return missing
		}
		n, err := strconv.Atoi(args[key])
		require.NoError(p.t, err, line)
		return n
	}
	switch words[0] {
	case "new":
		p.inFlight = nil
		var err error
		p.kv, err = kvcache.NewManager(kvcache.Config{
			NumBlocks: number("blocks", 11), BlockSize: number("size", 16), DisablePrefixCaching: args["prefix"] == "off",
		})
		require.NoError(p.t, err)
		p.s, err = New(Config{
			MaxNumSeqs: number("seqs", 4), MaxBatchedTokens: number("budget", 64),
			LongPrefillThreshold: number("threshold", 0), Policy: Policy(args["policy"]),
		}, p.kv)
		if err != nil {
			return "error: " + err.Error() + "\n"
		}
		return ""
	case "add":
		return p.add(plain[0], number("prompt", 1), number("max", 0), number("family", len(p.names)+1), number("priority", 0), args["salt"])
	case "schedule":
		return p.schedule()
	case "update":
		return p.update(args)
	case "abort":
		p.s.Abort(p.byName[plain[0]])
		return p.pool()
	case "run":
		n, err := strconv.Atoi(plain[0])
		require.NoError(p.t, err)
		var out strings.Builder
		for range n {
			out.WriteString(p.schedule())
			p.update(nil)
		}
		return out.String()
	}
	p.t.Fatalf("unknown command %q", line)
	return ""
}

func (p *player) add(name string, prompt, maxLen, family, priority int, salt string) string {
	q := &Sequence{MaxLen: maxLen, Priority: priority, CacheSalt: salt}
	if maxLen == 0 {
		q.MaxLen = prompt + 100
	}
	for i := range prompt {
		q.Tokens = append(q.Tokens, int32(family*10000+i))
	}
	if need := p.s.BlocksNeeded(q.MaxLen); need > p.kv.Capacity() {
		return fmt.Sprintf("never fits: needs %d blocks of %d\n", need, p.kv.Capacity())
	}
	p.s.Add(q)
	p.names[q], p.byName[name] = name, q
	return ""
}

func (p *player) schedule() string {
	out := p.s.Schedule()
	require.NoError(p.t, p.s.Check())
	var b strings.Builder
	for _, q := range out.Preempted {
		fmt.Fprintf(&b, "preempt %s\n", p.names[q])
	}
	for i, e := range out.Scheduled {
		kind := "prefill"
		if i < out.NumDecodes {
			kind = "decode"
		}
		fmt.Fprintf(&b, "%s %s [%d,%d)", kind, p.names[e.Seq], e.Start, e.Start+e.NumTokens)
		if e.Resumed {
			fmt.Fprintf(&b, " admitted, %d cached", e.Start)
		}
		if e.Sample {
			b.WriteString(" → token")
		}
		b.WriteString("\n")
	}
	if out.Empty() {
		b.WriteString("nothing\n")
	} else {
		p.inFlight = append(p.inFlight, out)
	}
	if out.Waiting > 0 {
		fmt.Fprintf(&b, "%d waiting: %s\n", out.Waiting, out.WaitReason)
	}
	return b.String() + p.pool()
}

func (p *player) update(args map[string]string) string {
	if len(p.inFlight) == 0 {
		return "nothing in flight\n"
	}
	out := p.inFlight[0]
	p.inFlight = p.inFlight[1:]
	results := make([]Result, len(out.Scheduled))
	var dropped strings.Builder
	for i, e := range out.Scheduled {
		name := p.names[e.Seq]
		if e.Sample && !e.Live() {
			fmt.Fprintf(&dropped, "dropped: a token for %s\n", name)
		}
		results[i] = Result{Token: int32(900000 + len(e.Seq.Tokens)), Finish: args[name] == "stop" || len(e.Seq.Tokens)+1 == e.Seq.MaxLen}
	}
	p.s.Update(out, results)
	require.NoError(p.t, p.s.Check())
	return dropped.String() + p.pool()
}

// pool prints the blocks and the queues.
func (p *player) pool() string {
	st := p.kv.Stats()
	return fmt.Sprintf("blocks: %d used, %d cached, %d free; %d running, %d waiting\n", st.Used, st.Cached, st.Free, p.s.NumRunning(), p.s.NumWaiting())
}
