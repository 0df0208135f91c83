package main

import (
	"context"
	"fmt"
	"math"
	"strings"

	"github.com/gomlx/gomlx/backends"
	"github.com/gomlx/gomlx/backends/simplego"
	g "github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/shapes"
	"github.com/gomlx/gomlx/pkg/core/tensors"
)

// headRows is how many rows of the output head are in memory at once.
const headRows = 16384

// reference is the forward pass of Qwen2, Qwen3 and Llama in float32 on gomlx's pure-Go backend:
// whole sequences, no KV cache, no paging, no batching. Layer by layer: the
// weights of one layer are read, applied to every sequence and dropped, so a
// model needs the memory of a layer, not of the whole.
type reference struct {
	cfg      *config
	weights  *checkpoint
	qkNorm   bool // query and key heads pass a norm, as in Qwen3
	backend  backends.Backend
	layer    *g.Exec // of layerGraph
	norm     *g.Exec // of normGraph
	head     *g.Exec // of headGraph
	progress func(stage string)
}

// openReference reads the headers of the model in dir. progress, which may be
// nil, is told what is being computed.
func openReference(dir string, progress func(stage string)) (*reference, error) {
	cfg, err := readConfig(dir)
	if err != nil {
		return nil, err
	}
	weights, err := openCheckpoint(dir)
	if err != nil {
		return nil, err
	}
	if progress == nil {
		progress = func(string) {}
	}
	qkNorm := weights.has("model.layers.0.self_attn.q_norm.weight")
	r := &reference{cfg: cfg, weights: weights, qkNorm: qkNorm, backend: simplego.GetBackend(), progress: progress}
	// One compilation for each sequence length, however many there are.
	const unlimited = -1
	r.layer = g.MustNewExec(r.backend, r.layerGraph).SetMaxCache(unlimited)
	r.norm = g.MustNewExec(r.backend, r.normGraph).SetMaxCache(unlimited)
	r.head = g.MustNewExec(r.backend, headGraph).SetMaxCache(unlimited)
	return r, nil
}

func (r *reference) close() {
	r.layer.Finalize()
	r.norm.Finalize()
	r.head.Finalize()
	r.weights.close()
}

// logits returns, for each sequence, the logits after every position, [len, vocab].
func (r *reference) logits(ctx context.Context, sequences [][]int32) ([][][]float32, error) {
	hidden := make([]*tensors.Tensor, len(sequences))
	rotations := make([][2]*tensors.Tensor, len(sequences))
	for i, ids := range sequences {
		var err error
		if hidden[i], err = r.embed(ids); err != nil {
			return nil, err
		}
		cos, sin := r.cfg.rotations(len(ids))
		rotations[i] = [2]*tensors.Tensor{
			tensors.FromFlatDataAndDimensions(cos, len(ids), 1, r.cfg.HeadDim/2),
			tensors.FromFlatDataAndDimensions(sin, len(ids), 1, r.cfg.HeadDim/2),
		}
	}
	for l := range r.cfg.Layers {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		r.progress(fmt.Sprintf("layer %d of %d", l+1, r.cfg.Layers))
		weights, err := r.layerWeights(l)
		if err != nil {
			return nil, err
		}
		for i := range hidden {
			args := append([]any{hidden[i], rotations[i][0], rotations[i][1]}, weights...)
			if hidden[i], err = r.layer.Exec1(args...); err != nil {
				return nil, fmt.Errorf("layer %d: %w", l, err)
			}
		}
	}
	return r.project(ctx, hidden)
}

// embed gathers the embeddings of ids, [len(ids), hidden].
func (r *reference) embed(ids []int32) (*tensors.Tensor, error) {
	var rows []float32
	for _, id := range ids {
		row, err := r.weights.readRows("model.embed_tokens.weight", int(id), int(id)+1, r.cfg.Vocab, r.cfg.Hidden)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row...)
	}
	return tensors.FromFlatDataAndDimensions(rows, len(ids), r.cfg.Hidden), nil
}

// project applies the final norm and the output head, a slice of the
// vocabulary at a time.
func (r *reference) project(ctx context.Context, hidden []*tensors.Tensor) ([][][]float32, error) {
	c := r.cfg
	norm, err := r.tensor("model.norm.weight", c.Hidden)
	if err != nil {
		return nil, err
	}
	logits := make([][][]float32, len(hidden))
	for i, h := range hidden {
		logits[i] = make([][]float32, h.Shape().Dimensions[0])
		if hidden[i], err = r.norm.Exec1(h, norm); err != nil {
			return nil, fmt.Errorf("final norm: %w", err)
		}
	}
	name := "lm_head.weight"
	if c.Tied {
		name = "model.embed_tokens.weight"
	}
	for from := 0; from < c.Vocab; from += headRows {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		to := min(from+headRows, c.Vocab)
		r.progress(fmt.Sprintf("head %d of %d", to, c.Vocab))
		rows, err := r.weights.readRows(name, from, to, c.Vocab, c.Hidden)
		if err != nil {
			return nil, err
		}
		w := tensors.FromFlatDataAndDimensions(rows, to-from, c.Hidden)
		for i, h := range hidden {
			out, err := r.head.Exec1(h, w)
			if err != nil {
				return nil, fmt.Errorf("head: %w", err)
			}
			flat, err := tensors.CopyFlatData[float32](out)
			if err != nil {
				return nil, err
			}
			for p := range logits[i] {
				logits[i][p] = append(logits[i][p], flat[p*(to-from):(p+1)*(to-from)]...)
			}
		}
	}
	return logits, nil
}

func (r *reference) tensor(name string, shape ...int) (*tensors.Tensor, error) {
	values, err := r.weights.read(name, shape...)
	if err != nil {
		return nil, err
	}
	return tensors.FromFlatDataAndDimensions(values, shape...), nil
}

// layerWeights reads the weights of a layer in the order that layerGraph takes
// them. Without a q, k and v bias in the checkpoint it is zero.
func (r *reference) layerWeights(l int) ([]any, error) {
	c := r.cfg
	q, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	prefix := fmt.Sprintf("model.layers.%d.", l)
	var out []any
	type weight struct {
		name  string
		shape []int
	}
	list := []weight{
		{"input_layernorm.weight", []int{c.Hidden}},
		{"self_attn.q_proj.weight", []int{q, c.Hidden}}, {"self_attn.q_proj.bias", []int{q}},
		{"self_attn.k_proj.weight", []int{kv, c.Hidden}}, {"self_attn.k_proj.bias", []int{kv}},
		{"self_attn.v_proj.weight", []int{kv, c.Hidden}}, {"self_attn.v_proj.bias", []int{kv}},
		{"self_attn.o_proj.weight", []int{c.Hidden, q}},
		{"post_attention_layernorm.weight", []int{c.Hidden}},
		{"mlp.gate_proj.weight", []int{c.Intermediate, c.Hidden}}, {"mlp.up_proj.weight", []int{c.Intermediate, c.Hidden}},
		{"mlp.down_proj.weight", []int{c.Hidden, c.Intermediate}},
	}
	if r.qkNorm {
		list = append(list, weight{"self_attn.q_norm.weight", []int{c.HeadDim}}, weight{"self_attn.k_norm.weight", []int{c.HeadDim}})
	}
	for _, w := range list {
		name := prefix + w.name
		if strings.HasSuffix(name, ".bias") && !r.weights.has(name) {
			out = append(out, tensors.FromFlatDataAndDimensions(make([]float32, w.shape[0]), w.shape...))
			continue
		}
		t, err := r.tensor(name, w.shape...)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

// layerGraph is a decoder layer (Yang et al., "Qwen2 Technical Report", 2024):
//
//	x += attention(rmsnorm(x));  x += mlp(rmsnorm(x))
//
// Its inputs are x [n, hidden], cos and sin [n, 1, headDim/2] and the weights
// in the order of layerWeights, linear ones as [out, in].
func (r *reference) layerGraph(in []*g.Node) *g.Node {
	x, cos, sin, w := in[0], in[1], in[2], in[3:]
	normed := r.normGraph(x, w[0])
	q := g.Add(linear(normed, w[1]), g.InsertAxes(w[2], 0))
	k := g.Add(linear(normed, w[3]), g.InsertAxes(w[4], 0))
	v := g.Add(linear(normed, w[5]), g.InsertAxes(w[6], 0))
	x = g.Add(x, linear(r.attention(q, k, v, cos, sin, w[12:]), w[7]))
	normed = r.normGraph(x, w[8])
	gate := linear(normed, w[9])
	return g.Add(x, linear(g.Mul(g.Mul(gate, g.Logistic(gate)), linear(normed, w[10])), w[11]))
}

// attention is causal grouped-query attention: query head h reads KV head
// h / (heads/kvHeads). q: [n, heads·headDim]; k, v: [n, kvHeads·headDim].
// norms are those of query and key heads, before RoPE, or none.
func (r *reference) attention(q, k, v, cos, sin *g.Node, norms []*g.Node) *g.Node {
	n, d, heads, kvHeads := q.Shape().Dimensions[0], r.cfg.HeadDim, r.cfg.Heads, r.cfg.KVHeads
	group := heads / kvHeads
	q, k = g.Reshape(q, n, heads, d), g.Reshape(k, n, kvHeads, d)
	if len(norms) > 0 {
		q, k = r.normGraph(q, g.InsertAxes(norms[0], 0)), r.normGraph(k, g.InsertAxes(norms[1], 0))
	}
	q = g.Reshape(rotate(q, cos, sin), n, kvHeads, group, d)
	k = rotate(k, cos, sin)
	v = g.Reshape(v, n, kvHeads, d)

	scores := g.MulScalar(g.Einsum("tkgd,skd->kgts", q, k), 1/math.Sqrt(float64(d)))
	square := shapes.Make(scores.DType(), n, n)
	visible := g.GreaterOrEqual(g.Iota(q.Graph(), square, 0), g.Iota(q.Graph(), square, 1)) // [t, s]: s ≤ t
	visible = g.BroadcastToDims(g.InsertAxes(visible, 0, 0), kvHeads, group, n, n)
	weights := g.MaskedSoftmax(scores, visible, -1)
	return g.Reshape(g.Einsum("kgts,skd->tkgd", weights, v), n, heads*d)
}

// rotate applies RoPE to x, [n, heads, headDim], in pairs (i, i + headDim/2).
func rotate(x, cos, sin *g.Node) *g.Node {
	half := x.Shape().Dimensions[2] / 2
	a := g.Slice(x, g.AxisRange(), g.AxisRange(), g.AxisRange(0, half))
	b := g.Slice(x, g.AxisRange(), g.AxisRange(), g.AxisRange(half))
	return g.Concatenate([]*g.Node{
		g.Sub(g.Mul(a, cos), g.Mul(b, sin)),
		g.Add(g.Mul(b, cos), g.Mul(a, sin)),
	}, -1)
}

// normGraph is RMSNorm: x / sqrt(mean(x²) + eps) · w over the last axis.
func (r *reference) normGraph(x, w *g.Node) *g.Node {
	mean := g.ReduceAndKeep(g.Mul(x, x), g.ReduceMean, -1)
	return g.Mul(g.Mul(x, g.Rsqrt(g.AddScalar(mean, r.cfg.Eps))), g.InsertAxes(w, 0))
}

// headGraph projects hidden states, [n, hidden], on rows of the head.
func headGraph(x, w *g.Node) *g.Node { return linear(x, w) }

// linear is x·wᵀ.
func linear(x, w *g.Node) *g.Node { return g.Einsum("ti,oi->to", x, w) }
