package main

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/pagoda-engine/pagoda/internal/server"
)

// This file draws a topView in lines of text. It is pure.

// Colours of the 256 that terminals have: of sequences, and of the rest.
var sequenceColours = [...]int{75, 173, 72, 168, 141, 179, 38, 203, 107, 134, 215, 69, 176, 149, 209, 44}

const (
	mutedColour  = 244
	cachedColour = 239
	goodColour   = 72
	noteColour   = 209
)

// painter writes escape sequences where there are colours.
type painter bool

func (p painter) fg(colour int, text string) string {
	if !p {
		return text
	}
	return fmt.Sprintf("\x1b[38;5;%dm%s\x1b[0m", colour, text)
}

func (p painter) bold(text string) string {
	if !p {
		return text
	}
	return "\x1b[1m" + text + "\x1b[0m"
}

// lines is the view on a screen of this size: no line is wider, and there are no
// more of them.
func (v *topView) lines(width, height int, colours bool) []string {
	const narrow = 40
	screen := max(width, 1)
	p := painter(colours && screen >= narrow)
	width = max(screen, narrow) // and cut at the end
	s := &v.frame.Stats
	out := []string{v.title(p, width), v.queue(p, width), v.bar(p, "KV blocks", s.BlocksUsed, s.BlocksTotal, width,
		fmt.Sprintf("%d cached  %d free", s.BlocksCached, s.BlocksFree))}
	if s.HostTotal > 0 {
		out = append(out, v.bar(p, "swap pool", s.HostUsed, s.HostTotal, width, fmt.Sprintf("%d swapped out", s.Swapped)))
	}
	out = append(out, v.sharing(width), "")
	out = append(out, v.blockMap(p, screen, min(max(height/4, 2), 16))...)
	out = append(out, "")
	out = append(out, v.decision(p, width, 4)...)
	out = append(out, "")
	out = append(out, v.table(p, width, height-len(out))...)
	out = out[:min(height, len(out))]
	if screen < narrow {
		for i, line := range out {
			out[i] = clip(line, screen)
		}
	}
	return out
}

func (v *topView) title(p painter, width int) string {
	s := &v.frame.Stats
	right := fmt.Sprintf("%.1f tok/s  prefill %.1f tok/s  step %s", v.perSecond(func(st *server.FrameStep) int { return st.Decodes }),
		v.perSecond(func(st *server.FrameStep) int { return st.Prefill }), shortDuration(time.Duration(s.StepUs)*time.Microsecond))
	right = clip(right, width-len("Pagoda   "))
	left := "Pagoda  " + clip(clean(v.info.Model), max(0, width-len("Pagoda    ")-runes(right)))
	return p.bold(left) + strings.Repeat(" ", max(1, width-runes(left)-runes(right))) + right
}

func (v *topView) queue(p painter, width int) string {
	s := &v.frame.Stats
	text := clip(fmt.Sprintf("requests   %d running  %d waiting  %d finished", s.Running, s.Waiting, s.Finished), width)
	note := fmt.Sprintf("  %d preempted  %d evictions", s.Preemptions, s.Evictions)
	note = clip(note, max(0, width-runes(text)))
	if s.Preemptions > 0 {
		note = p.fg(noteColour, note)
	}
	return text + note
}

func (v *topView) sharing(width int) string {
	s := &v.frame.Stats
	hits := 0.0
	if s.LookedUpTokens > 0 {
		hits = 100 * float64(s.CachedTokens) / float64(s.LookedUpTokens)
	}
	return clip(fmt.Sprintf("prefix     %.0f %% hits  %d blocks shared, saves %s  %.0f %% of used slots filled",
		hits, s.BlocksShared, formatBytes(int64(s.BlocksSaved)*v.info.BlockBytes), 100*s.SlotUse), width)
}

// bar is a name, a gauge, and the numbers.
func (v *topView) bar(p painter, name string, used, total, width int, rest string) string {
	share := 0.0
	if total > 0 {
		share = float64(used) / float64(total)
	}
	numbers := fmt.Sprintf(" %d/%d %.0f %%  %s", used, total, 100*share, rest)
	cells := min(40, width-11-runes(numbers))
	if cells < 4 {
		return clip(fmt.Sprintf("%-10s%s", name, numbers), width)
	}
	full := int(share*float64(cells) + 0.5)
	if used > 0 {
		full = max(full, 1)
	}
	return fmt.Sprintf("%-11s", name) + p.fg(goodColour, strings.Repeat("█", full)) + p.fg(cachedColour, strings.Repeat("░", cells-full)) + numbers
}

// blockMap draws all blocks in at most rows lines; a cell stands for several when
// they are many, and shows the one that says most.
func (v *topView) blockMap(p painter, width, rows int) []string {
	n := v.frame.Stats.BlocksShown
	if n == 0 {
		return nil
	}
	each := (n + width*rows - 1) / (width * rows)
	cells := (n + each - 1) / each
	var out []string
	for first := 0; first < cells; first += width {
		var line strings.Builder
		for cell := first; cell < min(first+width, cells); cell++ {
			text, colour := " ", 0
			for id, best := cell*each+1, -1; id <= min((cell+1)*each, n); id++ {
				if t, c, weight := mark(v.blocks[id]); weight > best {
					text, colour, best = t, c, weight
				}
			}
			if p && colour != 0 && text != "#" && text != "~" && text != "." {
				text = "█"
			}
			line.WriteString(p.fg(colour, text))
		}
		out = append(out, line.String())
	}
	if each > 1 {
		out = append(out, p.fg(mutedColour, fmt.Sprintf("a cell is %d blocks", each)))
	}
	return out
}

// mark is a block's sign and colour, and how much it says.
func mark(b server.FrameBlock) (text string, colour, weight int) {
	switch {
	case b.State == "u" && b.Refs > 1:
		return "#", sequenceColour(b), 4
	case b.State == "u" && len(b.Owners) > 0:
		return string(rune('a' + b.Owners[0]%26)), sequenceColour(b), 3
	case b.State == "u":
		return "?", mutedColour, 3
	case b.State == "i":
		return "~", noteColour, 5
	case b.State == "c":
		return "-", cachedColour, 1
	case b.State == "r":
		return " ", 0, 0
	}
	return ".", cachedColour, 0
}

func sequenceColour(b server.FrameBlock) int {
	if len(b.Owners) == 0 {
		return mutedColour
	}
	return sequenceColours[b.Owners[0]%int64(len(sequenceColours))]
}

// decision is the last step that gave a reason, in its own words.
func (v *topView) decision(p painter, width, most int) []string {
	out := []string{p.fg(mutedColour, "no decision to tell of yet")}
	for i := len(v.steps) - 1; i >= 0; i-- {
		st := &v.steps[i]
		if len(st.Why) < 2 {
			continue
		}
		ago := time.Duration(v.nowMs()-st.AtMs) * time.Millisecond
		out = []string{clip(fmt.Sprintf("step %d, %s ago: %d prefill, %d decode, %d waiting", st.Step, shortDuration(max(ago, 0)), st.Prefill, st.Decodes, st.Waiting), width)}
		for _, why := range st.Why {
			out = append(out, "  "+clip(clean(why), width-2))
		}
		break
	}
	if len(out) > most {
		out = append(out[:most-1], p.fg(mutedColour, fmt.Sprintf("  and %d more reasons", len(out)-most+1)))
	}
	return out
}

// table lists requests in at most rows lines, its head included.
func (v *topView) table(p painter, width, rows int) []string {
	if rows < 2 {
		return nil
	}
	name := max(width-53, 8)
	format := fmt.Sprintf("%%7s  %%-%ds  %%-8s %%7s %%7s %%11s %%6s", name-1)
	out := []string{p.fg(mutedColour, clip(fmt.Sprintf(format, "seq", "request", "state", "prompt", "cached", "output", "blocks"), width))}
	for i, q := range v.frame.Requests {
		if rest := len(v.frame.Requests) - i + v.frame.More; len(out) == rows-1 && rest > 1 {
			return append(out, p.fg(mutedColour, clip(fmt.Sprintf("%7s  and %d more", "", rest), width)))
		}
		id := clean(q.ID)
		if q.Choice > 0 {
			id = fmt.Sprintf("%s/%d", clip(id, name-4), q.Choice)
		}
		line := clip(fmt.Sprintf(format, fmt.Sprint(q.Sequence), clip(id, name-1), q.Status, fmt.Sprint(q.Prompt), fmt.Sprint(q.Cached),
			fmt.Sprintf("%d/%d", q.Output, q.MaxTokens), fmt.Sprint(q.Blocks+q.HostBlocks)), width)
		if p && q.Status == "running" {
			line = p.fg(sequenceColours[q.Sequence%int64(len(sequenceColours))], line[:7]) + line[7:]
		}
		out = append(out, line)
	}
	if len(v.frame.Requests) == 0 {
		out = append(out, p.fg(mutedColour, fmt.Sprintf("%7s  none", "")))
	}
	return out
}

// perSecond is the rate of something over the last two seconds of steps.
func (v *topView) perSecond(of func(*server.FrameStep) int) float64 {
	const window = 2000.0 // milliseconds
	now := v.nowMs()
	sum, oldest, since := 0, now, now-window
	for i := len(v.steps) - 1; i >= 0 && v.steps[i].AtMs > since; i-- {
		sum += of(&v.steps[i])
		oldest = v.steps[i].AtMs
	}
	span := window
	if len(v.steps) > 0 && oldest == v.steps[0].AtMs { // what came before is not known
		span = min(window, max(now-oldest, 100))
	}
	return 1000 * float64(sum) / span
}

// shortDuration has three digits.
func shortDuration(d time.Duration) string {
	switch {
	case d >= 100*time.Second:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d >= time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d >= 100*time.Millisecond:
		return fmt.Sprintf("%.0f ms", float64(d)/1e6)
	}
	return fmt.Sprintf("%.1f ms", float64(d)/1e6)
}

func runes(text string) int { return utf8.RuneCountInString(text) }

// clean drops what a terminal would take for a command.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, text)
}

// clip cuts text to n characters, with … in the place of the rest.
func clip(text string, n int) string {
	if runes(text) <= n {
		return text
	}
	return string([]rune(text)[:max(n-1, 0)]) + strings.Repeat("…", min(n, 1))
}
