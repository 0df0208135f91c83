package engine

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/pagoda-engine/pagoda/kernels"
	"github.com/pagoda-engine/pagoda/kvcache"
	"github.com/pagoda-engine/pagoda/model"
	"github.com/pagoda-engine/pagoda/model/demo"
	"github.com/pagoda-engine/pagoda/scheduler"
)

// openModel reads and checks the model's files; the weights are not read yet.
func openModel(c *Config) (source, error) {
	config, generation, err := readConfigs(c)
	if err != nil {
		return source{}, fmt.Errorf("%w: %w", ErrModel, err)
	}
	if c.SampleVocab > config.VocabSize {
		return source{}, fmt.Errorf("%w: it has %d ids, but vocab_size of %s is %d", ErrVocabulary, c.SampleVocab, c.Model, config.VocabSize)
	}
	var weights model.Source = model.Dummy{}
	closeWeights := func() {}
	if c.LoadFormat != "dummy" {
		if weights, closeWeights, err = openWeights(c.Model); err != nil {
			return source{}, fmt.Errorf("%w: %w", ErrModel, err)
		}
	}
	src := source{
		info:        describe(c, config, generation),
		shape:       config.Shape(),
		modelMaxLen: config.MaxModelLen(),
		weights:     weightBytes(c, config),
		gathered:    gatheredBytes(config),
		open:        openDevice,
		close:       closeWeights,
	}
	src.load = func(be kernels.Backend) (*loaded, error) {
		m, err := model.Load(be, config, weights, func(done, total int64) error {
			select {
			case <-c.Cancel:
				return ErrClosed
			default:
				c.Progress("weights", done, total)
				return nil
			}
		})
		var file *model.FileError
		switch {
		case errors.As(err, &file):
			return nil, fmt.Errorf("%w: %w", ErrModel, err)
		case errors.Is(err, ErrClosed):
			return nil, err
		case errors.Is(err, kernels.ErrOutOfMemory):
			return nil, fmt.Errorf("%w: weights: %w", ErrMemory, adviseMemory(c, err))
		case err != nil:
			return nil, fmt.Errorf("%w: %w", ErrDevice, err)
		}
		return &loaded{forward: m.Forward, weightBytes: m.WeightBytes(), notes: m.Notes}, nil
	}
	return src, nil
}

// readConfigs reads config.json and generation_config.json, or takes a built-in
// shape.
func readConfigs(c *Config) (*model.Config, *model.GenerationConfig, error) {
	if c.LoadFormat == "dummy" {
		if config, ok := model.BuiltinShape(c.Model); ok {
			return config, &model.GenerationConfig{}, nil
		}
	}
	if c.Model == demo.Name {
		return readDemoConfigs()
	}
	config, err := model.ReadConfig(c.Model)
	if err != nil {
		return nil, nil, err
	}
	generation, err := model.ReadGenerationConfig(c.Model, config.VocabSize)
	if err != nil {
		return nil, nil, err
	}
	return config, generation, nil
}

// weightBytes is what the weights will take in memory.
func weightBytes(c *Config, m *model.Config) int64 {
	if c.Quantization != quantizationInt8 {
		return m.WeightBytes()
	}
	// One byte a parameter, but two in an embedding that no head shares; scales and
	// padding are below 2 %.
	bytes := m.Parameters()
	if !m.TieWordEmbeddings {
		bytes += int64(m.VocabSize) * int64(m.HiddenSize)
	}
	return bytes + bytes/50
}

// gatheredBytes is what an embedding takes that no head shares: a step reads a few rows
// of it.
func gatheredBytes(m *model.Config) int64 {
	if m.TieWordEmbeddings {
		return 0
	}
	return int64(m.VocabSize) * int64(m.HiddenSize) * int64(kernels.BF16.Size())
}

// describe fills in the model's part of Info.
func describe(c *Config, m *model.Config, g *model.GenerationConfig) Info {
	head := int64(m.VocabSize) * int64(m.HiddenSize)
	layers := m.Parameters() - head // the embedding's as many; and final norm
	if !m.TieWordEmbeddings {
		layers -= head
	}
	info := Info{
		Model: c.Model, Vocab: m.VocabSize, SampleVocab: m.VocabSize, EOSIDs: m.EOSTokenIDs, Generation: g,
		KVBytesPerToken:       m.KVBytesPerToken(),
		LayerFLOPsPerToken:    2 * layers,
		AttentionFLOPsPerPair: 4 * int64(m.NumHeads) * int64(m.HeadDim) * int64(m.NumLayers),
		HeadFLOPs:             2 * head,
	}
	if c.SampleVocab > 0 {
		info.SampleVocab = c.SampleVocab
	}
	if len(g.EOSTokenIDs) > 0 {
		info.EOSIDs = g.EOSTokenIDs
	}
	return info
}

// setup makes everything that the loop needs, in the order in which it can be
// refused: plan first, then memory, then weights. It runs on the engine's
// goroutine.
func (e *Engine) setup(src source) (_ *loop, err error) {
	defer src.close()
	c := &e.cfg
	backend, err := src.open(c)
	switch {
	case errors.Is(err, kernels.ErrOutOfMemory):
		return nil, fmt.Errorf("%w: %w; end other processes that hold the device's memory (nvidia-smi lists them), or use --device cpu", ErrMemory, err)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrDevice, err)
	}
	defer func() {
		if err != nil {
			_ = backend.Close() // the error at hand says more
		}
	}()
	device := backend.Info()
	c.resolve(device.Backend)
	if err := supported(device, src.shape); err != nil {
		return nil, err
	}
	sz, shape, lim := measure(c, &src, device, backend.WorkspaceBytes)
	most := maxima(c, src.modelMaxLen)
	plan, err := plan(c, sz)
	if err != nil {
		return nil, err
	}
	switch err := backend.Setup(shape, most, lim); {
	case err != nil && !errors.Is(err, kernels.ErrOutOfMemory): // a shape that the kernels do not have
		return nil, fmt.Errorf("%w: %w", ErrModel, err)
	case err != nil:
		return nil, &MemoryError{Smaller: true, cause: fmt.Errorf("workspace of %s: %w", bytesText(sz.workspace), adviseMemory(c, err))}
	}
	store, err := kvcache.NewStore(backend, plan.blocks, plan.hostBlocks)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMemory, adviseMemory(c, err))
	}
	m, err := src.load(backend)
	if err != nil {
		return nil, err
	}
	if c, ok := backend.(kernels.LoadChecker); ok {
		err := c.CheckLoad()
		var unfit *kernels.UnfitError
		switch {
		case errors.As(err, &unfit):
			return nil, fmt.Errorf("%w: %w", ErrModel, err)
		case err != nil:
			return nil, fmt.Errorf("%w: %w", ErrDevice, err)
		}
	}
	for _, text := range append(m.notes, plan.warnings...) {
		c.Log.Warn(text)
	}
	e.info.describe(c, device, &sz, m.weightBytes, src.gathered)
	now := &effective{cfg: *c, info: e.info, limit: sz.limit, from: sz.limitFrom}
	now.set(&plan)
	e.info = now.info
	e.effective.Store(now)
	l, err := e.newLoop(backend, store, m.forward, most)
	if err != nil {
		return nil, err
	}
	l.sizes, l.shape, l.maxima = sz, shape, most
	return l, nil
}

// supported refuses a model that the device has no kernels for.
func supported(device kernels.Info, shape kernels.Shape) error {
	if device.Backend == deviceCUDA && shape.QKNorm {
		return fmt.Errorf("%w: it norms query and key heads (Qwen3), for which there is no CUDA kernel; use --device cpu", ErrModel)
	}
	return nil
}

// measure gathers what the memory plan of a resolved configuration is made from.
// workspaceBytes is Backend.WorkspaceBytes of the device.
func measure(c *Config, src *source, device kernels.Info, workspaceBytes func(kernels.Shape, kernels.Limits) int64) (sizes, kernels.Shape, kernels.Limits) {
	shape, lim := src.shape, workspaceLimits(c, src.modelMaxLen)
	shape.SampleVocab = src.info.SampleVocab
	sz := sizes{
		weights: src.weights, workspace: workspaceBytes(shape, lim),
		block: kernels.NewPagedKV(shape, c.BlockSize).BlockBytes(), modelMaxLen: src.modelMaxLen,
	}
	sz.limit, sz.limitFrom = deviceMemory(c, device)
	if device.Backend == deviceCPU && c.MemoryLimit == 0 {
		sz.hostRoom = device.TotalMemory - sz.limit // it is the memory that is available
	}
	return sz, shape, lim
}

// describe fills in the part of Info that no Reconfigure changes, beside the
// model's. Of the weights a step streams all but those gathered.
func (i *Info) describe(c *Config, device kernels.Info, sz *sizes, weightBytes, gathered int64) {
	i.Device, i.WeightBytes, i.StreamedWeightBytes = device, weightBytes, weightBytes-gathered
	i.BlockSize, i.BlockBytes, i.MaxLogprobs, i.MaxQueued = c.BlockSize, sz.block, c.maxLogprobs(), c.MaxQueuedReqs
	i.Priority = c.SchedulingPolicy == string(scheduler.Priority)
	i.Overlapped = c.AsyncScheduling == "on" || c.AsyncScheduling == "auto" && device.Overlap
}

// set takes over a memory plan. The first one settles max_model_len: clients were
// told it.
func (n *effective) set(p *memoryPlan) {
	n.info.NumBlocks, n.info.HostBlocks, n.info.MaxNumSeqs = p.blocks-1, p.hostBlocks, n.cfg.MaxNumSeqs
	if n.info.MaxModelLen == 0 {
		n.info.MaxModelLen = p.maxModelLen
	} else {
		p.lenReason = "as at start"
	}
	n.settings, n.ledger = settings(&n.cfg, &n.info, p, n.limit, n.from), p.ledger
}

// newLoop makes the state of the engine's goroutine, with room for the most that limits may become.
func (e *Engine) newLoop(backend kernels.Backend, store *kvcache.Store, forward func(*kernels.Batch), most kernels.Limits) (*loop, error) {
	c := &e.cfg
	kvConfig := kvcache.Config{
		NumBlocks: e.info.NumBlocks + 1, HostBlocks: e.info.HostBlocks, BlockSize: c.BlockSize,
		DisablePrefixCaching: c.DisablePrefixCaching, Model: e.info.Model,
	}
	_, _ = rand.Read(kvConfig.Key[:]) // never fails (crypto/rand)
	kv, err := kvcache.NewManager(kvConfig)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	swapOut, swapIn, err := measureSwap(store, e.info.NumBlocks+1, e.info.HostBlocks)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDevice, err)
	}
	trace := newTrace(c.Trace)
	sched, err := scheduler.New(scheduler.Config{
		Limits: schedulerLimits(c), Policy: scheduler.Policy(c.SchedulingPolicy),
		SwapOut: swapOut, SwapIn: swapIn, Trace: trace.hook(),
	}, kv)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	l := &loop{
		e: e, backend: backend, sched: sched, kv: kv, store: store,
		runner:   newRunner(backend, forward, most.MaxBatchedTokens, most.MaxSeqs),
		guides:   newGuides(e.info.Vocab, e.info.SampleVocab),
		requests: make(map[*scheduler.Sequence]*request, c.MaxNumSeqs),
		news:     make([]news, 0, most.MaxSeqs),
		records:  newRecords(), began: time.Now(),
		trace: trace,
	}
	l.completer, _ = backend.(kernels.Completer)
	if idler, ok := backend.(kernels.Idler); ok {
		idler.SetIdle(l.keepWarm)
	}
	l.runner.setRows(c.MaxNumSeqs)
	l.hold.Lock()
	l.stats.BlockSize, l.stats.BlockBytes = c.BlockSize, e.info.BlockBytes
	l.publish()
	return l, nil
}

// deviceMemory is the size that the device is taken to have, and why. A CPU
// backend reports the memory that is available to the process, which the rest
// of the machine wants some of.
func deviceMemory(c *Config, device kernels.Info) (int64, string) {
	switch onCPU := device.Backend == deviceCPU; {
	case c.MemoryLimit > 0 && (onCPU || c.MemoryLimit <= device.TotalMemory):
		return c.MemoryLimit, "given by --memory-limit"
	case onCPU:
		return device.TotalMemory / 2, "half of the memory available"
	}
	return device.TotalMemory, "the device's memory"
}

// orNone prints a bound of which 0 means that there is none.
func orNone(n int) string {
	if n == 0 {
		return "none"
	}
	return strconv.Itoa(n)
}

// settings lists the effective values.
func settings(c *Config, i *Info, p *memoryPlan, total int64, totalFrom string) []Setting {
	// Values that are equal to the default may have been given; the reader does
	// not care.
	reason := func(isDefault bool) string {
		if isDefault {
			return "default"
		}
		return "given"
	}
	loop, loopReason := "synchronous", "the overlapped loop does not pay on this device"
	if i.Overlapped {
		loop, loopReason = "overlapped", "it pays on this device"
	}
	if c.AsyncScheduling != "auto" {
		loopReason = "given"
	}
	device := i.Device.Device + ", " + i.Device.Path
	if i.Device.Threads > 0 {
		device += fmt.Sprintf(", %d threads", i.Device.Threads)
	}
	batched := DefaultBatchedTokens(i.Device.Backend)
	return []Setting{
		{"model", c.Model, "given"},
		{"load-format", c.LoadFormat, reason(c.LoadFormat == "auto")},
		{"device", i.Device.Backend + " (" + device + ")", reason(c.Device == "auto")},
		{"quantization", c.Quantization, reason(c.Quantization == "none")},
		{"memory-limit", bytesText(total), totalFrom},
		{"gpu-memory-utilization", strconv.FormatFloat(c.GPUMemoryUtilization, 'g', 4, 64), reason(c.GPUMemoryUtilization == defaultUtilization)},
		{"num-gpu-blocks", strconv.Itoa(i.NumBlocks), p.blocksReason},
		{"block-size", strconv.Itoa(c.BlockSize), reason(c.BlockSize == defaultBlockSize)},
		{"swap-space", fmt.Sprintf("%s (%d blocks)", bytesText(int64(i.HostBlocks)*i.BlockBytes), i.HostBlocks), p.hostReason},
		{"preemption-mode", c.PreemptionMode, reason(c.PreemptionMode == "auto")},
		{"watermark", strconv.FormatFloat(max(c.Watermark, 0), 'g', 4, 64), reason(c.Watermark == scheduler.DefaultWatermark)},
		{"max-model-len", strconv.Itoa(i.MaxModelLen), p.lenReason},
		{"max-num-seqs", strconv.Itoa(c.MaxNumSeqs), reason(c.MaxNumSeqs == defaultMaxNumSeqs)},
		{"max-num-batched-tokens", strconv.Itoa(c.MaxNumBatchedTokens), reason(c.MaxNumBatchedTokens == batched)},
		{"max-num-mixed-tokens", orNone(c.MaxNumMixedTokens), reason(c.MaxNumMixedTokens == 0)},
		{"long-prefill-token-threshold", orNone(c.LongPrefillTokenThreshold), reason(c.LongPrefillTokenThreshold == 0)},
		{"target-itl-ms", strconv.FormatFloat(float64(c.TargetITL)/1e6, 'g', 4, 64), reason(c.TargetITL == 0)},
		{"max-num-queued-reqs", strconv.Itoa(c.MaxQueuedReqs), reason(c.MaxQueuedReqs == defaultMaxQueued)},
		{"max-num-queued-tokens", orNone(c.MaxQueuedTokens), reason(c.MaxQueuedTokens == 0)},
		{"enable-prefix-caching", strconv.FormatBool(!c.DisablePrefixCaching), reason(!c.DisablePrefixCaching)},
		{"batch-invariant", strconv.FormatBool(c.BatchInvariant), reason(!c.BatchInvariant)},
		{"scheduling-policy", c.SchedulingPolicy, reason(!i.Priority)},
		{"async-scheduling", loop, loopReason},
		{"max-logprobs", strconv.Itoa(c.maxLogprobs()), reason(c.MaxLogprobs == defaultMaxLogprobs)},
	}
}
