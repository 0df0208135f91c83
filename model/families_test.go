package model

import (
	"maps"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestFamilies: what Llama and Qwen3 add to Qwen2, and what they must not have.
func TestFamilies(t *testing.T) {
	family := func(name, kind string, fields map[string]any) map[string]any {
		m := base(t)
		m["architectures"], m["model_type"] = []string{name}, kind
		for field, v := range fields {
			m[field] = v
			if v == nil {
				delete(m, field)
			}
		}
		return m
	}
	llama3 := map[string]any{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
	c, err := parse(t, family(llama, "llama", map[string]any{"rope_theta": nil, "num_key_value_heads": nil}))
	require.NoError(t, err)
	require.Equal(t, 10000.0, c.RopeTheta)
	require.Equal(t, c.NumHeads, c.NumKVHeads)
	require.False(t, c.QKVBias || c.QKNorm)
	c, err = parse(t, family(llama, "llama", map[string]any{"rope_scaling": llama3, "max_position_embeddings": 131072}))
	require.NoError(t, err)
	require.Equal(t, &Llama3{Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, OriginalMaxLen: 8192}, c.Llama3)
	require.Equal(t, 131072, c.MaxModelLen())
	freq, plain := c.InvFreq(), (&Config{HeadDim: c.HeadDim, RopeTheta: c.RopeTheta}).InvFreq()
	require.Equal(t, plain[0], freq[0], "the fastest is kept")
	last := len(freq) - 1
	require.Equal(t, plain[last]/8, freq[last], "the slowest is an eighth")

	c, err = parse(t, family("Qwen3ForCausalLM", "qwen3", map[string]any{"head_dim": 128}))
	require.NoError(t, err)
	require.True(t, c.QKNorm)
	require.True(t, c.Shape().QKNorm)
	require.NotEqual(t, c.HiddenSize, c.NumHeads*c.HeadDim)
	names := []string{}
	layer := c.layerTable(0)
	for _, tensor := range layer[attnQKV].tensors() {
		names = append(names, tensor.name)
	}
	require.Contains(t, names, "model.layers.0.self_attn.k_norm.weight")
	require.NotContains(t, names, "model.layers.0.self_attn.k_proj.bias")

	steep := maps.Clone(llama3)
	steep["high_freq_factor"] = 0.5
	for want, m := range map[string]map[string]any{
		"head_dim":                      family("Qwen3ForCausalLM", "qwen3", nil),
		"attention_bias":                family(llama, "llama", map[string]any{"attention_bias": true}),
		"rope_scaling.high_freq_factor": family(llama, "llama", map[string]any{"rope_scaling": steep}),
	} {
		_, err := parse(t, m)
		requireProblem(t, err, "dir/config.json", want)
	}
}
