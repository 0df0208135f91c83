//go:build cuda

package cuda

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"
	"unsafe"

	"github.com/pagoda-engine/pagoda/internal/cuda"
	"github.com/pagoda-engine/pagoda/kernels"
)

// weightKind says what a weight is for; operations accept one kind.
type weightKind int

const (
	weightPlain weightKind = iota
	weightDown             // over mlpScale
	weightQKV
	weightGateUp
	weightHead // embedding, too
	weightNorm // float32 [rows]
)

// mlpScale is MLP_SCALE of common.cuh.
const mlpScale = 1.0 / 64

// weight implements kernels.Weight: [rows, cols] at data, float16 in panels of 64 columns,
// in the order that common.cuh says.
type weight struct {
	name       string
	kind       weightKind
	rows, cols int
	width      int // cols, up to whole panels
	data, bias ptr // bias: float32 [rows], or 0
	bytes      int64
}

// panelColumns is the columns of a panel.
const panelColumns = widthUnit

// padded is the rows that there is room for, and panel the elements of a panel.
func (w *weight) padded() int  { return roundUp(w.rows, weightUnit) }
func (w *weight) panel() int64 { return int64(w.padded()) * panelColumns }

// Bytes implements kernels.Weight.
func (w *weight) Bytes() int64 { return w.bytes }

// operand checks that w is what op needs.
func (b *Backend) operand(op kernels.Op, w kernels.Weight, kind weightKind, rows, cols int) *weight {
	cw, ok := w.(*weight)
	if !ok {
		panic(fmt.Sprintf("cuda: %s: %T is not a weight of this backend", op, w))
	}
	if cw.kind != kind || cw.rows != rows || cw.cols != cols {
		panic(fmt.Sprintf("cuda: %s: %s is [%d, %d] of kind %d, want [%d, %d] of %d", op, cw.name, cw.rows, cw.cols, cw.kind, rows, cols, kind))
	}
	return cw
}

// loader places weights one behind the other and brings their data to the
// device through two pinned buffers, one filled while the other is copied.
type loader struct {
	place *cuda.Range
	used  int64 // bytes of place

	pinned [2][]byte // nil while nothing loads
	device [2]ptr
	copied [2]cuda.Event // the pinned buffer was copied
	turn   int
	beyond ptr // int32: values that float16 cannot hold
}

// stageBytes is the size of a staging buffer.
const stageBytes = 32 << 20

// reserve takes zeroed device memory for a weight.
func (b *Backend) reserve(bytes int64) (ptr, error) {
	l := &b.loader
	if l.place == nil {
		var err error
		if l.place, err = b.device.NewRange(b.device.TotalMemory, cuda.ChunkBytes); err != nil {
			return 0, memory(fmt.Errorf("reserving addresses for weights: %w", err))
		}
	}
	at := l.used
	end := (at + bytes + 255) / 256 * 256
	if end > l.place.Backed() {
		if err := l.place.Resize(end); err != nil {
			return 0, memory(fmt.Errorf("%d bytes for weights: %w", end, err))
		}
	}
	l.used = end
	return l.place.Base + ptr(at), b.compute.Clear(l.place.Base+ptr(at), (bytes+3)/4*4)
}

// stage makes the staging buffers.
func (b *Backend) stage() (err error) {
	l := &b.loader
	if l.pinned[0] != nil {
		return nil
	}
	for i := range l.pinned {
		p, err := cuda.HostAlloc(stageBytes)
		if err != nil {
			return memory(fmt.Errorf("staging: %w", err))
		}
		l.pinned[i] = unsafe.Slice((*byte)(p), stageBytes)
		if l.device[i], err = cuda.Malloc(stageBytes); err != nil {
			return memory(fmt.Errorf("staging: %w", err))
		}
		if l.copied[i], err = cuda.NewEvent(); err != nil {
			return err
		}
	}
	if l.beyond == 0 {
		if l.beyond, err = b.reserve(4); err != nil {
			return err
		}
	}
	return nil
}

// CheckLoad implements kernels.LoadChecker: it frees the staging buffers, and fails where weights did
// not fit. Where nobody calls it, the next step does.
func (b *Backend) CheckLoad() error {
	l := &b.loader
	if b.err != nil || l.pinned[0] == nil {
		return b.err
	}
	var beyond int32
	err := errors.Join(b.compute.ToHost(unsafe.Pointer(&beyond), l.beyond, 4), b.compute.Sync())
	if err == nil && beyond > 0 {
		err = &kernels.UnfitError{Reason: fmt.Sprintf("%d weights are beyond what float16 holds (65,504; of down projections 1,023): use --device cpu", beyond)}
	}
	return errors.Join(err, l.unstage())
}

func (l *loader) unstage() error {
	var errs []error
	for i := range l.pinned {
		if l.pinned[i] == nil {
			continue
		}
		if l.copied[i] != (cuda.Event{}) {
			errs = append(errs, l.copied[i].Sync())
		}
		errs = append(errs, l.copied[i].Destroy(), cuda.HostFree(unsafe.Pointer(&l.pinned[i][0])), cuda.Free(l.device[i]))
		l.pinned[i], l.device[i], l.copied[i] = nil, 0, cuda.Event{}
	}
	return errors.Join(errs...)
}

func (l *loader) free() error {
	err := l.unstage()
	if l.place != nil {
		err = errors.Join(err, l.place.Free())
	}
	return err
}

// kindOf is the layout of a linear weight.
func kindOf(kind kernels.LinearKind) weightKind {
	switch kind {
	case kernels.LinearQKV:
		return weightQKV
	case kernels.LinearGateUp:
		return weightGateUp
	case kernels.LinearHead:
		return weightHead
	case kernels.LinearDown:
		return weightDown
	}
	return weightPlain
}

// LoadLinear implements kernels.Loader.
func (b *Backend) LoadLinear(spec kernels.LinearSpec) (kernels.Weight, error) {
	cols, err := spec.Check(&b.shape)
	if err != nil {
		return nil, err
	}
	if len(spec.QKNorm) > 0 {
		return nil, fmt.Errorf("cuda: %s: there is no kernel that norms query and key heads; use the CPU", spec.QKNorm[0].Name)
	}
	return b.loadMatrix(kindOf(spec.Kind), cols, spec.Parts, spec.Bias)
}

// LoadEmbedding implements kernels.Loader. A tied one is the head as it is.
func (b *Backend) LoadEmbedding(t kernels.HostTensor, _ bool) (kernels.Weight, error) {
	if err := t.Check(b.shape.Vocab, b.shape.Hidden); err != nil {
		return nil, err
	}
	return b.loadMatrix(weightHead, b.shape.Hidden, []kernels.HostTensor{t}, nil)
}

// LoadNorm implements kernels.Loader.
func (b *Backend) LoadNorm(t kernels.HostTensor) (kernels.Weight, error) {
	if err := t.Check(b.shape.Hidden); err != nil {
		return nil, err
	}
	b.mustBeSetUp()
	w := &weight{name: t.Name, kind: weightNorm, rows: b.shape.Hidden, cols: 1, bytes: int64(4 * stride(b.shape.Hidden))}
	var err error
	if w.data, err = b.loadFloats(appendFloats(nil, t), stride(b.shape.Hidden)); err != nil {
		return nil, fmt.Errorf("%s: %w", t.Name, err)
	}
	return w, nil
}

func (b *Backend) mustBeSetUp() {
	if b.place == nil {
		panic("cuda: a weight is loaded before Setup")
	}
}

// appendFloats appends the tensor's values, unrounded.
func appendFloats(out []float32, t kernels.HostTensor) []float32 {
	for i := range t.NumElems() {
		switch {
		case t.Data == nil:
			out = append(out, kernels.BF16ToFloat(kernels.FloatToBF16(kernels.Dummy(t.Seed, uint64(i))*t.Scale+t.Offset)))
		case t.DType == kernels.FP32:
			out = append(out, math.Float32frombits(binary.LittleEndian.Uint32(t.Data[4*i:])))
		case t.DType == kernels.FP16:
			out = append(out, kernels.FP16ToFloat(binary.LittleEndian.Uint16(t.Data[2*i:])))
		default:
			out = append(out, kernels.BF16ToFloat(binary.LittleEndian.Uint16(t.Data[2*i:])))
		}
	}
	return out
}

// loadFloats brings a small vector to the device, with room for n values.
func (b *Backend) loadFloats(values []float32, n int) (ptr, error) {
	at, err := b.reserve(int64(4 * n))
	if err != nil {
		return 0, err
	}
	return at, b.compute.ToDevice(at, unsafe.Pointer(&values[0]), 4*len(values)) // staged by the driver
}

// pairRow is where row i of a QKV projection goes: the halves of a head that
// RoPE rotates against each other are neighbours.
func pairRow(i, headDim int) int {
	in, half := i%headDim, headDim/2
	if in < half {
		return i + in
	}
	return i - in + 2*(in-half) + 1
}

// loadMatrix brings parts, one below the other, into a weight.
func (b *Backend) loadMatrix(kind weightKind, cols int, parts, bias []kernels.HostTensor) (kernels.Weight, error) {
	b.mustBeSetUp()
	w := &weight{name: parts[0].Name, kind: kind, cols: cols, width: stride(cols)}
	for _, part := range parts {
		w.rows += part.Shape[0]
	}
	w.bytes = int64(w.padded()) * int64(w.width) * 2
	var err error
	if w.data, err = b.reserve(w.bytes); err != nil {
		return nil, fmt.Errorf("%s: %w", w.name, err)
	}
	first := 0
	for i, part := range parts {
		p := loadTo(w.data, w.panel(), cols)
		p.rowAt = int32(first)
		switch kind {
		case weightGateUp:
			p.rowStep, p.rowAt = 2, int32(i)
		case weightQKV:
			p.headDim = int32(b.shape.HeadDim)
		case weightDown:
			p.gain = 1 / mlpScale
		}
		if err := b.loadRows(part, p); err != nil {
			return nil, fmt.Errorf("%s: %w", part.Name, err)
		}
		first += part.Shape[0]
	}
	if len(bias) > 0 {
		if err := b.loadBias(w, bias); err != nil {
			return nil, fmt.Errorf("%s: %w", bias[0].Name, err)
		}
	}
	return w, b.err
}

// panelMap names a tensor map of panels of 64 columns, whose rows lie row bytes apart, and panels panel bytes.
type panelMap struct {
	data               ptr
	rows, columns      int
	row, panel         int64
	boxRows, boxPanels int
}

// tokensMap is of activations, rows of ld elements.
func tokensMap(data ptr, rows, ld, boxRows, boxPanels int) panelMap {
	return panelMap{data: data, rows: rows, columns: ld, row: int64(2 * ld), panel: 2 * panelColumns, boxRows: boxRows, boxPanels: boxPanels}
}

func (w *weight) tiles(boxRows, boxPanels int) panelMap {
	return panelMap{data: w.data, rows: w.padded(), columns: w.width, row: 2 * panelColumns, panel: 2 * w.panel(), boxRows: boxRows, boxPanels: boxPanels}
}

// panelsOf is the tensor map for the kernels that use the bulk copy engine; boxes are of many sizes, and
// each map is made once.
func (b *Backend) panelsOf(op kernels.Op, key panelMap) tensorMap {
	m, ok := b.panels[key]
	if !ok {
		made, err := cuda.NewPanelMap(key.data, key.rows, key.columns, key.row, key.panel, key.boxRows, key.boxPanels)
		b.fail(op, err)
		m = tensorMap(made)
		b.panels[key] = m
	}
	return m
}

func (b *Backend) loadBias(w *weight, bias []kernels.HostTensor) (err error) {
	var plain []float32
	for _, t := range bias {
		plain = appendFloats(plain, t)
	}
	permuted := make([]float32, len(plain))
	for i, v := range plain {
		permuted[pairRow(i, b.shape.HeadDim)] = v
	}
	w.bytes += int64(4 * w.padded())
	w.bias, err = b.loadFloats(permuted, w.padded())
	return err
}

// loadRows brings one part to its rows of the weight, as much at a time as the
// staging buffer holds.
func (b *Backend) loadRows(t kernels.HostTensor, p loadParams) error {
	rows := t.Shape[0]
	if t.Data == nil {
		p = p.dummies(rows, t.Seed, t.Scale, t.Offset)
		b.launch("load", planLoad(rows, int(p.cols)), unsafe.Pointer(&p))
		return b.err
	}
	l := &b.loader
	if err := b.stage(); err != nil {
		return err
	}
	rowBytes := int(p.cols) * t.DType.Size()
	p.dtype, p.beyond = int32(t.DType), l.beyond
	for first := 0; first < rows; {
		n := min(rows-first, stageBytes/rowBytes)
		i := l.turn
		l.turn = 1 - l.turn
		if err := l.copied[i].Sync(); err != nil {
			return err
		}
		copyParallel(l.pinned[i], t.Data[first*rowBytes:(first+n)*rowBytes])
		if err := b.compute.ToDevice(l.device[i], unsafe.Pointer(&l.pinned[i][0]), n*rowBytes); err != nil {
			return err
		}
		p.src, p.first, p.rows = l.device[i], int64(first), int32(n)
		b.launch("load", planLoad(n, int(p.cols)), unsafe.Pointer(&p))
		if err := l.copied[i].Record(&b.compute); err != nil {
			return err
		}
		first += n
	}
	return b.err
}

// copyParallel copies from the page cache, which one thread cannot read as fast
// as the bus takes it.
func copyParallel(dst, src []byte) {
	const share = 4 << 20
	var wait sync.WaitGroup
	for len(src) > share {
		wait.Add(1)
		go func(dst, src []byte) {
			defer wait.Done()
			copy(dst, src)
		}(dst[:share], src[:share])
		dst, src = dst[share:], src[share:]
	}
	copy(dst, src)
	wait.Wait()
}
