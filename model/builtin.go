package model

import "slices"

// dimensions are the numbers in which the published sizes of a family differ.
type dimensions struct {
	name                                                string
	hidden, intermediate, layers, heads, kvHeads, vocab int
	tied                                                bool
}

// qwen25 are the shapes of Qwen2.5 (Qwen team, "Qwen2.5 Technical Report",
// 2024, and the published config.json of the Instruct models).
var qwen25 = []dimensions{
	{"qwen2.5-0.5b", 896, 4864, 24, 14, 2, 151936, true},
	{"qwen2.5-1.5b", 1536, 8960, 28, 12, 2, 151936, true},
	{"qwen2.5-3b", 2048, 11008, 36, 16, 2, 151936, true},
	{"qwen2.5-7b", 3584, 18944, 28, 28, 4, 152064, false},
	{"qwen2.5-14b", 5120, 13824, 48, 40, 8, 152064, false},
	{"qwen2.5-32b", 5120, 27648, 64, 40, 8, 152064, false},
	{"qwen2.5-72b", 8192, 29568, 80, 64, 8, 152064, false},
}

// BuiltinShapes names the built-in shapes, smallest first.
func BuiltinShapes() []string {
	names := make([]string, len(qwen25))
	for i, d := range qwen25 {
		names[i] = d.name
	}
	return names
}

// BuiltinShape gives the configuration of a published model by name, for
// running its true shape with Dummy weights and without any file.
func BuiltinShape(name string) (*Config, bool) {
	i := slices.IndexFunc(qwen25, func(d dimensions) bool { return d.name == name })
	if i < 0 {
		return nil, false
	}
	d, bos := qwen25[i], int32(151643)
	return &Config{
		Architecture:          "Qwen2ForCausalLM",
		HiddenSize:            d.hidden,
		IntermediateSize:      d.intermediate,
		NumLayers:             d.layers,
		NumHeads:              d.heads,
		NumKVHeads:            d.kvHeads,
		HeadDim:               d.hidden / d.heads,
		VocabSize:             d.vocab,
		MaxPositionEmbeddings: 32768,
		RMSNormEps:            1e-6,
		RopeTheta:             1e6,
		QKVBias:               true,
		TieWordEmbeddings:     d.tied,
		EOSTokenIDs:           []int32{151645},
		BOSTokenID:            &bos,
	}, true
}
