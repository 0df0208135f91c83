package cuda

// Ptr is a device address.
type Ptr uint64

// The units in which a Range is backed: larger ones map faster, smaller ones waste
// less. PatchBytes is the smallest that GPUs have.
const (
	ChunkBytes = 32 << 20
	PatchBytes = 2 << 20
)

// Span is bytes of a Range from an offset on.
type Span struct{ At, Bytes int64 }
