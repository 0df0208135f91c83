package engine

import (
	"errors"
	"fmt"
	"strings"
)

// The classes of what New can fail with, besides a plain bug. A command maps
// them to exit codes: ErrConfig 2, ErrModel 3, ErrMemory 4, ErrDevice 5.
var (
	// ErrConfig: a field of Config is out of range or contradicts another.
	ErrConfig = errors.New("bad configuration")
	// ErrModel: the model's files are missing, damaged or not supported.
	ErrModel = errors.New("cannot load the model")
	// ErrVocabulary, an ErrModel: the tokenizer knows more ids than the model does.
	ErrVocabulary = fmt.Errorf("%w: the tokenizer does not belong to it", ErrModel)
	// ErrMemory: model, workspace and KV pool do not fit the memory limit.
	ErrMemory = errors.New("not enough memory")
	// ErrDevice: the device is absent, or failed.
	ErrDevice = errors.New("device failed")
	// ErrInvariant: the bookkeeping of KV blocks and requests contradicts itself, a
	// bug: an engine that goes on could give a request another's tokens.
	ErrInvariant = errors.New("invariant violated")
)

// ConfigError lists every problem of a Config, each with the flag it is about.
// It wraps ErrConfig.
type ConfigError struct{ Problems []string }

// Error implements error: one line a problem.
func (e *ConfigError) Error() string { return strings.Join(e.Problems, "\n") }

// Unwrap makes errors.Is(err, ErrConfig) true.
func (e *ConfigError) Unwrap() error { return ErrConfig }

// MemoryError is an ErrMemory that depends on sizes: MaxNumSeqs, MaxNumBatchedTokens.
type MemoryError struct {
	// Smaller says that it may be enough for smaller ones.
	Smaller bool
	cause   error
}

// Error implements error.
func (e *MemoryError) Error() string { return ErrMemory.Error() + ": " + e.cause.Error() }

// Unwrap makes errors.Is(err, ErrMemory) true.
func (e *MemoryError) Unwrap() []error { return []error{ErrMemory, e.cause} }

// problems collects what is wrong with a Config.
type problems []string

// check adds a problem when ok is false.
func (p *problems) check(ok bool, format string, args ...any) {
	if !ok {
		*p = append(*p, fmt.Sprintf(format, args...))
	}
}

// orNil is the problems as an error, nil when there are none.
func (p problems) orNil() error {
	if len(p) == 0 {
		return nil
	}
	return &ConfigError{Problems: p}
}
