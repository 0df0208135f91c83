package sim

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/scheduler"
)

// Text writes steps for people: one line a step, and one for each reason. Steps
// that repeat the one before, with no reason to tell, are counted in one line
// when there are two or more, unless Every is set.
//
//	step      start     took  run  wait  tokens    kv
//	 212    1.204 s  12.1 ms   31     5     511  98 %  decode 4 5 9, prefill 18 [128,609)
//	                        12 leaves for the host, because 9 needs a block: frees 34; costs: swap 1.2 ms, recompute 4.5 ms
//	                        18 starts: 128 of its tokens are cached
//	                        5 wait, 19 first: kv blocks
type Text struct {
	Every bool

	w     io.Writer
	only  scheduler.SequenceID // 0 = all
	buf   bytes.Buffer
	head  bool
	last  string        // why others waited; said again only when it changes
	batch string        // of the last step that was written
	alike int           // steps since that repeat it
	until time.Duration // the end of the latest of them
	first string        // the line of the first of them
}

// NewText writes to w, with only ≠ 0 the steps that have to do with that sequence.
func NewText(w io.Writer, only scheduler.SequenceID) *Text { return &Text{w: w, only: only} }

const reasonIndent = 66

// Step writes one step, nothing if nothing was decided.
func (t *Text) Step(s *Step) error {
	if t.only != 0 && !s.About(t.only) || s.idle() {
		return nil
	}
	said, batch := append(reasons(s), t.news(waitText(s))...), batchText(s)
	if len(said) == 0 && batch == t.batch && !t.Every {
		if t.alike++; t.alike == 1 {
			t.first = line(s, batch)
		}
		t.until = s.End()
		return nil
	}
	t.buf.Reset()
	t.fold()
	t.batch = batch
	if !t.head {
		t.head = true
		fmt.Fprintf(&t.buf, "%8s %12s %10s %5s %6s %7s %6s\n", "step", "start", "took", "run", "wait", "tokens", "kv")
	}
	t.buf.WriteString(line(s, batch))
	for _, reason := range said {
		fmt.Fprintf(&t.buf, "%*s%s\n", reasonIndent, "", reason)
	}
	_, err := t.w.Write(t.buf.Bytes())
	return err
}

// line is the one line that each step has.
func line(s *Step, batch string) string {
	used := 100 * ratio(float64(s.Pool.Used), float64(s.Pool.Total()))
	took := formatDuration(s.Took)
	if !s.Measured && s.Took > 0 {
		took = "~" + took
	}
	return fmt.Sprintf("%8d %12s %10s %5d %6d %7d %4.0f %%  %s\n",
		s.Record.Step, formatDuration(s.Start), took, s.Running, s.Waiting, s.Tokens, used, batch)
}

// fold tells of the steps that were not written.
func (t *Text) fold() {
	switch {
	case t.alike == 1:
		t.buf.WriteString(t.first)
	case t.alike > 1:
		fmt.Fprintf(&t.buf, "%8s %12s %10s %d more like it, until %s\n", "...", "", "", t.alike, formatDuration(t.until))
	}
	t.alike = 0
}

// Close writes what is left to tell.
func (t *Text) Close() error {
	t.buf.Reset()
	t.fold()
	_, err := t.w.Write(t.buf.Bytes())
	return err
}

// news is what was not said of the step before, as a list.
func (t *Text) news(text string) []string {
	if text == t.last || text == "" {
		t.last = text
		return nil
	}
	t.last = text
	return []string{text}
}

// waitText says why others wait, "" if none does.
func waitText(s *Step) string {
	switch {
	case s.Head != 0 && s.WaitReason != "":
		return fmt.Sprintf("%d wait, %d first: %s", s.Waiting, s.Head, s.WaitReason)
	case s.Head == 0 && s.Waiting > 0:
		return fmt.Sprintf("%d forks wait for their prompts", s.Waiting)
	}
	return ""
}

// Explain says what a step was in the words of Text: who ran, then a sentence for
// each reason.
func Explain(r *engine.StepRecord) []string {
	s := &Step{Record: r.Record}
	said := append([]string{batchText(s)}, reasons(s)...)
	if text := waitText(s); text != "" {
		said = append(said, text)
	}
	return said
}

// batchText says who ran.
func batchText(s *Step) string {
	if len(s.Scheduled) == 0 {
		return "nothing runs"
	}
	var parts []string
	if s.Decodes > 0 {
		parts = append(parts, "decode "+listSome(s.Scheduled[:s.Decodes], func(e scheduler.RecordScheduled) string { return fmt.Sprint(e.ID) }))
	}
	if len(s.Scheduled) > s.Decodes {
		parts = append(parts, "prefill "+listSome(s.Scheduled[s.Decodes:], func(e scheduler.RecordScheduled) string {
			return fmt.Sprintf("%d [%d,%d)", e.ID, e.Start, e.Start+e.Tokens)
		}))
	}
	return strings.Join(parts, ", ")
}

// listSome names up to eight and counts the rest.
func listSome[T any](all []T, name func(T) string) string {
	const most = 8
	var parts []string
	for i, v := range all {
		if i == most {
			return fmt.Sprintf("%s and %d more", strings.Join(parts, " "), len(all)-most)
		}
		parts = append(parts, name(v))
	}
	return strings.Join(parts, " ")
}

// reasons says why the step is as it is.
func reasons(s *Step) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if len(s.Aborted) > 0 {
		say("aborted before: %s", listSome(s.Aborted, func(e SequenceEnd) string { return fmt.Sprint(e.ID) }))
	}
	for i := range s.Decisions {
		out = append(out, decisionText(&s.Decisions[i]))
	}
	for i := range s.Admitted {
		out = append(out, admissionText(&s.Admitted[i]))
	}
	if s.ChunkReason != "" {
		say("prefill ends here: %s", s.ChunkReason)
	}
	if s.Loading > 0 {
		say("%d more run once their blocks are copied from the host", s.Loading)
	}
	for _, t := range []struct {
		scheduler.RecordTransfer
		way string
	}{{s.SwapOut, "to"}, {s.SwapIn, "from"}} {
		if t.ID != 0 {
			say("copies %d blocks %s the host (transfer %d)", t.Blocks, t.way, t.ID)
		}
	}
	for _, c := range s.Copied {
		say("transfer %d is done, after %s", c.ID, formatDuration(c.Took))
	}
	if s.Copies > 0 {
		say("copies %d blocks on write", s.Copies)
	}
	if len(s.Evicted) > 0 {
		blocks := "blocks"
		if len(s.Evicted) == 1 {
			blocks = "block"
		}
		say("evicts %d cached %s: %s", len(s.Evicted), blocks, listSome(s.Evicted, func(id blockID) string { return fmt.Sprint(id) }))
	}
	if len(s.Finished) > 0 {
		say("ends with it: %s", listSome(s.Finished, func(e SequenceEnd) string { return fmt.Sprint(e.ID) }))
	}
	return out
}

func admissionText(a *scheduler.RecordAdmission) string {
	switch a.How {
	case scheduler.Forked:
		return fmt.Sprintf("%d starts as a fork: it shares %d tokens", a.ID, a.Hit)
	case scheduler.Recompute:
		return fmt.Sprintf("%d resumes by recompute: %d of its tokens are still cached", a.ID, a.Hit)
	case scheduler.SwappedIn:
		return fmt.Sprintf("%d resumes from the host: %d blocks are copied in, %d of its tokens need no computing", a.ID, a.Copied, a.Hit)
	}
	if a.Hit == 0 {
		return fmt.Sprintf("%d starts: nothing of it is cached", a.ID)
	}
	return fmt.Sprintf("%d starts: %d of its tokens are cached", a.ID, a.Hit)
}

func decisionText(d *scheduler.RecordDecision) string {
	why := fmt.Sprintf("because %d needs a block", d.For)
	if d.For == 0 {
		why = "because a limit was lowered"
	}
	if d.Means == scheduler.ByWaiting {
		return fmt.Sprintf("%d sits this step out, until a block comes free%s", d.Seq, costText(d))
	}
	what := fmt.Sprintf("%d leaves for the host", d.Seq)
	if d.Means == scheduler.ByRecompute {
		what = fmt.Sprintf("%d gives up its blocks", d.Seq)
	}
	return fmt.Sprintf("%s, %s: frees %d%s", what, why, d.Blocks, costText(d))
}

// costText lists the means that were weighed.
func costText(d *scheduler.RecordDecision) string {
	var parts []string
	for _, c := range []struct {
		name string
		cost time.Duration
	}{{"swap", d.Swap}, {"recompute", d.Recompute}, {"wait", d.Wait}} {
		if c.cost > 0 {
			parts = append(parts, c.name+" "+formatDuration(c.cost))
		}
	}
	if d.SwapFull {
		parts = append(parts, "the swap pool is full")
	}
	if len(parts) == 0 {
		return ""
	}
	return "; costs: " + strings.Join(parts, ", ")
}

// formatDuration prints three or four digits and a unit, aligned by its callers.
func formatDuration(d time.Duration) string {
	switch {
	case d >= time.Second:
		return fmt.Sprintf("%.3f s", d.Seconds())
	case d >= time.Millisecond:
		return fmt.Sprintf("%.2f ms", float64(d)/1e6)
	}
	return fmt.Sprintf("%.1f us", float64(d)/1e3)
}
