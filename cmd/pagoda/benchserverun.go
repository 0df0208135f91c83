package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pagoda-engine/pagoda/bench"
)

// errServeInterrupted ends a run of which only a part is there.
var errServeInterrupted = errors.New("interrupted: the figures are of what was done by then")

// errNoSuccess is a load none of whose requests was answered.
var errNoSuccess = errors.New("no request succeeded")

// serveSession is a server that is ready to be loaded.
type serveSession struct {
	flags  *serveLoadFlags
	cmd    *cobra.Command
	client *bench.Client
	codec  bench.Codec // nil: nobody can count tokens
	resets bool        // the server can forget cached prefixes
	cells  []bench.ServeCell
}

// run measures every load, prints as it goes, and writes the report.
func (f *serveLoadFlags) run(cmd *cobra.Command) (err error) {
	folders := map[string]string{"output-dir": f.outputDir}
	if f.saveResult {
		folders["result-dir"] = f.resultDir
	}
	undo, err := makeFolders(folders) // a run should not end in vain
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			undo()
		}
	}()
	ctx, stop := interruptible(cmd.Context())
	defer stop()
	client, err := f.client(cmd.Flags())
	if err != nil {
		return err
	}
	if client.Model == "" {
		if client.Model, err = client.FirstModel(ctx); err != nil {
			return err
		}
		f.options.Model = client.Model
	}
	codec, done, err := f.codec(ctx, client)
	if err != nil {
		return err
	}
	defer done()
	s := &serveSession{flags: f, cmd: cmd, client: client, codec: codec}
	if err := s.warmUp(ctx); err != nil {
		return err
	}
	for _, load := range f.loads {
		s.cells = append(s.cells, bench.ServeCell{Load: load})
	}
	err = s.measure(ctx)
	if !s.measured() && !errors.Is(err, errServeInterrupted) {
		return err
	}
	return errors.Join(s.report(), err) // what was measured is kept, whatever came then
}

// measured says whether there are results of any load.
func (s *serveSession) measured() bool {
	return slices.ContainsFunc(s.cells, func(c bench.ServeCell) bool { return len(c.Results) > 0 })
}

// warmUp sends a request that shows whether the flags are right, and the warm-ups.
// Their prompts are others than those of the runs, which must not be cached.
func (s *serveSession) warmUp(ctx context.Context) error {
	f := s.flags
	check, err := f.data.CheckPrompt(f.seed+2<<32, s.codec)
	if err != nil {
		return err
	}
	prompts, err := f.data.Prompts(f.warmups, f.seed+1<<32, s.codec) // of a file all lines are read
	switch {
	case err != nil && !f.data.NeedsCodec():
		return usageError{err}
	case err != nil: // the server counts tokens, and does not answer
		return err
	}
	f.say("checking %s with a request to %s", s.client.BaseURL, s.client.Model)
	if _, err := s.client.Check(ctx, check); err != nil {
		return err
	}
	if !s.cmd.Flags().Changed("temperature") {
		f.say("--temperature is not given: the server's default applies")
	}
	if f.warmups > 0 {
		f.say("warming up with %d requests", f.warmups)
		load := f.loads[0]
		load.RequestRate, load.Done = bench.AtOnce, nil
		if _, err := bench.Serve(ctx, s.client, prompts, load); err != nil {
			return err
		}
	}
	s.resets = s.client.ResetPrefixCache(ctx)
	return nil
}

// measure runs every load in every repeat, interleaved. A load of which no request succeeds does not
// end it: to find it may be what a sweep is for.
func (s *serveSession) measure(ctx context.Context) (failed error) {
	f := s.flags
	for repeat := range f.repeats {
		for i := range s.cells {
			// The same prompts for every load where the server can forget them,
			// others where it cannot.
			seed := f.seed + uint64(repeat)*1000
			if !s.resets {
				seed += uint64(i)
			}
			prompts, err := f.data.Prompts(f.options.NumPrompts, seed, s.codec)
			if err != nil {
				return err // the flags were good for the warm-up's
			}
			if s.resets {
				s.client.ResetPrefixCache(ctx)
			}
			err = s.once(ctx, &s.cells[i], prompts, seed, 1+repeat*len(s.cells)+i)
			switch {
			case errors.Is(err, errNoSuccess):
				failed = cmp.Or(failed, err)
			case err != nil:
				return err
			}
		}
	}
	return failed
}

// once measures a load once, prints its table and saves its figures.
func (s *serveSession) once(ctx context.Context, cell *bench.ServeCell, prompts []bench.ServePrompt, seed uint64, number int) error {
	f := s.flags
	load := cell.Load
	load.Seed = seed
	f.say("sending %d requests, %s", len(prompts), loadText(load))
	var finish func()
	load.Done, finish = f.counted("requests", len(prompts))
	run, err := bench.Serve(ctx, s.client, prompts, load)
	finish()
	if err != nil {
		return err
	}
	if _, estimated := s.codec.(bench.Estimate); s.codec != nil && !estimated && ctx.Err() == nil {
		if err := run.CountTokens(s.codec); err != nil {
			return err
		}
	}
	res := run.Result(f.options.Goodput)
	options := f.options
	options.Load = cell.Load
	bench.PrintServe(s.cmd.OutOrStdout(), res, options)
	if res.Completed+res.Failed > 0 {
		cell.Results = append(cell.Results, res)
	}
	if f.saveResult {
		name := f.resultFilename
		if name != "" && len(s.cells)*f.repeats > 1 {
			ext := filepath.Ext(name)
			name = fmt.Sprintf("%s-%d%s", strings.TrimSuffix(name, ext), number, ext)
		}
		path, err := bench.SaveServe(f.resultDir, name, run, res, options, time.Now())
		if err != nil {
			return err
		}
		f.say("saved %s", path)
	}
	if run.Interrupted {
		return errServeInterrupted
	}
	if res.Completed == 0 {
		return fmt.Errorf("%s: %w, %d failed", loadText(load), errNoSuccess, res.Failed)
	}
	return nil
}

// report prints a sweep's table and writes the folder.
func (s *serveSession) report() error {
	f := s.flags
	params := map[string]any{
		"dataset_name": f.data.Name, "num_prompts": f.options.NumPrompts, "endpoint_type": f.endpointType,
		"input_len": f.data.InputLen, "output_len": f.data.OutputLen, "burstiness": f.burstiness,
	}
	maps.DeleteFunc(params, func(_ string, v any) bool { return v == 0 })
	r := bench.ServeReport(s.cells, params, f.options)
	if len(s.cells)*f.repeats > 1 {
		fmt.Fprintln(s.cmd.OutOrStdout())
		r.Print(s.cmd.OutOrStdout())
	}
	if f.outputDir == "" {
		return nil
	}
	r.Manifest = bench.NewManifest(version, withoutSecrets(os.Args), nil)
	for name, value := range s.client.Body {
		r.Manifest.EffectiveFlags[name] = value
	}
	r.Manifest.EffectiveFlags["base_url"], r.Manifest.EffectiveFlags["model"] = s.client.BaseURL, s.client.Model
	if !s.resets {
		r.Notes = append(r.Notes, "The server cannot forget cached prefixes, so each load had prompts of its own.")
	}
	return writeReport(s.cmd, r, f.outputDir)
}

// withoutSecrets is a command line that may be shown: without keys, and headers, which may be some.
func withoutSecrets(words []string) []string {
	out := slices.Clone(words)
	for i, word := range out {
		for _, secret := range []string{"--api-key", "--header"} {
			if strings.HasPrefix(word, secret+"=") {
				out[i] = secret + "=…"
			} else if word == secret && i+1 < len(out) {
				out[i+1] = "…"
			}
		}
	}
	return out
}
