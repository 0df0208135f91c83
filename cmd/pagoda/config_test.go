package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/bench"
)

// configFile writes a YAML file.
func configFile(t *testing.T, text string) string {
	name := filepath.Join(t.TempDir(), "optimal_config.yaml")
	require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
	return name
}

// resolved parses a command line of serve with an environment and a file.
func resolved(t *testing.T, yaml string, environment map[string]string, args ...string) (*pflag.FlagSet, error) {
	cmd := serveCommand()
	require.NoError(t, cmd.ParseFlags(append(args, "--config", configFile(t, yaml))))
	return cmd.Flags(), setFromOutside(cmd, func(name string) (string, bool) { v, ok := environment[name]; return v, ok })
}

// TestPrecedence: command line, environment, file, default, in that order.
func TestPrecedence(t *testing.T) {
	flags, err := resolved(t, `
# written by pagoda tune
gpu_memory_utilization: 0.85
max-num-seqs: 1
max_num_batched_tokens: 2
swap_space: 8
no_enable_prefix_caching: true
api_key: [a, b]
model: demo
compilation_config: {level: 3}
`, map[string]string{"PAGODA_MAX_NUM_BATCHED_TOKENS": "4096"}, "--max-num-seqs", "64")
	require.NoError(t, err)
	for name, want := range map[string]string{
		"gpu-memory-utilization": "0.85", "max-num-seqs": "64", "max-num-batched-tokens": "4096", "swap-space": "8 GiB",
		"enable-prefix-caching": "false", "api-key": "[a,b]", "model": "demo", "block-size": "16", "compilation-config": `{"level":3}`,
	} {
		require.Equal(t, want, flags.Lookup(name).Value.String(), name)
	}
	flags, err = resolved(t, "no_enable_prefix_caching: true", nil, "--enable-prefix-caching")
	require.NoError(t, err)
	require.Equal(t, "true", flags.Lookup("enable-prefix-caching").Value.String(), "a flag and its --no- form count as one")
}

// TestConfigFileRefuses: each mistake with the file, the line and what is right.
func TestConfigFileRefuses(t *testing.T) {
	for yaml, want := range map[string]string{
		"port: 8000\nmax_num_sequs: 4":     ":2: max_num_sequs: no such setting; did you mean max_num_seqs?",
		"zzzzzz: 4":                        ":1: zzzzzz: no such setting",
		"port: many":                       "port",
		"port: [1, 2]":                     "takes one value, not a list",
		"port:":                            "has no value",
		"api_key: [[a]]":                   "takes a list of plain values",
		"device: cdua":                     "did you mean cuda?",
		"port: 1\nhost: a\nport: 2":        ":3: port: set twice, first in line 1",
		"max_num_seqs: 1\nmax-num-seqs: 2": "set twice",
		"enable_prefix_caching: true\nno_enable_prefix_caching: true": "set twice",
		"config: other.yaml":           "does not name another",
		"- port":                       "want lines such as",
		"port: 1\n---\nport: 2":        "want one YAML document",
		"port: &p 1\nmax_num_seqs: *p": "aliases are not supported",
		"port: \"":                     "optimal_config.yaml",
		"#" + strings.Repeat("x", maxConfigFileBytes): "which is no configuration",
	} {
		_, err := resolved(t, yaml, nil)
		require.ErrorContains(t, err, want, yaml)
		require.Equal(t, exitUsage, exitCode(err))
	}
	for _, yaml := range []string{"", "# nothing\n", "null"} {
		_, err := resolved(t, yaml, nil)
		require.NoError(t, err, "%q is no setting", yaml)
	}
}

// TestOneFileForManyCommands: plan reads the file that serve is started with.
func TestOneFileForManyCommands(t *testing.T) {
	file := configFile(t, "port: 9000\nmax_num_seqs: 3\n")
	out, err := execute("plan", "demo", "--config", file, "--device", "cpu", "--memory-limit", "1GiB", "--json")
	require.NoError(t, err)
	require.Contains(t, out, `"max_num_seqs":3`)
	_, err = execute("plan", "demo", "--config", configFile(t, "port: x"))
	require.Equal(t, exitUsage, exitCode(err), "what it passes over is checked, too")
	_, err = execute("plan", "demo", "--config", filepath.Join(t.TempDir(), "none.yaml"))
	require.ErrorContains(t, err, "none.yaml")
}

func TestDidYouMean(t *testing.T) {
	for args, want := range map[string]string{
		"serv":                              "did you mean serve?",
		"bench bseline demo":                "did you mean baseline?",
		"serve --max-num-seq 4 demo":        "did you mean --max-num-seqs?",
		"serve --gpu_memory_utilization 1":  "did you mean --gpu-memory-utilization?",
		"run demo --scheduling-policy fcsf": "did you mean fcfs?",
	} {
		_, err := execute(strings.Fields(args)...)
		require.ErrorContains(t, err, want, args)
		require.Equal(t, exitUsage, exitCode(err))
	}
	_, err := execute("completely-else")
	require.NotContains(t, err.Error(), "did you mean")
	require.Equal(t, 1, mistakes("swap", "sawp"), "neighbours that change places")
	require.Equal(t, 3, mistakes("kitten", "sitting"))
	require.Equal(t, 4, mistakes("", "four"))
}

func TestServeTakesItsModelFromEitherPlace(t *testing.T) {
	_, err := execute("serve")
	require.ErrorContains(t, err, "no MODEL")
	_, err = execute("serve", "a", "--model", "b")
	require.ErrorContains(t, err, "give one of them")
	require.Equal(t, exitUsage, exitCode(err))
}

// TestHelp: every command's help fits 80 columns, has each of its flags once, and
// ends no line with a blank.
func TestHelp(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		cmd.InitDefaultHelpFlag()
		var out bytes.Buffer
		writeHelp(&out, cmd)
		for line := range strings.Lines(out.String()) {
			require.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), helpWidth, "%s: %s", cmd.CommandPath(), line)
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			lines := strings.Count(out.String(), "  --"+f.Name+" ") + strings.Count(out.String(), "  --"+f.Name+"\n") + strings.Count(out.String(), ", --"+f.Name+" ")
			if want := 1; !f.Hidden {
				require.GreaterOrEqual(t, lines, want, "%s --%s", cmd.CommandPath(), f.Name)
			}
		})
		for _, c := range cmd.Commands() {
			walk(c)
		}
	}
	walk(rootCommand())
	titles := []string{}
	serve := serveCommand()
	serve.InitDefaultHelpFlag()
	for _, g := range groupsOf(serve) {
		titles = append(titles, g.title)
	}
	require.True(t, slices.Contains(titles, "Memory") && slices.Contains(titles, "Server"), "%v", titles)
}

func TestFoldCommand(t *testing.T) {
	long := "  pagoda run model 'a prompt with blanks' " + strings.Repeat("--flag value ", 6)
	folded := foldCommand(long)
	require.Equal(t, strings.Fields(long), strings.Fields(strings.ReplaceAll(folded, "\\\n", "")))
	require.Greater(t, strings.Count(folded, "\\\n"), 0)
}

func TestMisspeltVariables(t *testing.T) {
	got := misspelt(planCommand(), []string{
		"PAGODA_MAX_NUM_SEQ=4", "PAGODA_MAX_NUM_SEQS=4", "PAGODA_PORT=1", "HOME=/h", "PAGODA_SERVICE_HOST=10.0.0.1", "PAGODA_SERVICE_PORT=80", "PAGODA_PORT_80_TCP=x", "PAGODA_PORT_80_TCP_PROTO=tcp", "PAGODA_SERVICE_PORT_HTTP=80", "PAGODA_PORT_80_TCP_ADDR=10.0.0.1", "PAGODA_API_KYE=secret",
	})
	require.Equal(t, []string{"PAGODA_MAX_NUM_SEQ sets no flag; did you mean PAGODA_MAX_NUM_SEQS?", "PAGODA_API_KYE sets no flag; did you mean PAGODA_API_KEY?"}, got)
}

// TestTunedConfig: serve reads what tune writes.
func TestTunedConfig(t *testing.T) {
	dir := t.TempDir()
	values := map[string]string{
		"gpu_memory_utilization": "0.85", "max_num_seqs": "128", "max_num_batched_tokens": "1024", "max_num_mixed_tokens": "2048", "long_prefill_token_threshold": "256",
		"target_itl_ms": "40", "swap_space": "8",
	}
	tuned := bench.TunedConfig{Head: []string{"Found by pagoda tune: it is so."}, Values: values, Why: map[string]string{"max_num_seqs": "1.2 times 64: measured"}}
	require.NoError(t, tuned.Write(dir))
	cmd := serveCommand()
	require.NoError(t, cmd.ParseFlags([]string{"--config", filepath.Join(dir, bench.ConfigFile)}))
	require.NoError(t, setFromOutside(cmd, func(string) (string, bool) { return "", false }))
	for key := range values {
		require.True(t, cmd.Flags().Lookup(strings.ReplaceAll(key, "_", "-")).Changed, key)
	}
	require.Equal(t, "8 GiB", cmd.Flags().Lookup("swap-space").Value.String())
}
