package model

import (
	"encoding/binary"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// quantizedTiny stores the matrices of c as int8 with scales.
func quantizedTiny(c *Config) []stored {
	var list []stored
	for _, s := range tinyTensors(c, "BF16") {
		if len(s.shape) < 2 {
			list = append(list, s)
			continue
		}
		rows, columns := s.shape[0], s.shape[1]
		s.dtype, s.data = "I8", make([]byte, rows*columns)
		scales := stored{name: s.name + scaleSuffix, dtype: "F32", shape: []int{rows}, data: make([]byte, 4*rows)}
		for i := range s.data {
			s.data[i] = byte(37*i + len(list)) // every value of an int8
		}
		for r := range rows {
			binary.LittleEndian.PutUint32(scales.data[4*r:], math.Float32bits(float32(r+1)/float32(7*rows)))
		}
		list = append(list, s, scales)
	}
	return list
}

// TestQuantizedGivesProducts: each weight arrives as int8 times the scale of its
// row, rounded to bfloat16, and vectors as they are.
func TestQuantizedGivesProducts(t *testing.T) {
	c := tinyConfig(t, true)
	tensors := quantizedTiny(c)
	byName := make(map[string]stored)
	for _, s := range tensors {
		byName[s.name] = s
	}
	q, err := OpenQuantized("tiny", encode(tensors))
	require.NoError(t, err)
	notes, err := q.check(c)
	require.NoError(t, err)
	require.Empty(t, notes)
	matrices := 0
	for _, w := range c.weightTable() {
		for _, spec := range w.tensors() {
			host, err := q.read(spec, make([]byte, q.bytes(spec)))
			require.NoError(t, err)
			require.Equal(t, spec.shape, host.Shape)
			require.Equal(t, kernels.BF16, host.DType)
			s := byName[spec.name]
			if s.dtype == "BF16" {
				require.Equal(t, s.data, host.Data)
				continue
			}
			matrices++
			for i, v := range s.data {
				scale := math.Float32frombits(binary.LittleEndian.Uint32(byName[spec.name+scaleSuffix].data[4*(i/s.shape[1]):]))
				require.Equal(t, kernels.FloatToBF16(float32(int8(v))*scale), binary.LittleEndian.Uint16(host.Data[2*i:]), "%s [%d]", spec.name, i)
			}
		}
	}
	require.Equal(t, 1+7*c.NumLayers, matrices)
}

// TestQuantizedLoads goes through Load, as any other source.
func TestQuantizedLoads(t *testing.T) {
	c := tinyConfig(t, true)
	q, err := OpenQuantized("tiny", encode(quantizedTiny(c)))
	require.NoError(t, err)
	r := &recorder{}
	var done, total int64
	_, err = Load(r, c, q, func(d, all int64) error {
		done, total = d, all
		return nil
	})
	require.NoError(t, err)
	require.Len(t, r.loaded, len(c.weightTable()))
	require.Equal(t, total, done)
	require.Equal(t, c.WeightBytes(), total)
}

func TestQuantizedRefuses(t *testing.T) {
	c := tinyConfig(t, true)
	change := func(f func(list []stored) []stored) []stored { return f(quantizedTiny(c)) }
	find := func(list []stored, suffix string) int {
		for i, s := range list {
			if strings.HasSuffix(s.name, suffix) {
				return i
			}
		}
		panic(suffix)
	}
	for want, tensors := range map[string][]stored{
		"want F32 of shape": change(func(l []stored) []stored {
			i := find(l, "q_proj.weight"+scaleSuffix)
			return append(l[:i:i], l[i+1:]...)
		}),
		"missing, want shape": change(func(l []stored) []stored { return l[1:] }),
		"is not a tensor": change(func(l []stored) []stored {
			return append(l, stored{name: "more", dtype: "BF16", shape: []int{1}, data: []byte{0, 0}})
		}),
		"has dtype F16": change(func(l []stored) []stored {
			l[find(l, "norm.weight")].dtype = "F16"
			return l
		}),
	} {
		q, err := OpenQuantized("tiny", encode(tensors))
		require.NoError(t, err)
		_, err = q.check(c)
		require.ErrorContains(t, err, want)
		var file *FileError
		require.ErrorAs(t, err, &file)
		require.Equal(t, "tiny", file.File)
	}
	_, err := OpenQuantized("tiny", []byte("short"))
	require.ErrorContains(t, err, "header length")
	whole := encode(quantizedTiny(c))
	_, err = OpenQuantized("tiny", whole[:len(whole)-1])
	require.Error(t, err)
}
