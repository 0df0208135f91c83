package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Help is written for a terminal of 80 columns.
const (
	helpWidth  = 80
	helpIndent = 30 // where the text of a flag begins
)

// flagGroup is a headline of --help and the flags below it, in order.
type flagGroup struct {
	title string
	flags []string
}

// flagGroups are those of the engine and the server. A group belongs to commands
// that have its first flag; what a command has beyond them comes first, under its
// own name.
var flagGroups = []flagGroup{
	{"Model", []string{"load-format", "model", "tokenizer", "chat-template", "generation-config", "quantization", "revision", "download-dir", "offline"}},
	{"Device", []string{"device", "threads", "cpu-isa", "enforce-eager", "cuda-graph-sizes", "async-scheduling", "batch-invariant"}},
	{"Memory", []string{"gpu-memory-utilization", "memory-limit", "kv-cache-memory-bytes", "num-gpu-blocks-override", "swap-space", "block-size", "max-model-len", "enable-prefix-caching"}},
	{"Scheduling", []string{"max-num-seqs", "max-num-batched-tokens", "max-num-mixed-tokens", "long-prefill-token-threshold", "target-itl-ms", "preemption-mode", "watermark", "scheduling-policy", "max-num-queued-reqs", "max-num-queued-tokens", "max-logprobs"}},
	{"Server", []string{"host", "port", "api-key", "served-model-name", "ssl-certfile", "ssl-keyfile", "drain-timeout", "salt-cache-by-key", "allow-special-tokens-in-content", "enable-auto-tool-choice", "tool-call-parser", "ui"}},
	{"Profiling", []string{"profile-dir", "profile-steps", "max-profile-time", "max-trace-mb", "profiler-config"}},
	{"Watchdog", []string{"watchdog-timeout", "watchdog-policy", "watchdog-dump-dir"}},
	{"Sampling", []string{"temperature", "top-p", "top-k", "min-p", "repetition-penalty", "presence-penalty", "frequency-penalty", "seed", "max-tokens", "stop", "stop-token-ids", "ignore-eos"}},
	{"Logs and files", []string{"help", configFlag, "quiet", "enable-log-requests", "disable-log-stats", "trace-file", "otlp-traces-endpoint", "version"}},
}

// setHelp makes every command's --help and usage ours.
func setHelp(root *cobra.Command) {
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { writeHelp(cmd.OutOrStdout(), cmd) })
	root.SetUsageFunc(func(cmd *cobra.Command) error { writeHelp(cmd.OutOrStderr(), cmd); return nil })
}

func writeHelp(w io.Writer, cmd *cobra.Command) {
	about := cmd.Long
	if about == "" {
		about = cmd.Short
	}
	use := cmd.UseLine()
	if cmd.HasAvailableSubCommands() {
		use = cmd.CommandPath() + " COMMAND"
	}
	fmt.Fprintf(w, "%s\n\nUsage\n  %s\n", reflow(about, helpWidth), use)
	if commands := slices.DeleteFunc(slices.Clone(cmd.Commands()), func(c *cobra.Command) bool { return !c.IsAvailableCommand() }); len(commands) > 0 {
		fmt.Fprintln(w, "\nCommands")
		for _, c := range commands {
			writeEntry(w, "  "+c.Name(), c.Short, 15)
		}
		fmt.Fprintf(w, "\n%s COMMAND --help says more of each.\n", cmd.CommandPath())
	}
	if cmd.Example != "" {
		fmt.Fprintln(w, "\nExamples")
		for line := range strings.Lines(cmd.Example) {
			fmt.Fprintln(w, foldCommand(strings.TrimRight(line, "\n")))
		}
	}
	for _, group := range groupsOf(cmd) {
		fmt.Fprintf(w, "\n%s\n", group.title)
		for _, name := range group.flags {
			writeFlag(w, cmd.Flags().Lookup(name))
		}
	}
}

// groupsOf are the groups that the command has flags of.
func groupsOf(cmd *cobra.Command) []flagGroup {
	shown := func(name string) bool {
		f := cmd.Flags().Lookup(name)
		return f != nil && !f.Hidden
	}
	grouped := map[string]bool{}
	var groups []flagGroup
	for _, g := range flagGroups {
		if !shown(g.flags[0]) {
			continue
		}
		names := slices.DeleteFunc(slices.Clone(g.flags), func(name string) bool { return !shown(name) })
		for _, name := range names {
			grouped[name] = true
		}
		groups = append(groups, flagGroup{g.title, names})
	}
	own := flagGroup{title: strings.ToUpper(cmd.Name()[:1]) + cmd.Name()[1:]}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if shown(f.Name) && !grouped[f.Name] {
			own.flags = append(own.flags, f.Name)
		}
	})
	if len(own.flags) > 0 {
		groups = slices.Insert(groups, 0, own)
	}
	return groups
}

func writeFlag(w io.Writer, f *pflag.Flag) {
	placeholder, usage := pflag.UnquoteUsage(f)
	head := "  --" + f.Name
	if f.Shorthand != "" {
		head = "  -" + f.Shorthand + ", --" + f.Name
	}
	if placeholder != "" {
		head += " " + strings.TrimSuffix(placeholder, "Array")
	}
	switch value := f.DefValue; {
	case f.Value.Type() == "bool" && value == "true":
		usage += " (default on; --no-" + f.Name + ")"
	case value == "" || value == "0" || value == "0s" || value == "false" || value == "[]" || strings.Contains(usage, "default"):
	default:
		usage += " (default " + strings.Trim(value, "[]") + ")"
	}
	writeEntry(w, head, usage, helpIndent)
}

// writeEntry writes two columns; a long head has its text below.
func writeEntry(w io.Writer, head, text string, indent int) {
	lines := strings.Split(reflow(text, helpWidth-indent), "\n")
	if utf8.RuneCountInString(head)+2 > indent {
		fmt.Fprintln(w, head)
		head = ""
	}
	for _, line := range lines {
		fmt.Fprintf(w, "%-*s%s\n", indent, head, line)
		head = ""
	}
}

// reflow breaks paragraphs to a width; lines that begin with a blank stay.
func reflow(text string, width int) string {
	var out []string
	var line string
	flush := func() {
		if line != "" {
			out = append(out, line)
		}
		line = ""
	}
	for given := range strings.Lines(text) {
		given = strings.TrimRight(given, "\n")
		if given == "" || given[0] == ' ' {
			flush()
			out = append(out, given)
			continue
		}
		for _, word := range strings.Fields(given) {
			for len(word) > width { // a list without blanks
				cut := strings.LastIndexByte(word[:width], ',') + 1
				if cut == 0 {
					break
				}
				flush()
				out, word = append(out, word[:cut]), word[cut:]
			}
			if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
				flush()
			}
			if line != "" {
				line += " "
			}
			line += word
		}
	}
	flush()
	return strings.Join(out, "\n")
}

// foldCommand breaks a long line of shell outside quotes, with a backslash.
func foldCommand(line string) string {
	indent := line[:len(line)-len(strings.TrimLeft(line, " "))]
	if utf8.RuneCountInString(line) <= helpWidth {
		return line
	}
	quote, at := rune(0), -1
	for i, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '\'' || r == '"'):
			quote = r
		case quote == 0 && r == ' ' && i > len(indent) && i <= helpWidth-2:
			at = i
		}
	}
	if at < 0 {
		return line
	}
	return line[:at] + " \\\n" + foldCommand(indent+"    "+line[at+1:])
}
