package main

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"hash"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var qwen = flag.String("qwen", "", "directory with real Qwen2.5 weights to check (make check-qwen)")

// ggufParts are the names that GGUF gives the parts of a layer.
var ggufParts = map[string]string{
	"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
	"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
	"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}

// checkpointName is the name in safetensors of a tensor in GGUF; ok is false for
// what is no tensor.
func checkpointName(gguf string) (name string, ok bool) {
	switch gguf {
	case "token_embd.weight":
		return "model.embed_tokens.weight", true
	case "output_norm.weight":
		return "model.norm.weight", true
	case "output.weight":
		return "lm_head.weight", true
	}
	field := strings.Split(gguf, ".") // blk.3.attn_q.bias
	if len(field) != 4 || field[0] != "blk" || ggufParts[field[2]] == "" {
		return "", false
	}
	return fmt.Sprintf("model.layers.%s.%s.%s", field[1], ggufParts[field[2]], field[3]), true
}

// halfBits rounds to IEEE 754 half, to nearest, ties to even.
func halfBits(v float32) uint16 {
	sign := uint16(math.Float32bits(v) >> 16 & 0x8000)
	switch a := math.Abs(float64(v)); {
	case math.IsNaN(a):
		return sign | 0x7E00
	case a >= 65520: // halfway to what would be the next
		return sign | 0x7C00
	case a < 0x1p-14: // a subnormal, or the smallest normal when it rounds up
		return sign | uint16(math.RoundToEven(a*0x1p24))
	default:
		fraction, exponent := math.Frexp(a)                                          // fraction in [½, 1)
		return sign | uint16(int(math.RoundToEven(fraction*2048))+(exponent+13)<<10) // a carry raises the exponent
	}
}

// ggufHash is the SHA-256 of a tensor as a conversion to GGUF in F16 stores it:
// vectors in float32, matrices in half.
func ggufHash(c *checkpoint, name string) (string, error) {
	t, ok := c.tensors[name]
	if !ok {
		return "", fmt.Errorf("no tensor %s", name)
	}
	const rows = 4096 // at one time
	sum := sha256.New()
	for from := 0; from < t.shape[0]; from += rows {
		values, err := c.readRows(name, from, min(from+rows, t.shape[0]), t.shape...)
		if err != nil {
			return "", err
		}
		writeGGUF(sum, values, len(t.shape) == 1)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

func writeGGUF(sum hash.Hash, values []float32, whole bool) {
	var raw []byte
	for _, v := range values {
		if whole {
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
		} else {
			raw = binary.LittleEndian.AppendUint16(raw, halfBits(v))
		}
	}
	sum.Write(raw)
}

// differing lists the tensors of a fingerprint that the checkpoint has not, or not so,
// and what it has beyond them.
func differing(c *checkpoint, fingerprint map[string]string) (bad []string, tensors int, err error) {
	seen := map[string]bool{}
	for _, gguf := range slices.Sorted(maps.Keys(fingerprint)) {
		name, ok := checkpointName(gguf)
		if !ok {
			continue
		}
		tensors++
		seen[name] = true
		if !c.has(name) {
			bad = append(bad, name+" is missing")
			continue
		}
		got, err := ggufHash(c, name)
		if err != nil {
			return nil, 0, err
		}
		if got != fingerprint[gguf] {
			bad = append(bad, name+" differs")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.tensors)) {
		if !seen[name] && name != "lm_head.weight" { // a tied head may be stored twice
			bad = append(bad, name+" is not of this model")
		}
	}
	return bad, tensors, nil
}

// oddValues are bfloat16 bits: zeros, subnormals of half and ties between them, the
// largest, an overflow. The hashes of the tests are numpy's.
var oddValues = []uint16{
	0x0000, 0x8000, 0x3F80, 0xC020, 0x3880, 0x3800, 0x3380, 0x3300, 0x33C0, 0x33C0, 0x3280, 0x4780, 0x477F, 0xC7C3, 0x3C00, 0x33D7, 0xB800, 0x3DCD,
}

// writeCheckpoint stores tensors of oddValues in bfloat16.
func writeCheckpoint(t *testing.T, shapes map[string][]int) *checkpoint {
	header, data := map[string]any{}, []byte{}
	for name, shape := range shapes {
		begin := len(data)
		for _, bits := range oddValues {
			data = binary.LittleEndian.AppendUint16(data, bits)
		}
		header[name] = map[string]any{"dtype": "BF16", "shape": shape, "data_offsets": []int{begin, len(data)}}
	}
	text, err := json.Marshal(header)
	require.NoError(t, err)
	dir := t.TempDir()
	file := append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), append(text, data...)...)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "model.safetensors"), file, 0o600))
	c, err := openCheckpoint(dir)
	require.NoError(t, err)
	t.Cleanup(c.close)
	return c
}

func TestFingerprint(t *testing.T) {
	const half, whole = "e7161c6bd16c3b36c0bf5d2ba2db4ed29864940cd3b5ce0a3397157bb4fc8939", "6f0a1fcc6ae9107d632d4eec4bc4e8c6e97029c07cb7e7eb35dddef9f3765f7a"
	c := writeCheckpoint(t, map[string][]int{
		"model.embed_tokens.weight": {6, 3}, "model.norm.weight": {18}, "model.layers.7.mlp.up_proj.weight": {3, 6}, "model.layers.7.self_attn.k_proj.bias": {18},
	})
	fingerprint := map[string]string{
		"general.architecture": "qwen2", "tokenizer.ggml.merges": "00",
		"token_embd.weight": half, "output_norm.weight": whole, "blk.7.ffn_up.weight": half, "blk.7.attn_k.bias": whole,
	}
	bad, tensors, err := differing(c, fingerprint)
	require.NoError(t, err)
	require.Empty(t, bad)
	require.Equal(t, 4, tensors)

	fingerprint["output_norm.weight"] = half
	delete(fingerprint, "blk.7.attn_k.bias")
	fingerprint["blk.8.attn_k.bias"] = whole
	bad, _, err = differing(c, fingerprint)
	require.NoError(t, err)
	require.Equal(t, []string{"model.layers.8.self_attn.k_proj.bias is missing", "model.norm.weight differs", "model.layers.7.self_attn.k_proj.bias is not of this model"}, bad)
}

// TestHalfRoundTrips: every half, through float32, is itself.
func TestHalfRoundTrips(t *testing.T) {
	for bits := range 1 << 16 {
		if bits&0x7C00 == 0x7C00 && bits&0x3FF != 0 {
			continue // not a number
		}
		require.EqualValues(t, bits, halfBits(float16([]byte{byte(bits), byte(bits >> 8)})))
	}
}

func readFingerprint(t *testing.T) map[string]string {
	data, err := os.ReadFile(filepath.Join("..", "..", "testdata", "qwen2.5", "0.5b-instruct-fingerprint.json"))
	require.NoError(t, err)
	fingerprint := map[string]string{}
	require.NoError(t, json.Unmarshal(data, &fingerprint))
	return fingerprint
}

// TestFingerprintNames: the published fingerprint names every tensor of the shape.
func TestFingerprintNames(t *testing.T) {
	names := map[string]bool{}
	for gguf := range readFingerprint(t) {
		if name, ok := checkpointName(gguf); ok {
			names[name] = true
		}
	}
	require.Len(t, names, 24*12+2)
}

// TestCheckQwenTensors compares the tensors of Qwen2.5-0.5B-Instruct with the published
// hashes; of other sizes none are known.
func TestCheckQwenTensors(t *testing.T) {
	if *qwen == "" {
		t.Skip("needs real weights: make check-qwen DIR=…")
	}
	config, err := readConfig(*qwen)
	require.NoError(t, err)
	if config.Hidden != 896 || config.Layers != 24 {
		t.Skipf("%s is not of the 0.5B's shape, and of other sizes no hashes are known here", *qwen)
	}
	c, err := openCheckpoint(*qwen)
	require.NoError(t, err)
	defer c.close()
	bad, tensors, err := differing(c, readFingerprint(t))
	require.NoError(t, err)
	for _, line := range bad[:min(len(bad), 8)] {
		t.Log(line)
	}
	require.Zero(t, len(bad), "tensors that are not those of Qwen2.5-0.5B-Instruct, of %d", tensors)
	t.Logf("%d tensors are those of Qwen2.5-0.5B-Instruct", tensors)
}
