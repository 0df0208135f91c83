package bench

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/kernels"
)

//go:embed peers.json
var peersSource []byte

// peerFigures are another engine's figures, how they were measured, and what is
// wanted of ours beside them.
type peerFigures struct {
	Peer     string       `json:"peer"`
	Card     string       `json:"card"` // the figures' and the ceilings'
	How      string       `json:"how"`
	Ceilings peerCeilings `json:"ceilings"` // measured on that card
	Wanted   struct {
		HostUs       float64 `json:"host_us"` // of a decode step, at most
		GPUIdle      float64 `json:"gpu_idle"`
		SwapRate     float64 `json:"swap_gb_per_second"` // each way, at least
		SwapSlowdown float64 `json:"swap_slowdown"`      // of decode beside it, at most
	} `json:"wanted"`
	Models   []peerModel `json:"models"`
	Requests struct {
		From   string `json:"from"`
		Prompt []int  `json:"prompt"` // tokens of each
		Output []int  `json:"output"`
	} `json:"requests"`
}

// peerModel has the figures of a shape.
type peerModel struct {
	Name               string       `json:"name"`
	Layers             int          `json:"layers"`
	LayerFLOPsPerToken int64        `json:"layer_flops_per_token"`
	HeadFLOPs          int64        `json:"head_flops"`
	KVBytesPerToken    int64        `json:"kv_bytes_per_token"`
	Rows               []peerFigure `json:"rows"`
}

// peerFigure is one row's: the peer's value in the row's unit, 0 = not measured, and
// what is wanted of ours, 0 = nothing.
type peerFigure struct {
	Row   string  `json:"row"`
	At    int     `json:"at"`
	Value float64 `json:"value"`
	Text  string  `json:"text"` // instead of the value, in tables

	Times float64 `json:"times"` // as fast as the peer, at least
	Share float64 `json:"share"` // of the floor, at least
	Most  float64 `json:"most"`  // in the row's unit
	Least float64 `json:"least"` // likewise
}

// peerCeilings are what a card can do at most.
type peerCeilings struct {
	Read      float64 `json:"read_bytes_per_second"`
	FLOPs     float64 `json:"flops_per_second"`           // of large products
	Attention float64 `json:"attention_flops_per_second"` // of long prompts

	// A kernel in a chain that reads bytes which are in no cache takes Kernel seconds and, for each byte, 1 / ColdRead;
	// 0 = not measured.
	Kernel   float64 `json:"kernel_seconds"`
	ColdRead float64 `json:"cold_read_bytes_per_second"`
}

// vLLM's figures, which are in the binary.
func readPeerFigures() *peerFigures {
	f := new(peerFigures)
	if err := json.Unmarshal(peersSource, f); err != nil {
		panic(fmt.Sprintf("bench: peers.json: %v", err)) // a test reads it
	}
	return f
}

// PeerModels are the models that Peers has another engine's figures of, by the names
// of their built-in shapes.
func PeerModels() []string {
	var names []string
	for _, m := range readPeerFigures().Models {
		names = append(names, m.Name)
	}
	return names
}

// model finds the figures of a model by its shape; nil = there are none.
func (f *peerFigures) model(i *engine.Info) *peerModel {
	for at := range f.Models {
		m := &f.Models[at]
		if m.LayerFLOPsPerToken == i.LayerFLOPsPerToken && m.HeadFLOPs == i.HeadFLOPs && m.KVBytesPerToken == i.KVBytesPerToken {
			return m
		}
	}
	return nil
}

// figure finds a row's; nil = there is none.
func (m *peerModel) figure(row string, at int) *peerFigure {
	if m == nil {
		return nil
	}
	for i := range m.Rows {
		if f := &m.Rows[i]; f.Row == row && f.At == at {
			return f
		}
	}
	return nil
}

// has says whether the peer was measured at any of a row's values.
func (m *peerModel) has(row string) bool {
	for i := range m.Rows {
		if m.Rows[i].Row == row {
			return true
		}
	}
	return false
}

// ceilings are those that floors are made from, and where they come from: probed
// where the device can, known of the figures' card, or the data sheet's.
func (f *peerFigures) ceilings(i *engine.Info, probed kernels.Ceilings) (peerCeilings, string) {
	own := peerCeilings{Read: probed.ReadBytesPerSecond, FLOPs: probed.FLOPsPerSecond, Attention: probed.FLOPsPerSecond}
	rates := func(c peerCeilings) string {
		return fmt.Sprintf("reads %s GB/s, products %s TFLOP/s, attention of prompts %s TFLOP/s", shortValue(c.Read/1e9), shortValue(c.FLOPs/1e12), shortValue(c.Attention/1e12))
	}
	switch {
	case !probed.DataSheet:
		return own, rates(own) + ", probed at the start"
	case i.Device.Device == f.Card:
		return f.Ceilings, rates(f.Ceilings) + ", as measured on a card of this kind"
	}
	return own, rates(own) + ", this card's data sheet, which nothing reaches"
}

// known says whether floors can be made of them.
func (c *peerCeilings) known() bool { return c.Read > 0 && c.FLOPs > 0 && c.Attention > 0 }

// decodeFloor is the least time of a decode step in seconds: weights are read once or
// multiplied, whichever takes longer, then KV is read.
func (c *peerCeilings) decodeFloor(i *engine.Info, batch int, context float64) float64 {
	linear := float64(batch) * float64(i.LayerFLOPsPerToken+i.HeadFLOPs)
	return max(float64(i.StreamedWeightBytes)/c.Read, linear/c.FLOPs) + float64(batch)*context*float64(i.KVBytesPerToken)/c.Read
}

// coldKernels is the time of a decode step in seconds if it were a chain of five kernels a layer and the head, each of which reads
// its weights cold, with KV read as fast as can be; 0 = not known. It is no floor: kernels may request weights ahead.
func (c *peerCeilings) coldKernels(i *engine.Info, layers, batch int, context float64) float64 {
	if c.Kernel == 0 || layers == 0 {
		return 0
	}
	cold := *c
	cold.Read = c.ColdRead
	kv := float64(batch) * context * float64(i.KVBytesPerToken) / c.Read
	return float64(5*layers+1)*c.Kernel + cold.decodeFloor(i, batch, 0) + kv
}

// requestsFloor is the least time in seconds of requests that come at once, of so many tokens in and out: all prompts, in
// chunks that are wide enough for their weights' bytes not to count, and then steps in which those decode that are left.
func (c *peerCeilings) requestsFloor(i *engine.Info, in, out []int) (seconds float64) {
	for _, tokens := range in {
		t := float64(tokens)
		seconds += (t*float64(i.LayerFLOPsPerToken)+float64(i.HeadFLOPs))/c.FLOPs + t*(t+1)/2*float64(i.AttentionFLOPsPerPair)/c.Attention
	}
	for step := 1; step < slices.Max(out); step++ { // the first token comes with the prompt
		batch, context := 0, 0
		for at := range in {
			if step < out[at] {
				batch, context = batch+1, context+in[at]+step
			}
		}
		seconds += c.decodeFloor(i, batch, float64(context)/float64(batch))
	}
	return seconds
}

// prefillFloor is the least time in seconds of prompts of so many tokens each, whose
// first cached ones have their KV. As the peer's floors do it counts the last layer for all tokens,
// though behind its QKV the last one alone is needed (kernels.Backend's KeepLogitRows): 3 to 4 % of it.
func (c *peerCeilings) prefillFloor(i *engine.Info, prompts, tokens, cached int) float64 {
	n, t, have := float64(prompts), float64(tokens), float64(cached)
	linear := n * ((t-have)*float64(i.LayerFLOPsPerToken) + float64(i.HeadFLOPs))
	pairs := n * (t*(t+1) - have*(have+1)) / 2
	kv := n * have * float64(i.KVBytesPerToken) / c.Read
	return max(float64(i.StreamedWeightBytes)/c.Read, linear/c.FLOPs) + max(pairs*float64(i.AttentionFLOPsPerPair)/c.Attention, kv)
}
