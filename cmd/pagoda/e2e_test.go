package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
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

// completion is what one request got.
type completion struct {
	text   string
	cached int64
	finish string
}

// ask streams a greedy chat completion.
func (s *liveServer) ask(ctx context.Context, prompt string, tokens int64) (completion, error) {
	stream := s.client.Chat.Completions.NewStreaming(ctx, openai.ChatCompletionNewParams{
		Model:         demo.Name,
		Messages:      []openai.ChatCompletionMessageParamUnion{openai.UserMessage(prompt)},
		Temperature:   openai.Float(0),
		MaxTokens:     openai.Int(tokens),
		StreamOptions: openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)},
	})
	defer stream.Close()
	var text strings.Builder
	var c completion
	for stream.Next() {
		chunk := stream.Current()
		for _, choice := range chunk.Choices {
			text.WriteString(choice.Delta.Content)
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
// mode, so nothing is excused there without the flag, either.
func TestConcurrentStreams(t *testing.T) {
	t.Run("batch-invariant", func(t *testing.T) { testConcurrentStreams(t, true, 64) })
	t.Run("default", func(t *testing.T) { testConcurrentStreams(t, false, 32) })
}

func testConcurrentStreams(t *testing.T, invariant bool, n int) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	if testing.Short() {
		n = 16
	}
	s := startServer(t, engine.Config{BatchInvariant: invariant, MaxNumSeqs: 24, MaxNumBatchedTokens: 256, MaxModelLen: 1024, NumGPUBlocksOverride: 400})
	prompts, tokens := mixedPrompts(n)

	solo := make([]completion, n)
	for i := range prompts {
		var err error
		solo[i], err = s.ask(t.Context(), prompts[i], tokens[i])
		require.NoError(t, err)
		require.NotEmpty(t, solo[i].text)
	}
	together := make([]completion, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range prompts {
		wg.Go(func() { together[i], errs[i] = s.ask(t.Context(), prompts[i], tokens[i]) })
	}
	wg.Wait()
	cached := 0
	for i := range prompts {
		require.NoError(t, errs[i])
		if invariant || s.engine.Info().Device.Backend == "cpu" {
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
	}, 20*time.Second, 5*time.Millisecond, "blocks of requests whose clients left")
}
