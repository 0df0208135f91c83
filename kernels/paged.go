package kernels

import "fmt"

// PagedKV gives the strides of the block pool, in elements. The layout is
// [block][layer][K|V][kvHead][token][headDim]: a block is one contiguous run
// over all layers, so that swapping or copying it is one transfer. Kernels use
// the strides and never assume the layout.
type PagedKV struct {
	BlockSize, Layers, KVHeads, HeadDim int

	DType DType // of the elements

	Block int // from a block to the next
	Layer int // from a layer to the next
	Value int // from K to V
	Head  int // from a KV head to the next
	Token int // from a token to the next
}

// NewPagedKV lays out a pool of float16 for the shape.
func NewPagedKV(s Shape, blockSize int) PagedKV {
	switch blockSize {
	case 16, 32, 64:
	default:
		panic(fmt.Sprintf("kernels: block size %d, want 16, 32 or 64", blockSize))
	}
	kv := PagedKV{DType: FP16, BlockSize: blockSize, Layers: s.Layers, KVHeads: s.KVHeads, HeadDim: s.HeadDim}
	kv.Token = s.HeadDim
	kv.Head = kv.Token * blockSize
	kv.Value = kv.Head * s.KVHeads
	kv.Layer = kv.Value * 2
	kv.Block = kv.Layer * s.Layers
	return kv
}

// BlockElems is the number of elements of a block.
func (kv PagedKV) BlockElems() int { return kv.Block }

// BlockBytes is the size of a block in bytes.
func (kv PagedKV) BlockBytes() int64 { return int64(kv.Block) * int64(kv.DType.Size()) }

// Index is the element index, inside a block, of token's first element.
func (kv PagedKV) Index(layer int, value bool, head, token int) int {
	i := layer*kv.Layer + head*kv.Head + token*kv.Token
	if value {
		i += kv.Value
	}
	return i
}
