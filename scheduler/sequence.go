package scheduler

import (
	"fmt"

	"github.com/pagoda-engine/pagoda/kvcache"
)

// SequenceID names a sequence; ids ascend in the order of arrival.
type SequenceID int64

// Status is where a sequence stands.
type Status uint8

// The states of a sequence.
const (
	Waiting  Status = iota // to be admitted, without blocks
	Running                // has blocks and a place among MaxNumSeqs
	Swapped                // waits like Waiting, but its KV is on the host
	Finished               // done or aborted, in no queue
)

// String names the state as transcripts print it.
func (s Status) String() string {
	switch s {
	case Waiting:
		return "waiting"
	case Running:
		return "running"
	case Swapped:
		return "swapped"
	case Finished:
		return "finished"
	}
	return fmt.Sprintf("Status(%d)", uint8(s))
}

// Sequence is one choice of one request as the scheduler sees it: ids and
// counters. Tokens, MaxLen, Priority, CacheSalt and Parent are the caller's, set
// before Add; the rest is the scheduler's, for the caller to read.
//
// The fields stand in the order in which steps need them. Between two steps the
// processor's caches are lost to others, and each line of 64 bytes that a step then
// touches costs it about as much as the work on a sequence: a decode touches the first
// two lines and the last token's.
type Sequence struct {
	Tokens      []int32 // the prompt; Update appends the output
	MaxLen      int     // most tokens, prompt and output: the last one is never computed
	NumComputed int     // tokens whose KV is in the cache for sure
	Launched    int     // NumComputed and what steps in flight compute
	Pending     int     // tokens that steps in flight will bring: at most 1 when Schedule is called
	lastStep    int64   // the step it was last part of

	ID        SequenceID
	PromptLen int
	transfer  TransferID // swap copies under way that it has to wait for; 0 = none
	epoch     int32      // counts preemptions: a step in flight from before one is stale
	Status    Status
	reset     bool // the device knows nothing of it yet: its next step says Resumed
	parked    bool // is in its parent's forks
	forked    bool // has forks
	Table     kvcache.BlockTable

	forks        []*Sequence       // children that wait for this prompt, in no queue
	Host         kvcache.HostTable // what it has in the swap pool
	onHost       int               // tokens whose KV Host holds
	CachedTokens int               // of the prompt, found in the cache at first admission
	Preemptions  int               // for want of blocks, not by lowered limits
	Priority     int               // lower first, under the priority policy
	CacheSalt    string
	// Parent is another choice of the same prompt, added before: this one waits
	// until the parent has computed the prompt and then shares its blocks.
	Parent *Sequence
}

// known is the number of tokens whose place is settled, the pending one
// included.
func (q *Sequence) known() int { return len(q.Tokens) + q.Pending }

// need is the number of tokens that a step could compute now. A sequence that
// has its last possible token needs nothing more: nothing follows it. One whose
// blocks are being copied in has to wait.
func (q *Sequence) need() int {
	if q.known() >= q.MaxLen || q.transfer != 0 {
		return 0
	}
	return q.known() - q.Launched
}
