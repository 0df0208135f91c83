package main

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/internal/sim"
	"github.com/pagoda-engine/pagoda/scheduler"
)

// traceFlags are the flags of pagoda trace.
type traceFlags struct {
	url      string
	format   string
	sequence int64
	last     int
	every    bool
	out      string
}

func traceCommand() *cobra.Command {
	var f traceFlags
	cmd := &cobra.Command{
		Use:   "trace [FILE]",
		Short: "Show what the scheduler decided and why",
		Long: `Print the steps of a recorded run (FILE, "-" for standard input, .gz as well), the
last ones of a running server (--url) or those in a dump of the watchdog: who ran with how many tokens, why others
wait, who was preempted by which means at which estimated costs, what was evicted.

Record a run with --trace-file (run, serve) or with pagoda simulate --record. Of a dump,
which serve writes when its engine hangs, the sequences with their block tables and the
stacks of all goroutines follow.

--format perfetto writes a Chrome trace for https://ui.perfetto.dev: steps on a track
of their own, a track a sequence (waiting, prefill, decode, swapped out), preemptions
and evictions as instants, blocks and tokens as counters. A server's records do not
say when sequences ended or copies were done; a file does.

Times are the device's where they were measured; ~ marks predicted ones.`,
		Example: `  pagoda trace run.trace | less -S
  pagoda trace run.trace --request 17            the steps that have to do with sequence 17
  pagoda trace --url http://localhost:8000 -n 20
  pagoda trace run.trace --format perfetto -o run.pt.trace.json`,
		Args: exactly(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.url, "url", "", "address of a running server, such as http://localhost:8000")
	flags.StringVar(&f.format, "format", "text", "text or perfetto")
	flags.Int64Var(&f.sequence, "request", 0, "only the steps that have to do with this sequence (each choice of a request is one)")
	flags.IntVarP(&f.last, "steps", "n", 0, "only the last N steps (0: all of a file, 100 of a server)")
	flags.BoolVar(&f.every, "every-step", false, "in text, write steps that repeat the one before, too")
	flags.StringVarP(&f.out, "output", "o", "", "file to write (default: standard output)")
	addNegations(flags)
	return cmd
}

func (f *traceFlags) run(cmd *cobra.Command, args []string) (err error) {
	switch {
	case (len(args) == 1) == (f.url != ""):
		return usageError{errors.New("want a trace FILE or --url, one of them")}
	case f.format != "text" && f.format != "perfetto":
		return usageError{fmt.Errorf("--format %s: want text or perfetto", f.format)}
	case f.last < 0 || f.sequence < 0:
		return usageError{errors.New("-n and --request must not be negative")}
	}
	from, err := f.source(cmd.Context(), args)
	if err != nil {
		return err
	}
	defer from.close()
	out := cmd.OutOrStdout()
	if f.out != "" {
		if len(args) == 1 && sameFile(args[0], f.out) {
			return usageError{fmt.Errorf("--output %s would overwrite the recording", f.out)}
		}
		file, err := os.Create(f.out)
		if err != nil {
			return usageError{err}
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		out = file
	}
	buffered := bufio.NewWriter(out)
	step, end := f.writer(buffered)
	if from.dump == nil || f.format != "text" {
		return errors.Join(from.each(step), end(), buffered.Flush())
	}
	from.dump.head(buffered)
	err = errors.Join(from.each(step), end())
	from.dump.tail(buffered)
	return errors.Join(err, buffered.Flush())
}

// traceSource is what the steps come from.
type traceSource struct {
	each  func(step func(*sim.Step) error) error
	dump  *dump // nil = it is none
	close func()
}

// eachOf goes through steps that are all there.
func eachOf(steps []sim.Step) func(step func(*sim.Step) error) error {
	return func(step func(*sim.Step) error) error {
		for i := range steps {
			if err := step(&steps[i]); err != nil {
				return err
			}
		}
		return nil
	}
}

// source opens what the steps come from, before anything is written.
func (f *traceFlags) source(ctx context.Context, args []string) (*traceSource, error) {
	if f.url != "" {
		steps, err := f.fromServer(ctx)
		return &traceSource{each: eachOf(steps), close: func() {}}, err
	}
	in, err := openTrace(args[0])
	if err != nil {
		return nil, err
	}
	from := &traceSource{close: func() { _ = in.Close() }}
	buffered := bufio.NewReader(in)
	if !isDump(buffered) {
		from.each = func(step func(*sim.Step) error) error { return f.fromFile(buffered, args[0], step) }
		return from, nil
	}
	if from.dump, err = readDump(buffered); err != nil {
		from.close()
		return nil, fmt.Errorf("%s: %w", args[0], err)
	}
	from.each = eachOf(from.dump.lastSteps(f.last))
	return from, nil
}

// writer gives the function that writes a step and the one that ends the output.
func (f *traceFlags) writer(w io.Writer) (step func(*sim.Step) error, end func() error) {
	only := scheduler.SequenceID(f.sequence)
	if f.format == "perfetto" {
		p := sim.NewPerfetto(w, only)
		return p.Step, p.Close
	}
	t := sim.NewText(w, only)
	t.Every = f.every
	return t.Step, t.Close
}

func (f *traceFlags) fromFile(in io.Reader, path string, step func(*sim.Step) error) error {
	each, kept := step, []*sim.Step{}
	if f.last > 0 {
		each = func(s *sim.Step) error {
			if len(kept) == f.last {
				kept = kept[1:]
			}
			kept = append(kept, s)
			return nil
		}
	}
	if err := sim.ReadSteps(scheduler.NewTraceReader(in), each); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, s := range kept {
		if err := step(s); err != nil {
			return err
		}
	}
	return nil
}

func (f *traceFlags) fromServer(ctx context.Context) ([]sim.Step, error) {
	n := f.last
	if n == 0 {
		n = 100
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	response, err := openURL(ctx, f.url, fmt.Sprintf("/debug/steps?n=%d", n), "")
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var records []engine.StepRecord
	for dec := json.NewDecoder(response.Body); ; {
		var r engine.StepRecord
		if err := dec.Decode(&r); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", f.url, err)
		}
		records = append(records, r)
	}
	return sim.FromEngine(records), nil
}

// sameFile says whether writing to out would destroy the trace that is read from
// in; "-" is standard input.
func sameFile(in, out string) bool {
	if in == "" || out == "" {
		return false
	}
	written, err := os.Stat(out)
	if err != nil || !written.Mode().IsRegular() {
		return false
	}
	read, err := os.Stat(in)
	if in == "-" {
		read, err = os.Stdin.Stat()
	}
	return err == nil && os.SameFile(read, written)
}

// openTrace opens a trace file; "-" is standard input.
func openTrace(path string) (io.ReadCloser, error) {
	if path == "-" {
		return os.Stdin, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, usageError{err}
	}
	if !strings.HasSuffix(path, ".gz") {
		return file, nil
	}
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		file.Close()
		return nil, usageError{fmt.Errorf("%s: %w", path, err)}
	}
	return struct {
		io.Reader
		io.Closer
	}{unzipped, file}, nil
}
