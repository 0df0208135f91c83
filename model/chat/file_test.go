package chat

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestFilesAreRegular: a pipe in the place of a model's file does not hang.
func TestFilesAreRegular(t *testing.T) {
	for _, name := range []string{"tokenizer_config.json", "chat_template.jinja"} {
		path := filepath.Join(t.TempDir(), name)
		require.NoError(t, syscall.Mkfifo(path, 0o644))
		_, err := Load(filepath.Dir(path), nil)
		require.ErrorContains(t, err, path+": is not a regular file")
	}
}

// TestSourceFromAPipe: a person who names a pipe, such as <(…), wants it read.
func TestSourceFromAPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(path, 0o644))
	written := make(chan error, 1)
	go func() { written <- os.WriteFile(path, []byte("{{ bos_token }}"), 0) }()
	source, err := ReadSource(path)
	require.NoError(t, err)
	require.NoError(t, <-written)
	require.Equal(t, "{{ bos_token }}", source)
	_, err = ReadSource("/dev/zero")
	require.ErrorContains(t, err, "/dev/zero: is more than 1 MiB")
}
