package kernelstest

import (
	"fmt"

	"github.com/pagoda-engine/pagoda/kernels"
)

// miniModel is the weights, by load index, of a model of two layers.
type miniModel struct {
	embed, norm, head int
	layers            []miniLayer
}

type miniLayer struct{ norm1, qkv, out, norm2, gateUp, down int }

// loadMini loads a random model; its logits have a deviation of about 8.
func (p *pair) loadMini(name string, tied bool) miniModel {
	s := p.shape
	table := fanIn(name+"embed", s.Vocab, s.Hidden)
	table.Scale *= 8
	m := miniModel{embed: p.embedding(table, tied), norm: p.norm(normWeight(name+"norm", s.Hidden))}
	if m.head = m.embed; !tied {
		head := fanIn(name+"head", s.Vocab, s.Hidden)
		head.Scale *= 8
		m.head = p.linear(kernels.LinearHead, head)
	}
	for i := range s.Layers {
		prefix := fmt.Sprintf("%slayers.%d.", name, i)
		m.layers = append(m.layers, miniLayer{
			norm1: p.norm(normWeight(prefix+"norm1", s.Hidden)),
			qkv: p.load(func(b kernels.Backend) (kernels.Weight, error) {
				return b.LoadLinear(qkvSpec(s, prefix, true))
			}),
			out:   p.linear(kernels.LinearPlain, fanIn(prefix+"out", s.Hidden, s.Heads*s.HeadDim)),
			norm2: p.norm(normWeight(prefix+"norm2", s.Hidden)),
			gateUp: p.linear(kernels.LinearGateUp,
				fanIn(prefix+"gate", s.Intermediate, s.Hidden), fanIn(prefix+"up", s.Intermediate, s.Hidden)),
			down: p.linear(kernels.LinearDown, fanIn(prefix+"down", s.Hidden, s.Intermediate)),
		})
	}
	return m
}

// forward is the pass that package model makes.
func (m miniModel) forward(b kernels.Backend, w []kernels.Weight) {
	b.Embed(w[m.embed])
	for i, layer := range m.layers {
		b.RMSNorm(w[layer.norm1])
		b.QKV(i, w[layer.qkv])
		if i == len(m.layers)-1 {
			b.KeepLogitRows()
		}
		b.PagedAttention(i)
		b.Linear(w[layer.out], kernels.Attn)
		b.RMSNorm(w[layer.norm2])
		b.GateUp(w[layer.gateUp])
		b.Linear(w[layer.down], kernels.MLP)
	}
	b.Head(w[m.norm], w[m.head])
}

// miniSequence is a request of the forward cases.
type miniSequence struct {
	prompt   []int32
	computed int
	tokens   []int32 // drawn, as far as they were waited for
	sampling kernels.Sampling
}

// miniStep is, by sequence, the number of tokens that a step computes.
type miniStep []int

// generate runs the steps, two in flight, and leaves the drawn tokens in the
// sequences. Row i, with its whole table, belongs to sequence i.
func (m miniModel) generate(b kernels.Backend, w []kernels.Weight, sequences []*miniSequence, steps []miniStep) error {
	type pending struct {
		ticket kernels.Ticket
		owners []*miniSequence
	}
	var inFlight []pending
	collect := func() error {
		first := inFlight[0]
		inFlight = inFlight[1:]
		res, err := b.Wait(first.ticket)
		if err != nil {
			return err
		}
		for i, s := range first.owners {
			s.tokens = append(s.tokens, res.Tokens[i])
		}
		return nil
	}
	for _, step := range steps {
		batch, sample, owners := assemble(sequences, step)
		b.Launch(batch, func() { m.forward(b, w) })
		inFlight = append(inFlight, pending{b.Sample(sample), owners})
		if len(inFlight) == 2 {
			if err := collect(); err != nil {
				return err
			}
		}
	}
	return collect()
}

// assemble makes a step's batches, decodes first, and advances the sequences.
// Tokens past a prompt are FromDevice.
func assemble(sequences []*miniSequence, step miniStep) (*kernels.Batch, *kernels.SampleBatch, []*miniSequence) {
	b, sample := &kernels.Batch{QueryStart: []int32{0}}, &kernels.SampleBatch{}
	var owners []*miniSequence
	for _, decode := range []bool{true, false} {
		for i, n := range step {
			if n == 0 || (n == 1) != decode {
				continue
			}
			s := sequences[i]
			for at := s.computed; at < s.computed+n; at++ {
				id := kernels.FromDevice
				if at < len(s.prompt) {
					id = s.prompt[at]
				}
				b.Tokens = append(b.Tokens, id)
			}
			s.computed += n
			end := int32(len(b.Tokens))
			b.Rows = append(b.Rows, int32(i))
			b.QueryStart = append(b.QueryStart, end)
			b.SeqLens = append(b.SeqLens, int32(s.computed))
			if decode {
				b.NumDecodes++
			}
			if s.computed >= len(s.prompt) {
				sample.Index = append(sample.Index, int32(len(b.LogitRows)))
				sample.Rows = append(sample.Rows, int32(i))
				sample.Positions = append(sample.Positions, int32(s.computed))
				b.LogitRows = append(b.LogitRows, end-1)
				owners = append(owners, s)
			}
		}
	}
	return b, sample, owners
}
