package scheduler

import (
	"time"

	"github.com/pagoda-engine/pagoda/kvcache"
)

// Scheduled is one sequence's part of a step: it computes the tokens at
// positions Start … Start+NumTokens−1.
type Scheduled struct {
	Seq       *Sequence
	Start     int
	NumTokens int
	// FirstNewBlock is the first entry of the sequence's table that this step
	// added; entries before it are unchanged since the sequence's last step. 0
	// with Resumed.
	FirstNewBlock int
	epoch         int32
	// Sample says that the last of these tokens is the last known one: its
	// logits give the next token.
	Sample bool
	// Resumed says that this is the sequence's first step, or the first after a
	// preemption: what the device knew of it is void.
	Resumed bool
}

// Live says whether the step's result still counts: the sequence was not
// finished or aborted since.
func (s *Scheduled) Live() bool { return s.Seq.Status != Finished }

// Result is what a step brought for one Scheduled that has Sample set.
type Result struct {
	// Token is appended to the sequence; a negative one is not, and must Finish: what
	// the step computed is not published.
	Token int32
	// Finish ends the sequence after Token. The caller decides on stop ids and
	// lengths; MaxLen is a bound that a sequence reaches only by being finished.
	Finish bool
}

// TransferID names the swap copies that one step began in one direction.
type TransferID int64

// Transfer is a batch of swap copies. From the step that carries it until
// CopyDone its blocks are in flight. Without copies ID is 0.
type Transfer struct {
	ID     TransferID
	Copies []kvcache.Copy
}

// Means is how a sequence is preempted.
type Means string

// The means.
const (
	ByRecompute Means = "recompute" // it gives its blocks back and computes them again
	BySwap      Means = "swap"      // its blocks go to the host and come back
	ByWaiting   Means = "wait"      // nobody is preempted: it sits this step out
)

// Decision is what was done about a shortage of blocks, with what each means was
// estimated to cost. A negative cost marks means that were not to be had.
type Decision struct {
	Means  Means
	Seq    *Sequence // the victim; who waits, ByWaiting
	For    *Sequence // who needed the block; nil when a limit was lowered
	Blocks int       // device blocks that come free, BySwap once they are copied

	Swap, Recompute, Wait time.Duration
	SwapFull              bool // swapping was wanted, the swap pool is full
}

// How says how a sequence came to run.
type How string

// The ways to start.
const (
	Fresh     How = "new"       // first admission, through the prefix index
	Forked    How = "fork"      // first admission, sharing its parent's blocks
	Recompute How = "recompute" // after a preemption, through the prefix index
	SwappedIn How = "swap in"   // after a preemption, from the host
)

// Admission is one sequence that got blocks.
type Admission struct {
	Seq       *Sequence
	How       How
	HitTokens int // found in the prefix cache or the parent's blocks
	Copied    int // blocks copied in from the host
}

// WaitReason says why a sequence was not admitted, or did not run.
type WaitReason string

// The reasons for waiting.
const (
	WaitNone      WaitReason = ""
	WaitSeqs      WaitReason = "max_num_seqs"
	WaitBudget    WaitReason = "max_num_batched_tokens"
	WaitMixed     WaitReason = "max_num_mixed_tokens"
	WaitBlocks    WaitReason = "kv blocks"
	WaitPreempted WaitReason = "a running sequence was preempted"
	WaitPending   WaitReason = "its last token is under way"
	WaitCopyOut   WaitReason = "its blocks are being copied to the host"
	WaitITL       WaitReason = "target_itl"
	WaitShrink    WaitReason = "the pool is being shrunk"
	WaitLoan      WaitReason = "kv blocks are kept for a loan (prompt_logprobs)" // see Borrow
)

// Output is one step. The caller performs SwapOut, SwapIn and Copies in this
// order, then launches Scheduled. Its slices are reused: it is valid until the first Schedule after
// its Update, or, without work, until the second after the one that returned it.
type Output struct {
	Step       int64
	SwapOut    Transfer
	SwapIn     Transfer
	Copies     []kvcache.Copy // on the device: a fork's partial block
	Scheduled  []Scheduled    // decodes first
	NumDecodes int            // leading entries with one token whose sequences ran before
	NumTokens  int

	// Why the step is as it is.
	Decisions   []Decision  // what was done about shortages, in order
	Admitted    []Admission // sequences that began or resumed
	Loading     int         // running sequences whose blocks are being copied in
	Waiting     int         // sequences left waiting, swapped and parked ones included
	Head        *Sequence   // the first of them; nil = none
	WaitReason  WaitReason  // why it waits
	Evicted     []kvcache.BlockID
	ChunkReason WaitReason    // what cut a chunk or kept the head out: WaitBudget, WaitMixed or WaitITL; "" = nothing
	Load        Load          // what the step's time is predicted from
	Predicted   time.Duration // 0 = the model knows too little yet

	inFlight bool
}

// Empty says that there is nothing to launch; copies may have to be performed all
// the same.
func (o *Output) Empty() bool { return len(o.Scheduled) == 0 }

// shortage says that a sequence lost its blocks because another needed them, and
// not for a limit's sake.
func (o *Output) shortage() bool {
	for i := range o.Decisions {
		if d := &o.Decisions[i]; d.Means != ByWaiting && d.For != nil {
			return true
		}
	}
	return false
}

// reset empties o but for its memory, in which no sequence stays behind: it would keep all that belongs
// to its request.
func (o *Output) reset(step int64) {
	clear(o.Scheduled)
	clear(o.Decisions)
	clear(o.Admitted)
	*o = Output{
		Step: step, Scheduled: o.Scheduled[:0], Decisions: o.Decisions[:0], Admitted: o.Admitted[:0],
		Copies: o.Copies[:0], Evicted: o.Evicted[:0],
	}
}
