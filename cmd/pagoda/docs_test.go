package main

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var rewrite = flag.Bool("rewrite", false, "write the outputs of the commands into the documentation")

// TestDocs runs the commands of docs/paged-attention.md, the lines that begin with
// "$ " in its console blocks, and compares what they print with what is there.
func TestDocs(t *testing.T) {
	if testing.Short() {
		t.Skip("all that the commands do other tests do, too, for the race detector to see")
	}
	page := filepath.Join("..", "..", "docs", "paged-attention.md")
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	dir := t.TempDir()
	work, bin := filepath.Join(dir, "work"), filepath.Join(dir, "bin")
	require.NoError(t, os.Mkdir(work, 0o755))
	require.NoError(t, os.Mkdir(bin, 0o755))
	self, err := os.Executable()
	require.NoError(t, err)
	require.NoError(t, os.Symlink(self, filepath.Join(bin, "pagoda")))
	run := func(command string) string {
		cmd := exec.Command("bash", "-o", "pipefail", "-c", command)
		cmd.Dir = work
		cmd.Env = append(os.Environ(), asCommand+"=1", "PATH="+bin+":"+os.Getenv("PATH"))
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if exit := (*exec.ExitError)(nil); err != nil && strings.Contains(command, "| head") { // head closes the pipe
			require.ErrorAs(t, err, &exit, command)
		} else {
			require.NoError(t, err, "%s\n%s", command, stderr.String())
		}
		return string(out)
	}
	got, commands := playConsole(string(text), run)
	require.Greater(t, commands, 10)
	if *rewrite {
		require.NoError(t, os.WriteFile(page, []byte(got), 0o644))
		return
	}
	require.Equal(t, string(text), got)
}

// playConsole returns text with the output of each command below it.
func playConsole(text string, run func(string) string) (out string, commands int) {
	var b strings.Builder
	console := false
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "```"):
			console = strings.TrimSpace(line) == "```console"
		case console && strings.HasPrefix(line, "$ "):
			b.WriteString(line)
			b.WriteString(run(strings.TrimPrefix(strings.TrimSpace(line), "$ ")))
			commands++
			continue
		case console:
			continue // an old answer
		}
		b.WriteString(line)
	}
	return b.String(), commands
}
