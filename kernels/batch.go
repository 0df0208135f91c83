package kernels

import "time"

// FromDevice in Batch.Tokens stands for the token that Sample last drew for the
// sequence's row: the host does not know it yet when it runs one step ahead.
const FromDevice int32 = -1

// Batch is one step: NumSeqs sequences, each with a run of query tokens. The
// tokens of sequence i are Tokens[QueryStart[i]:QueryStart[i+1]], at positions
// SeqLens[i]−len … SeqLens[i]−1; their KV slots follow from the row's block
// table: slot = table[position / blockSize]·blockSize + position % blockSize.
type Batch struct {
	Tokens     []int32 // [n] input ids
	Rows       []int32 // [seqs] row index of each sequence
	QueryStart []int32 // [seqs+1] prefix sums of query lengths, from 0
	SeqLens    []int32 // [seqs] length once this step is computed
	LogitRows  []int32 // token indices (into Tokens) whose logits are wanted, strictly ascending
	NumDecodes int     // the first NumDecodes sequences have one query token
}

// NumTokens is the number of tokens of the step.
func (b *Batch) NumTokens() int { return len(b.Tokens) }

// NumSeqs is the number of sequences of the step.
func (b *Batch) NumSeqs() int { return len(b.Rows) }

// RowUpdate is what changed for one row of the device-resident state. A row
// holds a sequence's block table, sampling parameters, penalty state and last
// token. Rows are numbered 0 … MaxSeqs−1.
type RowUpdate struct {
	Row int32
	// Reset gives the row to another sequence: its table is empty again and
	// Sampling, Prompt and Output replace what was there.
	Reset    bool
	Sampling Sampling
	// Prompt and Output are the known ids of the sequence, for the penalty
	// state; needed only when Sampling.UsesPenalties.
	Prompt, Output []int32
	// Blocks are written into the row's table from entry FirstBlock on.
	FirstBlock int32
	Blocks     []int32
}

// SampleBatch says which rows of Logits are drawn from. Entry i belongs to
// Logits row Index[i]. Its lists may be those of the step's Batch, and stay as they are.
type SampleBatch struct {
	Index     []int32    // rows of Logits
	Rows      []int32    // row whose Sampling applies and whose last token is set
	Positions []int32    // position that the drawn token will have in its sequence
	Masks     [][]uint32 // nil, or per entry nil or a bit per id: 1 = allowed

	// Checks is the number of entries, the last ones, that draw for nobody: their token
	// is InvalidToken where a NaN or +Inf is among the row's raw logits, else 0, and the
	// other results are undefined. Sampling and mask do not matter, and the row keeps its
	// last token and its counts for penalties.
	Checks int
}

// Ticket stands for a launched step or a batch of swap copies.
type Ticket int64

// InvalidToken is the token of a row that has a NaN or +Inf among its raw logits,
// whatever the id, or whose mask allows nothing: that request fails, its
// neighbours do not.
const InvalidToken int32 = -1

// Result is what a step drew, one entry an entry of its SampleBatch.
type Result struct {
	Tokens []int32
	// Logprobs are log softmax of the raw logits (before bias, penalties,
	// temperature) at the drawn token, where Sampling.Logprobs ≥ 0.
	Logprobs []float32
	// Ranks counts the ids with a larger raw logit than the drawn one, plus 1.
	Ranks []int32
	// TopIDs and TopLogprobs are [len(Tokens)][Limits.MaxTopLogprobs], the
	// likeliest ids by raw logit (ties: the lower id first); entries past a
	// row's Sampling.Logprobs are undefined.
	TopIDs      []int32
	TopLogprobs []float32
	// Duration is the time the device spent on the step: from where the step before ended, if that was under way when
	// this one was launched.
	Duration time.Duration
}

// BlockCopy is one whole-block copy.
type BlockCopy struct{ Src, Dst int32 }
