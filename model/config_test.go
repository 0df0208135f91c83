package model

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// parameters are the published counts of the models.
var parameters = map[string]int64{
	"qwen2.5-0.5b": 494_032_768,
	"qwen2.5-1.5b": 1_543_714_304,
	"qwen2.5-3b":   3_085_938_688,
	"qwen2.5-7b":   7_615_616_512,
	"qwen2.5-14b":  14_770_033_664,
	"qwen2.5-32b":  32_763_876_352,
	"qwen2.5-72b":  72_706_203_648,
}

// configText writes a config.json of Qwen2.5's form.
func configText(hidden, intermediate, layers, heads, kvHeads, vocab int, tied bool) string {
	return fmt.Sprintf(`{
		"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "attention_dropout": 0.0,
		"bos_token_id": 151643, "eos_token_id": 151645, "hidden_act": "silu", "hidden_size": %d,
		"initializer_range": 0.02, "intermediate_size": %d, "max_position_embeddings": 32768,
		"max_window_layers": 70, "num_attention_heads": %d, "num_hidden_layers": %d,
		"num_key_value_heads": %d, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
		"sliding_window": 131072, "tie_word_embeddings": %v, "torch_dtype": "bfloat16",
		"transformers_version": "4.43.1", "use_cache": true, "use_sliding_window": false,
		"vocab_size": %d}`, hidden, intermediate, heads, layers, kvHeads, tied, vocab)
}

func TestPublishedConfigsEqualBuiltinShapes(t *testing.T) {
	for _, name := range BuiltinShapes() {
		t.Run(name, func(t *testing.T) {
			want, ok := BuiltinShape(name)
			require.True(t, ok)
			var got *Config
			var err error
			switch name { // these two are not under the Apache licence: numbers only
			case "qwen2.5-3b":
				got, err = ParseConfig("config.json", []byte(configText(2048, 11008, 36, 16, 2, 151936, true)))
			case "qwen2.5-72b":
				got, err = ParseConfig("config.json", []byte(configText(8192, 29568, 80, 64, 8, 152064, false)))
			default:
				got, err = ReadConfig(filepath.Join("testdata", name+"-instruct"))
			}
			require.NoError(t, err)
			require.Equal(t, want, got)
			require.Equal(t, parameters[name], got.Parameters())
			require.Equal(t, 2*parameters[name], got.WeightBytes())
			require.Equal(t, 32768, got.MaxModelLen())
		})
	}
	_, ok := BuiltinShape("qwen2.5-1b")
	require.False(t, ok)
}

func TestKVBytesPerToken(t *testing.T) {
	c, _ := BuiltinShape("qwen2.5-7b")
	require.Equal(t, int64(57344), c.KVBytesPerToken()) // 896 KiB a block of 16
}

// base is a valid config as a map, to be changed by tests.
func base(t *testing.T) map[string]any {
	var m map[string]any
	require.NoError(t, json.Unmarshal([]byte(configText(64, 96, 2, 4, 2, 200000, false)), &m))
	return m
}

func parse(t *testing.T, m map[string]any) (*Config, error) {
	text, err := json.Marshal(m)
	require.NoError(t, err)
	return ParseConfig("dir/config.json", text)
}

// requireProblem checks that err is a FileError of the file with a problem of
// the field, and says both.
func requireProblem(t *testing.T, err error, file, field string) Problem {
	t.Helper()
	var fe *FileError
	require.ErrorAs(t, err, &fe)
	require.Equal(t, file, fe.File)
	require.Contains(t, err.Error(), file)
	require.Contains(t, err.Error(), field)
	for _, p := range fe.Problems {
		if p.Field == field {
			require.NotEmpty(t, p.Reason)
			return p
		}
	}
	require.Failf(t, "no such problem", "%s in %v", field, fe)
	return Problem{}
}

func TestConfigRefusals(t *testing.T) {
	yarn := func(extra map[string]any) map[string]any {
		m := map[string]any{"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
		for k, v := range extra {
			m[k] = v
		}
		return m
	}
	for _, c := range []struct {
		field string // set, and blamed unless blamed is given
		value any
		want  string // in the reason
		blame string
	}{
		{"architectures", absent, "missing", ""},
		{"architectures", []string{"MixtralForCausalLM"}, "[MixtralForCausalLM], supported: Qwen2ForCausalLM", ""},
		{"architectures", "Qwen2ForCausalLM", "must be a list", ""},
		{"architectures", []any{nil}, "must hold strings", ""},
		{"architectures", []string{}, "supported: Qwen2ForCausalLM", ""},
		{"model_type", "qwen3", "must be qwen2", ""},
		{"hidden_size", absent, "missing", ""},
		{"hidden_size", nil, "missing", ""},
		{"hidden_size", 0, "between 1 and", ""},
		{"hidden_size", -64, "between 1 and", ""},
		{"hidden_size", 1 << 30, "between 1 and", ""},
		{"hidden_size", json.Number("99999999999999999999999"), "between 1 and", ""},
		{"hidden_size", "64", "must be an integer", ""},
		{"hidden_size", 64.5, "must be an integer", ""},
		{"hidden_size", []int{64}, "must be an integer", ""},
		{"hidden_size", 66, "must divide hidden_size, 66", "num_attention_heads"},
		{"hidden_size", 60, "= 15, must be even", "head_dim"},
		{"intermediate_size", absent, "missing", ""},
		{"intermediate_size", 0, "between", ""},
		{"num_hidden_layers", absent, "missing", ""},
		{"num_hidden_layers", 1 << 20, "between", ""},
		{"num_attention_heads", 0, "between", ""},
		{"num_key_value_heads", absent, "missing", ""},
		{"num_key_value_heads", 3, "must divide num_attention_heads, 4", ""},
		{"num_key_value_heads", 8, "must divide num_attention_heads, 4", ""},
		{"head_dim", 15, "must be even", ""},
		{"head_dim", 0, "between", ""},
		{"head_dim", 1 << 20, "between", ""},
		{"vocab_size", 0, "between", ""},
		{"vocab_size", 1 << 40, "between", ""},
		{"max_position_embeddings", absent, "missing", ""},
		{"max_position_embeddings", -1, "between", ""},
		{"rms_norm_eps", absent, "missing", ""},
		{"rms_norm_eps", 0, "between", ""},
		{"rms_norm_eps", json.Number("1e999"), "between", ""},
		{"rms_norm_eps", true, "must be a number", ""},
		{"rope_theta", absent, "missing", ""},
		{"rope_theta", 1, "between", ""},
		{"rope_theta", -1e6, "between", ""},
		{"partial_rotary_factor", 0.5, "only 1", ""},
		{"hidden_act", absent, "missing", ""},
		{"hidden_act", "gelu", "is gelu, only silu", ""},
		{"hidden_act", 1, "must be a string", ""},
		{"tie_word_embeddings", "yes", "true or false", ""},
		{"sliding_window", "x", "must be an integer", ""},
		{"layer_types", []string{"full_attention", "sliding_attention"}, "layer 1", ""},
		{"layer_types", []string{"full_attention"}, "one a layer, 2", ""},
		{"mlp_bias", true, "not supported", ""},
		{"quantization_config", map[string]any{"bits": 4}, "quantized", ""},
		{"torch_dtype", "float8_e4m3fn", "supported: bfloat16", ""},
		{"dtype", "int8", "supported: bfloat16", ""},
		{"eos_token_id", 200000, "between 0 and 199999", ""},
		{"eos_token_id", []int{1, -1}, "between 0 and", ""},
		{"eos_token_id", "x", "must be an integer", ""},
		{"bos_token_id", 1 << 40, "between", ""},
		{"rope_scaling", "yarn", "not a JSON object", ""},
		{"rope_scaling", map[string]any{"type": "linear", "factor": 2}, "is linear, supported: default, yarn", "rope_scaling.rope_type"},
		{"rope_scaling", yarn(map[string]any{"rope_type": "default"}), "rope_type is default", "rope_scaling.type"},
		{"rope_scaling", yarn(map[string]any{"factor": 0.5}), "between 1", "rope_scaling.factor"},
		{"rope_scaling", yarn(map[string]any{"factor": 1000}), "positions", "rope_scaling.factor"},
		{"rope_scaling", map[string]any{"type": "yarn"}, "missing", "rope_scaling.factor"},
		{"rope_scaling", yarn(map[string]any{"fctor": 2}), "not known", "rope_scaling.fctor"},
		{"rope_scaling", yarn(map[string]any{"beta_fast": 0.5}), "beta_slow", "rope_scaling.beta_fast"},
		{"rope_scaling", yarn(map[string]any{"rope_theta": 10000}), "is 10000, but", "rope_scaling.rope_theta"},
		{"rope_scaling", yarn(map[string]any{"type": 3}), "must be a string", "rope_scaling.type"},
		{"rope_scaling", yarn(map[string]any{"attention_factor": -1}), "between", "rope_scaling.attention_factor"},
		{"rope_scaling", yarn(map[string]any{"original_max_position_embeddings": 0}), "between", "rope_scaling.original_max_position_embeddings"},
	} {
		t.Run(fmt.Sprintf("%s=%v", c.field, c.value), func(t *testing.T) {
			m := base(t)
			m[c.field] = c.value
			if c.value == any(absent) {
				delete(m, c.field)
			}
			field := c.field
			if c.blame != "" {
				field = c.blame
			}
			_, err := parse(t, m)
			require.Contains(t, requireProblem(t, err, "dir/config.json", field).Reason, c.want)
			var fe *FileError
			require.ErrorAs(t, err, &fe)
			require.Len(t, fe.Problems, 1, "one fault, one problem: %v", err)
		})
	}
}

var absent = struct{}{} // of a field that is not in the file

// TestSlidingWindow: one is refused where a layer has it, and only there.
func TestSlidingWindow(t *testing.T) {
	full := []string{"full_attention", "full_attention"}
	for _, c := range []struct {
		window, whole, types any // absent: not in the file
		ok                   bool
	}{
		{4096, 1, absent, false}, {4096, 0, absent, false}, {absent, 1, absent, false},
		{4096, 2, absent, true}, {4096, 28, absent, true}, {4096, absent, absent, true},
		{4096, 1, full, true},
	} {
		m := base(t)
		m["num_hidden_layers"], m["use_sliding_window"] = 2, true
		for field, value := range map[string]any{"sliding_window": c.window, "max_window_layers": c.whole, "layer_types": c.types} {
			if m[field] = value; value == any(absent) {
				delete(m, field)
			}
		}
		_, err := parse(t, m)
		if c.ok {
			require.NoError(t, err, "%v", c)
		} else {
			require.Contains(t, requireProblem(t, err, "dir/config.json", "use_sliding_window").Reason, "of 2 layers", "%v", c)
		}
	}
}

func TestConfigListsEveryProblem(t *testing.T) {
	m := base(t)
	delete(m, "vocab_size")
	m["hidden_act"], m["num_hidden_layers"], m["mlp_bias"] = "gelu", 0, true
	_, err := parse(t, m)
	for _, field := range []string{"vocab_size", "hidden_act", "num_hidden_layers", "mlp_bias"} {
		requireProblem(t, err, "dir/config.json", field)
	}
	require.Contains(t, err.Error(), "4 problems")
}

func TestConfigFileFaults(t *testing.T) {
	for text, want := range map[string]string{
		"":                     "empty",
		"[]":                   "not a JSON object",
		"nul":                  "not JSON",
		`{"a": 1`:              "in the middle",
		`{"a": 1} x`:           "text after",
		`{"a": 1,}`:            "not JSON",
		`{"a": 1, "a": 2}`:     "duplicate key a",
		"{\"a\": \"\xff\"}":    "UTF-8",
		`{"a": 1, "\u0061":2}`: "duplicate key a",
	} {
		_, err := ParseConfig("dir/config.json", []byte(text))
		require.Contains(t, requireProblem(t, err, "dir/config.json", "JSON").Reason, want, text)
	}
	dir := t.TempDir()
	_, err := ReadConfig(dir)
	requireProblem(t, err, filepath.Join(dir, "config.json"), "file")
	_, err = ReadConfig(filepath.Join(dir, "none"))
	requireProblem(t, err, filepath.Join(dir, "none"), "directory")
	big := append([]byte(`{"x": "`), make([]byte, maxConfigBytes)...)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), big, 0o600))
	_, err = ReadConfig(dir)
	requireProblem(t, err, filepath.Join(dir, "config.json"), "size")
}

// A hostile file's text reaches messages only shortened and escaped.
func TestMessagesAreClean(t *testing.T) {
	m := base(t)
	m["hidden_act"] = "\x1b[31m" + strings.Repeat("x", 10000)
	_, err := parse(t, m)
	require.Less(t, len(err.Error()), 300)
	require.NotContains(t, err.Error(), "\x1b")
}

func TestConfigOptions(t *testing.T) {
	m := base(t)
	m["head_dim"], m["attention_bias"] = 32, false
	m["eos_token_id"] = []int{5, 6}
	delete(m, "bos_token_id")
	delete(m, "tie_word_embeddings")
	c, err := parse(t, m)
	require.NoError(t, err)
	require.Equal(t, 32, c.HeadDim)
	require.False(t, c.QKVBias)
	require.False(t, c.TieWordEmbeddings)
	require.Equal(t, []int32{5, 6}, c.EOSTokenIDs)
	require.Nil(t, c.BOSTokenID)
}

// At the bounds of every dimension, no size overflows.
func TestSizesAtTheBounds(t *testing.T) {
	m := base(t)
	m["hidden_size"], m["intermediate_size"], m["num_hidden_layers"] = maxHidden, maxIntermediate, maxLayers
	m["num_attention_heads"], m["num_key_value_heads"], m["head_dim"] = maxHeads, maxHeads, maxHeadDim
	m["vocab_size"], m["max_position_embeddings"] = maxVocab, maxPositions
	c, err := parse(t, m)
	require.NoError(t, err)
	want := 2*float64(maxVocab)*maxHidden + maxLayers*(4*float64(maxHeads*maxHeadDim)*maxHidden+3*float64(maxIntermediate)*maxHidden)
	require.InEpsilon(t, want, float64(c.Parameters()), 1e-4)
	require.Less(t, c.WeightBytes(), int64(1)<<50)
	require.Less(t, c.KVBytesPerToken(), int64(math.MaxInt64)/maxPositions)
}

func TestInvFreqPlain(t *testing.T) {
	c := &Config{HeadDim: 8, RopeTheta: 1e4}
	require.Equal(t, float32(1), c.AttentionScale())
	require.InDeltaSlice(t, []float32{1, 0.1, 0.01, 0.001}, c.InvFreq(), 1e-8)
	require.Equal(t, c.InvFreq(), c.Shape().InvFreq)
}

// yarn.json was written by transformers' own code, see testdata/yarn.py.
func TestYaRNEqualsTransformers(t *testing.T) {
	var cases []struct {
		Name            string         `json:"name"`
		HeadDim         int            `json:"head_dim"`
		Positions       int            `json:"max_position_embeddings"`
		Rope            map[string]any `json:"rope"`
		AttentionFactor float64        `json:"attention_factor"`
		InvFreq         []float32      `json:"inv_freq"`
	}
	data, err := os.ReadFile("testdata/yarn.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &cases))
	require.NotEmpty(t, cases)
	for _, c := range cases {
		for _, spelling := range []string{"rope_type", "type", "rope_parameters"} {
			t.Run(c.Name+"/"+spelling, func(t *testing.T) {
				m, rope := base(t), map[string]any{}
				m["head_dim"], m["max_position_embeddings"] = c.HeadDim, c.Positions
				for k, v := range c.Rope {
					rope[k] = v
				}
				switch spelling {
				case "rope_parameters":
					m["rope_parameters"] = rope
					delete(m, "rope_theta")
				default:
					delete(rope, "rope_type")
					rope[spelling] = "yarn"
					m["rope_scaling"], m["rope_theta"] = rope, rope["rope_theta"]
					delete(rope, "rope_theta")
				}
				cfg, err := parse(t, m)
				require.NoError(t, err)
				require.InEpsilon(t, c.AttentionFactor, cfg.AttentionScale(), 1e-7)
				got := cfg.InvFreq()
				require.Len(t, got, len(c.InvFreq))
				for i, want := range c.InvFreq {
					// torch's, numpy's and Go's pow differ in the last bit of a float32
					require.InEpsilon(t, want, got[i], 4e-7, "dimension %d", i)
				}
				if c.Rope["factor"] != nil {
					original := c.Rope["original_max_position_embeddings"].(float64)
					require.Equal(t, int(original*c.Rope["factor"].(float64)), cfg.MaxModelLen())
				}
			})
		}
	}
}

func TestRopeParametersDefault(t *testing.T) {
	m := base(t)
	delete(m, "rope_theta")
	m["rope_parameters"] = map[string]any{"rope_type": "default", "rope_theta": 5e5}
	c, err := parse(t, m)
	require.NoError(t, err)
	require.Equal(t, 5e5, c.RopeTheta)
	require.Nil(t, c.YaRN)

	m["rope_scaling"] = map[string]any{"rope_type": "default"}
	_, err = parse(t, m)
	requireProblem(t, err, "dir/config.json", "rope_scaling")
}
