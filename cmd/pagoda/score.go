package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/spf13/cobra"

	"github.com/pagoda-engine/pagoda/engine"
)

// scoreFlags are the flags of pagoda score.
type scoreFlags struct {
	engineFlags
	hidden string // directory; "" = hidden states are not written
}

func scoreCommand() *cobra.Command {
	f := scoreFlags{engineFlags: engineFlags{idsOnly: true}}
	cmd := &cobra.Command{
		Use:   "score MODEL [FILE]",
		Short: "Log probabilities of token sequences, for comparisons",
		Long: `Read sequences of token ids from FILE or standard input, a JSON object a line, and
write what the model makes of each token, a JSON object a line in the same order:

  in   {"id": "a", "prompt": [5, 7, 9], "max_tokens": 2, "hidden": true}
  out  {"id": "a", "prompt_tokens": 3, "ids": [5, 7, 9, 4, 8],
        "logprobs": [-1.5, -0.2, -0.7, -0.1], "argmax": [2, 9, 4, 8],
        "gap": [0.3, 1.1, 0.6, 2.0], "hidden": "0.f32"}

max_tokens greedy tokens continue the prompt, for all sequences together and past the
end of sequence. Entry i of the lists is about ids[i+1]: its log probability, the
likeliest id in its place, and by how much that is likelier than the second, in nats.

The prompt's entries come from prefill in chunks of --max-num-seqs tokens, one sequence
after the other and without the prefix cache; those of generated tokens from the decode
steps that drew them. With --hidden DIR the residual stream of prompts whose line says
so is written there, little-endian float32 [layers+1][prompt tokens][hidden size].

No tokenizer is needed. scripts/reference compares this with transformers.`,
		Example: `  pagoda score ./Qwen2.5-0.5B-Instruct sequences.jsonl > scores.jsonl
  echo '{"prompt": [1, 2, 3], "max_tokens": 8}' | pagoda score demo`,
		Args: exactly(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error { return f.score(cmd, args) },
	}
	f.register(cmd.Flags(), 256)
	cmd.Flags().StringVar(&f.hidden, "hidden", "", "directory for hidden states (default: none are written)")
	addNegations(cmd.Flags())
	return cmd
}

// scoreLine is a line of the input.
type scoreLine struct {
	ID        string  `json:"id"`
	Prompt    []int32 `json:"prompt"`
	MaxTokens int     `json:"max_tokens"`
	Hidden    bool    `json:"hidden"`
}

// score is a line of the output.
type score struct {
	ID           string    `json:"id"`
	PromptTokens int       `json:"prompt_tokens"`
	IDs          []int32   `json:"ids"`
	Logprobs     []float32 `json:"logprobs"`
	Argmax       []int32   `json:"argmax"`
	Gap          []float32 `json:"gap"`
	Hidden       string    `json:"hidden,omitempty"` // file in the directory of --hidden
}

func (f *scoreFlags) score(cmd *cobra.Command, args []string) error {
	lines, err := readScoreLines(args[1:])
	if err != nil {
		return err
	}
	if f.hidden != "" {
		if err := os.MkdirAll(f.hidden, 0o755); err != nil {
			return usageError{fmt.Errorf("--hidden: %w", err)}
		}
	}
	s, err := f.open(cmd, args[0])
	if err != nil {
		return err
	}
	defer s.close()
	if err := checkIDs(lines, s.engine.Info().Vocab); err != nil {
		return err
	}
	ctx, stop := interruptible(cmd.Context())
	defer stop()
	p := newProgress(f.quiet)
	defer p.finish()
	scores, err := continueAll(ctx, s.engine, lines, p)
	if err != nil {
		return err
	}
	out := json.NewEncoder(cmd.OutOrStdout())
	for i, line := range lines {
		p.count("scoring", int64(i), int64(len(lines)))
		if err := scores[i].prefill(ctx, s.engine); err != nil {
			return fmt.Errorf("sequence %d: %w", i+1, err)
		}
		if line.Hidden && f.hidden != "" {
			scores[i].Hidden = fmt.Sprintf("%d.f32", i)
			if err := writeHidden(ctx, s.engine, line.Prompt, filepath.Join(f.hidden, scores[i].Hidden)); err != nil {
				return fmt.Errorf("sequence %d: %w", i+1, err)
			}
		}
		if err := out.Encode(&scores[i]); err != nil {
			return err
		}
	}
	return nil
}

// readScoreLines reads the file, or standard input when there is none.
func readScoreLines(file []string) ([]scoreLine, error) {
	in := io.Reader(os.Stdin)
	if len(file) > 0 {
		f, err := os.Open(file[0])
		if err != nil {
			return nil, usageError{err}
		}
		defer f.Close()
		in = f
	}
	var lines []scoreLine
	for dec := json.NewDecoder(bufio.NewReader(in)); ; {
		var line scoreLine
		switch err := dec.Decode(&line); {
		case errors.Is(err, io.EOF) && len(lines) == 0:
			return nil, usageError{errors.New(`no sequences: give lines such as {"prompt": [1, 2, 3], "max_tokens": 8}`)}
		case errors.Is(err, io.EOF):
			return lines, nil
		case err != nil:
			return nil, usageError{fmt.Errorf("sequence %d: %w", len(lines)+1, err)}
		case len(line.Prompt) == 0:
			return nil, usageError{fmt.Errorf("sequence %d: prompt has no tokens, want at least one", len(lines)+1)}
		case line.MaxTokens < 0:
			return nil, usageError{fmt.Errorf("sequence %d: max_tokens is %d, want 0 or more", len(lines)+1, line.MaxTokens)}
		}
		lines = append(lines, line)
	}
}

// checkIDs refuses ids outside of the vocabulary: the last of a prompt is scored, but not computed with, so the engine
// does not see it.
func checkIDs(lines []scoreLine, vocab int) error {
	for i, line := range lines {
		for at, id := range line.Prompt {
			if id < 0 || int(id) >= vocab {
				return usageError{fmt.Errorf("sequence %d: token %d of prompt is id %d, want 0 to %d", i+1, at, id, vocab-1)}
			}
		}
	}
	return nil
}

// continueAll generates what the lines ask for, as many at a time as run together,
// and leaves room for the entries of the prompts.
func continueAll(ctx context.Context, e *engine.Engine, lines []scoreLine, p *progress) ([]score, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	scores := make([]score, len(lines))
	running := make(chan struct{}, e.Info().MaxNumSeqs)
	var wg sync.WaitGroup
	for i, line := range lines {
		p.count("generating", int64(i), int64(len(lines)))
		n := len(line.Prompt)
		scores[i] = score{ID: line.ID, PromptTokens: n, IDs: line.Prompt, Logprobs: make([]float32, n-1), Argmax: make([]int32, n-1), Gap: make([]float32, n-1)}
		if line.MaxTokens == 0 {
			continue
		}
		running <- struct{}{}
		stream, err := e.Submit(ctx, engine.Request{
			ID: line.ID, Prompt: line.Prompt, MaxTokens: line.MaxTokens, IgnoreEOS: true, Sampling: engine.Sampling{Logprobs: 2},
		})
		if err != nil {
			cancel(fmt.Errorf("sequence %d: %w", i+1, err))
			break
		}
		wg.Add(1)
		go func() {
			defer func() { <-running; wg.Done() }()
			if _, err := collect(ctx, stream, scores[i].generated); err != nil {
				cancel(fmt.Errorf("sequence %d: %w", i+1, err))
			}
		}()
	}
	wg.Wait()
	return scores, context.Cause(ctx)
}

// generated takes in a token of the continuation.
func (s *score) generated(e engine.Event) {
	s.IDs = append(s.IDs, e.Token)
	s.Logprobs = append(s.Logprobs, e.Logprob)
	s.Argmax = append(s.Argmax, e.TopIDs[0])
	s.Gap = append(s.Gap, e.TopLogprobs[0]-e.TopLogprobs[1])
}

// prefill fills in the entries of the prompt.
func (s *score) prefill(ctx context.Context, e *engine.Engine) error {
	if s.PromptTokens == 1 { // nothing stands before it
		return nil
	}
	ids, vocab := s.IDs[:s.PromptTokens-1], e.Info().Vocab
	chunk := e.Info().MaxNumSeqs // logits of that many tokens have room in a step
	err := e.EachLogits(ctx, ids, chunk, func(start int, values []float32) {
		var wg sync.WaitGroup
		for at := start; len(values) > 0; at++ {
			row := values[:vocab]
			values = values[vocab:]
			wg.Go(func() {
				s.Logprobs[at], s.Argmax[at], s.Gap[at] = judgeToken(row, s.IDs[at+1])
			})
		}
		wg.Wait()
	})
	if at := slices.IndexFunc(s.Logprobs, isNaN); err == nil && at >= 0 {
		err = fmt.Errorf("token %d: %w", at, engine.ErrNotNumbers)
	}
	return err
}

func isNaN(v float32) bool { return v != v }

// judgeToken gives the log probability of an id, the likeliest id (of equal ones the
// lowest, as the engine samples), and its lead over the second.
func judgeToken(logits []float32, id int32) (logprob float32, best int32, gap float32) {
	second := float32(math.Inf(-1))
	for i, v := range logits[1:] {
		switch {
		case v > logits[best]:
			second, best = logits[best], int32(i+1)
		case v > second:
			second = v
		}
	}
	most, sum := float64(logits[best]), 0.0
	for _, v := range logits {
		sum += math.Exp(float64(v) - most)
	}
	return float32(float64(logits[id]) - most - math.Log(sum)), best, logits[best] - second
}

// writeHidden writes the hidden states of ids.
func writeHidden(ctx context.Context, e *engine.Engine, ids []int32, path string) error {
	states, err := e.HiddenStates(ctx, ids)
	if err != nil {
		return err
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	for _, layer := range states {
		if err := binary.Write(file, binary.LittleEndian, layer); err != nil {
			return err
		}
	}
	return file.Close()
}
