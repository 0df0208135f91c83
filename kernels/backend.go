package kernels

import (
	"errors"
	"time"
)

// ErrOutOfMemory is wrapped by what fails because the device, or the host for pinned
// memory, has no more.
var ErrOutOfMemory = errors.New("out of memory")

// Backend is one device: its weights, row state, activations and KV pool.
//
// Operations return nothing. The first one that fails makes the Backend sticky:
// later operations do nothing and every Wait returns that first error, with the
// operation and its shape. Misuse (an op outside Launch, an id out of range) is
// a bug of the caller and panics.
type Backend interface {
	// Info names the device. It may be called at any time.
	Info() Info

	// Setup reserves addresses of activations, row state and result buffers for the
	// hard maxima, and memory for limits, which come into force. It is called once,
	// before any weight is loaded. The bytes it needs are WorkspaceBytes(shape, limits),
	// whatever the maxima.
	Setup(shape Shape, maxima, limits Limits) error
	// SetLimits says what of Setup's maxima is going to be used: memory for the
	// rest may be given back, and is there again after limits were raised. Only
	// MaxBatchedTokens, MaxSeqs and MaxLogitRows may differ from Setup's, downwards.
	// Nothing is in flight but swaps. Rows below MaxSeqs keep their state, others have
	// none. An error leaves all as it was.
	SetLimits(limits Limits) error
	// WorkspaceBytes is the memory that limits take, in bytes. It has no
	// side effect: the memory plan is made from it.
	WorkspaceBytes(shape Shape, limits Limits) int64

	Loader
	Pool
	Inspector

	// UpdateRows applies deltas to the row state, before the next Launch.
	UpdateRows(updates []RowUpdate)

	// Launch issues the forward pass of b by calling forward, which must make
	// the same calls for every batch of equal shape. b may be reused once Launch
	// has returned.
	Launch(b *Batch, forward func())

	// Embed sets Hidden[t] = w[Tokens[t]] for each token t of the batch; a
	// token FromDevice stands for the one that Sample last drew for its row.
	// w: [vocab, hidden] from LoadEmbedding.
	Embed(w Weight)
	// RMSNorm sets Normed[t] = Hidden[t] / sqrt(mean(Hidden[t]²) + eps) · w,
	// [tokens, hidden], in float32 (Zhang and Sennrich, 2019). w: [hidden]. One QKV or
	// GateUp reads it: a Backend may make it there, and leave Normed as it was.
	RMSNorm(w Weight)
	// QKV projects Normed by w (kind LinearQKV, [(heads + 2·kvHeads)·headDim,
	// hidden]), adds the bias, normalizes each head of queries and keys where w has
	// QKNorm, rotates queries and keys by RoPE (pairs (i,
	// i+headDim/2), angle = position · InvFreq[i], a float32 product as
	// transformers has it; cos and sin are scaled by RopeScale) and
	// leaves the queries in Query, [tokens, heads, headDim]; keys and values go
	// to their slots of layer in the KV pool, rounded to its type. Attn is undefined
	// afterwards.
	QKV(layer int, w Weight)
	// KeepLogitRows, behind the last layer's QKV, lets what follows be computed for the
	// tokens of LogitRows alone: of the others nothing is read any more but their keys and
	// values. Row i of Query and Hidden and of what is made of them is then that of
	// token LogitRows[i], which Head takes into account. A Backend may also go on with all
	// tokens. (llama.cpp has the same, src/llama-graph.cpp: inp_out_ids.)
	KeepLogitRows()
	// PagedAttention sets Attn = softmax(Query·Kᵀ/sqrt(headDim))·V, [tokens,
	// heads, headDim], causal: the token at position p sees positions 0..p of
	// its own sequence, read through the row's block table. Query head h reads
	// KV head h / (heads/kvHeads). Prefill chunks and decodes come in one call.
	PagedAttention(layer int)
	// Linear adds src·wᵀ to Hidden (the residual connection), [tokens, hidden].
	// src is Attn or MLP; w: [hidden, width of src].
	Linear(w Weight, src Activation)
	// GateUp sets MLP = silu(Normed·gateᵀ) ⊙ (Normed·upᵀ), [tokens,
	// intermediate]. w: kind LinearGateUp.
	GateUp(w Weight)
	// Head sets Logits[i] = rmsnorm(Hidden[LogitRows[i]])·norm · wᵀ in float32,
	// [logit rows, vocab]. w comes from LoadLinear (kind LinearHead) or, tied,
	// from LoadEmbedding.
	Head(norm, w Weight)

	// Sample draws one token for each row of the last Launch's LogitRows that
	// s names, in the order of Sampling's doc, keeps it as the row's last token
	// and ends the step. Logits that it drew from are undefined afterwards. A
	// step that draws nothing ends with an empty SampleBatch.
	Sample(s *SampleBatch) Ticket
	// Wait blocks until the step of ticket is done. The Result is valid until
	// two more Samples were issued. Tickets are waited for in order.
	Wait(t Ticket) (*Result, error)
	// Sync waits for everything that was issued; only for shutdown, resizing
	// and tests.
	Sync() error

	// SetTap makes the Backend call fn after each operation of later steps with
	// its output in float32, for verification: layer counts from 0, −1 outside
	// the layers. fn is called once an operation, in order, but not for Sample.
	// Behind KeepLogitRows values may have the rows of LogitRows alone. Operations that a
	// Backend otherwise makes as one are made one by one. Taps make every step synchronous. nil turns them off.
	SetTap(fn func(op Op, layer int, out Activation, values []float32))
	// SetProfiler makes the Backend report each operation it ran; nil turns it off.
	// Nothing is in flight when it is turned on, and times count from the end of
	// that call. fn is called from Wait with what that step ran, in order of start,
	// or from the call that turns it off with what was not known before:
	// OpRecord.Step then says whose it is.
	SetProfiler(fn func(OpRecord))

	// Close releases everything. The Backend is unusable afterwards.
	Close() error
}

// Loader takes weights. Calls copy: the HostTensor's memory may be unmapped and its File
// closed when they return (a Completer may keep the file open by itself). They fail with
// the tensor's name, on short data and parts that do not fit each other, too; with an
// UnreadableError where a file does.
type Loader interface {
	// LoadLinear packs the rows of all parts, one below the other.
	LoadLinear(spec LinearSpec) (Weight, error)
	// LoadNorm takes a [hidden] vector, kept in float32, unrounded.
	LoadNorm(t HostTensor) (Weight, error)
	// LoadEmbedding takes [vocab, hidden]. With tied, Head accepts it too.
	LoadEmbedding(t HostTensor, tied bool) (Weight, error)
}

// Completer is a Backend that may leave a part of loading for later. Steps are right meanwhile, and
// slower.
type Completer interface {
	// CompleteLoad does a little of what is left, and says whether there is more: for whoever
	// has nothing else to do. No step is under way. An error is the Backend's.
	CompleteLoad() (more bool, err error)
}

// LoadChecker is a Backend that knows only at the end of loading whether its number format holds
// what it was given.
type LoadChecker interface {
	// CheckLoad ends loading. It fails with an UnfitError, or with the device's error.
	CheckLoad() error
}

// Pool is the block-allocated KV cache's bytes. Block ids are those of package
// kvcache; block 0 is reserved for padding writes.
type Pool interface {
	// KV gives the strides of the pool.
	KV() PagedKV
	// ResizePool sets the number of device and host (swap) blocks, block 0
	// included. Growing never moves a pointer; shrinking drops the tail. The
	// caller sees to it that no dropped block is in use; swaps of others may be
	// under way. An error leaves the pool as it was.
	ResizePool(deviceBlocks, hostBlocks int) error
	// CopyBlocks copies whole blocks on the device, ordered on the compute
	// stream: the copy-on-write of forks.
	CopyBlocks(copies []BlockCopy)
	// SwapOut copies device blocks (Src) to host blocks (Dst), SwapIn host
	// blocks to device blocks, on a stream of their own that starts after
	// what the compute stream was given so far. The Ticket is for SwapDone.
	SwapOut(copies []BlockCopy) Ticket
	SwapIn(copies []BlockCopy) Ticket
	// SwapDone says whether the copies of the ticket are finished, and with
	// wait blocks until they are; took is the time that the copying took. It stays
	// finished; the time is kept for the last 16 tickets.
	SwapDone(t Ticket, wait bool) (took time.Duration, done bool, err error)
}

// Idler is a Backend that has something done while a step is awaited.
type Idler interface {
	// SetIdle has Wait call the function a few times a millisecond, on the goroutine that called
	// Wait, as long as the step is not done; nil: nothing. The function must return soon, and
	// may not call the Backend.
	SetIdle(fn func())
}

// Inspector lets tests and verification see and set what is on the device. Its
// calls are synchronous.
type Inspector interface {
	// ReadActivation returns the first rows rows of a, in float32.
	ReadActivation(a Activation, rows int) []float32
	// WriteActivation sets the leading rows of a from float32 values.
	WriteActivation(a Activation, values []float32)
	// ReadBlock and WriteBlock move one device block as bits of KV().DType,
	// KV().BlockElems() values in the pool's layout.
	ReadBlock(block int32) []uint16
	WriteBlock(block int32, values []uint16)
}

// Info describes a device.
type Info struct {
	Backend     string // "cpu" or "cuda"
	Device      string // name of the processor or card
	Path        string // code path that was chosen: "avx512", "scalar", "sm_90a"
	Threads     int    // worker threads; 0 on a GPU
	TotalMemory int64  // bytes of the device's memory
	// Overlap says whether launching a step ahead of the last one's results
	// pays on this device.
	Overlap bool
	// ReadsFiles says that matrices are better given as files: the Backend's own
	// threads read them straight to where they are packed.
	ReadsFiles bool
	GPU        *GPU // nil on a processor
}

// Shape is what a Backend must know of a model.
type Shape struct {
	Layers, Hidden, Intermediate int
	Heads, KVHeads, HeadDim      int
	Vocab                        int       // rows of embedding and head
	SampleVocab                  int       // ids ≥ SampleVocab are never drawn (rows that the tokenizer lacks); 0 = Vocab
	RMSEps                       float32   // epsilon of every RMSNorm
	InvFreq                      []float32 // [HeadDim/2] inverse RoPE frequencies, radians a token
	QKNorm                       bool      // QKV weights have norms of query and key heads
	RopeScale                    float32   // factor on cos and sin (YaRN's attention factor); 1 without YaRN
}

// Limits are the hard maxima that memory is reserved for.
type Limits struct {
	MaxBatchedTokens int // tokens of a step
	MaxSeqs          int // rows
	MaxModelLen      int // tokens of a sequence, prompt and output
	MaxLogitRows     int // rows of Logits; ≥ MaxSeqs
	BlockSize        int // tokens of a KV block: 16, 32 or 64
	MaxTopLogprobs   int // alternatives of Result.TopIDs
	// BatchInvariant makes results bit-equal whatever the batch, chunking and
	// cache state. A Backend that always is ignores it.
	BatchInvariant bool
}

// Activation names a buffer of the step in the Backend.
type Activation int

// The activations of a step; n = tokens of the batch.
const (
	Hidden Activation = iota // [n, hidden] residual stream
	Normed                   // [n, hidden]
	Query                    // [n, heads, headDim]
	Attn                     // [n, heads, headDim]
	MLP                      // [n, intermediate]
	Logits                   // [logit rows, vocab], float32 on every Backend
)

// Width is the number of values in a row of a.
func (s Shape) Width(a Activation) int {
	switch a {
	case Hidden, Normed:
		return s.Hidden
	case Query, Attn:
		return s.Heads * s.HeadDim
	case MLP:
		return s.Intermediate
	default:
		return s.Vocab
	}
}

// Op names an operation in taps, profiles and errors.
type Op string

// The operations.
const (
	OpEmbed     Op = "embed"
	OpRMSNorm   Op = "rmsnorm"
	OpQKV       Op = "qkv"
	OpAttention Op = "attention"
	OpLinear    Op = "linear"
	OpGateUp    Op = "gate_up"
	OpHead      Op = "head"
	OpSample    Op = "sample"
	OpPrepare   Op = "prepare" // KeepLogitRows; on a GPU also the step's message, its unpacking, and attention's plan
	OpCopy      Op = "copy_blocks"
	OpSwapOut   Op = "swap_out"
	OpSwapIn    Op = "swap_in"
)
