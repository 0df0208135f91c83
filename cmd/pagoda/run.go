package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/model/chat"
)

// runFlags are the flags of pagoda run.
type runFlags struct {
	engineFlags
	samplingFlags
	system string
	raw    bool
	json   bool
}

func runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run MODEL [PROMPT]",
		Short: "Answer a prompt, or chat",
		Long: `Answer PROMPT and print the time to the first token and tokens/s.

PROMPT is rendered as a user turn when the model has a chat template; --raw takes it
as it is. Without PROMPT it is read from standard input, or, on a terminal, a chat
begins. A model without tokenizer.json takes token ids and answers with ids.`,
		Example: `  pagoda run demo
  pagoda run demo 'Tell me a story about a fox'
  pagoda run ./Qwen2.5-0.5B-Instruct 'Why is the sky blue?'
  echo 'Once upon a time' | pagoda run ./model --raw --max-tokens 64 --temperature 0.8
  pagoda run qwen2.5-0.5b '1 2 3' --load-format dummy --max-tokens 8 --json`,
		Args: exactly(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	// One prompt needs little: what is not asked for is not reserved.
	f.engineFlags.register(cmd.Flags(), 1)
	f.samplingFlags.register(cmd.Flags())
	flags := cmd.Flags()
	flags.StringVar(&f.system, "system", "", "system message")
	flags.BoolVar(&f.raw, "raw", false, "take PROMPT as it is, without the chat template")
	flags.BoolVar(&f.json, "json", false, "print one JSON object at the end instead of text")
	flags.BoolVar(&f.parseSpecial, "allow-special-tokens-in-content", false, "let special-token text in PROMPT become control tokens")
	addNegations(flags)
	return cmd
}

func (f *runFlags) run(cmd *cobra.Command, args []string) error {
	f.quiet = f.quiet || f.json
	prompt, given, err := readPrompt(args)
	if err != nil {
		return err
	}
	if err := f.samplingFlags.check(); err != nil {
		return err
	}
	if !given && (f.json || f.raw) {
		return usageError{errors.New("--json and --raw need a PROMPT, as an argument or on standard input")}
	}
	s, err := f.open(cmd, args[0])
	if err != nil {
		return err
	}
	defer s.close()
	if !given {
		if s.template == nil || s.tokenizer == nil {
			return usageError{errors.New("a chat needs a model with tokenizer.json and a chat template; give a PROMPT")}
		}
		return f.chat(cmd.Context(), s, os.Stdin, os.Stdout, os.Stderr)
	}
	ids, err := f.encode(s, prompt)
	if err != nil {
		return err
	}
	ctx, stop := interruptible(cmd.Context())
	defer stop()
	answer, err := f.generate(ctx, s, ids, cmd.OutOrStdout())
	if err != nil {
		return err
	}
	if f.json {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(answer)
	}
	fmt.Fprintln(cmd.OutOrStdout())
	if !f.quiet {
		fmt.Fprintln(os.Stderr, answer.timing())
	}
	return nil
}

// readPrompt takes the prompt from the command line or a pipe; given is false
// on a terminal.
func readPrompt(args []string) (prompt string, given bool, err error) {
	if len(args) == 2 {
		return args[1], true, nil
	}
	if term.IsTerminal(int(os.Stdin.Fd())) {
		return "", false, nil
	}
	data, err := io.ReadAll(os.Stdin)
	if err != nil {
		return "", false, fmt.Errorf("read the prompt from standard input: %w", err)
	}
	if len(data) == 0 {
		return "", false, usageError{errors.New("no PROMPT: give one as an argument or on standard input")}
	}
	return strings.TrimSuffix(string(data), "\n"), true, nil
}

// encode turns the prompt into ids, through the chat template if there is one.
func (f *runFlags) encode(s *session, prompt string) ([]int32, error) {
	if f.raw || s.template == nil || s.tokenizer == nil {
		return s.encodePrompt(prompt)
	}
	return f.encodeChat(s, []message{{Role: "user", Content: prompt}})
}

// message is one turn as the chat template takes it.
type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

func (f *runFlags) encodeChat(s *session, turns []message) ([]int32, error) {
	if f.system != "" {
		turns = append([]message{{Role: "system", Content: f.system}}, turns...)
	}
	raw, err := json.Marshal(turns)
	if err != nil {
		return nil, err
	}
	prompt, err := s.template.Render(chat.Input{Messages: raw, AddGenerationPrompt: true})
	if err != nil {
		return nil, err
	}
	return s.tokenizer.EncodeRendered(prompt.Text, prompt.Literal)
}

// answer is what --json prints.
type answer struct {
	Text             string              `json:"text"`
	TokenIDs         []int32             `json:"token_ids"`
	PromptTokens     int                 `json:"prompt_tokens"`
	CompletionTokens int                 `json:"completion_tokens"`
	FinishReason     engine.FinishReason `json:"finish_reason"`
	TTFTMs           float64             `json:"ttft_ms"`
	TokensPerSecond  *float64            `json:"tokens_per_s"` // null for one token
}

// timing is the line that ends a run.
func (a *answer) timing() string {
	rate := "one token"
	if a.TokensPerSecond != nil {
		rate = fmt.Sprintf("%.1f tok/s", *a.TokensPerSecond)
	}
	return fmt.Sprintf("%d prompt tokens, %d generated (%s); first token %.0f ms, %s",
		a.PromptTokens, a.CompletionTokens, a.FinishReason, a.TTFTMs, rate)
}

// generate runs one request, writing text to out as it comes. With an error the answer has the text until then.
func (f *runFlags) generate(ctx context.Context, s *session, ids []int32, out io.Writer) (*answer, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sampling := f.sampling(s.engine.Info().Generation, f.generation == "auto")
	start := time.Now()
	a := &answer{PromptTokens: len(ids), TokenIDs: []int32{}}
	stream, err := s.engine.Submit(ctx, engine.Request{
		ID: "run", Prompt: ids, Sampling: sampling, MaxTokens: f.tokensFor(len(ids), s.engine.Info().MaxModelLen), StopIDs: f.stopIDs, IgnoreEOS: f.ignoreEOS,
	})
	if err != nil {
		return a, err
	}
	text := newTextWriter(s.tokenizer, f.stop)
	var first, last time.Time
	var written strings.Builder
	write := func(piece string) {
		written.WriteString(piece)
		if !f.json {
			fmt.Fprint(out, piece)
		}
	}
	end, err := collect(ctx, stream, func(e engine.Event) {
		if text.stopped {
			return // what was under way when the stop string came
		}
		if last = time.Now(); first.IsZero() {
			first = last
		}
		a.TokenIDs = append(a.TokenIDs, e.Token)
		if e.Finish == engine.FinishStop {
			return // the end token is no text
		}
		write(text.next(e.Token))
		if text.stopped {
			cancel()
		}
	})
	a.FinishReason = end.Finish
	if err != nil && !text.stopped {
		a.Text = written.String()
		return a, err
	}
	write(text.flush())
	if text.stopped {
		a.FinishReason = engine.FinishStop
	}
	a.Text, a.CompletionTokens = written.String(), len(a.TokenIDs)
	a.TTFTMs = float64(first.Sub(start).Microseconds()) / 1000
	if span := last.Sub(first).Seconds(); a.CompletionTokens > 1 && span > 0 {
		rate := float64(a.CompletionTokens-1) / span
		a.TokensPerSecond = &rate
	}
	return a, nil
}
