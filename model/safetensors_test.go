package model

import (
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Each header is refused, by name of the file and of the field.
func TestHeaderRefusals(t *testing.T) {
	const a4, b4 = `"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}`, `"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}`
	tensor := func(dtype, shape, offsets string) string {
		return fmt.Sprintf(`{"a":{"dtype":%s,"shape":%s,"data_offsets":%s}}`, dtype, shape, offsets)
	}
	for name, c := range map[string]struct{ header, field, want string }{
		"not an object":      {`["a"]`, "header", "start with '{'"},
		"leading space":      {` {` + a4 + `}`, "header", "start with '{'"},
		"cut":                {`{` + a4, "header", "in the middle"},
		"text after":         {`{` + a4 + `} x`, "header", "text after"},
		"bad UTF-8":          {"{\"\xff\":1}", "header", "UTF-8"},
		"duplicate tensor":   {`{` + a4 + `,` + a4 + `}`, "header", "duplicate key a"},
		"duplicate field":    {`{"a":{"dtype":"U8","dtype":"I8","shape":[8],"data_offsets":[0,8]}}`, "a", "duplicate key dtype"},
		"escaped duplicate":  {`{` + a4 + `,"\u0061":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}`, "header", "duplicate key a"},
		"tensor not object":  {`{"a":3}`, "a", "not a JSON object"},
		"missing dtype":      {`{"a":{"shape":[8],"data_offsets":[0,8]}}`, "a.dtype", "missing"},
		"missing shape":      {`{"a":{"dtype":"U8","data_offsets":[0,8]}}`, "a.shape", "missing"},
		"missing offsets":    {`{"a":{"dtype":"U8","shape":[8]}}`, "a.data_offsets", "missing"},
		"unknown field":      {`{"a":{"dtype":"U8","shape":[8],"stride":[1]}}`, "a.stride", "not a field"},
		"too many fields":    {`{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8],"x":1}}`, "a", "more than 3"},
		"unknown dtype":      {tensor(`"Q4"`, `[8]`, `[0,8]`), "a.dtype", "is \"\\\"Q4\\\"\", not a known type"},
		"dtype number":       {tensor(`7`, `[8]`, `[0,8]`), "a.dtype", "not a known type"},
		"negative dim":       {tensor(`"U8"`, `[-8]`, `[0,8]`), "a.shape", "integers from 0"},
		"fractional dim":     {tensor(`"U8"`, `[8.0]`, `[0,8]`), "a.shape", "integers from 0"},
		"dim over 2^63":      {tensor(`"U8"`, `[9223372036854775808]`, `[0,8]`), "a.shape", "integers from 0"},
		"shape not a list":   {tensor(`"U8"`, `8`, `[0,8]`), "a.shape", "must be a list"},
		"shape nested":       {tensor(`"U8"`, `[[8]]`, `[0,8]`), "a.shape", "integers from 0"},
		"nine dims":          {tensor(`"U8"`, `[1,1,1,1,1,1,1,1,8]`, `[0,8]`), "a.shape", "at most 8"},
		"a million dims":     {tensor(`"U8"`, `[`+strings.Repeat("1,", 1e6)+`8]`, `[0,8]`), "a.shape", "at most 8"},
		"product overflows":  {tensor(`"F32"`, `[4611686018427387904,4611686018427387904]`, `[0,8]`), "a.shape", "overflows"},
		"bytes overflow":     {tensor(`"F32"`, `[4611686018427387904]`, `[0,8]`), "a.shape", "overflows"},
		"bytes over 2^63":    {tensor(`"F32"`, `[2305843009213693952]`, `[0,8]`), "a.shape", "overflows"},
		"overflow times 0":   {tensor(`"F32"`, `[4611686018427387904,8,0]`, `[0,0]`), "a.shape", "overflows"},
		"wraps to the size":  {tensor(`"U8"`, `[4294967296,4294967296,8]`, `[0,8]`), "a.shape", "overflows"},
		"one offset":         {tensor(`"U8"`, `[8]`, `[8]`), "a.data_offsets", "[begin, end]"},
		"three offsets":      {tensor(`"U8"`, `[8]`, `[0,4,8]`), "a.data_offsets", "at most 2"},
		"backward":           {tensor(`"U8"`, `[8]`, `[8,0]`), "a.data_offsets", "begin ≤ end"},
		"beyond the file":    {tensor(`"U8"`, `[9]`, `[0,9]`), "a.data_offsets", "ends at 9, but the file has 8"},
		"far beyond":         {tensor(`"U8"`, `[9]`, `[0,9223372036854775807]`), "a.data_offsets", "ends at"},
		"size mismatch":      {tensor(`"U8"`, `[7]`, `[0,8]`), "a.data_offsets", "span 8 bytes, but U8 [7] takes 7"},
		"overlap":            {`{` + a4 + `,"b":{"dtype":"U8","shape":[5],"data_offsets":[3,8]}}`, "b.data_offsets", "overlaps a by 1"},
		"same bytes":         {`{` + a4 + `,"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}`, "b.data_offsets", "overlaps a by 4"},
		"hole":               {`{` + a4 + `,"b":{"dtype":"U8","shape":[3],"data_offsets":[5,8]}}`, "b.data_offsets", "hole of 1 bytes after a"},
		"hole at the start":  {`{"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}`, "b.data_offsets", "hole of 4 bytes after the header"},
		"bytes at the end":   {`{` + a4 + `}`, "size", "ends at"},
		"no tensor":          {`{}`, "size", "the header, ends at"},
		"metadata list":      {`{"__metadata__":[],` + a4 + `,` + b4 + `}`, "__metadata__", "not a JSON object"},
		"metadata number":    {`{"__metadata__":{"x":1},` + a4 + `,` + b4 + `}`, "__metadata__.x", "must be a string"},
		"empty name, faulty": {`{"":3}`, `""`, "not a JSON object"},
		"control characters": {`{"\u001b[31m":3}`, `"\x1b[31m"`, "not a JSON object"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, map[string][]byte{SingleFile: withHeader(c.header, make([]byte, 8))})
			_, err := OpenCheckpoint(dir)
			require.Contains(t, requireProblem(t, err, filepath.Join(dir, SingleFile), c.field).Reason, c.want)
		})
	}
}

func TestMessagesAreBounded(t *testing.T) {
	var header strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&header, `,"t%d":3`, i)
	}
	dir := write(t, map[string][]byte{SingleFile: withHeader("{"+header.String()[1:]+"}", nil)})
	_, err := OpenCheckpoint(dir)
	require.ErrorContains(t, err, "5000 problems")
	require.ErrorContains(t, err, "and 4900 more")
	require.Less(t, len(err.Error()), 10_000)
}

func TestHeaderAccepts(t *testing.T) {
	for name, header := range map[string]string{
		"plain":           `{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}`,
		"spaces":          "{ \"a\" :\n{\"dtype\" : \"U8\" , \"shape\" : [ 2 , 4 ] , \"data_offsets\" : [ 0 , 8 ] } }",
		"scalar":          `{"a":{"dtype":"F64","shape":[],"data_offsets":[0,8]}}`,
		"empty tensors":   `{"z":{"dtype":"F32","shape":[0,4],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"y":{"dtype":"U8","shape":[0],"data_offsets":[8,8]}}`,
		"any order":       `{"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}`,
		"metadata, empty": `{"__metadata__":{},"a":{"dtype":"I16","shape":[4],"data_offsets":[0,8]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			ck, err := OpenCheckpoint(write(t, map[string][]byte{SingleFile: withHeader(header, make([]byte, 8))}))
			require.NoError(t, err)
			require.Contains(t, ck.tensors, "a")
			require.NoError(t, ck.Close())
		})
	}
}

func TestHeaderLengthRefusals(t *testing.T) {
	for name, data := range map[string][]byte{
		"empty file":   {},
		"seven bytes":  make([]byte, 7),
		"length 0":     make([]byte, 8),
		"past the end": binary.LittleEndian.AppendUint64(nil, 1),
		"too long":     binary.LittleEndian.AppendUint64(nil, maxHeaderBytes+1),
		"sign bit":     binary.LittleEndian.AppendUint64(nil, 1<<63),
		"all bits":     binary.LittleEndian.AppendUint64(nil, 1<<64-1),
		"not ours":     []byte("version https://git-lfs.github.com/spec/v1"),
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, map[string][]byte{SingleFile: data})
			_, err := OpenCheckpoint(dir)
			field := "header length"
			if name == "length 0" {
				field = "header"
			}
			requireProblem(t, err, filepath.Join(dir, SingleFile), field)
		})
	}
}

// A sparse file really has the 64 GiB that its header claims: opening it
// allocates next to nothing.
func TestNothingIsAllocatedForClaims(t *testing.T) {
	const claim = 64 << 30
	header := withHeader(fmt.Sprintf(`{"a":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}`, claim, claim), nil)
	dir := write(t, map[string][]byte{SingleFile: header})
	if err := os.Truncate(filepath.Join(dir, SingleFile), int64(len(header))+claim); err != nil {
		t.Skip("no sparse files here:", err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	ck, err := OpenCheckpoint(dir)
	runtime.ReadMemStats(&after)
	require.NoError(t, err)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
	require.NoError(t, ck.Close())
}

func TestShards(t *testing.T) {
	c := tinyConfig(t, false)
	dir, index := writeShards(t, tinyTensors(c, "BF16"))
	ck, err := OpenCheckpoint(dir)
	require.NoError(t, err)
	require.Len(t, ck.files, 2)
	require.Len(t, ck.tensors, len(index))
	_, err = ck.check(c)
	require.NoError(t, err)
	require.NoError(t, ck.Close())

	// A single file beside the index wins, as in transformers.
	require.NoError(t, os.WriteFile(filepath.Join(dir, SingleFile), encode(tinyTensors(c, "F16")), 0o600))
	ck, err = OpenCheckpoint(dir)
	require.NoError(t, err)
	require.Len(t, ck.files, 1)
	require.NoError(t, ck.Close())
}

func TestIndexRefusals(t *testing.T) {
	const tensor = "model.norm.weight"
	tensors := tinyTensors(tinyConfig(t, false), "BF16")
	for name, c := range map[string]struct {
		change      func(index map[string]string)
		file, field string
		want        string
	}{
		"missing file":  {func(m map[string]string) { m[tensor] = "none.safetensors" }, "none.safetensors", "file", "no such file"},
		"parent":        {func(m map[string]string) { m[tensor] = "../x.safetensors" }, IndexFile, "weight_map." + tensor, "same directory"},
		"absolute":      {func(m map[string]string) { m[tensor] = "/etc/x.safetensors" }, IndexFile, "weight_map." + tensor, "same directory"},
		"sub-directory": {func(m map[string]string) { m[tensor] = "a/x.safetensors" }, IndexFile, "weight_map." + tensor, "same directory"},
		"backslash":     {func(m map[string]string) { m[tensor] = `..\x.safetensors` }, IndexFile, "weight_map." + tensor, "same directory"},
		"zero byte":     {func(m map[string]string) { m[tensor] = "x\x00.safetensors" }, IndexFile, "weight_map." + tensor, "same directory"},
		"other format":  {func(m map[string]string) { m[tensor] = "pytorch_model.bin" }, IndexFile, "weight_map." + tensor, "same directory"},
		"empty name":    {func(m map[string]string) { m[tensor] = "" }, IndexFile, "weight_map." + tensor, "same directory"},
		"wrong shard":   {func(m map[string]string) { m[tensor] = m["model.embed_tokens.weight"] }, IndexFile, tensor, "is in model-00002-of-00002.safetensors, not in model-00001"},
		"unknown":       {func(m map[string]string) { m["x"] = m[tensor] }, IndexFile, "x", "is not in model-00002"},
		"not listed":    {func(m map[string]string) { delete(m, tensor) }, IndexFile, tensor, "not in the index"},
		"empty":         {func(m map[string]string) { clear(m) }, IndexFile, "weight_map", "is empty"},
		"many files": {func(m map[string]string) {
			for i := range maxShards + 1 {
				m[fmt.Sprint(i)] = fmt.Sprint(i, ".safetensors")
			}
		}, IndexFile, "weight_map", "at most 1000"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, index := writeShards(t, tensors)
			changed := maps.Clone(index)
			c.change(changed)
			require.NoError(t, os.WriteFile(filepath.Join(dir, IndexFile), encodeIndex(t, changed), 0o600))
			_, err := OpenCheckpoint(dir)
			require.Contains(t, requireProblem(t, err, filepath.Join(dir, c.file), c.field).Reason, c.want)
		})
	}
	for text, field := range map[string]string{
		`{}`:                            "weight_map",
		`{"weight_map": []}`:            "weight_map",
		`{"weight_map": {"a": 1}}`:      "weight_map.a",
		`{"weight_map": {"a":"","a":`:   "JSON",
		`{"weight_map": {"a":1,"a":1}}`: "weight_map",
		``:                              "JSON",
	} {
		dir := write(t, map[string][]byte{IndexFile: []byte(text)})
		_, err := OpenCheckpoint(dir)
		requireProblem(t, err, filepath.Join(dir, IndexFile), field)
	}
}

func TestTensorInTwoShards(t *testing.T) {
	a := encode([]stored{{"a", "U8", []int{1}, []byte{1}}})
	dir := write(t, map[string][]byte{
		"x.safetensors": a, "y.safetensors": a,
		IndexFile: []byte(`{"weight_map": {"a": "x.safetensors", "b": "y.safetensors"}}`),
	})
	_, err := OpenCheckpoint(dir)
	require.Contains(t, requireProblem(t, err, filepath.Join(dir, "y.safetensors"), "a").Reason, "is in x.safetensors too")
}

// All faulty shards are named in one error.
func TestFaultsOfAllShards(t *testing.T) {
	dir, index := writeShards(t, tinyTensors(tinyConfig(t, false), "BF16"))
	for _, file := range index {
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), nil, 0o600))
	}
	_, err := OpenCheckpoint(dir)
	require.ErrorContains(t, err, "model-00001-of-00002.safetensors: header length")
	require.ErrorContains(t, err, "model-00002-of-00002.safetensors: header length")
}

func TestNoWeights(t *testing.T) {
	dir := t.TempDir()
	_, err := OpenCheckpoint(dir)
	require.Contains(t, requireProblem(t, err, filepath.Join(dir, SingleFile), "file").Reason, "--load-format dummy")
}

func TestLinksStayInside(t *testing.T) {
	config, weights := []byte(tinyText(false)), encode(tinyTensors(tinyConfig(t, false), "BF16"))
	outside := write(t, map[string][]byte{"config.json": config, "w": weights})
	link := func(target, name string) { require.NoError(t, os.Symlink(target, name)) }

	dir := t.TempDir()
	link(filepath.Join(outside, "config.json"), filepath.Join(dir, "config.json"))
	link(filepath.Join("..", filepath.Base(outside), "w"), filepath.Join(dir, SingleFile))
	_, err := ReadConfig(dir)
	requireProblem(t, err, filepath.Join(dir, "config.json"), "file")
	_, err = OpenCheckpoint(dir)
	requireProblem(t, err, filepath.Join(dir, SingleFile), "file")

	inside := write(t, map[string][]byte{"w": weights})
	link("w", filepath.Join(inside, SingleFile))
	ck, err := OpenCheckpoint(inside)
	require.NoError(t, err)
	require.NoError(t, ck.Close())

	// The Hugging Face cache: snapshots link to blobs of the same repository.
	repo := filepath.Join(t.TempDir(), "models--a--b")
	snapshot := filepath.Join(repo, "snapshots", "0123abcd")
	require.NoError(t, os.MkdirAll(snapshot, 0o700))
	require.NoError(t, os.Mkdir(filepath.Join(repo, "blobs"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(repo, "blobs", "c0ffee"), config, 0o600))
	link("../../blobs/c0ffee", filepath.Join(snapshot, "config.json"))
	_, err = ReadConfig(snapshot)
	require.NoError(t, err)
	link(filepath.Join("../../../../..", filepath.Base(outside), "w"), filepath.Join(snapshot, SingleFile))
	_, err = OpenCheckpoint(snapshot)
	requireProblem(t, err, filepath.Join(snapshot, SingleFile), "file")
}

func TestNotARegularFile(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, unix.Mkfifo(filepath.Join(dir, SingleFile), 0o600)) // opening one would block
	require.NoError(t, os.Mkdir(filepath.Join(dir, "config.json"), 0o700))
	_, err := OpenCheckpoint(dir)
	requireProblem(t, err, filepath.Join(dir, SingleFile), "file")
	_, err = ReadConfig(dir)
	requireProblem(t, err, filepath.Join(dir, "config.json"), "file")
}

// A file that shrinks while it is mapped raises SIGBUS in whoever touches it;
// here it becomes an error.
func TestTruncatedWhileMapped(t *testing.T) {
	c := tinyConfig(t, false)
	tensors := tinyTensors(c, "BF16")
	tensors[0].shape, tensors[0].data = []int{8, 65536}, make([]byte, 1<<20)
	dir := write(t, map[string][]byte{SingleFile: encode(tensors)})
	path := filepath.Join(dir, SingleFile)
	ck, err := OpenCheckpoint(dir)
	require.NoError(t, err)
	defer ck.Close()
	require.NoError(t, os.Truncate(path, 8192))

	_, err = ck.tensors[tensors[0].name].read(make([]byte, 1<<20))
	require.Contains(t, requireProblem(t, err, path, "file").Reason, "truncated while in use")

	_, err = Load(&recorder{}, c, ck, nil)
	requireProblem(t, err, path, "size")
}

func TestRewrittenWhileMapped(t *testing.T) {
	c := tinyConfig(t, false)
	dir := write(t, map[string][]byte{SingleFile: encode(tinyTensors(c, "BF16"))})
	path := filepath.Join(dir, SingleFile)
	ck, err := OpenCheckpoint(dir)
	require.NoError(t, err)
	defer ck.Close()
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.NoError(t, os.Chtimes(path, info.ModTime(), info.ModTime().Add(1e9)))
	_, err = Load(&recorder{}, c, ck, nil)
	requireProblem(t, err, path, "file")
}
