package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
)

// config is what the forward pass needs of config.json. The engine has
// validated the file before it comes here.
type config struct {
	Hidden       int     `json:"hidden_size"`
	Intermediate int     `json:"intermediate_size"`
	Layers       int     `json:"num_hidden_layers"`
	Heads        int     `json:"num_attention_heads"`
	KVHeads      int     `json:"num_key_value_heads"`
	HeadDim      int     `json:"head_dim"` // 0 = hidden / heads
	Vocab        int     `json:"vocab_size"`
	Eps          float64 `json:"rms_norm_eps"`
	Theta        float64 `json:"rope_theta"`
	MaxLen       int     `json:"max_position_embeddings"`
	Tied         bool    `json:"tie_word_embeddings"`
	Scaling      *rope   `json:"rope_scaling"`    // as published
	Parameters   *rope   `json:"rope_parameters"` // as transformers 5 writes it, with theta inside
}

// rope is the positional part of config.json, under both spellings of its type.
type rope struct {
	Type            string   `json:"type"`
	RopeType        string   `json:"rope_type"`
	Theta           float64  `json:"rope_theta"`
	Factor          float64  `json:"factor"`
	OriginalLen     float64  `json:"original_max_position_embeddings"`
	AttentionFactor *float64 `json:"attention_factor"`
	BetaFast        float64  `json:"beta_fast"`
	BetaSlow        float64  `json:"beta_slow"`
	LowFreqFactor   float64  `json:"low_freq_factor"`
	HighFreqFactor  float64  `json:"high_freq_factor"`
}

func readConfig(dir string) (*config, error) {
	path := filepath.Join(dir, "config.json")
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c := &config{}
	if err := json.Unmarshal(data, c); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if c.HeadDim == 0 {
		c.HeadDim = c.Hidden / c.Heads
	}
	if c.Parameters != nil {
		c.Scaling = c.Parameters
		if c.Parameters.Theta != 0 {
			c.Theta = c.Parameters.Theta
		}
	}
	if c.Theta == 0 { // early Llamas
		c.Theta = 10000
	}
	if c.KVHeads == 0 {
		c.KVHeads = c.Heads
	}
	return c, nil
}

// checkpoint reads tensors of safetensors files, converted to float32. It
// shares no code with package model, so that a mistake in the engine's loader
// shows up in the comparison.
type checkpoint struct {
	files   []*os.File
	tensors map[string]storedTensor
}

// storedTensor is a row-major tensor in a file.
type storedTensor struct {
	file   *os.File
	offset int64 // of its first byte in file
	dtype  string
	shape  []int
}

// openCheckpoint reads the headers of model.safetensors, or of every shard in
// the directory when there is no such file.
func openCheckpoint(dir string) (*checkpoint, error) {
	paths := []string{filepath.Join(dir, "model.safetensors")}
	if _, err := os.Stat(paths[0]); err != nil {
		if paths, err = filepath.Glob(filepath.Join(dir, "model-*.safetensors")); err != nil {
			return nil, err
		}
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("%s: no model.safetensors and no shards", dir)
	}
	c := &checkpoint{tensors: map[string]storedTensor{}}
	for _, path := range paths {
		if err := c.add(path); err != nil {
			c.close()
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return c, nil
}

func (c *checkpoint) add(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	c.files = append(c.files, f)
	var length uint64
	if err := binary.Read(f, binary.LittleEndian, &length); err != nil {
		return err
	}
	header := map[string]json.RawMessage{}
	if err := json.NewDecoder(io.LimitReader(f, int64(length))).Decode(&header); err != nil {
		return err
	}
	delete(header, "__metadata__")
	for name, raw := range header {
		var t struct {
			DType   string   `json:"dtype"`
			Shape   []int    `json:"shape"`
			Offsets [2]int64 `json:"data_offsets"`
		}
		if err := json.Unmarshal(raw, &t); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		c.tensors[name] = storedTensor{file: f, offset: 8 + int64(length) + t.Offsets[0], dtype: t.DType, shape: t.Shape}
	}
	return nil
}

func (c *checkpoint) close() {
	for _, f := range c.files {
		f.Close()
	}
}

func (c *checkpoint) has(name string) bool {
	_, ok := c.tensors[name]
	return ok
}

// read returns a whole tensor of the given shape.
func (c *checkpoint) read(name string, shape ...int) ([]float32, error) {
	return c.readRows(name, 0, shape[0], shape...)
}

// readRows returns rows from up to, not including, to of a tensor of the given
// shape.
func (c *checkpoint) readRows(name string, from, to int, shape ...int) ([]float32, error) {
	t, ok := c.tensors[name]
	if !ok || !slices.Equal(t.shape, shape) {
		return nil, fmt.Errorf("tensor %s has shape %v, expected %v", name, t.shape, shape)
	}
	width := 1
	for _, d := range shape[1:] {
		width *= d
	}
	size, decode := 2, bfloat16
	switch t.dtype {
	case "BF16":
	case "F16":
		decode = float16
	case "F32":
		size, decode = 4, float32Bits
	default:
		return nil, fmt.Errorf("tensor %s has dtype %s, supported: BF16, F16, F32", name, t.dtype)
	}
	raw := make([]byte, (to-from)*width*size)
	if _, err := t.file.ReadAt(raw, t.offset+int64(from*width*size)); err != nil {
		return nil, fmt.Errorf("tensor %s: %w", name, err)
	}
	values := make([]float32, (to-from)*width)
	for i := range values {
		values[i] = decode(raw[i*size:])
	}
	return values, nil
}

func float32Bits(b []byte) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(b)) }

func bfloat16(b []byte) float32 {
	return math.Float32frombits(uint32(binary.LittleEndian.Uint16(b)) << 16)
}

// float16 converts an IEEE 754 half: 1 sign, 5 exponent and 10 fraction bits.
func float16(b []byte) float32 {
	bits := binary.LittleEndian.Uint16(b)
	exponent, fraction := int(bits>>10&31), float64(bits&1023)
	var v float64
	switch exponent {
	case 0: // subnormal
		v = math.Ldexp(fraction, -24)
	case 31:
		v = math.Inf(1)
		if fraction != 0 {
			v = math.NaN()
		}
	default:
		v = math.Ldexp(1024+fraction, exponent-25)
	}
	if bits>>15 == 1 {
		v = -v
	}
	return float32(v)
}
