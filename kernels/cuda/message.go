//go:build cuda

package cuda

import (
	"math"
	"unsafe"

	"github.com/pagoda-engine/pagoda/kernels"
)

// A message is what the host sends for a step, in int32 words: a header, then
// sections in any order that it points to. prepare.cu unpacks it.
// Words of the header.
const (
	mNumTokens = iota // counts of the step: H_TOKENS … H_SAMPLES
	mNumSeqs
	mNumDecodes
	mNumLogits
	mNumSamples
	mTokens // the batch is filled up to these numbers; 0 = no batch
	mSeqs
	mBatch
	mWrites // block ids: pairs (entry of all tables, id)
	mWritesAt
	mResets // rows, resetWords each
	mResetsAt
	mSample // entries; 0 = none
	mSlot   // of the result ring
	mWords  // of the message
	mStep   // steps before this one
)

var _ [headerWords - 1 - mStep]struct{} // the header has room

// sampleEntry is SampleEntry: row of logits, row, position of the drawn token,
// number of its mask, −1 or checkEntry.
type sampleEntry [4]int32

// checkEntry is CHECK.
const checkEntry = -2

// updates are row changes that wait for the next message.
type updates struct {
	writes, resets, lists []int32
	limit                 int     // words in all
	end                   []int32 // by row: one past its last table entry among writes; 0 = the row is not in
	touched               []int32 // rows that are in
}

func newUpdates(limits kernels.Limits) updates {
	limit := updateWords(limits)
	return updates{
		writes: make([]int32, 0, limit), resets: make([]int32, 0, limit), lists: make([]int32, 0, limit),
		limit: limit, end: make([]int32, limits.MaxSeqs), touched: make([]int32, 0, 2*limits.MaxSeqs),
	}
}

// fits says whether the update may join those that wait: there is room, and it
// changes nothing that one of them changed, since they are applied in any order.
func (u *updates) fits(r *kernels.RowUpdate) bool {
	words := len(u.writes) + len(u.resets) + len(u.lists) + 2*len(r.Blocks)
	if r.Reset {
		words += resetWords + len(r.Sampling.StopIDs) + 2*len(r.Sampling.LogitBias)
	}
	end := u.end[r.Row]
	return words <= u.limit && (end == 0 || (!r.Reset && r.FirstBlock >= end))
}

// blocks adds table entries of a row; stride is that of the tables.
func (u *updates) blocks(r *kernels.RowUpdate, stride int) {
	for i, block := range r.Blocks {
		u.writes = append(u.writes, r.Row*int32(stride)+r.FirstBlock+int32(i), block)
	}
	if len(r.Blocks) > 0 {
		u.touch(r.Row, r.FirstBlock+int32(len(r.Blocks)))
	}
}

func (u *updates) touch(row, end int32) {
	if u.end[row] == 0 {
		u.touched = append(u.touched, row)
	}
	u.end[row] = max(u.end[row], end)
}

// reset adds a row's parameters. Ids outside the vocabulary are dropped: they are
// never drawn. The lists must fit their maxima.
func (u *updates) reset(row int32, s *kernels.Sampling, vocab int) {
	p := rowParams{
		temperature: s.Temperature, topP: s.TopP, minP: s.MinP, repetition: s.RepetitionPenalty, presence: s.PresencePenalty,
		frequency: s.FrequencyPenalty, seed: [2]uint32{uint32(s.Seed), uint32(s.Seed >> 32)}, topK: s.TopK, choice: s.Choice,
		promptLen: s.PromptLen, minTokens: s.MinTokens, logprobs: s.Logprobs,
	}
	if s.UsesPenalties() {
		p.penalties = 1
	}
	stops := int32(len(u.lists))
	for _, id := range s.StopIDs {
		if id >= 0 && int(id) < vocab {
			u.lists = append(u.lists, id)
			p.numStopIDs++
		}
	}
	bias := int32(len(u.lists))
	for _, b := range s.LogitBias {
		if b.ID >= 0 && int(b.ID) < vocab {
			u.lists = append(u.lists, b.ID, int32(math.Float32bits(b.Bias)))
			p.numBias++
		}
	}
	u.resets = append(u.resets, row, stops, bias)
	u.resets = append(u.resets, (*[rowParamWords]int32)(unsafe.Pointer(&p))[:]...)
	u.touch(row, 1)
}

// take writes the updates into the message under way and forgets them.
func (u *updates) take(m *message) {
	m.set(mWrites, len(u.writes)/2)
	m.set(mWritesAt, m.append(u.writes))
	lists := m.append(u.lists)
	m.set(mResets, len(u.resets)/resetWords)
	for at := 0; at < len(u.resets); at += resetWords {
		u.resets[at+1] += int32(lists)
		u.resets[at+2] += int32(lists)
	}
	m.set(mResetsAt, m.append(u.resets))
	for _, row := range u.touched {
		u.end[row] = 0
	}
	u.writes, u.resets, u.lists, u.touched = u.writes[:0], u.resets[:0], u.lists[:0], u.touched[:0]
}

// message is written front to back into pinned memory.
type message struct {
	words []int32 // of the greatest length
	n     int     // words in use
}

// start begins a message without sections.
func (m *message) start() {
	clear(m.words[:headerWords])
	m.n = headerWords
}

func (m *message) set(word, value int) { m.words[word] = int32(value) }

// append adds a section and returns its offset in words.
func (m *message) append(section []int32) int {
	at := m.n
	m.n += copy(m.words[at:], section)
	return at
}

// batch adds the step, which the device fills up to tokens and seqs.
func (m *message) batch(b *kernels.Batch, tokens, seqs int) {
	m.set(mNumTokens, b.NumTokens())
	m.set(mNumSeqs, b.NumSeqs())
	m.set(mNumDecodes, b.NumDecodes)
	m.set(mNumLogits, len(b.LogitRows))
	m.set(mTokens, tokens)
	m.set(mSeqs, seqs)
	m.set(mBatch, m.append(b.Tokens))
	m.append(b.Rows)
	m.append(b.QueryStart)
	m.append(b.SeqLens)
	m.append(b.LogitRows)
}

// samples adds the entries to draw, whose results go to the slot; it returns the
// number of masks, which the entries number in order.
func (m *message) samples(s *kernels.SampleBatch, slot int) (masks int) {
	m.set(mNumSamples, len(s.Index))
	m.set(mSample, m.n)
	m.set(mSlot, slot)
	n := len(s.Index)
	words := m.words[m.n:][:entryWords*n]
	m.n += entryWords * n
	rows, positions := s.Rows[:n], s.Positions[:n]
	for i, index := range s.Index {
		mask := int32(-1)
		switch {
		case i >= n-s.Checks:
			mask = checkEntry
		case s.Masks != nil && s.Masks[i] != nil:
			mask = int32(masks)
			masks++
		}
		*(*sampleEntry)(words[entryWords*i:]) = sampleEntry{index, rows[i], positions[i], mask}
	}
	return masks
}
