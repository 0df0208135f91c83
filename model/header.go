package model

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"
)

// The safetensors format (https://github.com/huggingface/safetensors): the
// length of the header as a little-endian uint64, the header, a JSON object
//
//	{"__metadata__": {…}, "<tensor>": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}, …}
//
// and the tensors' bytes. Offsets count from the end of the header; the tensors
// cover the rest of the file without gap or overlap.
const (
	prefixBytes      = 8
	maxHeaderBytes   = 100_000_000 // the reference implementation's limit
	maxTensors       = 1 << 16     // of one file; Qwen2.5-72B has 963 in 37 files
	maxDims          = 8
	maxShapeText     = 256 // bytes of a shape, far above maxDims numbers
	metadataKey      = "__metadata__"
	maxMetadataItems = 1 << 16
)

// elementBytes is the size of one element of the formats' dtypes. Weights must
// be BF16, F16 or F32; the others may occur in tensors that are not used.
var elementBytes = map[string]uint64{
	"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
	"U16": 2, "I16": 2, "F16": 2, "BF16": 2,
	"U32": 4, "I32": 4, "F32": 4,
	"U64": 8, "I64": 8, "F64": 8, "C64": 8,
}

// tensorInfo is one tensor of a header.
type tensorInfo struct {
	name       string
	dtype      string // key of elementBytes
	shape      []int
	begin, end int64 // bytes of the file, from its start
}

// headerLength checks the first bytes of a file of fileBytes bytes and gives
// the length of its header.
func headerLength(file string, prefix []byte, fileBytes int64) (int, error) {
	if fileBytes < prefixBytes {
		return 0, fileError(file, "header length", "the file has %d bytes, the length alone takes %d", fileBytes, prefixBytes)
	}
	n := binary.LittleEndian.Uint64(prefix)
	if n > maxHeaderBytes {
		return 0, fileError(file, "header length", "is %d bytes, at most %d are allowed; is this a safetensors file?", n, maxHeaderBytes)
	}
	if n > uint64(fileBytes-prefixBytes) {
		return 0, fileError(file, "header length", "is %d bytes, but the file ends after %d", n, fileBytes-prefixBytes)
	}
	return int(n), nil
}

// parseHeader validates the header of a file of fileBytes bytes and returns
// its tensors in the order of their bytes.
func parseHeader(file string, header []byte, fileBytes int64) ([]tensorInfo, error) {
	if len(header) == 0 || header[0] != '{' {
		return nil, fileError(file, "header", "does not start with '{'")
	}
	list, err := members(header, maxTensors)
	if err != nil {
		return nil, fileError(file, "header", "%v", err)
	}
	errs := &FileError{File: file}
	dataStart := int64(prefixBytes + len(header))
	infos := make([]tensorInfo, 0, len(list))
	for _, m := range list {
		if m.key == metadataKey {
			checkMetadata(m.value, errs)
		} else if t, ok := parseTensor(m, dataStart, fileBytes, errs); ok {
			infos = append(infos, t)
		}
	}
	if len(errs.Problems) == 0 {
		checkContiguous(infos, dataStart, fileBytes, errs)
	}
	return infos, errs.orNil()
}

// checkMetadata refuses metadata that is not a map of strings.
func checkMetadata(raw json.RawMessage, errs *FileError) {
	list, err := members(raw, maxMetadataItems)
	if err != nil {
		errs.add(metadataKey, "%v", err)
		return
	}
	for _, m := range list {
		if m.value[0] != '"' {
			errs.add(metadataKey+"."+quote(m.key), "is %s, must be a string", quote(string(m.value)))
		}
	}
}

// parseTensor reads one entry of the header and checks its byte range against
// its dtype and shape, and against the file.
func parseTensor(m member, dataStart, fileBytes int64, errs *FileError) (tensorInfo, bool) {
	t := tensorInfo{name: m.key}
	name := quote(m.key)
	list, err := members(m.value, 3)
	if err != nil {
		errs.add(name, "%v", err)
		return t, false
	}
	before := len(errs.Problems)
	var begin, end uint64
	for _, f := range list {
		field := name + "." + quote(f.key)
		switch f.key {
		case "dtype":
			t.dtype, err = parseDType(f.value)
		case "shape":
			t.shape, err = parseShape(f.value)
		case "data_offsets":
			begin, end, err = parseOffsets(f.value, uint64(fileBytes-dataStart))
		default:
			err = fmt.Errorf("is not a field of a tensor: dtype, shape, data_offsets")
		}
		if err != nil {
			errs.add(field, "%v", err)
		}
	}
	for _, field := range []string{"dtype", "shape", "data_offsets"} {
		if !slices.ContainsFunc(list, func(f member) bool { return f.key == field }) {
			errs.add(name+"."+field, "missing")
		}
	}
	if len(errs.Problems) > before {
		return t, false
	}
	want, ok := tensorBytes(t.shape, elementBytes[t.dtype])
	if !ok {
		errs.add(name+".shape", "%v of %s overflows", t.shape, t.dtype)
		return t, false
	}
	if end-begin != want {
		errs.add(name+".data_offsets", "[%d, %d] span %d bytes, but %s %v takes %d", begin, end, end-begin, t.dtype, t.shape, want)
		return t, false
	}
	t.begin, t.end = dataStart+int64(begin), dataStart+int64(end)
	return t, true
}

func parseDType(raw json.RawMessage) (string, error) {
	var s string
	if err := json.Unmarshal(raw, &s); err != nil || elementBytes[s] == 0 {
		return "", fmt.Errorf("is %s, not a known type", quote(string(raw)))
	}
	return s, nil
}

func parseShape(raw json.RawMessage) ([]int, error) {
	list, err := parseUnsigned(raw, maxDims)
	if err != nil {
		return nil, err
	}
	shape := make([]int, len(list))
	for i, n := range list {
		shape[i] = int(n)
	}
	return shape, nil
}

func parseOffsets(raw json.RawMessage, dataBytes uint64) (begin, end uint64, err error) {
	list, err := parseUnsigned(raw, 2)
	if err != nil {
		return 0, 0, err
	}
	if len(list) != 2 || list[0] > list[1] {
		return 0, 0, fmt.Errorf("is %s, must be [begin, end] with begin ≤ end", quote(string(raw)))
	}
	if list[1] > dataBytes {
		return 0, 0, fmt.Errorf("ends at %d, but the file has %d bytes after the header", list[1], dataBytes)
	}
	return list[0], list[1], nil
}

// parseUnsigned reads a list of at most max integers in [0, 2⁶³).
func parseUnsigned(raw json.RawMessage, max int) ([]uint64, error) {
	if len(raw) > maxShapeText || raw[0] != '[' {
		return nil, fmt.Errorf("is %s, must be a list of at most %d integers", quote(string(raw)), max)
	}
	body := bytes.TrimSpace(raw[1 : len(raw)-1])
	if len(body) == 0 {
		return nil, nil
	}
	items := strings.Split(string(body), ",")
	if len(items) > max {
		return nil, fmt.Errorf("has %d elements, at most %d are allowed", len(items), max)
	}
	list := make([]uint64, len(items))
	for i, item := range items {
		n, err := strconv.ParseUint(strings.TrimSpace(item), 10, 64)
		if err != nil || n > math.MaxInt64 {
			return nil, fmt.Errorf("is %s, must hold integers from 0 to 2⁶³−1", quote(string(raw)))
		}
		list[i] = n
	}
	return list, nil
}

// tensorBytes is the product of the shape and the element size; ok is false if
// it does not fit an int64. Like the reference, it refuses [2⁶², 8, 0] although
// the product is 0.
func tensorBytes(shape []int, element uint64) (n uint64, ok bool) {
	n = element
	for _, d := range shape {
		hi, lo := bits.Mul64(n, uint64(d))
		if hi != 0 || lo > math.MaxInt64 {
			return 0, false
		}
		n = lo
	}
	return n, true
}

// checkContiguous sorts the tensors by their bytes and refuses overlaps and
// holes: two readers could disagree about such a file, or hide data in it.
func checkContiguous(infos []tensorInfo, dataStart, fileBytes int64, errs *FileError) {
	slices.SortFunc(infos, func(a, b tensorInfo) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end), cmp.Compare(a.name, b.name))
	})
	at, last := dataStart, "the header"
	for _, t := range infos {
		switch {
		case t.begin < at:
			errs.add(quote(t.name)+".data_offsets", "overlaps %s by %d bytes", last, at-t.begin)
		case t.begin > at:
			errs.add(quote(t.name)+".data_offsets", "leaves a hole of %d bytes after %s", t.begin-at, last)
		}
		if t.end >= at {
			at, last = t.end, quote(t.name)
		}
	}
	if at != fileBytes {
		errs.add("size", "is %d bytes, but the last tensor, %s, ends at %d", fileBytes, last, at)
	}
}
