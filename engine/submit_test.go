package engine

import (
	"context"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSubmitRefusals is the table of everything that Submit must not let in.
func TestSubmitRefusals(t *testing.T) {
	e := startFake(t, &fake{}, Config{NumGPUBlocksOverride: 10, MaxModelLen: 400, MaxLogprobs: 5})
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	many := make([]int32, MaxStopIDs+1)
	biases := make([]TokenBias, MaxLogitBias+1)
	for name, c := range map[string]struct {
		change func(r *Request)
		want   error
		says   string
	}{
		"no prompt":           {func(r *Request) { r.Prompt = nil }, ErrInvalid, "prompt"},
		"negative id":         {func(r *Request) { r.Prompt = []int32{1, -1} }, ErrInvalid, "prompt"},
		"id = vocab":          {func(r *Request) { r.Prompt = []int32{fakeVocab} }, ErrInvalid, "prompt"},
		"prompt = max len":    {func(r *Request) { r.Prompt, r.MaxTokens = prompt(1, 400), 0 }, ErrTooLong, "400"},
		"sum over max len":    {func(r *Request) { r.Prompt, r.MaxTokens = prompt(1, 100), 301 }, ErrTooLong, "301"},
		"max_tokens overflow": {func(r *Request) { r.MaxTokens = math.MaxInt }, ErrTooLong, "max_model_len is 400"},
		"one block too many":  {func(r *Request) { r.Prompt, r.MaxTokens = prompt(1, 100), 62 }, ErrNeverFits, "11 blocks of 16 tokens; the pool has 10"},
		"prompt over pool":    {func(r *Request) { r.Prompt, r.MaxTokens = prompt(1, 161), 0 }, ErrNeverFits, "11 blocks"},
		"negative max_tokens": {func(r *Request) { r.MaxTokens = -1 }, ErrInvalid, "max_tokens"},
		"temperature":         {func(r *Request) { r.Sampling.Temperature = -0.1 }, ErrInvalid, "temperature"},
		"temperature NaN":     {func(r *Request) { r.Sampling.Temperature = nan }, ErrInvalid, "temperature"},
		"temperature inf":     {func(r *Request) { r.Sampling.Temperature = inf }, ErrInvalid, "temperature"},
		"top_p":               {func(r *Request) { r.Sampling.TopP = 1.1 }, ErrInvalid, "top_p"},
		"top_p NaN":           {func(r *Request) { r.Sampling.TopP = nan }, ErrInvalid, "top_p"},
		"min_p":               {func(r *Request) { r.Sampling.MinP = -0.1 }, ErrInvalid, "min_p"},
		"top_k":               {func(r *Request) { r.Sampling.TopK = -2 }, ErrInvalid, "top_k"},
		"repetition":          {func(r *Request) { r.Sampling.RepetitionPenalty = -1 }, ErrInvalid, "repetition_penalty"},
		"repetition tiny":     {func(r *Request) { r.Sampling.RepetitionPenalty = 1e-40 }, ErrInvalid, "repetition_penalty"},
		"repetition inf":      {func(r *Request) { r.Sampling.RepetitionPenalty = inf }, ErrInvalid, "repetition_penalty"},
		"presence":            {func(r *Request) { r.Sampling.PresencePenalty = 2.1 }, ErrInvalid, "presence_penalty"},
		"frequency":           {func(r *Request) { r.Sampling.FrequencyPenalty = -2.1 }, ErrInvalid, "frequency_penalty"},
		"min_tokens":          {func(r *Request) { r.Sampling.MinTokens = 9 }, ErrInvalid, "min_tokens"},
		"negative min_tokens": {func(r *Request) { r.Sampling.MinTokens = -1 }, ErrInvalid, "min_tokens"},
		"logprobs":            {func(r *Request) { r.Sampling.Logprobs = 6 }, ErrInvalid, "top_logprobs"},
		"logprobs −2":         {func(r *Request) { r.Sampling.Logprobs = -2 }, ErrInvalid, "top_logprobs"},
		"choice":              {func(r *Request) { r.Sampling.Choice = -1 }, ErrInvalid, "n"},
		"stop id":             {func(r *Request) { r.StopIDs = []int32{fakeVocab} }, ErrInvalid, "stop_token_ids"},
		"stop id −1":          {func(r *Request) { r.StopIDs = []int32{-1} }, ErrInvalid, "stop_token_ids"},
		"stop ids":            {func(r *Request) { r.StopIDs = many }, ErrInvalid, "stop_token_ids"},
		"biases":              {func(r *Request) { r.Sampling.LogitBias = biases }, ErrInvalid, "logit_bias"},
		"bias id":             {func(r *Request) { r.Sampling.LogitBias = []TokenBias{{ID: fakeVocab, Bias: 1}} }, ErrInvalid, "logit_bias"},
		"bias twice":          {func(r *Request) { r.Sampling.LogitBias = []TokenBias{{ID: 3, Bias: 1}, {ID: 3, Bias: 2}} }, ErrInvalid, "logit_bias"},
		"bias value":          {func(r *Request) { r.Sampling.LogitBias = []TokenBias{{ID: 3, Bias: 101}} }, ErrInvalid, "logit_bias"},
		"bias NaN":            {func(r *Request) { r.Sampling.LogitBias = []TokenBias{{ID: 3, Bias: nan}} }, ErrInvalid, "logit_bias"},
		"priority under fcfs": {func(r *Request) { r.Priority = 1 }, ErrInvalid, "priority"},
		"salt":                {func(r *Request) { r.CacheSalt = strings.Repeat("x", MaxCacheSalt+1) }, ErrInvalid, "cache_salt"},
	} {
		t.Run(name, func(t *testing.T) {
			r := Request{Prompt: prompt(1, 5), MaxTokens: 8}
			c.change(&r)
			_, err := e.Submit(context.Background(), r)
			require.ErrorIs(t, err, c.want)
			require.ErrorContains(t, err, c.says)
			if c.want == ErrInvalid {
				var invalid *InvalidError
				require.ErrorAs(t, err, &invalid)
				require.Equal(t, c.says, invalid.Param)
			}
		})
	}
	require.Zero(t, e.queued.Load())
}

// TestSubmitBounds: the largest that is allowed runs to its end.
func TestSubmitBounds(t *testing.T) {
	e := startFake(t, &fake{}, Config{NumGPUBlocksOverride: 10, MaxModelLen: 400, MaxLogprobs: 5})
	for name, c := range map[string]struct {
		request Request
		tokens  int
	}{
		"a full pool":       {Request{Prompt: prompt(1, 100), MaxTokens: 61}, 61}, // the last token takes no slot
		"as many as fit":    {Request{Prompt: prompt(1, 100)}, 61},
		"prompt fills pool": {Request{Prompt: prompt(1, 160)}, 1},
		"all fields": {Request{Prompt: prompt(2, 1), MaxTokens: 3, Sampling: Sampling{
			Temperature: 1e-9, TopK: -1, TopP: 1, MinP: 1, PresencePenalty: -2, FrequencyPenalty: 2, RepetitionPenalty: 9, MinTokens: 3, Logprobs: 5,
			LogitBias: []TokenBias{{ID: fakeVocab - 1, Bias: 100}, {ID: 0, Bias: -100}},
		}, CacheSalt: strings.Repeat("x", MaxCacheSalt)}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			c.request.IgnoreEOS = true
			s, err := e.Submit(context.Background(), c.request)
			require.NoError(t, err)
			got, last := readAll(t, s)
			require.Len(t, got, c.tokens)
			require.Equal(t, FinishLength, last.Finish)
		})
	}
}

// TestRefusalsDoNotCount: many choices that never fit the queue, refused again and
// again, refuse nobody else.
func TestRefusalsDoNotCount(t *testing.T) {
	e := &Engine{}
	e.cfg.MaxQueuedReqs, e.cfg.MaxQueuedTokens = 4, 100
	var crowd sync.WaitGroup
	var accepted atomic.Int64
	for range 2 {
		crowd.Go(func() {
			for range 20000 {
				if e.enqueue(MaxChoices, 1) == nil {
					accepted.Add(1)
				}
			}
		})
	}
	for range 20000 {
		require.NoError(t, e.enqueue(1, 7))
		e.dequeue(1, 7)
	}
	crowd.Wait()
	require.Zero(t, accepted.Load())
	require.Zero(t, e.queued.Load())
	require.Zero(t, e.queuedTokens.Load())
}
