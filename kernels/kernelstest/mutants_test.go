package kernelstest_test

import (
	"slices"

	"github.com/pagoda-engine/pagoda/kernels"
	"github.com/pagoda-engine/pagoda/kernels/kernelstest"
)

// mutant is an Oracle with a defect.
type mutant struct {
	*kernelstest.Oracle
	defect
	tokens int
}

// defect says what is wrong; the zero value is nothing.
type defect struct {
	spoil    kernels.Activation // one element of it is off by a thousandth
	after    kernels.Op         // … after this operation
	sampling func(*kernels.Sampling)
	row      func(*kernels.RowUpdate)
	batch    func(*kernels.Batch)
	sample   func(*kernels.SampleBatch)
	result   func(*kernels.Result)
	keep     func(hidden []float32, tokens int)
	copies   func([]kernels.BlockCopy) []kernels.BlockCopy
}

// mutants are defects and the group of cases that must see each.
var mutants = map[string]struct {
	group string
	defect
}{
	"embed_element":     {"embed", defect{after: kernels.OpEmbed, spoil: kernels.Hidden}},
	"rmsnorm_element":   {"rmsnorm", defect{after: kernels.OpRMSNorm, spoil: kernels.Normed}},
	"query_element":     {"qkv", defect{after: kernels.OpQKV, spoil: kernels.Query}},
	"attention_element": {"attention", defect{after: kernels.OpAttention, spoil: kernels.Attn}},
	"linear_element":    {"linear", defect{after: kernels.OpLinear, spoil: kernels.Hidden}},
	"gate_up_element":   {"gate_up", defect{after: kernels.OpGateUp, spoil: kernels.MLP}},
	"head_element":      {"head", defect{after: kernels.OpHead, spoil: kernels.Logits}},
	"table_order": {"attention", defect{row: func(u *kernels.RowUpdate) {
		u.Blocks = slices.Clone(u.Blocks)
		if n := len(u.Blocks); n > 2 {
			u.Blocks[0], u.Blocks[1] = u.Blocks[1], u.Blocks[0]
		}
	}}},
	"position_off_by_one": {"qkv", defect{batch: func(b *kernels.Batch) {
		for i := range b.SeqLens {
			b.SeqLens[i]--
		}
	}}},
	"copy_dropped": {"pool", defect{copies: func(c []kernels.BlockCopy) []kernels.BlockCopy { return c[:len(c)-1] }}},
	"no_top_k":     {"sampling", defect{sampling: func(s *kernels.Sampling) { s.TopK = 0 }}},
	"top_k_plus_1": {"sampling", defect{sampling: func(s *kernels.Sampling) {
		if s.TopK > 0 && s.TopK < 1000 {
			s.TopK++
		}
	}}},
	"no_top_p":      {"sampling", defect{sampling: func(s *kernels.Sampling) { s.TopP = 0 }}},
	"no_min_p":      {"sampling", defect{sampling: func(s *kernels.Sampling) { s.MinP = 0 }}},
	"no_repetition": {"sampling", defect{sampling: func(s *kernels.Sampling) { s.RepetitionPenalty = 0 }}},
	"no_presence":   {"sampling", defect{sampling: func(s *kernels.Sampling) { s.PresencePenalty = 0 }}},
	"no_frequency":  {"sampling", defect{sampling: func(s *kernels.Sampling) { s.FrequencyPenalty = 0 }}},
	"no_bias":       {"sampling", defect{sampling: func(s *kernels.Sampling) { s.LogitBias = nil }}},
	"no_min_tokens": {"sampling", defect{sampling: func(s *kernels.Sampling) { s.MinTokens = 0 }}},
	"min_tokens_off_by_one": {"sampling", defect{sampling: func(s *kernels.Sampling) {
		s.MinTokens = max(0, s.MinTokens-1)
	}}},
	"seed_ignored":      {"sampling", defect{sampling: func(s *kernels.Sampling) { s.Seed = 0 }}},
	"choice_ignored":    {"sampling", defect{sampling: func(s *kernels.Sampling) { s.Choice = 0 }}},
	"prompt_as_output":  {"sampling", defect{row: func(u *kernels.RowUpdate) { u.Output = append(u.Output, u.Prompt...) }}},
	"mask_ignored":      {"sampling", defect{sample: func(s *kernels.SampleBatch) { s.Masks = nil }}},
	"position_ignored":  {"sampling", defect{sample: func(s *kernels.SampleBatch) { clear(s.Positions) }}},
	"logits_row_of_one": {"sampling", defect{sample: func(s *kernels.SampleBatch) { slices.Sort(s.Index) }}},
	"rank_from_zero":    {"sampling", defect{result: func(r *kernels.Result) { addInt(r.Ranks, -1) }}},
	"logprob_off":       {"sampling", defect{result: func(r *kernels.Result) { addFloat(r.Logprobs, 1e-3) }}},
	"top_ids_shifted":   {"sampling", defect{result: func(r *kernels.Result) { addInt(r.TopIDs, 1) }}},
	"checks_draw":       {"sampling", defect{sample: func(s *kernels.SampleBatch) { s.Checks = 0 }}},
	"another_row_kept": {"forward", defect{keep: func(hidden []float32, tokens int) {
		copy(hidden[len(hidden)-len(hidden)/tokens:], hidden[:len(hidden)/tokens])
	}}},
	"last_token_lost": {"forward", defect{batch: func(b *kernels.Batch) { replace(b.Tokens, kernels.FromDevice, 0) }}},
}

func addInt(v []int32, by int32) {
	for i := range v {
		v[i] += by
	}
}

func addFloat(v []float32, by float32) {
	for i := range v {
		v[i] += by
	}
}

func replace(v []int32, from, to int32) {
	for i := range v {
		if v[i] == from {
			v[i] = to
		}
	}
}

// spoilOne moves the last element of the spoiled activation's first row.
func (m *mutant) spoilOne(op kernels.Op, rows int) {
	if op != m.after {
		return
	}
	v := m.ReadActivation(m.spoil, rows)
	v[len(v)-1] += 2e-4 + v[len(v)-1]*1e-3
	m.WriteActivation(m.spoil, v)
}

func (m *mutant) Launch(b *kernels.Batch, forward func()) {
	mine := *b
	mine.Tokens, mine.SeqLens = slices.Clone(b.Tokens), slices.Clone(b.SeqLens)
	if m.batch != nil {
		m.batch(&mine)
	}
	m.tokens = b.NumTokens()
	m.Oracle.Launch(&mine, forward)
	if m.after == kernels.OpHead {
		m.spoilOne(kernels.OpHead, max(1, len(b.LogitRows)))
	}
}

func (m *mutant) UpdateRows(updates []kernels.RowUpdate) {
	updates = slices.Clone(updates)
	for i := range updates {
		if m.sampling != nil {
			m.sampling(&updates[i].Sampling)
		}
		if m.row != nil {
			m.row(&updates[i])
		}
	}
	m.Oracle.UpdateRows(updates)
}

func (m *mutant) Embed(w kernels.Weight) { m.Oracle.Embed(w); m.spoilOne(kernels.OpEmbed, m.tokens) }
func (m *mutant) RMSNorm(w kernels.Weight) {
	m.Oracle.RMSNorm(w)
	m.spoilOne(kernels.OpRMSNorm, m.tokens)
}
func (m *mutant) GateUp(w kernels.Weight) { m.Oracle.GateUp(w); m.spoilOne(kernels.OpGateUp, m.tokens) }

func (m *mutant) QKV(layer int, w kernels.Weight) {
	m.Oracle.QKV(layer, w)
	m.spoilOne(kernels.OpQKV, m.tokens)
}

func (m *mutant) KeepLogitRows() {
	if m.keep != nil {
		hidden := m.ReadActivation(kernels.Hidden, m.tokens)
		m.keep(hidden, m.tokens)
		m.WriteActivation(kernels.Hidden, hidden)
	}
}

func (m *mutant) PagedAttention(layer int) {
	m.Oracle.PagedAttention(layer)
	m.spoilOne(kernels.OpAttention, m.tokens)
}

func (m *mutant) Linear(w kernels.Weight, src kernels.Activation) {
	m.Oracle.Linear(w, src)
	m.spoilOne(kernels.OpLinear, m.tokens)
}

func (m *mutant) CopyBlocks(copies []kernels.BlockCopy) {
	if m.copies != nil {
		copies = m.copies(copies)
	}
	m.Oracle.CopyBlocks(copies)
}

func (m *mutant) Sample(s *kernels.SampleBatch) kernels.Ticket {
	mine := *s
	mine.Index, mine.Positions = slices.Clone(s.Index), slices.Clone(s.Positions)
	if m.sample != nil {
		m.sample(&mine)
	}
	return m.Oracle.Sample(&mine)
}

func (m *mutant) Wait(t kernels.Ticket) (*kernels.Result, error) {
	res, err := m.Oracle.Wait(t)
	if m.result != nil {
		m.result(res)
	}
	return res, err
}
