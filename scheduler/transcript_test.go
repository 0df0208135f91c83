package scheduler

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kvcache"
)

var rewrite = flag.Bool("rewrite", false, "write what the scheduler does into testdata/*.txt")

// TestTranscripts plays testdata/*.txt: commands, each followed by what the
// scheduler did. Blank lines and lines that begin with # are kept. With
// -rewrite the answers are written anew, to be reviewed as a diff. The form is
// etcd raft's.
//
//	new blocks=11 size=16 seqs=4 budget=64 [host=0] [mode=swap] [watermark=10] [threshold=400] [policy=priority] [prefix=off]
//	    [out=5 in=5] [itl=100]   µs to copy a block, target inter-token latency
//	add NAME prompt=55 [max=70] [family=1] [salt=s] [priority=2] [parent=NAME]   prompts of a family share prefixes
//	schedule                  the next step, now in flight
//	update [NAME=stop …]      the oldest step in flight is done; names finish
//	copied [N]                all swap copies under way are finished, or the first N batches
//	learn step=10 prefill=2 decode=1   steps in µs, for the model of a step's time
//	limits blocks=8 seqs=4 budget=64 host=0
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
		clear(p.names)
		clear(p.byName)
		var err error
		p.kv, err = kvcache.NewManager(kvcache.Config{
			NumBlocks: number("blocks", 11), HostBlocks: number("host", 0), BlockSize: number("size", 16), DisablePrefixCaching: args["prefix"] == "off",
		})
		require.NoError(p.t, err)
		p.s, err = New(Config{
			Limits: Limits{
				MaxNumSeqs: number("seqs", 4), MaxBatchedTokens: number("budget", 64), MaxMixedTokens: number("mixed", 0),
				LongPrefillThreshold: number("threshold", 0),
				PreemptionMode:       Mode(args["mode"]), Watermark: float64(number("watermark", -100)) / 100,
				TargetITL: time.Duration(number("itl", 0)) * time.Microsecond,
			},
			Policy:  Policy(args["policy"]),
			SwapOut: time.Duration(number("out", 0)) * time.Microsecond, SwapIn: time.Duration(number("in", 0)) * time.Microsecond,
		}, p.kv)
		if err != nil {
			return "error: " + err.Error() + "\n"
		}
		return ""
	case "add":
		return p.add(plain[0], number("prompt", 1), number("max", 0), number("family", len(p.names)+1), number("priority", 0), args)
	case "copied":
		ids := p.s.Transfers(nil)
		if len(plain) > 0 {
			n, err := strconv.Atoi(plain[0])
			require.NoError(p.t, err)
			ids = ids[:n]
		}
		for _, id := range ids {
			p.s.CopyDone(id, 0)
		}
		require.NoError(p.t, p.s.Check())
		return p.pool()
	case "learn":
		return p.learn(number("step", 0), number("prefill", 0), number("decode", 0))
	case "limits":
		l := (&TraceLimits{Limits: p.s.cfg.Limits}).given() // as they are
		l.MaxNumSeqs, l.MaxBatchedTokens, l.MaxMixedTokens = number("seqs", 4), number("budget", 64), number("mixed", l.MaxMixedTokens)
		if mode := args["mode"]; mode != "" {
			l.PreemptionMode = Mode(mode)
		}
		err := p.s.SetLimits(l, number("blocks", 11), number("host", 0))
		require.NoError(p.t, err)
		return fmt.Sprintf("settled: %t\n%s", p.s.Settled(), p.pool())
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

func (p *player) add(name string, prompt, maxLen, family, priority int, args map[string]string) string {
	q := &Sequence{MaxLen: maxLen, Priority: priority, CacheSalt: args["salt"], Parent: p.byName[args["parent"]]}
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
	p.decisions(&b, out)
	for i, e := range out.Scheduled {
		kind := "prefill"
		if i < out.NumDecodes {
			kind = "decode"
		}
		fmt.Fprintf(&b, "%s %s [%d,%d)", kind, p.names[e.Seq], e.Start, e.Start+e.NumTokens)
		if e.Resumed {
			b.WriteString(" reset")
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
	if out.ChunkReason != WaitNone {
		fmt.Fprintf(&b, "prefill cut: %s\n", out.ChunkReason)
	}
	if out.Waiting > 0 {
		fmt.Fprintf(&b, "%d waiting: %s\n", out.Waiting, cmp.Or(out.WaitReason, "for a prompt under way"))
	}
	return b.String() + p.pool()
}

// decisions prints who lost blocks, who got them and what is copied.
func (p *player) decisions(b *strings.Builder, out *Output) {
	for _, d := range out.Decisions {
		switch d.Means {
		case ByWaiting:
			fmt.Fprintf(b, "%s waits for blocks", p.names[d.Seq])
			p.costs(b, &d)
			b.WriteString("\n")
		default:
			fmt.Fprintf(b, "preempt %s by %s, %d blocks", p.names[d.Seq], d.Means, d.Blocks)
			if d.For != nil {
				fmt.Fprintf(b, ", for %s", p.names[d.For])
			}
			if d.SwapFull {
				b.WriteString(", swap pool full")
			}
			p.costs(b, &d)
			b.WriteString("\n")
		}
	}
	for _, a := range out.Admitted {
		fmt.Fprintf(b, "admit %s: %s, %d cached", p.names[a.Seq], a.How, a.HitTokens)
		if a.Copied > 0 {
			fmt.Fprintf(b, ", %d blocks from the host", a.Copied)
		}
		b.WriteString("\n")
	}
	for _, c := range []struct {
		name   string
		copies []kvcache.Copy
	}{{"swap out", out.SwapOut.Copies}, {"swap in", out.SwapIn.Copies}, {"copy", out.Copies}} {
		if len(c.copies) > 0 {
			fmt.Fprintf(b, "%s %v\n", c.name, c.copies)
		}
	}
	if len(out.Evicted) > 0 {
		fmt.Fprintf(b, "evict %v\n", out.Evicted)
	}
}

// costs prints what each means was estimated to cost.
func (p *player) costs(b *strings.Builder, d *Decision) {
	if !p.s.Model().Ready() {
		return
	}
	separator := ":"
	for _, c := range []struct {
		means Means
		cost  time.Duration
	}{{BySwap, d.Swap}, {ByRecompute, d.Recompute}, {ByWaiting, d.Wait}} {
		if c.cost >= 0 {
			fmt.Fprintf(b, "%s %s %v", separator, c.means, c.cost.Round(time.Microsecond))
			separator = ","
		}
	}
}

// learn shows the model steps that obey a law.
func (p *player) learn(step, prefill, decode int) string {
	for i := range 400 {
		l := Load{PrefillTokens: i * 7 % 50, Decodes: i * 3 % 8}
		p.s.Model().Observe(l, time.Duration(step+prefill*l.PrefillTokens+decode*l.Decodes)*time.Microsecond)
	}
	return ""
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
	p.s.Update(out, results, 0)
	require.NoError(p.t, p.s.Check())
	return dropped.String() + p.pool()
}

// pool prints the blocks and the queues.
func (p *player) pool() string {
	st := p.kv.Stats()
	text := fmt.Sprintf("blocks: %d used, %d cached, %d free", st.Used, st.Cached, st.Free)
	if st.InFlight > 0 || st.HostTotal > 0 {
		text += fmt.Sprintf(", %d in flight; host %d used, %d in flight", st.InFlight, st.HostUsed, st.HostInFlight)
	}
	return text + fmt.Sprintf("; %d running, %d waiting\n", p.s.NumRunning(), p.s.NumWaiting())
}
