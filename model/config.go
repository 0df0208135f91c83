package model

import (
	"slices"
	"strings"

	"github.com/pagoda-engine/pagoda/kernels"
)

// Config is a model's architecture and dimensions, as config.json gives them.
// Every value was checked: a Config describes a model that runs.
type Config struct {
	Architecture string // a name of Architectures()

	HiddenSize            int
	IntermediateSize      int
	NumLayers             int
	NumHeads              int
	NumKVHeads            int // divides NumHeads
	HeadDim               int // even
	VocabSize             int // rows of the embedding; the tokenizer may have fewer ids
	MaxPositionEmbeddings int // positions the model was trained for; see MaxModelLen

	RMSNormEps float64
	RopeTheta  float64
	YaRN       *YaRN   // nil = none
	Llama3     *Llama3 // likewise; at most one of the two

	QKVBias           bool // q, k and v projections have a bias
	QKNorm            bool // an RMSNorm of each query and key head, before RoPE
	TieWordEmbeddings bool // the output head is the embedding

	EOSTokenIDs []int32 // may be empty
	BOSTokenID  *int32  // nil = none
}

// architecture is what an architecture name implies beyond the numbers.
type architecture struct {
	name      string // in "architectures"
	modelType string // in "model_type"
	qkvBias   bool   // unless attention_bias says otherwise
	outBias   bool   // attention_bias stands for the output projection's, too
	qkNorm    bool
	theta     float64 // rope_theta where the file gives none; 0 = it must
}

// architectures are the dense decoders that the weight table and the forward
// pass cover.
var architectures = []architecture{
	{name: "Qwen2ForCausalLM", modelType: "qwen2", qkvBias: true},
	{name: "Qwen3ForCausalLM", modelType: "qwen3", outBias: true, qkNorm: true},
	{name: llama, modelType: "llama", outBias: true, theta: 10000},
}

// llama is the architecture of Llama, and of many models of others.
const llama = "LlamaForCausalLM"

// Architectures names the supported architectures.
func Architectures() []string {
	names := make([]string, len(architectures))
	for i, a := range architectures {
		names[i] = a.name
	}
	return names
}

// Upper bounds of the dimensions, each several times that of the largest
// published dense model. Even with all of them at their maximum, parameters and
// KV bytes stay below 2⁵⁰, so sizes need no overflow checks after this point.
const (
	maxHidden       = 1 << 16
	maxIntermediate = 1 << 18
	maxLayers       = 1 << 10
	maxHeads        = 1 << 10
	maxHeadDim      = 1 << 9
	maxVocab        = 1 << 22
	maxPositions    = 1 << 24
)

// ConfigFile is the name of the configuration in a model directory.
const ConfigFile = "config.json"

// maxConfigBytes bounds the small JSON files; Qwen2.5's have 0.7 KB.
const maxConfigBytes = 1 << 20

// ReadConfig reads config.json of a model directory. What cannot run is refused
// with a *FileError that lists every problem.
func ReadConfig(dir string) (*Config, error) {
	d, err := openDirectory(dir)
	if err != nil {
		return nil, err
	}
	defer d.close()
	data, err := d.read(ConfigFile, maxConfigBytes)
	if err != nil {
		return nil, err
	}
	return ParseConfig(d.path(ConfigFile), data)
}

// ParseConfig is ReadConfig for the bytes of a file; name is for messages.
func ParseConfig(name string, data []byte) (*Config, error) {
	o, err := parseObject(name, data)
	if err != nil {
		return nil, err
	}
	var c Config
	arch := c.readArchitecture(o)
	c.HiddenSize = o.integer("hidden_size", 1, maxHidden)
	c.IntermediateSize = o.integer("intermediate_size", 1, maxIntermediate)
	c.NumLayers = o.integer("num_hidden_layers", 1, maxLayers)
	c.VocabSize = o.integer("vocab_size", 1, maxVocab)
	c.MaxPositionEmbeddings = o.integer("max_position_embeddings", 1, maxPositions)
	c.readHeads(o, arch)
	c.RMSNormEps = o.number("rms_norm_eps", 1e-12, 0.1)
	c.TieWordEmbeddings = o.optBoolean("tie_word_embeddings", false)
	c.readRope(o, arch.theta)
	c.readTokenIDs(o)
	refuseUnsupported(o, c.NumLayers)
	if err := o.errs.orNil(); err != nil {
		return nil, err
	}
	return &c, nil
}

// readArchitecture finds the supported architecture that the file names.
func (c *Config) readArchitecture(o *object) (a architecture) {
	if !o.require("architectures") {
		return a
	}
	names, ok := o.texts("architectures", 16)
	if !ok {
		return a
	}
	i := slices.IndexFunc(architectures, func(a architecture) bool { return slices.Contains(names, a.name) })
	if i < 0 {
		shown := make([]string, len(names))
		for i, name := range names {
			shown[i] = quote(name)
		}
		o.fail("architectures", "is [%s], supported: %s", strings.Join(shown, ", "), strings.Join(Architectures(), ", "))
		return a
	}
	a = architectures[i]
	c.Architecture = a.name
	c.QKNorm = a.qkNorm
	if c.QKVBias = o.optBoolean("attention_bias", a.qkvBias); c.QKVBias && a.outBias {
		o.fail("attention_bias", "is true, %s with a bias of the output projection is not supported", a.name)
	}
	if t, ok := o.optText("model_type"); ok && t != a.modelType {
		o.fail("model_type", "is %s, must be %s for %s", quote(t), a.modelType, a.name)
	}
	return a
}

// readHeads reads the attention heads. Without head_dim it is hidden_size /
// num_attention_heads.
func (c *Config) readHeads(o *object, a architecture) {
	c.NumHeads = o.integer("num_attention_heads", 1, maxHeads)
	if c.NumKVHeads = c.NumHeads; a.name != llama || o.has("num_key_value_heads") { // the first Llamas had no groups
		c.NumKVHeads = o.integer("num_key_value_heads", 1, maxHeads)
	}
	if a.qkNorm { // transformers has another default than hidden_size / heads
		o.require("head_dim")
	}
	if c.NumHeads > 0 && c.NumKVHeads > 0 && c.NumHeads%c.NumKVHeads != 0 {
		o.fail("num_key_value_heads", "is %d, must divide num_attention_heads, %d", c.NumKVHeads, c.NumHeads)
	}
	if o.has("head_dim") {
		c.HeadDim = o.integer("head_dim", 2, maxHeadDim)
		if c.HeadDim%2 != 0 {
			o.fail("head_dim", "is %d, must be even for RoPE", c.HeadDim)
		}
		return
	}
	if c.HiddenSize == 0 || c.NumHeads == 0 {
		return
	}
	if c.HiddenSize%c.NumHeads != 0 {
		o.fail("num_attention_heads", "is %d, must divide hidden_size, %d, when head_dim is absent", c.NumHeads, c.HiddenSize)
		return
	}
	c.HeadDim = c.HiddenSize / c.NumHeads
	if c.HeadDim%2 != 0 || c.HeadDim > maxHeadDim {
		o.fail("head_dim", "is hidden_size / num_attention_heads = %d, must be even (RoPE) and at most %d", c.HeadDim, maxHeadDim)
	}
}

func (c *Config) readTokenIDs(o *object) {
	if c.VocabSize == 0 {
		return
	}
	c.EOSTokenIDs = o.tokenIDs("eos_token_id", c.VocabSize)
	if ids := o.tokenIDs("bos_token_id", c.VocabSize); len(ids) > 0 {
		c.BOSTokenID = &ids[0]
	}
}

// refuseUnsupported fails fields that ask for something the forward pass does
// not do. Fields that only matter for training, or are unused while
// use_sliding_window is false, are merely checked for their type.
func refuseUnsupported(o *object, layers int) {
	if act, ok := o.optText("hidden_act"); ok && act != "silu" {
		o.fail("hidden_act", "is %s, only silu is supported", quote(act))
	} else if !ok {
		o.require("hidden_act")
	}
	slides := o.optBoolean("use_sliding_window", false)
	o.optInteger("sliding_window", 0, maxPositions)
	whole, ok := o.optInteger("max_window_layers", 0, maxLayers) // the first so many attend to everything
	if !ok {
		whole = 28 // transformers' default for Qwen2
	}
	if _, told := o.fields["layer_types"]; slides && !told && whole < layers {
		o.fail("use_sliding_window", "is true with max_window_layers %d of %d layers, sliding-window attention is not supported", whole, layers)
	}
	if types, ok := o.texts("layer_types", maxLayers); ok {
		if layers > 0 && len(types) != layers {
			o.fail("layer_types", "has %d elements, must have one a layer, %d", len(types), layers)
		}
		if i := slices.IndexFunc(types, func(t string) bool { return t != "full_attention" }); i >= 0 {
			o.fail("layer_types", "holds %s for layer %d, only full_attention is supported", quote(types[i]), i)
		}
	}
	if o.optBoolean("mlp_bias", false) {
		o.fail("mlp_bias", "is true, MLP projections with a bias are not supported")
	}
	if o.has("quantization_config") {
		o.fail("quantization_config", "quantized checkpoints are not supported, use the bfloat16, float16 or float32 one")
	}
	for _, field := range []string{"torch_dtype", "dtype"} {
		if t, ok := o.optText(field); ok && t != kernels.BF16.String() && t != kernels.FP16.String() && t != kernels.FP32.String() {
			o.fail(field, "is %s, supported: bfloat16, float16, float32", quote(t))
		}
	}
}

// Shape is what a kernels.Backend must know of the model. SampleVocab is left
// to the caller, who knows the tokenizer.
func (c *Config) Shape() kernels.Shape {
	return kernels.Shape{
		Layers: c.NumLayers, Hidden: c.HiddenSize, Intermediate: c.IntermediateSize,
		Heads: c.NumHeads, KVHeads: c.NumKVHeads, HeadDim: c.HeadDim, Vocab: c.VocabSize,
		RMSEps: float32(c.RMSNormEps), QKNorm: c.QKNorm, InvFreq: c.InvFreq(), RopeScale: c.AttentionScale(),
	}
}

// KVBytesPerToken is what one token takes in the KV cache, over all layers,
// keys and values in 16 bits.
func (c *Config) KVBytesPerToken() int64 {
	return 2 * int64(kernels.BF16.Size()) * int64(c.NumLayers) * int64(c.NumKVHeads) * int64(c.HeadDim)
}
