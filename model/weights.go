package model

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pagoda-engine/pagoda/kernels"
)

// The weight table: which tensors an architecture has, and how they are fused
// into the weights that the forward pass uses. An architecture that differs
// from Qwen2 in biases, norms of heads or tying is a line of architectures; one with further
// tensors is a line here and a field of Config that guards it.

// tensorSpec is a tensor that a Config calls for.
type tensorSpec struct {
	name  string // in the checkpoint
	shape []int
}

// loadKind says which method of kernels.Loader takes a weight.
type loadKind int

const (
	loadEmbedding loadKind = iota
	loadNorm
	loadLinear
)

// weightSpec is one weight on the device: tensors that are loaded as one.
type weightSpec struct {
	load   loadKind
	linear kernels.LinearKind // when load is loadLinear
	parts  []tensorSpec       // rows one below the other
	bias   []tensorSpec       // one a part, or none
	qkNorm []tensorSpec       // of query and key heads, or none
}

// tensors lists what the weight is made of.
func (w *weightSpec) tensors() []tensorSpec { return slices.Concat(w.parts, w.bias, w.qkNorm) }

// The weights of a layer, in the order of the forward pass.
const (
	attnNorm = iota
	attnQKV
	attnOut
	mlpNorm
	mlpGateUp
	mlpDown
	numLayerWeights
)

// layerTable gives the weights of layer i.
func (c *Config) layerTable(i int) [numLayerWeights]weightSpec {
	queries, keys := c.NumHeads*c.HeadDim, c.NumKVHeads*c.HeadDim
	tensor := func(name string, shape ...int) tensorSpec {
		return tensorSpec{"model.layers." + strconv.Itoa(i) + "." + name, shape}
	}
	norm := func(name string) weightSpec {
		return weightSpec{load: loadNorm, parts: []tensorSpec{tensor(name, c.HiddenSize)}}
	}
	linear := func(kind kernels.LinearKind, parts ...tensorSpec) weightSpec {
		return weightSpec{load: loadLinear, linear: kind, parts: parts}
	}
	table := [numLayerWeights]weightSpec{
		attnNorm: norm("input_layernorm.weight"),
		attnQKV: linear(kernels.LinearQKV,
			tensor("self_attn.q_proj.weight", queries, c.HiddenSize),
			tensor("self_attn.k_proj.weight", keys, c.HiddenSize),
			tensor("self_attn.v_proj.weight", keys, c.HiddenSize)),
		attnOut: linear(kernels.LinearPlain, tensor("self_attn.o_proj.weight", c.HiddenSize, queries)),
		mlpNorm: norm("post_attention_layernorm.weight"),
		mlpGateUp: linear(kernels.LinearGateUp,
			tensor("mlp.gate_proj.weight", c.IntermediateSize, c.HiddenSize),
			tensor("mlp.up_proj.weight", c.IntermediateSize, c.HiddenSize)),
		mlpDown: linear(kernels.LinearDown, tensor("mlp.down_proj.weight", c.HiddenSize, c.IntermediateSize)),
	}
	if c.QKVBias {
		table[attnQKV].bias = []tensorSpec{
			tensor("self_attn.q_proj.bias", queries),
			tensor("self_attn.k_proj.bias", keys),
			tensor("self_attn.v_proj.bias", keys),
		}
	}
	if c.QKNorm {
		table[attnQKV].qkNorm = []tensorSpec{tensor("self_attn.q_norm.weight", c.HeadDim), tensor("self_attn.k_norm.weight", c.HeadDim)}
	}
	return table
}

const headName = "lm_head.weight"

func (c *Config) embeddingSpec() weightSpec {
	return weightSpec{load: loadEmbedding, parts: []tensorSpec{{"model.embed_tokens.weight", []int{c.VocabSize, c.HiddenSize}}}}
}

func (c *Config) finalNormSpec() weightSpec {
	return weightSpec{load: loadNorm, parts: []tensorSpec{{"model.norm.weight", []int{c.HiddenSize}}}}
}

// headSpec is the output head; a tied model has none of its own.
func (c *Config) headSpec() weightSpec {
	return weightSpec{load: loadLinear, linear: kernels.LinearHead, parts: []tensorSpec{{headName, []int{c.VocabSize, c.HiddenSize}}}}
}

// weightTable lists every weight of the model in the order of loading:
// embedding, layers, final norm, and the head unless it is tied.
func (c *Config) weightTable() []weightSpec {
	table := []weightSpec{c.embeddingSpec()}
	for i := range c.NumLayers {
		layer := c.layerTable(i)
		table = append(table, layer[:]...)
	}
	table = append(table, c.finalNormSpec())
	if !c.TieWordEmbeddings {
		table = append(table, c.headSpec())
	}
	return table
}

func elements(shape []int) int64 {
	n := int64(1)
	for _, d := range shape {
		n *= int64(d)
	}
	return n
}

// Parameters counts the model's parameters; a tied head counts once.
func (c *Config) Parameters() int64 {
	var n int64
	for _, w := range c.weightTable() {
		for _, t := range w.tensors() {
			n += elements(t.shape)
		}
	}
	return n
}

// WeightBytes is the size of the weights in bfloat16. A backend's packing may
// add to it: Model.WeightBytes is what they take once loaded.
func (c *Config) WeightBytes() int64 { return c.Parameters() * int64(kernels.BF16.Size()) }

// check matches the checkpoint against the weight table: every missing,
// misshapen or surplus tensor in one error. The notes say what was ignored or
// will be rounded. Files that changed since they were opened are refused first.
func (c *Checkpoint) check(cfg *Config) (notes []string, err error) {
	for _, f := range c.files {
		if err := f.unchanged(); err != nil {
			return nil, err
		}
	}
	errs := &FileError{File: c.path}
	wanted := make(map[string]bool)
	stored := make(map[kernels.DType]int)
	for _, w := range cfg.weightTable() {
		for _, spec := range w.tensors() {
			wanted[spec.name] = true
			t, ok := c.tensors[spec.name]
			if !ok {
				errs.add(spec.name, "missing, want shape %s%s", shapeText(spec.shape), missingHint(spec.name))
				continue
			}
			if !slices.Equal(t.shape, spec.shape) {
				errs.add(spec.name, "has shape %s, want %s", shapeText(t.shape), shapeText(spec.shape))
			}
			dtype, ok := hostTypes[t.dtype]
			if !ok {
				errs.add(spec.name, "has dtype %s, supported: BF16, F16, F32", t.dtype)
			}
			stored[dtype]++
		}
	}
	var surplus []string
	for name := range c.tensors {
		switch {
		case wanted[name] || strings.HasSuffix(name, ".rotary_emb.inv_freq"): // a buffer of old checkpoints, recomputed from rope_theta
		case name == headName && cfg.TieWordEmbeddings: // transformers ignores it, too
			notes = append(notes, fmt.Sprintf("%s: %s is ignored, the embedding is the head (tie_word_embeddings)", c.path, headName))
		default:
			surplus = append(surplus, name)
		}
	}
	slices.Sort(surplus)
	for _, name := range surplus {
		errs.add(quote(name), "is not a tensor of this %s model", cfg.Architecture)
	}
	errs.Problems = groupLayers(errs.Problems)
	for _, dtype := range []kernels.DType{kernels.FP16, kernels.FP32} {
		if n := stored[dtype]; n > 0 {
			notes = append(notes, fmt.Sprintf("%s: %d of %d tensors are %s, rounded to bfloat16", c.path, n, len(wanted), dtype))
		}
	}
	return notes, errs.orNil()
}

func missingHint(name string) string {
	if name == headName {
		return "; a tied model has tie_word_embeddings true in config.json"
	}
	return ""
}

func shapeText(shape []int) string {
	return strings.ReplaceAll(fmt.Sprint(shape), " ", ", ")
}

var layerName = regexp.MustCompile(`^(model\.layers\.)(\d{1,9})(\..+)$`)

// groupLayers merges problems that only differ in the layer, so that a tensor
// missing from all 80 layers is one line: model.layers.{0-79}.….
func groupLayers(problems []Problem) []Problem {
	type key struct{ suffix, reason string }
	var grouped []Problem
	layers, at := make(map[key][]int), make(map[key]int)
	for _, p := range problems {
		m := layerName.FindStringSubmatch(p.Field)
		if m == nil {
			grouped = append(grouped, p)
			continue
		}
		k := key{m[3], p.Reason}
		if _, ok := at[k]; !ok {
			at[k] = len(grouped)
			grouped = append(grouped, p)
		}
		n, _ := strconv.Atoi(m[2]) // at most nine digits
		layers[k] = append(layers[k], n)
	}
	for k, i := range at {
		if list := layers[k]; len(list) > 1 {
			grouped[i].Field = "model.layers.{" + ranges(list) + "}" + k.suffix
		}
	}
	return grouped
}

// ranges writes integers as 0-3,7.
func ranges(list []int) string {
	slices.Sort(list)
	var b strings.Builder
	for i := 0; i < len(list); {
		j := i
		for j+1 < len(list) && list[j+1] == list[j]+1 {
			j++
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(list[i]))
		if j > i {
			fmt.Fprintf(&b, "-%d", list[j])
		}
		i = j + 1
	}
	return b.String()
}
