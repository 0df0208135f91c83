package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/internal/hub"
)

// status of a check.
type status string

const (
	statusOK   status = "ok"
	statusWarn status = "warn" // it works, worse than it could
	statusFail status = "fail" // something that was asked for will not work
)

// check is one line of pagoda doctor.
type check struct {
	Name   string `json:"name"`
	Status status `json:"status"`
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"` // of what is not ok
}

// doctor looks at one machine. Its fields are what tests replace.
type doctor struct {
	device     string // auto, cpu or cuda
	host       string
	port       int
	profileDir string
	lookup     func(string) (string, bool) // of the environment
	proc       string                      // where procfs is
	checks     []check
}

func (d *doctor) ok(name, format string, args ...any) {
	d.checks = append(d.checks, check{name, statusOK, fmt.Sprintf(format, args...), ""})
}

func (d *doctor) bad(s status, name, fix, format string, args ...any) {
	d.checks = append(d.checks, check{name, s, fmt.Sprintf(format, args...), fix})
}

func doctorCommand() *cobra.Command {
	d := doctor{lookup: os.LookupEnv, proc: "/proc"}
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor [MODEL]",
		Short: "Check this machine: processor, memory, GPU, directories, port",
		Long: `Check what serving needs of this machine: the processor's code path, cores and
memory as the control group leaves them, the NVIDIA driver, the tokenizer library,
write access, the model cache, the port. With MODEL, whether that model fits, too.

Each line is ok, warn or fail; what is not ok says how to mend it. Exit code 1: a
line fails.`,
		Example: `  pagoda doctor
  pagoda doctor ./Qwen2.5-0.5B-Instruct --device cuda
  pagoda doctor --json`,
		Args: exactly(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d.machine(cmd.Context())
			if len(args) > 0 {
				d.model(cmd.Context(), args[0])
			}
			return d.report(cmd.OutOrStdout(), asJSON)
		},
	}
	flags := cmd.Flags()
	choose(flags, &d.device, "device", "auto", "auto: a GPU need not be there", "auto", "cpu", "cuda")
	flags.StringVar(&d.host, "host", "127.0.0.1", "address that serve would listen on")
	flags.IntVar(&d.port, "port", 8000, "port that serve would listen on")
	flags.StringVar(&d.profileDir, "profile-dir", "./profiles", "directory that profiles would go to")
	flags.BoolVar(&asJSON, "json", false, "print one JSON object")
	addNegations(flags)
	return cmd
}

// machine runs every check that needs no model.
func (d *doctor) machine(ctx context.Context) {
	d.processor()
	d.gpu()
	d.library()
	d.files()
	d.directory("cache directory", hubCacheDir(d.lookup), "set HF_HUB_CACHE to a directory that you may write to")
	d.directory("profile directory", d.profileDir, "name another one with --profile-dir")
	d.directory("reports", ".", "run from a directory that you may write to, or give --output-dir")
	d.modelCache()
	d.listen(ctx)
}

// model checks that a model can be read and fits.
func (d *doctor) model(ctx context.Context, name string) {
	dir := name
	if hub.IsID(name) && !isDirectory(name) {
		cached := hubFlags{offline: true}
		client, err := cached.client(d.lookup, nil, nil)
		if err == nil {
			dir, err = client.Snapshot(ctx, name, "", modelFiles)
		}
		if err != nil {
			d.bad(statusWarn, "model", "pagoda serve fetches it; pagoda plan "+name+" says whether it fits", "%s is not cached", name)
			return
		}
	}
	p, err := engine.NewPlan(engine.Config{Model: dir, Device: d.device})
	switch {
	case errors.Is(err, engine.ErrMemory):
		d.bad(statusFail, "model", "see pagoda plan "+name, "%v", err)
	case err != nil:
		d.bad(statusFail, "model", "give a directory with config.json, tokenizer.json and safetensors, a model of the hub, or demo", "%v", err)
	default:
		i := p.Info
		d.ok("model", "%s fits: weights %s, %d KV blocks of %d tokens, sequences up to %d tokens", name, formatBytes(i.WeightBytes), i.NumBlocks, i.BlockSize, i.MaxModelLen)
	}
}

// report prints the checks and fails when one of them did.
func (d *doctor) report(w io.Writer, asJSON bool) error {
	failed := 0
	for _, c := range d.checks {
		if c.Status == statusFail {
			failed++
		}
	}
	if asJSON {
		report := struct {
			OK      bool    `json:"ok"`
			Version string  `json:"version"`
			Checks  []check `json:"checks"`
		}{failed == 0, version, d.checks}
		if err := json.NewEncoder(w).Encode(report); err != nil {
			return err
		}
	} else {
		for _, c := range d.checks {
			fmt.Fprintf(w, "%-4s  %-17s  %s\n", c.Status, c.Name, c.Detail)
			if c.Fix != "" {
				fmt.Fprintf(w, "%-4s  %-17s  → %s\n", "", "", c.Fix)
			}
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d checks fail", failed, len(d.checks))
	}
	return nil
}
