package engine

import (
	"errors"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

func planOf(t *testing.T, change func(*Config, *sizes)) (memoryPlan, error) {
	c := quiet(Config{})
	require.NoError(t, c.validate())
	c.resolve(deviceCPU)
	s := sizes{limit: 8 << 30, limitFrom: "test", weights: 1 << 30, workspace: 1 << 28, block: 1 << 17, modelMaxLen: 32768}
	change(&c, &s)
	return plan(&c, s)
}

func TestPlan(t *testing.T) {
	for name, c := range map[string]struct {
		change         func(*Config, *sizes)
		blocks, length int
		warns          bool
	}{
		"computed": {func(*Config, *sizes) {}, (8<<30*9/10 - 1<<30 - 1<<28) >> 17, 32768, false},
		"pool below the model": {func(_ *Config, s *sizes) { s.limit, s.modelMaxLen = 2<<30, 1<<17 },
			(2<<30*9/10 - 1<<30 - 1<<28) >> 17, ((2<<30*9/10-1<<30-1<<28)>>17 - 1) * 16, false},
		"utilization": {func(c *Config, _ *sizes) { c.GPUMemoryUtilization = 0.5 }, (4<<30 - 1<<30 - 1<<28) >> 17, 32768, false},
		"bytes win":   {func(c *Config, _ *sizes) { c.GPUMemoryUtilization, c.KVCacheMemoryBytes = 0.5, 1<<24+5 }, 128, 127 * 16, false},
		"blocks win":  {func(c *Config, _ *sizes) { c.KVCacheMemoryBytes, c.NumGPUBlocksOverride = 1<<24, 100 }, 101, 1600, false},
		"longer than the pool": {func(c *Config, _ *sizes) { c.NumGPUBlocksOverride, c.MaxModelLen = 100, 2000 },
			101, 2000, true},
		"tiny blocks": {func(_ *Config, s *sizes) { s.block = 64 }, maxComputedBlocks, 32768, false},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := planOf(t, c.change)
			require.NoError(t, err)
			require.Equal(t, c.blocks, p.blocks)
			require.Equal(t, c.length, p.maxModelLen)
			require.Equal(t, c.warns, len(p.warnings) > 0)
			for _, l := range p.ledger {
				require.GreaterOrEqual(t, l.Bytes, int64(0), l.Name)
			}
		})
	}
}

// TestPlanAdvice: the limit that a refusal names is enough, and one byte less
// than it is not.
func TestPlanAdvice(t *testing.T) {
	advised := regexp.MustCompile(`--memory-limit to at least (\d+)`)
	for _, override := range []int{0, 100} {
		for weights := int64(1 << 20); weights < 1<<40; weights = weights*3 + 12345 {
			with := func(limit int64) error {
				_, err := planOf(t, func(c *Config, s *sizes) {
					s.limit, s.weights, c.NumGPUBlocksOverride = limit, weights, override
				})
				return err
			}
			err := with(1 << 20)
			require.True(t, errors.Is(err, ErrMemory))
			match := advised.FindStringSubmatch(err.Error())
			require.NotNil(t, match, err.Error())
			limit, err := strconv.ParseInt(match[1], 10, 64)
			require.NoError(t, err)
			require.NoError(t, with(limit))
			require.ErrorIs(t, with(limit-limit/1000-2), ErrMemory)
		}
	}
}

// TestSmallerHelps: a refusal says whether smaller steps could do with the memory, which
// they cannot when weights and the smallest pool alone are too much.
func TestSmallerHelps(t *testing.T) {
	for _, c := range []struct {
		weights, limit int64
		override       int
		smaller        bool
	}{
		{weights: 1 << 30, limit: 1 << 30}, {weights: 1 << 29, limit: 1 << 30, smaller: true},
		{weights: 1 << 30, limit: 1 << 30, override: 10}, {weights: 1 << 29, limit: 1 << 30, override: 10, smaller: true},
	} {
		_, err := planOf(t, func(config *Config, s *sizes) {
			s.limit, s.weights, s.workspace, config.NumGPUBlocksOverride = c.limit, c.weights, 1<<30, c.override
		})
		var short *MemoryError
		require.ErrorAs(t, err, &short)
		require.ErrorIs(t, err, ErrMemory)
		require.Equal(t, c.smaller, short.Smaller, "%+v", c)
	}
}

func TestValidateListsEveryProblem(t *testing.T) {
	c := Config{
		LoadFormat: "gguf", Device: "tpu", CPUISA: "sse", Threads: -1, GPUMemoryUtilization: 1.5, MemoryLimit: -1, KVCacheMemoryBytes: -1,
		NumGPUBlocksOverride: -1, BlockSize: 8, MaxNumSeqs: 64, MaxNumBatchedTokens: 63, MaxNumMixedTokens: 1 << 21, MaxModelLen: 1, MaxQueuedReqs: -1,
		MaxLogprobs: 1 << 20, SchedulingPolicy: "lifo", AsyncScheduling: "maybe", SampleVocab: -1,
	}
	err := c.validate()
	var all *ConfigError
	require.ErrorAs(t, err, &all)
	require.ErrorIs(t, err, ErrConfig)
	require.Len(t, all.Problems, 18)
}

func TestDefaults(t *testing.T) {
	c := Config{Model: "x", MaxLogprobs: -1}
	require.NoError(t, c.validate())
	require.Equal(t, 0.9, c.GPUMemoryUtilization)
	require.Equal(t, 256, c.MaxNumSeqs)
	require.Equal(t, 16, c.BlockSize)
	require.Zero(t, c.maxLogprobs())
	cuda := c
	cuda.resolve(deviceCUDA)
	require.Equal(t, 8192, cuda.MaxNumBatchedTokens)
	require.Zero(t, schedulerLimits(&cuda).MaxMixedTokens)
	c.resolve(deviceCPU)
	require.Equal(t, 2048, c.MaxNumBatchedTokens)
}
