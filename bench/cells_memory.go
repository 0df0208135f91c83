package bench

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/pagoda-engine/pagoda/engine"
)

// edge looks between a value that fits the memory and one that does not for the
// last that does, halving the distance until it is no more than the resolution.
// Values are multiples of the resolution. Nothing runs meanwhile; only the engine's
// limits change.
func (c *cells) edge(ctx context.Context, works, fails, resolution float64, limits func(v float64) engine.Limits) (float64, error) {
	for {
		middle := multiple((works+fails)/2, resolution)
		if math.Abs(middle-works) < resolution/2 || math.Abs(middle-fails) < resolution/2 {
			return works, nil
		}
		err := c.e.Reconfigure(ctx, over(c.base, limits(middle)))
		switch {
		case errors.Is(err, engine.ErrMemory), notReserved(err):
			fails = middle
		case err != nil:
			return works, err
		default:
			works = middle
		}
	}
}

// multiple is the multiple of the resolution nearest to v, without the last bits
// that a product has.
func multiple(v, resolution float64) float64 {
	return math.Round(math.Round(v/resolution)*resolution*1e6) / 1e6
}

// edges finds, for arms over ascending values, the last values that fit on either
// side of those that do not: too little is as much out of memory as too much. The
// arms that it makes have not been measured.
func (c *cells) edges(ctx context.Context, arms []*arm, values []float64, resolution float64, make func(v float64) *arm) (found []*arm, err error) {
	for i, a := range arms {
		if a.memory == nil {
			continue
		}
		for _, j := range []int{i - 1, i + 1} {
			if j < 0 || j >= len(arms) || arms[j].memory != nil {
				continue
			}
			v, err := c.edge(ctx, values[j], values[i], resolution, func(v float64) engine.Limits { return make(v).limits })
			if err != nil {
				return found, err
			}
			if math.Abs(v-values[j]) >= resolution/2 {
				found = append(found, make(v))
			}
		}
	}
	return found, nil
}

// ledgerBytes adds up the lines of the memory plan of these names.
func ledgerBytes(ledger []engine.LedgerEntry, names ...string) (sum int64) {
	for _, entry := range ledger {
		for _, name := range names {
			if entry.Name == name {
				sum += entry.Bytes
			}
		}
	}
	return sum
}

// sizedByHand says that whoever started the engine chose the size of its device or
// of its pool.
func (c *cells) sizedByHand() bool {
	return c.e.Info().Device.Backend != "cpu" || c.base.MemoryLimit > 0 || c.base.NumGPUBlocksOverride > 0 || c.base.KVCacheMemoryBytes > 0
}

// pretend gives a CPU, whose memory is a choice, the size at which a share of it
// holds weights, workspace and so many blocks. It is in c.base from then on.
func (c *cells) pretend(share float64, blocks int) string {
	fixed := ledgerBytes(c.e.Ledger(), "weights", "workspace")
	c.base.MemoryLimit = int64(float64(fixed+int64(blocks+1)*c.e.Info().BlockBytes)/share) + 1
	// So few blocks may be less than an engine starts with. A hundred steps are 130 times
	// as much: whoever has no room then has none for another reason.
	for n := 0; n < 100 && errors.Is(c.e.Reconfigure(context.Background(), c.base), engine.ErrMemory); n++ {
		c.base.MemoryLimit += c.base.MemoryLimit/20 + 1
	}
	return fmt.Sprintf("A device of %s is pretended, %.0f %% of which hold weights, workspace and the %d KV blocks that these requests need at most (or an engine at least); --memory-limit chooses another size.",
		formatBinary(float64(c.base.MemoryLimit)), 100*share, blocks)
}

// tighten gives the pool a share of the blocks that the requests need at most, in
// blocks, so that memory that other settings take does not count. It must hold the
// longest request.
func (c *cells) tighten(share float64, work Workload, peak int) string {
	size, longest := c.e.Info().BlockSize, 0
	for i := range work {
		longest = max(longest, (len(work[i].Prompt)+work[i].MaxTokens+size-1)/size)
	}
	c.base.NumGPUBlocksOverride = max(int(share*float64(peak)), longest+1)
	return fmt.Sprintf("The pool has %d blocks, %.0f %% of what these requests need at most; --num-gpu-blocks-override, --kv-cache-memory-bytes or --memory-limit choose another.",
		c.base.NumGPUBlocksOverride, 100*float64(c.base.NumGPUBlocksOverride)/float64(max(peak, 1)))
}

// advice says what to do about the cell that suffered most from a small pool; ""
// when none did. where names its setting; "" = by its parameters.
func advice(cells []Cell, where string, load Load, info engine.Info) string {
	worst, most := -1, 0.0
	for i := range cells {
		c := &cells[i]
		requests := math.Max(c.medianOf("completed")+c.medianOf("failed"), 1)
		pain := c.medianOf("failed")/requests*10 + c.medianOf("num_preemptions")/requests + c.medianOf("waiting_for_blocks")
		if pain > most {
			worst, most = i, pain
		}
	}
	if worst < 0 || most < 0.2 {
		return ""
	}
	c := &cells[worst]
	fits := holds(load, int(c.medianOf("num_gpu_blocks")), info.BlockSize)
	if where == "" {
		where = settingText(c.Params)
	}
	if failed := c.medianOf("failed"); failed > 0 {
		return fmt.Sprintf("With %s %.0f of %.0f requests failed: %s. A pool of %.0f blocks holds %d tokens: give it more memory (--gpu-memory-utilization, --memory-limit, --num-gpu-blocks-override), or ask for fewer tokens (--max-model-len, max_tokens).",
			where, failed, failed+c.medianOf("completed"), c.Note, c.medianOf("num_gpu_blocks"), int(c.medianOf("num_gpu_blocks"))*info.BlockSize)
	}
	text := fmt.Sprintf("With %s the pool is too small for this load: %s, and for %.0f %% of the time a request waited for KV blocks. Its %.0f blocks hold about %s at once: give it more memory (--gpu-memory-utilization, --memory-limit)",
		where, counted(c.medianOf("num_preemptions"), "preemption"), 100*c.medianOf("waiting_for_blocks"), c.medianOf("num_gpu_blocks"), counted(float64(fits), "such request"))
	if seqs, ok := c.Params["max_num_seqs"].(int); !ok && fits < info.MaxNumSeqs || ok && fits < seqs {
		text += fmt.Sprintf(", or set --max-num-seqs to about %d", fits)
	}
	return text + "."
}

// holds is about how many requests of the load a pool has room for at once: on average each has generated half of what
// it will, and what their prompts have in common is there once.
func holds(load Load, blocks, blockSize int) int {
	shared := load.SharedPrefix / blockSize
	each := (load.PromptTokens+load.OutputTokens/2+blockSize-1)/blockSize - shared
	return max((blocks-shared)/max(each, 1), 1)
}
