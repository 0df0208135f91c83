package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/model/chat"
	"github.com/pagoda-engine/pagoda/model/tokenizer"
)

// session is a loaded model with all that text needs. tokenizer and template
// are nil for a model without them: ids in, ids out.
type session struct {
	engine    *engine.Engine
	tokenizer *tokenizer.Tokenizer
	template  *chat.Template
	special   map[string]string // the tokenizer's special tokens: "eos_token": "<|im_end|>"
	fromHub   bool              // MODEL is the name of a model of the hub
	trace     *os.File          // of --trace-file; nil = none
	log       *slog.Logger
}

// open loads MODEL as the flags say and prints what a person should know.
func (f *engineFlags) open(cmd *cobra.Command, modelArg string) (*session, error) {
	config, err := f.resolve(cmd, modelArg)
	if err != nil {
		return nil, err
	}
	if config.Model, err = f.locate(cmd.Context(), modelArg, modelFiles); err != nil {
		return nil, err
	}
	s := &session{log: f.logger(), fromHub: config.Model != modelArg}
	if f.traceFile != "" {
		if s.trace, err = os.Create(f.traceFile); err != nil {
			s.close()
			return nil, usageError{fmt.Errorf("--trace-file: %w", err)}
		}
		config.Trace = s.trace
	}
	progress := newProgress(f.quiet)
	config.Progress = progress.update
	config.Log = s.log
	start := time.Now()
	err = f.load(s, config)
	progress.finish()
	if err != nil {
		s.close()
		return nil, err
	}
	if !f.quiet {
		printPlan(os.Stderr, s.engine, cmd.Flags(), time.Since(start))
	}
	return s, nil
}

// load makes the engine, and tokenizer and template where the command wants them.
func (f *engineFlags) load(s *session, config engine.Config) error {
	if f.idsOnly {
		e, err := engine.New(config)
		s.engine = e
		return err
	}
	if err := f.loadBoth(s, config); err != nil || s.tokenizer == nil {
		return err
	}
	// A chat tune's config.json often still has the end of the base model.
	if id, ok := s.tokenizer.ID(s.special["eos_token"]); ok {
		s.engine.AddEOSID(id)
	}
	return nil
}

// loadBoth starts the engine while tokenizer and template are opened: either takes a
// noticeable part of a start. The engine wants the tokenizer's size, a guess of which is
// at hand at once; should it have been wrong, the engine starts again, and its trace, too.
func (f *engineFlags) loadBoth(s *session, config engine.Config) (err error) {
	unusable := make(chan struct{})
	config.Cancel = unusable
	text := make(chan error, 1)
	model := config.Model
	go func() {
		err := f.openText(s, model)
		if err != nil {
			close(unusable)
		}
		text <- err
	}()
	config.SampleVocab = peekVocabSize(cmp.Or(f.tokenizer, config.Model))
	var loadErr error
	s.engine, loadErr = engine.New(config)
	if err := <-text; err != nil {
		return err
	}
	size := 0
	if s.tokenizer != nil {
		size = s.tokenizer.VocabSize()
	}
	if size == config.SampleVocab || loadErr != nil && !errors.Is(loadErr, engine.ErrVocabulary) {
		return loadErr
	}
	if s.engine != nil {
		_ = s.engine.Close() // it has not served anyone
	}
	if s.trace != nil {
		if _, err := s.trace.Seek(0, io.SeekStart); err != nil {
			return usageError{fmt.Errorf("--trace-file: %w", err)}
		}
		if err := s.trace.Truncate(0); err != nil {
			return usageError{fmt.Errorf("--trace-file: %w", err)}
		}
	}
	config.SampleVocab = size
	s.engine, err = engine.New(config)
	return err
}

// logger writes to standard error.
func (f *engineFlags) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: f.logLevel()}))
}

func (f *engineFlags) logLevel() slog.Level {
	if f.quiet {
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// openText opens tokenizer.json and the chat template where they are.
func (f *engineFlags) openText(s *session, model string) error {
	dir := cmp.Or(f.tokenizer, model)
	t, err := openTokenizer(dir)
	switch {
	case err == nil:
		s.tokenizer = t
	case errors.Is(err, fs.ErrNotExist) && f.tokenizer == "" && f.config.LoadFormat == "dummy":
		return nil
	default:
		return fmt.Errorf("%w: %w", engine.ErrModel, err)
	}
	if s.special, err = loadSpecial(dir); err != nil {
		return fmt.Errorf("%w: %w", engine.ErrModel, err)
	}
	// Without control tokens the template marks nothing as the client's own
	// text, and the tokenizer parses every special token in it.
	var control []string
	if !f.parseSpecial {
		control = s.tokenizer.AddedTokens()
	}
	if f.chatTemplate != "" {
		source, err := chat.ReadSource(f.chatTemplate)
		if err != nil {
			return usageError{fmt.Errorf("--chat-template: %w", err)}
		}
		if s.template, err = chat.New(source, chat.Options{Special: s.special, ControlTokens: control}); err != nil {
			return usageError{fmt.Errorf("--chat-template %s: %w", f.chatTemplate, err)}
		}
		return nil
	}
	s.template, err = loadTemplate(dir, control)
	if err != nil && !errors.Is(err, chat.ErrNoTemplate) && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", engine.ErrModel, err)
	}
	return nil
}

// leave is close for a bounded time: an engine that hangs would keep the process.
func (s *session) leave(patience time.Duration) {
	closed := make(chan struct{})
	go func() {
		s.close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(patience):
		s.log.Error("the engine does not stop, it is left as it is", "waited", patience)
	}
}

func (s *session) close() {
	if s.engine != nil {
		_ = s.engine.Close() // nothing is left to do about a failure
	}
	if s.trace != nil {
		_ = s.trace.Close() // the engine has told of a failed write
	}
	if s.tokenizer != nil {
		s.tokenizer.Close()
	}
}

// encodePrompt turns the words of the command line into ids: text through the
// tokenizer, or numbers when there is none.
func (s *session) encodePrompt(text string) ([]int32, error) {
	if s.tokenizer != nil {
		return s.tokenizer.Encode(text)
	}
	var ids []int32
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' }) {
		id, err := strconv.ParseInt(word, 10, 32)
		if err != nil {
			return nil, usageError{fmt.Errorf("%q: this model has no tokenizer.json, so the prompt is token ids such as \"1 2 3\" (or name one with --tokenizer)", word)}
		}
		ids = append(ids, int32(id))
	}
	return ids, nil
}

// progress shows a bar on a terminal and nothing elsewhere.
type progress struct {
	bar   *progressbar.ProgressBar
	stage string
	shown bool
}

func newProgress(quiet bool) *progress {
	return &progress{shown: !quiet && term.IsTerminal(int(os.Stderr.Fd()))}
}

func (p *progress) update(stage string, done, total int64) {
	if !p.shown || total == 0 {
		return
	}
	if p.bar == nil || p.stage != stage {
		p.finish()
		p.stage = stage
		p.bar = progressbar.NewOptions64(total, progressbar.OptionSetWriter(os.Stderr), progressbar.OptionSetDescription(stage),
			progressbar.OptionShowBytes(true), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(50*time.Millisecond))
	}
	_ = p.bar.Set64(done) // a bar that cannot be drawn stops nothing
}

// count shows how many of some runs are done, and the time that is left.
func (p *progress) count(stage string, done, total int64) {
	if !p.shown || total == 0 {
		return
	}
	if p.bar == nil {
		p.bar = progressbar.NewOptions64(total, progressbar.OptionSetWriter(os.Stderr), progressbar.OptionShowCount(),
			progressbar.OptionSetPredictTime(true), progressbar.OptionSetElapsedTime(true), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(50*time.Millisecond))
	}
	p.bar.Describe(stage)
	if total != p.bar.GetMax64() {
		p.bar.ChangeMax64(total)
	}
	_ = p.bar.Set64(done) // a bar that cannot be drawn stops nothing
}

func (p *progress) finish() {
	if p.bar != nil {
		_ = p.bar.Finish()
	}
	p.bar = nil
}

// collect reads a stream to its end, calling onToken for each token.
func collect(ctx context.Context, stream *engine.Stream, onToken func(engine.Event)) (last engine.Event, err error) {
	for {
		event, ok := stream.Next(ctx)
		if !ok {
			return last, context.Cause(ctx)
		}
		if event.HasToken {
			onToken(event)
		}
		switch event.Finish {
		case engine.FinishNone:
		case engine.FinishError:
			return event, event.Err
		case engine.FinishAbort:
			return event, cmp.Or(context.Cause(ctx), engine.ErrClosed)
		default:
			return event, nil
		}
	}
}
