package model

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/pagoda-engine/pagoda/kernels"
)

// Quantized is a Source over a safetensors file in memory, whose matrices may be
// stored in a quarter of float32's size: NAME as I8 [rows, columns] beside
// NAME.scale as F32 [rows], its value int8 · scale, rounded to bfloat16. All
// other tensors are BF16. It is how a model lies inside the binary; everything
// after read is as with any checkpoint.
type Quantized struct {
	file    string // for messages
	data    []byte
	tensors map[string]tensorInfo
}

// scaleSuffix ends the name of the scales of a matrix.
const scaleSuffix = ".scale"

// OpenQuantized validates the header of data, which must not change while the
// Quantized is in use; file is for messages.
func OpenQuantized(file string, data []byte) (*Quantized, error) {
	size := int64(len(data))
	n, err := headerLength(file, data[:min(size, prefixBytes)], size)
	if err != nil {
		return nil, err
	}
	infos, err := parseHeader(file, data[prefixBytes:prefixBytes+n], size)
	if err != nil {
		return nil, err
	}
	q := &Quantized{file: file, data: data, tensors: make(map[string]tensorInfo, len(infos))}
	for _, t := range infos {
		q.tensors[t.name] = t
	}
	return q, nil
}

func (q *Quantized) check(cfg *Config) (notes []string, err error) {
	errs := &FileError{File: q.file}
	wanted := make(map[string]bool)
	for _, w := range cfg.weightTable() {
		for _, spec := range w.tensors() {
			wanted[spec.name] = true
			t, ok := q.tensors[spec.name]
			switch {
			case !ok:
				errs.add(spec.name, "missing, want shape %s", shapeText(spec.shape))
			case !slices.Equal(t.shape, spec.shape):
				errs.add(spec.name, "has shape %s, want %s", shapeText(t.shape), shapeText(spec.shape))
			case t.dtype == "I8" && len(spec.shape) == 2:
				wanted[spec.name+scaleSuffix] = true
				if s, ok := q.tensors[spec.name+scaleSuffix]; !ok || s.dtype != "F32" || !slices.Equal(s.shape, spec.shape[:1]) {
					errs.add(spec.name+scaleSuffix, "want F32 of shape %s: the scales of the int8 rows", shapeText(spec.shape[:1]))
				}
			case t.dtype != "BF16":
				errs.add(spec.name, "has dtype %s, want BF16, or I8 for a matrix", t.dtype)
			}
		}
	}
	var surplus []string
	for name := range q.tensors {
		if !wanted[name] {
			surplus = append(surplus, name)
		}
	}
	slices.Sort(surplus)
	for _, name := range surplus {
		errs.add(quote(name), "is not a tensor of this %s model", cfg.Architecture)
	}
	errs.Problems = groupLayers(errs.Problems)
	return nil, errs.orNil()
}

// bytes is the size after expansion, which read needs room for.
func (q *Quantized) bytes(t tensorSpec) int64 {
	return elements(t.shape) * int64(kernels.BF16.Size())
}

func (q *Quantized) inFile(tensorSpec) (kernels.HostTensor, bool) { return kernels.HostTensor{}, false }

func (q *Quantized) read(t tensorSpec, buf []byte) (kernels.HostTensor, error) {
	info, out := q.tensors[t.name], buf[:q.bytes(t)]
	stored := q.data[info.begin:info.end]
	if info.dtype == "I8" {
		scale := q.tensors[t.name+scaleSuffix]
		expand(out, stored, q.data[scale.begin:scale.end], t.shape[1])
	} else {
		copy(out, stored)
	}
	return kernels.HostTensor{Name: t.name, DType: kernels.BF16, Shape: t.shape, Data: out}, nil
}

// expand writes int8 rows times their scales as bfloat16. A row has at most 255
// different values, so each is rounded once.
func expand(out, rows, scales []byte, columns int) {
	var values [256]uint16
	for r := 0; len(rows) > 0; r++ {
		scale := math.Float32frombits(binary.LittleEndian.Uint32(scales[4*r:]))
		for i := range values {
			values[i] = kernels.FloatToBF16(float32(int8(i)) * scale)
		}
		for c, v := range rows[:columns] {
			binary.LittleEndian.PutUint16(out[2*c:], values[v])
		}
		rows, out = rows[columns:], out[2*columns:]
	}
}
