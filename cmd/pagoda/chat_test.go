package main

import (
	"bytes"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
)

// opened is the demo, opened by pagoda run with these flags.
func opened(t *testing.T, flags ...string) (*runFlags, *session) {
	t.Helper()
	skipWithoutDemo(t)
	var f runFlags
	cmd := &cobra.Command{}
	f.engineFlags.register(cmd.Flags(), 1)
	f.samplingFlags.register(cmd.Flags())
	require.NoError(t, cmd.ParseFlags(append(flags, "--quiet", "--device", "cpu", "--temperature", "0")))
	s, err := f.open(cmd, "demo")
	require.NoError(t, err)
	t.Cleanup(s.close)
	return &f, s
}

// interrupter is a terminal whose user presses Ctrl-C at an answer's first piece, once.
type interrupter struct {
	bytes.Buffer
	t    *testing.T
	done bool
}

func (w *interrupter) Write(p []byte) (int, error) {
	if !w.done {
		w.done = true
		require.NoError(w.t, syscall.Kill(os.Getpid(), syscall.SIGINT))
	}
	return w.Buffer.Write(p)
}

// TestChatGoesOn: neither an answer that is stopped nor a conversation that outgrows the context ends a chat.
func TestChatGoesOn(t *testing.T) {
	f, s := opened(t, "--max-model-len", "256")
	out := interrupter{t: t}
	var notes bytes.Buffer
	long := strings.Repeat("fox and hen ", 100)
	input := strings.Join([]string{"Tell me a story.", "Go on.", long, "Tell me a story.", ""}, "\n")
	f.ignoreEOS = true // an answer ends by Ctrl-C or where the context does
	require.NoError(t, f.chat(t.Context(), s, strings.NewReader(input+"\n"), &out, &notes))
	answers := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.GreaterOrEqual(t, len(answers), 3, out.String())
	require.Equal(t, 1, strings.Count(notes.String(), "what was said is forgotten, ask again"), notes.String())
	require.Contains(t, notes.String(), "max_model_len is 256")
	require.Equal(t, 5, strings.Count(notes.String(), "\n> "), "the empty line ended it")
}

// TestRunTakesWhatFits: where nobody asked for a number of tokens a prompt may leave room for few.
func TestRunTakesWhatFits(t *testing.T) {
	skipWithoutDemo(t)
	prompt := strings.Repeat("fox ", 200)
	args := []string{"run", "demo", prompt, "--raw", "--json", "--ignore-eos", "--device", "cpu", "--max-model-len", "256"}
	out, err := run(t, args...)
	require.NoError(t, err)
	require.Contains(t, out, `"finish_reason":"length"`)
	_, err = run(t, append(args, "--max-tokens", "100")...)
	require.ErrorContains(t, err, "max_tokens is 100")
}
