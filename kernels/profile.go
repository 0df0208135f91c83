package kernels

import "time"

// OpRecord is one operation as it ran. Times are since the profiler was set.
type OpRecord struct {
	Op       Op
	Step     Ticket // of its step; 0 = the one that is waited for
	Part     string // "attn" or "mlp", of OpLinear; else ""
	Layer    int    // −1 outside the layers
	Start    time.Duration
	Duration time.Duration
	Bytes    int64 // weight, KV and activation bytes moved, by formula
	FLOPs    int64 // by formula
	// Busy is the time that worker threads spent on it, all together; 0 on a GPU.
	Busy time.Duration

	// On a GPU: when the host issued the operation, and what the device ran for
	// it, in order of start; nil where only the operation as a whole was timed.
	Issued     time.Duration
	IssueTime  time.Duration
	Activities []Activity
}

// Name is the operation, with its part where two go by one name.
func (r *OpRecord) Name() string {
	if r.Part == "" {
		return string(r.Op)
	}
	return string(r.Op) + "." + r.Part
}

// ActivityKind says what a GPU did.
type ActivityKind uint32

// The kinds of activities.
const (
	KernelActivity ActivityKind = iota
	CopyActivity
	SetActivity // filling memory
)

// Activity is one thing that a GPU ran: a kernel, a copy or a fill. Times are
// since the profiler was set.
type Activity struct {
	Kind ActivityKind
	Name string // of the kernel; of a copy its direction: "HtoD", "DtoH", "DtoD", …
	// Start of a kernel is not before the end of the kernel before it on its stream: it may
	// be there earlier, and wait.
	Start    time.Duration
	Duration time.Duration
	// The call that issued it, on the host. The activities of a graph, which one call
	// issues, have equal parts of its time, in order, and numbers of their own.
	Issued    time.Duration
	IssueTime time.Duration
	InGraph   bool

	Correlation     uint32 // number of that call
	Device, Context uint32
	Stream          uint32
	Bytes           int64 // of a copy or fill

	// Of a kernel.
	Grid, CTA                   [3]int32
	Registers                   int // a thread
	StaticShared, DynamicShared int // bytes a CTA
}

// CTAs is the number of CTAs of a kernel's grid.
func (a *Activity) CTAs() int { return int(a.Grid[0]) * int(a.Grid[1]) * int(a.Grid[2]) }

// Threads is the number of threads of a kernel's CTA.
func (a *Activity) Threads() int { return int(a.CTA[0]) * int(a.CTA[1]) * int(a.CTA[2]) }

// ProfileNoter is a Backend that has something to say of its profile: what it
// could not see, and faults of the profiler, which end the profile and nothing
// else.
type ProfileNoter interface {
	// ProfileNotes are sentences on what was recorded since SetProfiler, which may
	// have been turned off since.
	ProfileNotes() []string
}
