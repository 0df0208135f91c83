package engine

import (
	"fmt"
	"runtime"

	"github.com/pagoda-engine/pagoda/kernels"
	"github.com/pagoda-engine/pagoda/kernels/cuda"
)

// Plan is the memory arithmetic of a configuration: what New would settle on, by
// the same formula, without reading weights.
type Plan struct {
	Info     Info // of model and device; WeightBytes is an estimate
	Settings []Setting
	Ledger   []LedgerEntry
	Warnings []string

	cfg   Config
	sizes sizes
}

// pretendedSMs are the multiprocessors that a card which is not there is taken to
// have, a Hopper's. Fewer need less workspace, by at most some 40 MiB.
const pretendedSMs = 132

// NewPlan makes the plan of a configuration. Device cuda with a MemoryLimit needs
// no such card: where there is none of that size, one is pretended. The model may
// be a directory with only its configuration. When it does not fit, the error
// wraps ErrMemory and the Plan has Info and AtUtilization, but no Settings.
func NewPlan(c Config) (*Plan, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	config, generation, err := readConfigs(&c)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrModel, err)
	}
	src := source{
		info: describe(&c, config, generation), shape: config.Shape(), modelMaxLen: config.MaxModelLen(),
		weights: weightBytes(&c, config), gathered: gatheredBytes(config),
	}
	p := &Plan{Info: src.info, cfg: c}
	if err := p.onDevice(&src); err != nil {
		return nil, err
	}
	return p, p.settle()
}

// onDevice completes the configuration and takes the sizes.
func (p *Plan) onDevice(src *source) error {
	runtime.LockOSThread() // a GPU's context belongs to the thread
	defer runtime.UnlockOSThread()
	device, workspace, done, err := planDevice(&p.cfg)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDevice, err)
	}
	defer done()
	if err := supported(device, src.shape); err != nil {
		return err
	}
	p.cfg.resolve(device.Backend)
	p.sizes, _, _ = measure(&p.cfg, src, device, workspace)
	p.Info.describe(&p.cfg, device, &p.sizes, src.weights, src.gathered)
	return nil
}

// planDevice is the device that the configuration names, with its
// WorkspaceBytes, or a pretended card.
func planDevice(c *Config) (kernels.Info, func(kernels.Shape, kernels.Limits) int64, func(), error) {
	backend, err := openDevice(c)
	if c.Device == deviceCUDA && c.MemoryLimit > 0 && (err != nil || backend.Info().TotalMemory < c.MemoryLimit) {
		if err == nil {
			_ = backend.Close() // nothing was done with it
		}
		info := kernels.Info{Backend: deviceCUDA, Device: "a card of " + bytesText(c.MemoryLimit), Path: "pretended", TotalMemory: c.MemoryLimit, Overlap: true}
		return info, func(s kernels.Shape, l kernels.Limits) int64 { return cuda.WorkspaceBytes(s, l, pretendedSMs) }, func() {}, nil
	}
	if err != nil {
		return kernels.Info{}, nil, nil, err
	}
	return backend.Info(), backend.WorkspaceBytes, func() { _ = backend.Close() }, nil
}

// settle applies the formula.
func (p *Plan) settle() error {
	plan, err := plan(&p.cfg, p.sizes)
	if err != nil {
		return err
	}
	now := &effective{cfg: p.cfg, info: p.Info, limit: p.sizes.limit, from: p.sizes.limitFrom}
	now.set(&plan)
	p.Info, p.Settings, p.Ledger, p.Warnings = now.info, now.settings, now.ledger, plan.warnings
	return nil
}

// AtUtilization is the plan with another share of the memory, which replaces a
// pool that was sized otherwise.
func (p *Plan) AtUtilization(share float64) (*Plan, error) {
	other := &Plan{Info: p.Info, cfg: p.cfg, sizes: p.sizes}
	other.Info.MaxModelLen = 0 // to be settled anew
	(&Limits{GPUMemoryUtilization: share}).apply(&other.cfg)
	if err := other.cfg.validate(); err != nil {
		return nil, err
	}
	return other, other.settle()
}

// WorkspaceBytes is the memory of activations, row state and results.
func (p *Plan) WorkspaceBytes() int64 { return p.sizes.workspace }

// LimitBytes is the size that the device is taken to have.
func (p *Plan) LimitBytes() int64 { return p.sizes.limit }

// BlocksFor is the number of KV blocks that a sequence of so many tokens takes.
func (p *Plan) BlocksFor(tokens int) int { return blocksFor(tokens, p.cfg.BlockSize) }

// ModelMaxLen is the longest sequence that the model's positions cover.
func (p *Plan) ModelMaxLen() int { return p.sizes.modelMaxLen }

// Probe opens a device, "cpu" or "cuda", says what it is and closes it.
func Probe(device string) (kernels.Info, error) {
	runtime.LockOSThread() // a GPU's context belongs to the thread
	defer runtime.UnlockOSThread()
	backend, err := openDevice(&Config{Device: device})
	if err != nil {
		return kernels.Info{}, fmt.Errorf("%w: %w", ErrDevice, err)
	}
	info := backend.Info()
	return info, backend.Close()
}
