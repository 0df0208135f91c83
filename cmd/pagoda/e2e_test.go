package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/internal/server"
	"github.com/pagoda-engine/pagoda/internal/sim"
	"github.com/pagoda-engine/pagoda/model/demo"
)

// testModel is SmolLM2-135M-Instruct as `make test-model` leaves it.
func testModel(t *testing.T) string {
	dir := filepath.Join("..", "..", ".cache", "models", "smollm2-135m")
	if _, err := os.Stat(filepath.Join(dir, "model.safetensors")); err != nil {
		t.Skip("no test model: run make test-model")
	}
	return dir
}

// testDevice is where the tests that take any device run.
var testDevice = flag.String("device", "", "cpu or cuda; default: cuda where there is a GPU and the binary can")

// liveServer is a server on loopback with the real engine and model behind it.
type liveServer struct {
	engine *engine.Engine
	client openai.Client
	url    string
	http   *http.Client
	served chan error // what Serve returned
	broken bool       // the engine is to end with an error, and the test takes it
}

func startServer(t testing.TB, config engine.Config, keys ...string) *liveServer {
	skipWithoutDemo(t)
	text, err := openTokenizer(demo.Name)
	require.NoError(t, err)
	template, err := loadTemplate(demo.Name, text.AddedTokens())
	require.NoError(t, err)
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	config.Model, config.Device, config.SampleVocab, config.Log = demo.Name, *testDevice, text.VocabSize(), quiet
	e, err := engine.New(config)
	require.NoError(t, err)
	srv, err := server.New(server.Config{ModelNames: []string{demo.Name}, Log: quiet, APIKeys: keys, Explain: sim.Explain}, server.AdaptEngine(e), server.AdaptTokenizer(text), template)
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ctx, context.Background(), listener) }()
	transport := &http.Transport{}
	s := &liveServer{engine: e, url: "http://" + listener.Addr().String(), http: &http.Client{Transport: transport}, served: served}
	s.client = openai.NewClient(option.WithBaseURL(s.url+"/v1"), option.WithAPIKey("none"), option.WithMaxRetries(0), option.WithHTTPClient(s.http))
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		cancel()
		if !s.broken {
			require.NoError(t, <-served)
			require.NoError(t, e.Close())
		}
		text.Close()
	})
	return s
}

// patience is how long a test waits for what must happen; it is never waited for
// when it does, however slow the machine.
const patience = 3 * time.Minute

// hold keeps an engine between two steps until release is called: what is submitted
// meanwhile is there when it goes on, however slowly it came.
func hold(t *testing.T, e *engine.Engine) (release func()) {
	held, let, over := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		over <- e.EachLogits(context.Background(), []int32{0}, 1, func(int, []float32) {
			close(held)
			<-let
		})
	}()
	<-held
	release = sync.OnceFunc(func() {
		close(let)
		require.NoError(t, <-over)
	})
	t.Cleanup(release) // or an engine that a failed test holds would never close
	return release
}

// completion is what one request got.
type completion struct {
	text   string
	cached int64
	finish string
	tokens []openai.ChatCompletionTokenLogprob // askTop: with the likeliest two
}

// ask streams a greedy chat completion.
func (s *liveServer) ask(ctx context.Context, prompt string, tokens int64) (completion, error) {
	return s.complete(ctx, prompt, tokens, openai.ChatCompletionNewParams{})
}

// askTop is ask with log probabilities.
func (s *liveServer) askTop(ctx context.Context, prompt string, tokens int64) (completion, error) {
	return s.complete(ctx, prompt, tokens, openai.ChatCompletionNewParams{Logprobs: openai.Bool(true), TopLogprobs: openai.Int(2)})
}

func (s *liveServer) complete(ctx context.Context, prompt string, tokens int64, params openai.ChatCompletionNewParams) (completion, error) {
	params.Model = demo.Name
	params.Messages = []openai.ChatCompletionMessageParamUnion{openai.UserMessage(prompt)}
	params.Temperature, params.MaxTokens = openai.Float(0), openai.Int(tokens)
	params.StreamOptions = openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)}
	stream := s.client.Chat.Completions.NewStreaming(ctx, params)
	defer stream.Close()
	var text strings.Builder
	var c completion
	for stream.Next() {
		chunk := stream.Current()
		for _, choice := range chunk.Choices {
			text.WriteString(choice.Delta.Content)
			c.tokens = append(c.tokens, choice.Logprobs.Content...)
			if choice.FinishReason != "" {
				c.finish = choice.FinishReason
			}
		}
		if chunk.Usage.TotalTokens > 0 {
			c.cached = chunk.Usage.PromptTokensDetails.CachedTokens
		}
	}
	c.text = text.String()
	return c, stream.Err()
}

// mixedPrompts are prompts of mixed lengths that partly share a beginning.
func mixedPrompts(n int) (prompts []string, tokens []int64) {
	story := strings.Repeat("The old lighthouse keeper climbed the stairs every evening and lit the lamp. ", 12)
	topics := []string{"the sea", "a red kite", "bread", "the moon", "winter", "a clever fox", "trains", "tea"}
	for i := range n {
		topic := topics[i%len(topics)]
		switch i % 4 {
		case 0:
			prompts = append(prompts, fmt.Sprintf("Say something about %s, number %d.", topic, i))
		case 1:
			prompts = append(prompts, story+fmt.Sprintf("Who lit the lamp? Also mention %s %d.", topic, i))
		case 2:
			prompts = append(prompts, fmt.Sprintf("List %d words about %s.", 3+i%5, topic))
		default:
			prompts = append(prompts, story[:len(story)/2]+fmt.Sprintf("Continue with %s %d.", topic, i))
		}
		tokens = append(tokens, int64(8+i%5*6))
	}
	return prompts, tokens
}

// TestConcurrentStreams is the whole path with the official client: 64
// concurrent greedy streams of mixed lengths, prefix cache on, say exactly what
// each says alone; a repeat finds its prefix cached; after half of them
// disconnect all blocks are free. The CPU backend is batch-invariant in every
// mode, so nothing is excused there without the flag, either. On a GPU without the flag
// a stream may go another way where its two likeliest tokens are nearly as likely.
func TestConcurrentStreams(t *testing.T) {
	t.Run("batch-invariant", func(t *testing.T) { testConcurrentStreams(t, true, 64) })
	t.Run("default", func(t *testing.T) { testConcurrentStreams(t, false, 32) })
}

// nearlyEqual compares a greedy completion with another of the same prompt up to the
// first token that differs, which must have been nearly as likely there.
func nearlyEqual(want, got []openai.ChatCompletionTokenLogprob) error {
	const tolerance = 0.25 // nats
	for i, w := range want {
		if i == len(got) {
			return fmt.Errorf("%d tokens, want %d", len(got), len(want))
		}
		g := got[i]
		if g.Token == w.Token {
			if math.Abs(g.Logprob-w.Logprob) > tolerance {
				return fmt.Errorf("token %d: log probability %g, want %g", i, g.Logprob, w.Logprob)
			}
			continue
		}
		for _, top := range w.TopLogprobs {
			if top.Token == g.Token && top.Logprob > w.Logprob-tolerance {
				return nil
			}
		}
		return fmt.Errorf("token %d: %q, want %q, and it was not close: %v", i, g.Token, w.Token, w.TopLogprobs)
	}
	if len(want) == 0 || len(got) > len(want) {
		return fmt.Errorf("%d tokens, want %d", len(got), len(want))
	}
	return nil
}

func TestNearlyEqual(t *testing.T) {
	token := func(text string, logprob float64, other string, less float64) openai.ChatCompletionTokenLogprob {
		return openai.ChatCompletionTokenLogprob{Token: text, Logprob: logprob, TopLogprobs: []openai.ChatCompletionTokenLogprobTopLogprob{
			{Token: text, Logprob: logprob}, {Token: other, Logprob: logprob - less},
		}}
	}
	type list = []openai.ChatCompletionTokenLogprob
	want := list{token("a", -1, "b", 2), token("c", -0.7, "d", 0.1), token("e", -0.5, "f", 1)}
	require.NoError(t, nearlyEqual(want, want))
	require.NoError(t, nearlyEqual(want, list{want[0], token("d", -0.7, "c", 0.1), token("x", -1, "y", 3)}), "all is different after a draw")
	for says, got := range map[string]list{
		"token 0":          {token("b", -1, "a", 2)},
		"token 2":          {want[0], want[1], token("f", -0.6, "e", 0.5)},
		"token 1":          {want[0], token("z", -0.7, "c", 0)},
		"log probability":  {want[0], token("c", -1, "d", 0.1)},
		"2 tokens, want 3": want[:2],
		"4 tokens, want 3": append(want[:3:3], want[0]),
	} {
		require.ErrorContains(t, nearlyEqual(want, got), says)
	}
	require.Error(t, nearlyEqual(nil, nil), "nothing was compared")
}

func testConcurrentStreams(t *testing.T, invariant bool, n int) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		var left error
		if !assert.Eventually(t, func() bool { left = goleak.Find(before); return left == nil }, patience, time.Millisecond) {
			t.Error(left)
		}
	})
	if testing.Short() {
		n = 16
	}
	s := startServer(t, engine.Config{BatchInvariant: invariant, MaxNumSeqs: 24, MaxNumBatchedTokens: 256, MaxModelLen: 1024, NumGPUBlocksOverride: 400})
	prompts, tokens := mixedPrompts(n)
	ask, exact := s.ask, invariant || s.engine.Info().Device.Backend == "cpu"
	if !invariant {
		ask = s.askTop
	}

	solo := make([]completion, n)
	for i := range prompts {
		var err error
		solo[i], err = ask(t.Context(), prompts[i], tokens[i])
		require.NoError(t, err)
		require.NotEmpty(t, solo[i].text)
	}
	together := make([]completion, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range prompts {
		wg.Go(func() { together[i], errs[i] = ask(t.Context(), prompts[i], tokens[i]) })
	}
	wg.Wait()
	cached := 0
	for i := range prompts {
		require.NoError(t, errs[i])
		if !invariant {
			require.NoError(t, nearlyEqual(solo[i].tokens, together[i].tokens), "prompt %d", i)
		}
		if exact {
			require.Equal(t, solo[i].text, together[i].text, "prompt %d", i)
			require.Equal(t, solo[i].finish, together[i].finish)
		}
		if together[i].cached > 0 {
			cached++
		}
	}
	require.Greater(t, cached, n/2, "most repeats find a cached prefix")

	// Half of them leave after their first piece of text.
	for i := range prompts {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if i%2 == 0 {
				_, errs[i] = s.ask(ctx, prompts[i], tokens[i])
				return
			}
			stream := s.client.Chat.Completions.NewStreaming(ctx, openai.ChatCompletionNewParams{
				Model: demo.Name, Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(prompts[i])}, MaxTokens: openai.Int(400),
			})
			stream.Next()
			cancel()
			errs[i] = stream.Close()
		})
	}
	wg.Wait()
	for i := 0; i < n; i += 2 {
		require.NoError(t, errs[i])
	}
	require.Eventually(t, func() bool {
		st := s.engine.Stats()
		return st.Running == 0 && st.Waiting == 0 && st.BlocksUsed == 0
	}, patience, 5*time.Millisecond, "blocks of requests whose clients left")
}
