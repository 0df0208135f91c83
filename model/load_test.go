package model

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

func (r *recorder) call(format string, args ...any) {
	r.calls = append(r.calls, fmt.Sprintf(format, args...))
}
func name(w kernels.Weight) string { return w.(loaded).names[0] }

func (r *recorder) Launch(b *kernels.Batch, forward func()) {
	r.call("launch %d", b.NumTokens())
	forward()
}
func (r *recorder) Embed(w kernels.Weight)          { r.call("embed %s", name(w)) }
func (r *recorder) RMSNorm(w kernels.Weight)        { r.call("norm %s", name(w)) }
func (r *recorder) QKV(layer int, w kernels.Weight) { r.call("qkv %d %s", layer, name(w)) }
func (r *recorder) KeepLogitRows()                  { r.call("keep") }
func (r *recorder) PagedAttention(layer int)        { r.call("attention %d", layer) }
func (r *recorder) GateUp(w kernels.Weight)         { r.call("gate_up %s", name(w)) }
func (r *recorder) Head(norm, w kernels.Weight)     { r.call("head %s %s", name(norm), name(w)) }
func (r *recorder) Linear(w kernels.Weight, src kernels.Activation) {
	r.call("linear %s %d", name(w), src)
}

func openTiny(t *testing.T, tensors []stored) *Checkpoint {
	ck, err := OpenCheckpoint(write(t, map[string][]byte{SingleFile: encode(tensors)}))
	require.NoError(t, err)
	t.Cleanup(func() { ck.Close() })
	return ck
}

// TestLoadEndsWithProgress: an error of progress ends the loading where it is.
func TestLoadEndsWithProgress(t *testing.T) {
	c, r, enough := tinyConfig(t, true), &recorder{}, errors.New("enough")
	_, err := Load(r, c, openTiny(t, tinyTensors(c, "BF16")), func(int64, int64) error { return enough })
	require.ErrorIs(t, err, enough)
	require.Len(t, r.loaded, 1)
}

// TestFileEndsWhileLoading: a backend that cannot read a matrix is the file's fault.
func TestFileEndsWhileLoading(t *testing.T) {
	c := tinyConfig(t, true)
	dir := write(t, map[string][]byte{SingleFile: encode(tinyTensors(c, "BF16"))})
	ck, err := OpenCheckpoint(dir)
	require.NoError(t, err)
	defer ck.Close()
	path, cut := filepath.Join(dir, SingleFile), "model.layers.0.self_attn.q_proj.weight"
	_, err = Load(&recorder{files: true}, c, ck, func(int64, int64) error { return os.Truncate(path, ck.tensors[cut].begin) })
	require.Contains(t, requireProblem(t, err, path, cut).Reason, "truncated while in use")
}

// TestPartEndsWhileLoading: of a weight whose parts lie in two files, the one that cannot
// be read is blamed.
func TestPartEndsWhileLoading(t *testing.T) {
	c := tinyConfig(t, true)
	names, cut := []string{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}, "model.layers.0.self_attn.v_proj.weight"
	var parts [2][]stored
	index := map[string]string{}
	for _, s := range tinyTensors(c, "BF16") {
		at := 0
		if s.name == cut {
			at = 1
		}
		parts[at], index[s.name] = append(parts[at], s), names[at]
	}
	dir := write(t, map[string][]byte{names[0]: encode(parts[0]), names[1]: encode(parts[1]), IndexFile: encodeIndex(t, index)})
	ck, err := OpenCheckpoint(dir)
	require.NoError(t, err)
	defer ck.Close()
	path := filepath.Join(dir, names[1])
	_, err = Load(&recorder{files: true}, c, ck, func(int64, int64) error { return os.Truncate(path, ck.tensors[cut].begin) })
	requireProblem(t, err, path, cut)
}

func TestLoadGivesEveryWeightOnce(t *testing.T) {
	for _, tied := range []bool{false, true} {
		for _, dtype := range []string{"BF16", "F16", "F32"} {
			c := tinyConfig(t, tied)
			r := &recorder{files: dtype != "F16"}
			var steps []int64
			var total int64
			m, err := Load(r, c, openTiny(t, tinyTensors(c, dtype)), func(done, all int64) error {
				steps, total = append(steps, done), all
				return nil
			})
			require.NoError(t, err)

			var kinds, names []string
			next := 0
			for _, w := range r.loaded {
				kinds = append(kinds, w.kind)
				names = append(names, w.names...)
			}
			layer := []string{"norm", "qkv", "linear", "norm", "gate_up", "down"}
			want := slices.Concat([]string{"embedding"}, layer, layer, []string{"norm", "head"})
			if tied {
				want = slices.Concat([]string{"tied embedding"}, layer, layer, []string{"norm"})
			}
			require.Equal(t, want, kinds)
			for _, w := range r.loaded { // in table order, so tensor i has the values of index i
				i := 0
				for range w.names {
					n := int(elements(tinyTensors(c, dtype)[next].shape))
					for j := range n {
						require.Equal(t, tinyValue(next, j), w.values[i+j], names[next])
					}
					i, next = i+n, next+1
				}
			}
			require.Equal(t, len(tinyTensors(c, dtype)), next)
			require.True(t, slices.IsSorted(steps))
			require.Equal(t, total, steps[len(steps)-1])
			require.Equal(t, c.Parameters(), m.WeightBytes(), "recorder counts elements")
			switch dtype {
			case "BF16":
				require.Empty(t, m.Notes)
				require.Equal(t, c.WeightBytes(), total)
			case "F16":
				require.Len(t, m.Notes, 1)
				require.Contains(t, m.Notes[0], "float16, rounded to bfloat16")
			case "F32":
				require.Contains(t, m.Notes[0], "float32, rounded to bfloat16")
			}
		}
	}
}

func TestForward(t *testing.T) {
	for _, tied := range []bool{false, true} {
		c := tinyConfig(t, tied)
		r := &recorder{}
		m, err := Load(r, c, Dummy{}, nil)
		require.NoError(t, err)
		m.Forward(&kernels.Batch{Tokens: []int32{1, 2, 3}})
		want := []string{"launch 3", "embed model.embed_tokens.weight"}
		for i := range 2 {
			p := fmt.Sprintf("model.layers.%d.", i)
			want = append(want,
				"norm "+p+"input_layernorm.weight",
				fmt.Sprintf("qkv %d %sself_attn.q_proj.weight", i, p))
			if i == 1 {
				want = append(want, "keep")
			}
			want = append(want,
				fmt.Sprintf("attention %d", i),
				fmt.Sprintf("linear %sself_attn.o_proj.weight %d", p, kernels.Attn),
				"norm "+p+"post_attention_layernorm.weight",
				"gate_up "+p+"mlp.gate_proj.weight",
				fmt.Sprintf("linear %smlp.down_proj.weight %d", p, kernels.MLP))
		}
		head := "lm_head.weight"
		if tied {
			head = "model.embed_tokens.weight"
		}
		require.Equal(t, append(want, "head model.norm.weight "+head), r.calls)
	}
}

func TestForwardAllocatesNothing(t *testing.T) {
	m, err := Load(&recorder{}, tinyConfig(t, true), Dummy{}, nil)
	require.NoError(t, err)
	launches := &launchOnly{}
	m.backend = launches
	b := &kernels.Batch{}
	require.Zero(t, testing.AllocsPerRun(100, func() { m.Forward(b) }))
	require.Positive(t, launches.n)
}

type launchOnly struct {
	kernels.Backend
	n int
}

func (l *launchOnly) Launch(*kernels.Batch, func()) { l.n++ }

func TestDummy(t *testing.T) {
	c := tinyConfig(t, false)
	r := &recorder{}
	_, err := Load(r, c, Dummy{Seed: 1}, nil)
	require.NoError(t, err)
	seeds := make(map[uint64]bool)
	var count int
	for _, w := range r.loaded {
		require.Empty(t, w.values)
		for _, h := range w.dummy {
			count++
			seeds[h.Seed] = true
			if w.kind == "norm" {
				require.Zero(t, h.Scale)
				require.Equal(t, float32(1), h.Offset)
			} else {
				require.InDelta(t, 0.0346, h.Scale, 1e-4)
				require.Zero(t, h.Offset)
			}
		}
	}
	require.Len(t, seeds, count, "every tensor has its own values")
	again := &recorder{}
	_, err = Load(again, c, Dummy{Seed: 1}, nil)
	require.NoError(t, err)
	require.Equal(t, r.loaded, again.loaded)
	_, err = Load(again, c, Dummy{Seed: 2}, nil)
	require.NoError(t, err)
	require.NotEqual(t, r.loaded[0].dummy[0].Seed, again.loaded[len(r.loaded)].dummy[0].Seed)
}

func TestLoadReportsTheBackendsError(t *testing.T) {
	c := tinyConfig(t, false)
	r := &recorder{fail: "model.layers.1.self_attn.k_proj.bias"}
	_, err := Load(r, c, Dummy{}, nil)
	require.ErrorContains(t, err, "model.layers.1.self_attn.q_proj.weight")
	require.Len(t, r.loaded, 1+numLayerWeights+1, "nothing is loaded after the first error")
}

func TestCheckListsAllFaults(t *testing.T) {
	c := tinyConfig(t, false)
	var tensors []stored
	for _, s := range tinyTensors(c, "BF16") {
		switch {
		case strings.HasSuffix(s.name, "k_proj.bias"): // missing from all layers
		case s.name == "model.layers.1.mlp.up_proj.weight":
		case s.name == "lm_head.weight":
		case s.name == "model.norm.weight":
			tensors = append(tensors, stored{s.name, "BF16", []int{4, 2}, s.data})
		case s.name == "model.layers.0.self_attn.o_proj.weight":
			tensors = append(tensors, stored{s.name, "I16", s.shape, s.data})
		default:
			tensors = append(tensors, s)
		}
	}
	tensors = append(tensors, stored{"model.layers.0.self_attn.rotary_emb.inv_freq", "F32", []int{2}, make([]byte, 8)},
		stored{"model.layers.0.self_attn.q_norm.weight", "BF16", []int{4}, make([]byte, 8)},
		stored{"model.layers.2.mlp.up_proj.weight", "BF16", []int{4}, make([]byte, 8)})
	ck := openTiny(t, tensors)
	_, err := Load(&recorder{}, c, ck, nil)
	var fe *FileError
	require.ErrorAs(t, err, &fe)
	require.Equal(t, SingleFile, filepath.Base(fe.File))
	require.Equal(t, []Problem{
		{"model.layers.{0-1}.self_attn.k_proj.bias", "missing, want shape [4]"},
		{"model.layers.0.self_attn.o_proj.weight", "has dtype I16, supported: BF16, F16, F32"},
		{"model.layers.1.mlp.up_proj.weight", "missing, want shape [12, 8]"},
		{"model.norm.weight", "has shape [4, 2], want [8]"},
		{"lm_head.weight", "missing, want shape [16, 8]; a tied model has tie_word_embeddings true in config.json"},
		{"model.layers.0.self_attn.q_norm.weight", "is not a tensor of this Qwen2ForCausalLM model"},
		{"model.layers.2.mlp.up_proj.weight", "is not a tensor of this Qwen2ForCausalLM model"},
	}, fe.Problems)
}

func TestTiedModelIgnoresAHead(t *testing.T) {
	untied, tied := tinyConfig(t, false), tinyConfig(t, true)
	m, err := Load(&recorder{}, tied, openTiny(t, tinyTensors(untied, "BF16")), nil)
	require.NoError(t, err)
	require.Len(t, m.Notes, 1)
	require.Contains(t, m.Notes[0], "lm_head.weight is ignored")
}

func TestWithoutBias(t *testing.T) {
	c := tinyConfig(t, true)
	with := c.Parameters()
	c.QKVBias = false
	require.Equal(t, with-2*(8+4+4), c.Parameters())
	r := &recorder{}
	_, err := Load(r, c, openTiny(t, tinyTensors(c, "BF16")), nil)
	require.NoError(t, err)
	require.Len(t, r.loaded[2].names, 3)
}

func TestRanges(t *testing.T) {
	require.Equal(t, "0-3,7", ranges([]int{3, 0, 7, 1, 2}))
	require.Equal(t, "5", ranges([]int{5}))
	require.Equal(t, "1,3,5-6", ranges([]int{6, 5, 3, 1}))
}
