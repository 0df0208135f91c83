package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/model/demo"
)

// skipWithoutDemo skips a test that needs the demo model in a build without it.
func skipWithoutDemo(t testing.TB) {
	t.Helper()
	if _, err := demo.Files(); err != nil {
		t.Skip(err)
	}
}

// run executes the command line in this process and gives standard output.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	root := rootCommand()
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetArgs(args)
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

// TestRunDemo: the first command of the README, from the argument to the answer.
func TestRunDemo(t *testing.T) {
	skipWithoutDemo(t)
	out, err := run(t, "run", "demo", "Tell me a story about a fox.", "--temperature", "0", "--max-tokens", "200", "--json")
	require.NoError(t, err)
	var a answer
	require.NoError(t, json.Unmarshal([]byte(out), &a))
	require.EqualValues(t, "stop", a.FinishReason, a.Text)
	require.Contains(t, a.Text, "fox")
	require.Greater(t, len(strings.Fields(a.Text)), 30)
	require.NotContains(t, a.Text, "<|")
}

// TestDemoIsNoDirectory: "demo" means the embedded model even beside a directory
// of that name, which ./demo reaches.
func TestDemoIsNoDirectory(t *testing.T) {
	skipWithoutDemo(t)
	t.Chdir(t.TempDir())
	require.NoError(t, os.Mkdir("demo", 0o755))
	_, err := run(t, "run", "demo", "Hello!", "--quiet", "--max-tokens", "4")
	require.NoError(t, err)
	_, err = run(t, "run", "./demo", "Hello!", "--quiet", "--max-tokens", "4")
	require.Equal(t, exitModel, exitCode(err), "%v", err)
}

// TestBinaryWithoutDemo builds with the tag and wants one clear line.
func TestBinaryWithoutDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("links a binary, which the race detector does not see into")
	}
	binary := filepath.Join(t.TempDir(), "pagoda")
	out, err := exec.Command("go", "build", "-tags", "nodemo", "-ldflags", "-s -w", "-o", binary, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	cmd := exec.Command(binary, "run", "demo", "Hello!")
	out, err = cmd.CombinedOutput()
	require.Error(t, err)
	require.Equal(t, exitModel, cmd.ProcessState.ExitCode())
	require.Contains(t, string(out), demo.ErrLeftOut.Error())
	require.Equal(t, 1, strings.Count(string(out), "\n"), "%s", out)
}

// BenchmarkDemoStarts is the time from nothing to ready.
func BenchmarkDemoStarts(b *testing.B) {
	skipWithoutDemo(b)
	for b.Loop() {
		f := engineFlags{quiet: true, generation: "auto", maxModelLen: "auto", prefix: true}
		f.config.MaxNumSeqs, f.config.LoadFormat = 1, "auto"
		s, err := f.open(runCommand(), demo.Name)
		require.NoError(b, err)
		s.close()
	}
}
