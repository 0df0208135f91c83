package main

import (
	"context"

	"github.com/pagoda-engine/pagoda/engine"
)

// engineSource is the engine as a logitSource.
type engineSource struct{ *engine.Engine }

// openEngine loads the model for sequences of up to length tokens that are
// computed chunk tokens a step.
func openEngine(config engine.Config, length, chunk int) (logitSource, error) {
	config.MaxNumSeqs = chunk // Logits takes as many rows a step as there may be sequences
	config.MaxModelLen = length + 1
	config.SwapSpace = -1
	e, err := engine.New(config)
	if err != nil {
		return nil, err
	}
	return engineSource{e}, nil
}

func (s engineSource) logitsOf(ctx context.Context, ids []int32) ([][]float32, error) {
	return s.Logits(ctx, ids)
}

func (s engineSource) close() {
	_ = s.Close() // the comparison is over
}
