package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// mutant is one damaged file of a model directory.
type mutant struct {
	file   string
	data   []byte
	what   string
	refuse bool // it must be refused; else it may be harmless
}

// TestMutatedFiles damages a model directory in more than 10,000 ways and loads
// it (in short mode a ninth of them). Nothing may panic or hang, and a refusal names the file and the field.
func TestMutatedFiles(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	c := tinyConfig(t, false)
	tensors := tinyTensors(c, "BF16")
	weights, config := encode(tensors), []byte(tinyText(false))

	single := write(t, map[string][]byte{ConfigFile: config, SingleFile: weights})
	sharded, index := writeShards(t, tensors)
	require.NoError(t, os.WriteFile(filepath.Join(sharded, ConfigFile), config, 0o600))
	require.NoError(t, loadWhole(single), "the undamaged directories load")
	require.NoError(t, loadWhole(sharded))

	var total, refused int
	each := 1
	if testing.Short() {
		each = 9 // mutants follow patterns of two and eight
	}
	run := func(dir string, mutants []mutant) { // all of one file
		path := filepath.Join(dir, mutants[0].file)
		original, err := os.ReadFile(path)
		require.NoError(t, err)
		for i, m := range mutants {
			if i%each > 0 {
				continue
			}
			require.NoError(t, os.WriteFile(path, m.data, 0o600))
			err = loadRecovered(dir)
			total++
			if err != nil {
				refused++
				requireNamed(t, m, dir, err)
			} else {
				require.False(t, m.refuse, "%s was accepted: %s", m.file, m.what)
			}
		}
		require.NoError(t, os.WriteFile(path, original, 0o600))
	}
	run(single, truncations(SingleFile, weights, rng))
	run(single, flips(SingleFile, weights, 3000, rng))
	run(single, headerEdits(tensors, rng))
	run(single, truncations(ConfigFile, config, rng))
	run(single, flips(ConfigFile, config, 1500, rng))
	run(single, fieldEdits(t, config))
	run(sharded, truncations(IndexFile, encodeIndex(t, index), rng))
	run(sharded, flips(IndexFile, encodeIndex(t, index), 1000, rng))
	run(sharded, indexEdits(t, index, rng))
	t.Logf("%d mutated files, %d refused", total, refused)
	require.GreaterOrEqual(t, total, 10_000/each)
	require.Greater(t, refused, total*3/4)
}

// loadWhole does everything that a start of the program does with the files.
func loadWhole(dir string) error {
	c, err := ReadConfig(dir)
	if err != nil {
		return err
	}
	c.Shape()
	ck, err := OpenCheckpoint(dir)
	if err != nil {
		return err
	}
	defer ck.Close()
	_, err = Load(discard{}, c, ck, nil)
	return err
}

func loadRecovered(dir string) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return loadWhole(dir)
}

// requireNamed checks that the error, or each of several, is a FileError with
// a file of dir and fields, and shows them.
func requireNamed(t *testing.T, m mutant, dir string, err error) {
	t.Helper()
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			requireNamed(t, m, dir, e)
		}
		return
	}
	var fe *FileError
	require.True(t, errors.As(err, &fe), "%s: %s: %v", m.file, m.what, err)
	require.Equal(t, dir, filepath.Dir(fe.File), m.what)
	require.NotEmpty(t, fe.Problems, m.what)
	require.True(t, strings.HasPrefix(fe.Error(), fe.File+": "), m.what)
	for i, p := range fe.Problems {
		if p.Field == "" || p.Reason == "" || i < maxShown && !strings.Contains(fe.Error(), p.Field+": "+p.Reason) {
			require.Failf(t, "unnamed problem", "%s: %s: %v", m.file, m.what, fe)
		}
	}
}

// truncations cuts a file after every byte of its first part (for safetensors,
// length and header) and at 1,000 points of the rest.
func truncations(file string, data []byte, rng *rand.Rand) []mutant {
	var list []mutant
	cut := func(n int) {
		list = append(list, mutant{file, data[:n], fmt.Sprintf("cut after %d bytes", n), true})
	}
	every := len(data)
	if file == SingleFile {
		n, _ := headerLength(file, data, int64(len(data)))
		every = prefixBytes + n
		for range 1000 {
			cut(every + rng.IntN(len(data)-every))
		}
	}
	for n := range every {
		cut(n)
	}
	return list
}

// flips inverts one bit, in safetensors mostly of the header.
func flips(file string, data []byte, count int, rng *rand.Rand) []mutant {
	first := len(data)
	if file == SingleFile {
		n, _ := headerLength(file, data, int64(len(data)))
		first = prefixBytes + n
	}
	var list []mutant
	for i := range count {
		bit := rng.IntN(8 * first)
		if i%8 == 0 {
			bit = rng.IntN(8 * len(data))
		}
		changed := slices.Clone(data)
		changed[bit/8] ^= 1 << (bit % 8)
		list = append(list, mutant{file, changed, fmt.Sprintf("bit %d flipped", bit), false})
	}
	return list
}

// headerEdits keeps the header well formed but makes one entry false.
func headerEdits(tensors []stored, rng *rand.Rand) []mutant {
	type entry struct {
		DType   string  `json:"dtype"`
		Shape   []any   `json:"shape"`
		Offsets []int64 `json:"data_offsets"`
	}
	edges := []int64{0, 1, 2, -1, 1 << 31, 1 << 32, 1<<63 - 1, -1 << 63, 1<<61 + 1}
	var list []mutant
	for range 1500 {
		var end int64
		var data []byte
		header, victim := make(map[string]entry), rng.IntN(len(tensors))
		what := ""
		for i, s := range tensors {
			e := entry{s.dtype, nil, []int64{end, end + int64(len(s.data))}}
			for _, d := range s.shape {
				e.Shape = append(e.Shape, d)
			}
			end += int64(len(s.data))
			data = append(data, s.data...)
			if i == victim {
				before := fmt.Sprint(e)
				for fmt.Sprint(e) == before {
					edge := edges[rng.IntN(len(edges))]
					switch rng.IntN(5) {
					case 0:
						e.DType = []string{"F64", "U8", "bf16", "", "F32"}[rng.IntN(5)]
					case 1:
						e.Shape[rng.IntN(len(e.Shape))] = edge
					case 2: // overlap, hole, beyond the end
						e.Offsets[rng.IntN(2)] = edge
					case 3:
						shift := int64(rng.IntN(9) - 4)
						e.Offsets[0], e.Offsets[1] = e.Offsets[0]+shift, e.Offsets[1]+shift
					case 4:
						e.Shape = append(e.Shape, edge)
					}
				}
				what = fmt.Sprintf("%s: %v", s.name, e)
			}
			header[s.name] = e
		}
		text, _ := json.Marshal(header)
		list = append(list, mutant{SingleFile, withHeader(string(text), data), what, true})
	}
	return list
}

// fieldEdits gives every field of a config every edge value, and removes it.
func fieldEdits(t *testing.T, config []byte) []mutant {
	values := []any{nil, true, "", "x", []int{}, map[string]int{}, 0, -1, 1, 3, 0.5, 1 << 31, json.Number("1e308"), json.Number("9223372036854775808")}
	var fields map[string]any
	require.NoError(t, json.Unmarshal(config, &fields))
	extra := []string{"head_dim", "rope_scaling", "rope_parameters", "layer_types", "quantization_config", "attention_bias",
		"mlp_bias", "dtype", "partial_rotary_factor", "original_max_position_embeddings"}
	var list []mutant
	for _, field := range append(slices.Sorted(maps.Keys(fields)), extra...) {
		for _, v := range values {
			changed := maps.Clone(fields)
			changed[field] = v
			text, err := json.Marshal(changed)
			require.NoError(t, err)
			list = append(list, mutant{ConfigFile, text, fmt.Sprintf("%s = %v", field, v), false})
		}
	}
	for _, rope := range []string{"rope_scaling", "rope_parameters"} {
		for _, field := range yarnFields {
			for _, v := range values {
				changed := maps.Clone(fields)
				changed[rope] = map[string]any{"rope_type": "yarn", "factor": 2, field: v}
				text, err := json.Marshal(changed)
				require.NoError(t, err)
				list = append(list, mutant{ConfigFile, text, fmt.Sprintf("%s.%s = %v", rope, field, v), false})
			}
		}
	}
	return list
}

// indexEdits sends one tensor of the index elsewhere.
func indexEdits(t *testing.T, index map[string]string, rng *rand.Rand) []mutant {
	files := slices.Compact(slices.Sorted(maps.Values(index)))
	elsewhere := append(files, "", ".", "..", "../"+files[0], "/"+files[0], "none.safetensors", "a/b.safetensors",
		strings.Repeat("x", 5000)+".safetensors", "config.json", "\x00.safetensors", "..\\x.safetensors")
	names := slices.Sorted(maps.Keys(index))
	var list []mutant
	for range 500 {
		name, to := names[rng.IntN(len(names))], elsewhere[rng.IntN(len(elsewhere))]
		if index[name] == to {
			continue
		}
		changed := maps.Clone(index)
		changed[name] = to
		list = append(list, mutant{IndexFile, encodeIndex(t, changed), fmt.Sprintf("%s in %q", name, to), true})
	}
	return list
}

// discard is a Backend that reads the weights it is given and forgets them.
type discard struct{ kernels.Backend }

func (discard) Info() kernels.Info { return kernels.Info{} }

func (discard) take(tensors ...kernels.HostTensor) (kernels.Weight, error) {
	var n loaded
	for _, t := range tensors {
		for i := range t.NumElems() {
			n.id += int(element(t, i))
		}
	}
	return n, nil
}

func (d discard) LoadLinear(s kernels.LinearSpec) (kernels.Weight, error) {
	return d.take(slices.Concat(s.Parts, s.Bias)...)
}
func (d discard) LoadNorm(t kernels.HostTensor) (kernels.Weight, error) { return d.take(t) }
func (d discard) LoadEmbedding(t kernels.HostTensor, _ bool) (kernels.Weight, error) {
	return d.take(t)
}
