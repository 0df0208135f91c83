package model

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// tinyConfig is a whole model of a few kilobytes.
func tinyConfig(t testing.TB, tied bool) *Config {
	t.Helper()
	c, err := ParseConfig("config.json", []byte(tinyText(tied)))
	require.NoError(t, err)
	return c
}

func tinyText(tied bool) string {
	text := configText(8, 12, 2, 2, 1, 16, tied)
	return strings.NewReplacer("151643", "1", "151645", "2").Replace(text)
}

// stored is a tensor as a test writes it.
type stored struct {
	name  string
	dtype string
	shape []int
	data  []byte
}

// tinyTensors are the tensors that c calls for; value j of tensor i is a small
// number that float16 and bfloat16 hold exactly, see tinyValue.
func tinyTensors(c *Config, dtype string) []stored {
	var list []stored
	for _, w := range c.weightTable() {
		for _, spec := range w.tensors() {
			s := stored{name: spec.name, dtype: dtype, shape: spec.shape}
			for j := range elements(spec.shape) {
				v := tinyValue(len(list), int(j))
				switch dtype {
				case "BF16":
					s.data = binary.LittleEndian.AppendUint16(s.data, kernels.FloatToBF16(v))
				case "F16":
					s.data = binary.LittleEndian.AppendUint16(s.data, halfBits(v))
				case "F32":
					s.data = binary.LittleEndian.AppendUint32(s.data, math.Float32bits(v))
				}
			}
			list = append(list, s)
		}
	}
	return list
}

func tinyValue(tensor, element int) float32 { return float32((tensor*31+element)%64+1) / 64 }

// halfBits encodes a normal, exactly representable number as float16.
func halfBits(f float32) uint16 {
	u := math.Float32bits(f)
	return uint16(u>>31)<<15 | uint16(u>>23&255-112)<<10 | uint16(u>>13&1023)
}

// encode writes a safetensors file in the tensors' order.
func encode(tensors []stored) []byte {
	header, data := `{"__metadata__":{"format":"pt"}`, []byte(nil)
	for _, t := range tensors {
		name, _ := json.Marshal(t.name)
		shape, _ := json.Marshal(t.shape)
		offsets, _ := json.Marshal([]int{len(data), len(data) + len(t.data)})
		data = append(data, t.data...)
		header += "," + string(name) + `:{"dtype":"` + t.dtype + `","shape":` + string(shape) + `,"data_offsets":` + string(offsets) + "}"
	}
	return withHeader(header+"}", data)
}

// withHeader puts a header, good or bad, before the data.
func withHeader(header string, data []byte) []byte {
	for len(header)%8 != 0 {
		header += " "
	}
	out := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(out, header...), data...)
}

// write puts files into a new directory.
func write(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	return dir
}

// writeShards splits tensors over two files and an index.
func writeShards(t testing.TB, tensors []stored) (dir string, index map[string]string) {
	t.Helper()
	names := []string{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}
	half := len(tensors) / 2
	index = make(map[string]string)
	for i, s := range tensors {
		index[s.name] = names[i/half&1]
		if i >= 2*half {
			index[s.name] = names[1]
		}
	}
	part := func(file string) (list []stored) {
		for _, s := range tensors {
			if index[s.name] == file {
				list = append(list, s)
			}
		}
		return list
	}
	return write(t, map[string][]byte{
		names[0]: encode(part(names[0])), names[1]: encode(part(names[1])), IndexFile: encodeIndex(t, index),
	}), index
}

func encodeIndex(t testing.TB, index map[string]string) []byte {
	t.Helper()
	data, err := json.Marshal(map[string]any{"metadata": map[string]int{"total_size": 1}, "weight_map": index})
	require.NoError(t, err)
	return data
}

// recorder is a Backend that keeps what it is given.
type recorder struct {
	kernels.Backend // nil: any other call panics
	loaded          []loaded
	calls           []string
	fail            string // name of the tensor to fail at
	files           bool   // matrices come as files
}

func (r *recorder) Info() kernels.Info { return kernels.Info{ReadsFiles: r.files} }

// loaded is a weight; its id is its place in recorder.loaded.
type loaded struct {
	id     int
	kind   string
	names  []string
	values []float32
	dummy  []kernels.HostTensor
}

func (l loaded) Bytes() int64 { return int64(len(l.values)) }

func (r *recorder) keep(kind string, tensors ...kernels.HostTensor) (kernels.Weight, error) {
	w := loaded{id: len(r.loaded), kind: kind}
	for _, t := range tensors {
		if t.Name == r.fail {
			return nil, os.ErrInvalid
		}
		w.names = append(w.names, t.Name)
		if r.files && len(t.Shape) == 2 {
			t.Data = make([]byte, t.NumElems()*t.DType.Size())
			if _, err := t.File.ReadAt(t.Data, t.FileAt); err != nil {
				return nil, &kernels.UnreadableError{Tensor: t}
			}
		}
		if t.Data == nil {
			w.dummy = append(w.dummy, t)
			continue
		}
		for i := range t.NumElems() {
			w.values = append(w.values, element(t, i))
		}
	}
	r.loaded = append(r.loaded, w)
	return w, nil
}

func element(t kernels.HostTensor, i int) float32 {
	switch raw := t.Data[i*t.DType.Size():]; t.DType {
	case kernels.BF16:
		return kernels.BF16ToFloat(binary.LittleEndian.Uint16(raw))
	case kernels.FP16:
		return kernels.FP16ToFloat(binary.LittleEndian.Uint16(raw))
	default:
		return math.Float32frombits(binary.LittleEndian.Uint32(raw))
	}
}

var linearKinds = map[kernels.LinearKind]string{
	kernels.LinearPlain: "linear", kernels.LinearDown: "down", kernels.LinearQKV: "qkv", kernels.LinearGateUp: "gate_up", kernels.LinearHead: "head",
}

func (r *recorder) LoadLinear(s kernels.LinearSpec) (kernels.Weight, error) {
	return r.keep(linearKinds[s.Kind], slices.Concat(s.Parts, s.Bias)...)
}
func (r *recorder) LoadNorm(t kernels.HostTensor) (kernels.Weight, error) { return r.keep("norm", t) }
func (r *recorder) LoadEmbedding(t kernels.HostTensor, tied bool) (kernels.Weight, error) {
	if tied {
		return r.keep("tied embedding", t)
	}
	return r.keep("embedding", t)
}
