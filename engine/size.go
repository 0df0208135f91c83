package engine

import (
	"errors"
	"fmt"

	"github.com/pagoda-engine/pagoda/kernels"
)

// The memory plan: one formula, made before anything is allocated and used
// again when a request is admitted.
//
//	pool = utilization × limit − weights − workspace
//	blocks = pool / bytes of a block, block 0 included
//
// --kv-cache-memory-bytes gives the pool instead, --num-gpu-blocks-override the
// blocks.

const (
	// minContext is the sequence in tokens that a computed pool must hold: less
	// is a limit that was set too low, not a wish.
	minContext = 1024
	// maxComputedBlocks bounds a computed pool: each block has about 200 bytes
	// of bookkeeping, which a tiny model in a large memory would drown in.
	maxComputedBlocks = 1 << 20
)

// sizes is what the plan is made from, in bytes unless it says otherwise.
type sizes struct {
	limit       int64  // that the device has, or is taken to have
	limitFrom   string // why it is that
	weights     int64
	workspace   int64
	block       int64
	hostRoom    int64 // for the swap pool; 0 = not known
	modelMaxLen int   // tokens
}

// memoryPlan is the outcome.
type memoryPlan struct {
	blocks       int // of the pool, block 0 included
	blocksReason string
	hostBlocks   int // of the swap pool
	hostReason   string
	maxModelLen  int // tokens
	lenReason    string
	ledger       []LedgerEntry
	warnings     []string
}

// adviseMemory says what to set when an error is that there was less memory than the
// plan counts on.
func adviseMemory(c *Config, err error) error {
	if !errors.Is(err, kernels.ErrOutOfMemory) {
		return err
	}
	lower := fmt.Sprintf("--gpu-memory-utilization (%.4g)", c.GPUMemoryUtilization)
	switch {
	case c.NumGPUBlocksOverride > 0:
		lower = fmt.Sprintf("--num-gpu-blocks-override (%d)", c.NumGPUBlocksOverride)
	case c.KVCacheMemoryBytes > 0:
		lower = fmt.Sprintf("--kv-cache-memory-bytes (%d)", c.KVCacheMemoryBytes)
	}
	return fmt.Errorf("%w; other processes may hold memory that the plan counts on: end them, or lower %s, --max-num-batched-tokens (%d) or, for host memory, --swap-space (%s)",
		err, lower, c.MaxNumBatchedTokens, bytesText(max(c.SwapSpace, 0)))
}

// plan applies the formula. Errors wrap ErrMemory or ErrConfig and say what to
// change.
func plan(c *Config, s sizes) (memoryPlan, error) {
	var p memoryPlan
	if err := p.chooseBlocks(c, s); err != nil {
		return p, err
	}
	if err := p.chooseLength(c, s); err != nil {
		return p, err
	}
	p.chooseHost(c, s)
	pool := int64(p.blocks) * s.block
	p.ledger = []LedgerEntry{
		{"weights", s.weights, map[bool]string{false: "two bytes each, at most", true: "int8"}[c.Quantization == quantizationInt8]},
		{"workspace", s.workspace, fmt.Sprintf("%d tokens and %d sequences a step", c.MaxNumBatchedTokens, c.MaxNumSeqs)},
		{"kv cache", pool, fmt.Sprintf("%d blocks of %d tokens, %s each, one of them reserved", p.blocks, c.BlockSize, bytesText(s.block))},
		{"unused", s.limit - s.weights - s.workspace - pool, fmt.Sprintf("of %s, %s", bytesText(s.limit), s.limitFrom)},
	}
	return p, nil
}

// chooseHost sizes the swap pool, which is host memory and no part of the ledger.
// More blocks than the device has would hold more than can be preempted before
// something returns; four times as many are plenty.
func (p *memoryPlan) chooseHost(c *Config, s sizes) {
	p.hostReason = fmt.Sprintf("%s of host memory", bytesText(max(c.SwapSpace, 0)))
	p.hostBlocks = int(min(max(c.SwapSpace, 0)/s.block, maxComputedBlocks))
	if most := 4 * p.blocks; p.hostBlocks > most {
		p.hostBlocks, p.hostReason = most, "four times the device's; more could not be used"
	}
	if room := int(s.hostRoom / s.block); s.hostRoom > 0 && p.hostBlocks > room {
		p.hostBlocks, p.hostReason = room, "what is available beside the memory limit"
	}
}

func (p *memoryPlan) chooseBlocks(c *Config, s sizes) error {
	fixed := s.weights + s.workspace
	switch {
	case c.NumGPUBlocksOverride > 0:
		p.blocks, p.blocksReason = c.NumGPUBlocksOverride+1, "given by --num-gpu-blocks-override"
	case c.KVCacheMemoryBytes > 0:
		p.blocks, p.blocksReason = int(min(c.KVCacheMemoryBytes/s.block, maxNumBlocks)), "from --kv-cache-memory-bytes"
		if p.blocks < 2 {
			return &ConfigError{Problems: []string{fmt.Sprintf("--kv-cache-memory-bytes %d: want at least two blocks of %d bytes, one of which is reserved",
				c.KVCacheMemoryBytes, s.block)}}
		}
	default:
		return p.computeBlocks(c, s, fixed)
	}
	if need := fixed + int64(p.blocks)*s.block; need > s.limit {
		cause := fmt.Errorf("weights %s + workspace %s + %d KV blocks %s = %s, the limit is %s (%s); set --memory-limit to at least %d, or make the pool smaller",
			bytesText(s.weights), bytesText(s.workspace), p.blocks, bytesText(int64(p.blocks)*s.block), bytesText(need), bytesText(s.limit), s.limitFrom, need)
		return &MemoryError{need-s.workspace < s.limit, cause}
	}
	return nil
}

func (p *memoryPlan) computeBlocks(c *Config, s sizes, fixed int64) error {
	usable := int64(c.GPUMemoryUtilization * float64(s.limit))
	least := 1 + blocksFor(min(minContext, s.modelMaxLen), c.BlockSize)
	if need := fixed + int64(least)*s.block; need > usable {
		// One more byte than the quotient, for the rounding of the product.
		limit := int64(float64(need)/c.GPUMemoryUtilization) + 1
		cause := fmt.Errorf("weights %s + workspace %s + the smallest KV pool %s = %s, but %.4g of %s (%s) is %s; "+
			"set --memory-limit to at least %d (%s), or lower --max-num-batched-tokens (%d) or --max-num-seqs (%d)",
			bytesText(s.weights), bytesText(s.workspace), bytesText(int64(least)*s.block), bytesText(need),
			c.GPUMemoryUtilization, bytesText(s.limit), s.limitFrom, bytesText(usable), limit, bytesText(limit), c.MaxNumBatchedTokens, c.MaxNumSeqs)
		return &MemoryError{need-s.workspace < usable, cause}
	}
	blocks := (usable - fixed) / s.block
	p.blocks = int(min(blocks, maxComputedBlocks))
	p.blocksReason = fmt.Sprintf("%.4g of %s, less weights and workspace", c.GPUMemoryUtilization, bytesText(s.limit))
	if blocks > maxComputedBlocks {
		p.blocksReason = "the most that is computed; --num-gpu-blocks-override sets more"
	}
	return nil
}

func (p *memoryPlan) chooseLength(c *Config, s sizes) error {
	pool := (p.blocks - 1) * c.BlockSize
	switch {
	case c.MaxModelLen > s.modelMaxLen:
		return &ConfigError{Problems: []string{fmt.Sprintf("--max-model-len %d: the model's positions end at %d", c.MaxModelLen, s.modelMaxLen)}}
	case c.MaxModelLen > 0:
		p.maxModelLen, p.lenReason = c.MaxModelLen, "given"
		if c.MaxModelLen > pool {
			p.warnings = append(p.warnings, fmt.Sprintf("max_model_len %d is more than the %d tokens that the KV pool holds: a request that needs more is refused", c.MaxModelLen, pool))
		}
	case pool < s.modelMaxLen:
		p.maxModelLen, p.lenReason = pool, fmt.Sprintf("the KV pool holds no more; the model could %d", s.modelMaxLen)
	default:
		p.maxModelLen, p.lenReason = s.modelMaxLen, "the model's"
	}
	return nil
}

// blocksFor is the number of blocks that tokens take.
func blocksFor(tokens, blockSize int) int { return (tokens + blockSize - 1) / blockSize }

// The hard maxima that addresses are reserved for at least, so that Reconfigure
// can raise what was configured.
const (
	reservedSeqs   = 1024
	reservedTokens = 8192
)

// maxima are the hard maxima that addresses are reserved for.
func maxima(c *Config, modelMaxLen int) kernels.Limits {
	most := *c
	most.MaxNumSeqs = max(c.MaxNumSeqs, reservedSeqs)
	most.MaxNumBatchedTokens = max(c.MaxNumBatchedTokens, reservedTokens)
	return workspaceLimits(&most, modelMaxLen)
}

// eitherLimits are what both need.
func eitherLimits(a, b kernels.Limits) kernels.Limits {
	a.MaxBatchedTokens, a.MaxSeqs, a.MaxLogitRows = max(a.MaxBatchedTokens, b.MaxBatchedTokens), max(a.MaxSeqs, b.MaxSeqs), max(a.MaxLogitRows, b.MaxLogitRows)
	return a
}

// workspaceLimits are what memory is needed for. MaxModelLen is not yet cut to the
// pool, whose size depends on the workspace.
func workspaceLimits(c *Config, modelMaxLen int) kernels.Limits {
	length := modelMaxLen
	if c.MaxModelLen > 0 {
		length = min(length, c.MaxModelLen)
	}
	return kernels.Limits{
		MaxBatchedTokens: c.MaxNumBatchedTokens,
		MaxSeqs:          c.MaxNumSeqs,
		MaxModelLen:      length,
		MaxLogitRows:     c.MaxNumSeqs,
		BlockSize:        c.BlockSize,
		MaxTopLogprobs:   c.maxLogprobs(),
		BatchInvariant:   c.BatchInvariant,
	}
}
