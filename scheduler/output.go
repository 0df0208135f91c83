package scheduler

// Scheduled is one sequence's part of a step: it computes the tokens at
// positions Start … Start+NumTokens−1.
type Scheduled struct {
	Seq       *Sequence
	Start     int
	NumTokens int
	// Sample says that the last of these tokens is the last known one: its
	// logits give the next token.
	Sample bool
	// FirstNewBlock is the first entry of the sequence's table that this step
	// added; entries before it are unchanged since the sequence's last step. 0
	// with Resumed.
	FirstNewBlock int
	// Resumed says that the sequence was just admitted, for the first time or
	// after a preemption: what the device knew of it is void.
	Resumed bool

	epoch int
}

// Live says whether the step's result still counts: the sequence was not
// finished or aborted since.
func (s *Scheduled) Live() bool { return s.Seq.Status != Finished }

// Result is what a step brought for one Scheduled that has Sample set.
type Result struct {
	// Token is appended to the sequence; a negative one is not.
	Token int32
	// Finish ends the sequence after Token. The caller decides on stop ids and
	// lengths; MaxLen is a bound that a sequence reaches only by being finished.
	Finish bool
}

// WaitReason says why the head of the waiting queue was not admitted.
type WaitReason string

// The reasons for waiting.
const (
	WaitNone      WaitReason = ""
	WaitSeqs      WaitReason = "max_num_seqs"
	WaitBudget    WaitReason = "max_num_batched_tokens"
	WaitBlocks    WaitReason = "kv blocks"
	WaitPreempted WaitReason = "a running sequence was preempted"
	WaitPending   WaitReason = "its last token is under way"
)

// Output is one step. Its slices are reused: it is valid until the second
// Schedule after the one that returned it, that is, until its Update at least.
type Output struct {
	Step       int64
	Scheduled  []Scheduled // decodes first
	NumDecodes int         // leading entries with one token whose sequences ran before
	NumTokens  int
	Preempted  []*Sequence // gave up their blocks in this step, newest first

	// Why the step is as it is.
	Waiting    int // sequences left waiting
	WaitReason WaitReason
	Admitted   int // sequences that began or resumed
	HitTokens  int // of these, tokens found in the prefix cache
	Evictions  int // cached blocks that lost their content to new ones
}

// Empty says that there is nothing to launch.
func (o *Output) Empty() bool { return len(o.Scheduled) == 0 }

func (o *Output) reset(step int64) {
	*o = Output{Step: step, Scheduled: o.Scheduled[:0], Preempted: o.Preempted[:0]}
}
