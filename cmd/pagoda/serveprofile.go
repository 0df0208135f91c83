package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/internal/server"
)

// serveProfile are the flags of /start_profile and /stop_profile.
type serveProfile struct {
	config  server.ProfileConfig
	foreign string // --profiler-config
	traceMB float64
}

func (p *serveProfile) register(flags *pflag.FlagSet) {
	flags.StringVar(&p.config.Dir, "profile-dir", "", "directory for traces: turns POST /start_profile and /stop_profile on, for anyone who reaches the port")
	flags.IntVar(&p.config.Steps, "profile-steps", 12, "most steps of a profile")
	flags.DurationVar(&p.config.Time, "max-profile-time", time.Minute, "longest time of a profile")
	flags.Float64Var(&p.traceMB, "max-trace-mb", 12, "largest size of a trace in MB; later steps are left out")
	flags.StringVar(&p.foreign, "profiler-config", "", `vLLM's form: {"profiler":"torch","torch_profiler_dir":DIR,"max_iterations":STEPS}`)
}

// resolve checks the flags and makes the directory.
func (p *serveProfile) resolve() error {
	if p.foreign != "" {
		if err := p.fromForeign(); err != nil {
			return usageError{fmt.Errorf("--profiler-config: %w", err)}
		}
	}
	if p.config.Steps < 1 || p.config.Time <= 0 || p.traceMB <= 0 {
		return usageError{errors.New("--profile-steps, --max-profile-time and --max-trace-mb must be greater than 0")}
	}
	p.config.MaxTraceBytes = int64(p.traceMB * 1e6)
	if p.config.Dir == "" {
		return nil
	}
	err := engine.CheckProfileDir(p.config.Dir)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) { // there may be room later
		fmt.Fprintf(os.Stderr, "warning: %v\n", err)
		return nil
	}
	return err
}

// fromForeign takes over what vLLM's ProfilerConfig says; what it says of stacks,
// shapes and the like has no counterpart here.
func (p *serveProfile) fromForeign() error {
	var c struct {
		Profiler      *string `json:"profiler"`
		Dir           string  `json:"torch_profiler_dir"`
		MaxIterations int     `json:"max_iterations"`

		Stack    any `json:"torch_profiler_with_stack"`
		FLOPs    any `json:"torch_profiler_with_flops"`
		Gzip     any `json:"torch_profiler_use_gzip"`
		Total    any `json:"torch_profiler_dump_cuda_time_total"`
		Shapes   any `json:"torch_profiler_record_shapes"`
		Memory   any `json:"torch_profiler_with_memory"`
		Frontend any `json:"ignore_frontend"`
		Delay    any `json:"delay_iterations"`
		Warmup   any `json:"warmup_iterations"`
		Active   any `json:"active_iterations"`
		Wait     any `json:"wait_iterations"`
	}
	dec := json.NewDecoder(strings.NewReader(p.foreign))
	dec.DisallowUnknownFields()
	switch err := dec.Decode(&c); {
	case err != nil:
		return fmt.Errorf(`%w; want such as {"profiler":"torch","torch_profiler_dir":"./profiles"}`, err)
	case c.Profiler == nil:
		return nil // vLLM's null: off
	case *c.Profiler != "torch":
		return fmt.Errorf("profiler %q: want torch; Nsight Systems needs no flag, it shows steps and operations by NVTX", *c.Profiler)
	case c.Dir == "" && p.config.Dir == "":
		return errors.New("torch_profiler_dir is missing: name a directory for traces")
	case c.MaxIterations < 0:
		return fmt.Errorf("max_iterations %d: must not be negative", c.MaxIterations)
	}
	if p.config.Dir == "" { // --profile-dir wins
		p.config.Dir = c.Dir
	}
	if c.MaxIterations > 0 {
		p.config.Steps = c.MaxIterations
	}
	return nil
}
