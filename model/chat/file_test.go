package chat

import (
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestFilesAreRegular: a pipe in the place of a model's file, or of a template's, does not hang.
func TestFilesAreRegular(t *testing.T) {
	for _, name := range []string{"tokenizer_config.json", "chat_template.jinja"} {
		path := filepath.Join(t.TempDir(), name)
		require.NoError(t, syscall.Mkfifo(path, 0o644))
		_, err := Load(filepath.Dir(path), nil)
		require.ErrorContains(t, err, path+": is not a regular file")
		_, err = ReadSource(path)
		require.ErrorContains(t, err, "is not a regular file")
	}
}
