package kernelstest

import (
	"fmt"
	"math"
	"time"

	"github.com/pagoda-engine/pagoda/kernels"
)

// Oracle is a kernels.Backend in float64. Only what the contract rounds is
// rounded: weights to bfloat16, KV to the pool's type, RoPE's angle (a float32 product, as the
// checkpoints were trained with), results to float32 when they are read.
type Oracle struct {
	shape  kernels.Shape
	limits kernels.Limits
	kv     kernels.PagedKV

	acts         [kernels.Logits + 1][]float64
	rows         []oracleRow
	device, host [][]uint16
	logitRows    []int32
	tokens       []oracleToken // of the launched step
	normed       int           // of the step: 1 when RMSNorm has made it, −1 when a product has read that
	results      map[kernels.Ticket]*kernels.Result
	margin       float64
	ticket       kernels.Ticket

	tap      func(kernels.Op, int, kernels.Activation, []float32)
	profiler func(kernels.OpRecord)
	origin   time.Time
	records  []kernels.OpRecord
}

// oracleRow is the device-resident state of one row.
type oracleRow struct {
	table    []int32
	sampling kernels.Sampling
	history  History
	last     int32
}

// oracleToken is one token of the launched step.
type oracleToken struct {
	id, position int32
	row          *oracleRow
}

// NewOracle returns an Oracle that waits for Setup.
func NewOracle() *Oracle {
	return &Oracle{results: map[kernels.Ticket]*kernels.Result{}, margin: math.Inf(1)}
}

// Margin is the least margin of all draws so far (see Draw).
func (o *Oracle) Margin() float64 { return o.margin }

// Info implements kernels.Backend.
func (o *Oracle) Info() kernels.Info {
	return kernels.Info{Backend: "oracle", Device: "float64", Path: "go", Threads: 1}
}

// Setup implements kernels.Backend.
func (o *Oracle) Setup(shape kernels.Shape, limits, _ kernels.Limits) error {
	o.shape, o.limits, o.kv = shape, limits, kernels.NewPagedKV(shape, limits.BlockSize)
	for a := range o.acts {
		o.acts[a] = make([]float64, o.maxRows(kernels.Activation(a))*shape.Width(kernels.Activation(a)))
	}
	o.rows = make([]oracleRow, limits.MaxSeqs)
	return nil
}

func (o *Oracle) maxRows(a kernels.Activation) int {
	if a == kernels.Logits {
		return o.limits.MaxLogitRows
	}
	return o.limits.MaxBatchedTokens
}

// WorkspaceBytes implements kernels.Backend: the activations.
func (o *Oracle) WorkspaceBytes(shape kernels.Shape, limits kernels.Limits) int64 {
	n := limits.MaxLogitRows * shape.Vocab
	for a := kernels.Hidden; a < kernels.Logits; a++ {
		n += limits.MaxBatchedTokens * shape.Width(a)
	}
	return 8 * int64(n)
}

// Close implements kernels.Backend.
func (o *Oracle) Close() error { return nil }

// Sync implements kernels.Backend; every call is synchronous.
func (o *Oracle) Sync() error { return nil }

// UpdateRows implements kernels.Backend.
func (o *Oracle) UpdateRows(updates []kernels.RowUpdate) {
	for _, u := range updates {
		r := &o.rows[u.Row]
		if u.Reset {
			*r = oracleRow{sampling: u.Sampling, history: NewHistory(u.Prompt, u.Output)}
		}
		for i, block := range u.Blocks {
			at := int(u.FirstBlock) + i
			if at > len(r.table) {
				panic(fmt.Sprintf("kernelstest: row %d: block entry %d leaves a hole after %d", u.Row, at, len(r.table)))
			}
			r.table = append(r.table[:at], block)
		}
	}
}

// Launch implements kernels.Backend.
func (o *Oracle) Launch(b *kernels.Batch, forward func()) {
	o.tokens, o.normed = o.tokens[:0], 0
	for s, row := range b.Rows {
		first, end := b.QueryStart[s], b.QueryStart[s+1]
		for t := first; t < end; t++ {
			token := oracleToken{id: b.Tokens[t], position: b.SeqLens[s] - (end - t), row: &o.rows[row]}
			if token.id == kernels.FromDevice {
				token.id = token.row.last
			}
			o.tokens = append(o.tokens, token)
		}
	}
	o.logitRows = append(o.logitRows[:0], b.LogitRows...)
	forward()
}

// Sample implements kernels.Backend.
func (o *Oracle) Sample(s *kernels.SampleBatch) kernels.Ticket {
	start := time.Now()
	n, top := len(s.Index), o.limits.MaxTopLogprobs
	res := &kernels.Result{
		Tokens: make([]int32, n), Logprobs: make([]float32, n), Ranks: make([]int32, n),
		TopIDs: make([]int32, n*top), TopLogprobs: make([]float32, n*top),
	}
	for i, index := range s.Index {
		r := &o.rows[s.Rows[i]]
		var mask []uint32
		if s.Masks != nil {
			mask = s.Masks[i]
		}
		logits := o.row(kernels.Logits, int(index))
		if i >= n-s.Checks {
			if !numbers(logits) {
				res.Tokens[i] = kernels.InvalidToken
			}
			continue
		}
		id, margin := Draw(logits, o.shape.SampleVocab, &r.sampling, r.history, mask, s.Positions[i])
		o.margin = min(o.margin, margin)
		res.Tokens[i] = id
		if id == kernels.InvalidToken {
			continue
		}
		r.last = id
		r.history.Output[id]++
		if r.sampling.Logprobs >= 0 {
			k := int(r.sampling.Logprobs)
			res.Logprobs[i], res.Ranks[i] = logprob(logits, int(id))
			topLogprobs(logits, res.TopIDs[i*top:i*top+k], res.TopLogprobs[i*top:i*top+k])
		}
	}
	o.record(kernels.OpSample, -1, start)
	o.ticket++
	o.results[o.ticket] = res
	delete(o.results, o.ticket-2)
	return o.ticket
}

// Wait implements kernels.Backend.
func (o *Oracle) Wait(t kernels.Ticket) (*kernels.Result, error) {
	res := o.results[t]
	if res == nil {
		panic(fmt.Sprintf("kernelstest: ticket %d is not one of the last two (last %d)", t, o.ticket))
	}
	for _, r := range o.records {
		o.profiler(r)
	}
	o.records = o.records[:0]
	return res, nil
}

// SetTap implements kernels.Backend.
func (o *Oracle) SetTap(fn func(kernels.Op, int, kernels.Activation, []float32)) { o.tap = fn }

// SetProfiler implements kernels.Backend; only linear layers have bytes and FLOPs.
func (o *Oracle) SetProfiler(fn func(kernels.OpRecord)) {
	o.profiler, o.origin, o.records = fn, time.Now(), nil
}

// done ends an operation that wrote the first rows rows of out.
func (o *Oracle) done(op kernels.Op, layer int, out kernels.Activation, rows int, start time.Time) {
	if o.tap != nil {
		o.tap(op, layer, out, o.ReadActivation(out, rows))
	}
	o.record(op, layer, start)
}

func (o *Oracle) record(op kernels.Op, layer int, start time.Time) {
	if o.profiler != nil {
		o.records = append(o.records, kernels.OpRecord{
			Op: op, Layer: layer, Start: start.Sub(o.origin), Duration: time.Since(start),
		})
	}
}
