package model

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math"

	"golang.org/x/sys/unix"

	"github.com/pagoda-engine/pagoda/kernels"
)

// Source is where Load takes tensors from: a *Checkpoint, a *Quantized or Dummy.
type Source interface {
	// check fails if the source does not have exactly the tensors of cfg.
	check(cfg *Config) (notes []string, err error)
	// bytes is the size of the tensor as read gives it.
	bytes(t tensorSpec) int64
	// inFile gives the tensor as a part of a file, if it lies in one as it is.
	inFile(t tensorSpec) (kernels.HostTensor, bool)
	// read gives the tensor; its data, if it has any, is in the leading bytes of
	// buf.
	read(t tensorSpec, buf []byte) (kernels.HostTensor, error)
}

func (c *Checkpoint) bytes(t tensorSpec) int64 {
	info := c.tensors[t.name]
	return info.end - info.begin
}

func (c *Checkpoint) inFile(t tensorSpec) (kernels.HostTensor, bool) {
	info := c.tensors[t.name]
	host := info.host()
	host.File, host.FileAt = info.file.file, info.begin
	return host, true
}

func (c *Checkpoint) read(t tensorSpec, buf []byte) (kernels.HostTensor, error) {
	return c.tensors[t.name].read(buf)
}

// Dummy makes up weights, for measuring a shape whose weights are not at hand:
// reproducible, different in every element, and of the size that training
// starts from. The backend writes them in place, so a 72B takes no reading.
type Dummy struct{ Seed uint64 }

func (d Dummy) check(*Config) ([]string, error) { return nil, nil }

func (d Dummy) bytes(t tensorSpec) int64 {
	return elements(t.shape) * int64(kernels.BF16.Size())
}

func (d Dummy) inFile(tensorSpec) (kernels.HostTensor, bool) { return kernels.HostTensor{}, false }

// initializerRange is the standard deviation of Qwen2's initial weights.
const initializerRange = 0.02

func (d Dummy) read(t tensorSpec, _ []byte) (kernels.HostTensor, error) {
	h := fnv.New64a()
	_, _ = h.Write([]byte(t.name)) // never fails
	return kernels.HostTensor{
		Name: t.name, DType: kernels.BF16, Shape: t.shape,
		Seed: h.Sum64() ^ d.Seed, Scale: float32(initializerRange * math.Sqrt(3)), // uniform in [−1, 1) has deviation 1/√3
	}, nil
}

// Load gives the weights of cfg to be, whose Setup with cfg.Shape() was called
// before, and returns the runnable model. The source may be closed afterwards.
// progress, which may be nil, is called after each weight with bytes read; its error
// ends the loading.
func Load(be kernels.Backend, cfg *Config, source Source, progress func(done, total int64) error) (*Model, error) {
	notes, err := source.check(cfg)
	if err != nil {
		return nil, err
	}
	l, err := newLoader(be, cfg, source, progress)
	if err != nil {
		return nil, err
	}
	defer l.close()
	m := &Model{Config: cfg, Notes: notes, backend: be, layers: make([][numLayerWeights]kernels.Weight, cfg.NumLayers)}
	m.embedding = l.load(cfg.embeddingSpec())
	for i := range m.layers {
		for j, w := range cfg.layerTable(i) {
			m.layers[i][j] = l.load(w)
		}
	}
	m.norm = l.load(cfg.finalNormSpec())
	m.head = m.embedding
	if !cfg.TieWordEmbeddings {
		m.head = l.load(cfg.headSpec())
	}
	if l.err != nil {
		return nil, l.err
	}
	m.weights = l.weights
	m.pass = m.forward
	return m, nil
}

// align rounds a size up to a cache line, so that every tensor in the staging
// buffer starts on one whatever the dtypes before it.
func align(n int64) int64 { return (n + 63) &^ 63 }

// loader loads weight after weight. Its first error sticks.
type loader struct {
	be          kernels.Backend
	files       bool // be reads matrices by itself
	tied        bool
	source      Source
	progress    func(done, total int64) error
	done, total int64
	staging     []byte // outside the Go heap, so that it is given back at once
	weights     []kernels.Weight
	err         error
}

// newLoader reserves a staging buffer for the largest weight; pages that are
// never written (Dummy writes none, nor does what the backend reads) take no memory.
func newLoader(be kernels.Backend, cfg *Config, source Source, progress func(done, total int64) error) (*loader, error) {
	l := &loader{be: be, files: be.Info().ReadsFiles, tied: cfg.TieWordEmbeddings, source: source, progress: progress}
	if l.progress == nil {
		l.progress = func(done, total int64) error { return nil }
	}
	var largest int64
	for _, w := range cfg.weightTable() {
		var n int64
		for _, t := range w.tensors() {
			l.total += source.bytes(t)
			n += align(source.bytes(t))
		}
		largest = max(largest, n)
	}
	staging, err := unix.Mmap(-1, 0, int(largest), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("model: staging buffer of %d bytes: %w", largest, err)
	}
	l.staging = staging
	return l, nil
}

func (l *loader) close() {
	_ = unix.Munmap(l.staging) // it was mapped in newLoader, so this cannot fail
}

// load reads the tensors of w and hands them over as one weight.
func (l *loader) load(w weightSpec) kernels.Weight {
	if l.err != nil {
		return nil
	}
	buf := l.staging
	read := func(specs []tensorSpec, norm bool) []kernels.HostTensor {
		var list []kernels.HostTensor
		for _, t := range specs {
			if l.files && len(t.shape) == 2 {
				if host, ok := l.source.inFile(t); ok {
					list = append(list, host)
					continue
				}
			}
			host, err := l.source.read(t, buf)
			if err != nil {
				l.err = err
				return nil
			}
			if host.Data == nil && norm {
				host.Scale, host.Offset = 0, 1 // a made-up norm is the identity
			}
			buf = buf[align(int64(len(host.Data))):]
			list = append(list, host)
		}
		return list
	}
	parts, bias, qkNorm := read(w.parts, w.load == loadNorm), read(w.bias, false), read(w.qkNorm, true)
	if l.err != nil {
		return nil
	}
	weight, err := l.give(w, parts, bias, qkNorm)
	var unreadable *kernels.UnreadableError
	switch {
	case errors.As(err, &unreadable):
		l.err = fileError(unreadable.Tensor.File.Name(), unreadable.Tensor.Name, "%s", unreadable.Reason())
		return nil
	case err != nil:
		l.err = fmt.Errorf("model: load %s: %w", w.parts[0].name, err)
		return nil
	}
	l.weights = append(l.weights, weight)
	for _, t := range w.tensors() {
		l.done += l.source.bytes(t)
	}
	l.err = l.progress(l.done, l.total)
	return weight
}

func (l *loader) give(w weightSpec, parts, bias, qkNorm []kernels.HostTensor) (kernels.Weight, error) {
	switch w.load {
	case loadEmbedding:
		return l.be.LoadEmbedding(parts[0], l.tied)
	case loadNorm:
		return l.be.LoadNorm(parts[0])
	default:
		return l.be.LoadLinear(kernels.LinearSpec{Kind: w.linear, Parts: parts, Bias: bias, QKNorm: qkNorm})
	}
}
