package model

import (
	"encoding/json"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pagoda-engine/pagoda/kernels"
)

// The files of a checkpoint. A directory with both is read as transformers
// does: the single file wins.
const (
	SingleFile = "model.safetensors"
	IndexFile  = "model.safetensors.index.json"
)

const (
	maxIndexBytes = 16 << 20 // Qwen2.5-72B's has 79 KB
	maxShards     = 1000     // each takes a file descriptor
)

// Checkpoint is the weights of a model directory: safetensors files, mapped
// and validated, not yet matched against a Config. Close unmaps them.
type Checkpoint struct {
	path    string // of the file that names the tensors, for messages
	files   []*mapping
	tensors map[string]*tensor
}

// tensor is a tensor in a mapped file.
type tensor struct {
	tensorInfo
	file *mapping
}

// OpenCheckpoint maps and validates model.safetensors, or the files that
// model.safetensors.index.json lists.
func OpenCheckpoint(dir string) (*Checkpoint, error) {
	d, err := openDirectory(dir)
	if err != nil {
		return nil, err
	}
	defer d.close()
	c := &Checkpoint{tensors: make(map[string]*tensor)}
	switch {
	case d.exists(SingleFile):
		c.path = d.path(SingleFile)
		err = c.openFile(d, SingleFile)
	case d.exists(IndexFile):
		c.path = d.path(IndexFile)
		err = c.openShards(d)
	default:
		err = fileError(d.path(SingleFile), "file",
			"no such file, and no %s; weights must be in safetensors format (or use --load-format dummy)", IndexFile)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Close unmaps the files.
func (c *Checkpoint) Close() error {
	var errs []error
	for _, m := range c.files {
		errs = append(errs, m.close())
	}
	c.files, c.tensors = nil, nil
	return errors.Join(errs...)
}

// openFile maps a file and adds its tensors. A name that another file has
// already is a fault of the index, see matchIndex.
func (c *Checkpoint) openFile(d *directory, name string) error {
	path := d.path(name)
	f, info, err := d.open(name)
	if err != nil {
		return err
	}
	if info.Size() < prefixBytes {
		f.Close()
		_, err := headerLength(path, nil, info.Size())
		return err
	}
	m, err := mapFile(path, f, info.Size(), info.ModTime())
	if err != nil {
		f.Close()
		return err
	}
	c.files = append(c.files, m)
	prefix := make([]byte, prefixBytes)
	if err := m.read(prefix, 0); err != nil {
		return err
	}
	n, err := headerLength(path, prefix, m.size)
	if err != nil {
		return err
	}
	header := make([]byte, n)
	if err := m.read(header, prefixBytes); err != nil {
		return err
	}
	infos, err := parseHeader(path, header, m.size)
	if err != nil {
		return err
	}
	errs := &FileError{File: path}
	for _, t := range infos {
		if other, ok := c.tensors[t.name]; ok {
			errs.add(quote(t.name), "is in %s too", filepath.Base(other.file.path))
			continue
		}
		c.tensors[t.name] = &tensor{t, m}
	}
	return errs.orNil()
}

// openShards maps every file of the index and checks that each tensor is where
// the index says. Faults of all files come back together.
func (c *Checkpoint) openShards(d *directory) error {
	data, err := d.read(IndexFile, maxIndexBytes)
	if err != nil {
		return err
	}
	weightMap, err := parseIndex(d.path(IndexFile), data)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range slices.Compact(slices.Sorted(maps.Values(weightMap))) {
		errs = append(errs, c.openFile(d, name))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return c.matchIndex(weightMap)
}

// matchIndex checks that the index and the files name the same tensors.
func (c *Checkpoint) matchIndex(weightMap map[string]string) error {
	errs := &FileError{File: c.path}
	for _, name := range slices.Sorted(maps.Keys(weightMap)) {
		shard := weightMap[name]
		switch t, ok := c.tensors[name]; {
		case !ok:
			errs.add(quote(name), "is not in %s", shard)
		case filepath.Base(t.file.path) != shard:
			errs.add(quote(name), "is in %s, not in %s", filepath.Base(t.file.path), shard)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.tensors)) {
		if _, ok := weightMap[name]; !ok {
			errs.add(quote(name), "is in %s, but not in the index", filepath.Base(c.tensors[name].file.path))
		}
	}
	return errs.orNil()
}

// parseIndex reads the weight_map of an index: tensor → file. Files must be
// plain names of the model directory.
func parseIndex(file string, data []byte) (map[string]string, error) {
	o, err := parseObject(file, data)
	if err != nil {
		return nil, err
	}
	if !o.require("weight_map") {
		return nil, o.errs.orNil()
	}
	list, err := members(o.fields["weight_map"], maxTensors)
	if err != nil {
		return nil, fileError(file, "weight_map", "%v", err)
	}
	weightMap, shards := make(map[string]string, len(list)), make(map[string]bool)
	for _, m := range list {
		field := "weight_map." + quote(m.key)
		var shard string
		if err := json.Unmarshal(m.value, &shard); err != nil {
			o.fail(field, "is %s, must be a file name", quote(string(m.value)))
			continue
		}
		if !strings.HasSuffix(shard, ".safetensors") || shard != filepath.Base(shard) || strings.ContainsAny(shard, "\\\x00") {
			o.fail(field, "is %s, must be the name of a .safetensors file in the same directory", quote(shard))
			continue
		}
		weightMap[m.key], shards[shard] = shard, true
	}
	if len(shards) > maxShards {
		o.fail("weight_map", "names %d files, at most %d are supported", len(shards), maxShards)
	}
	if len(list) == 0 {
		o.fail("weight_map", "is empty")
	}
	return weightMap, o.errs.orNil()
}

// hostTypes are the dtypes that weights may have.
var hostTypes = map[string]kernels.DType{"BF16": kernels.BF16, "F16": kernels.FP16, "F32": kernels.FP32}

// read copies a tensor's bytes into buf and describes them.
func (t *tensor) read(buf []byte) (kernels.HostTensor, error) {
	data := buf[:t.end-t.begin]
	if err := t.file.read(data, t.begin); err != nil {
		return kernels.HostTensor{}, err
	}
	t.file.release(t.begin, t.end-t.begin)
	host := t.host()
	host.Data = data
	return host, nil
}

// host describes a tensor without its bytes.
func (t *tensor) host() kernels.HostTensor {
	return kernels.HostTensor{Name: t.name, DType: hostTypes[t.dtype], Shape: t.shape}
}
