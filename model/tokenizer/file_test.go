package tokenizer

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestOpenRefusesWhatIsTooLarge, a sparse file, before it is read.
func TestOpenRefusesWhatIsTooLarge(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "tokenizer.json")
	require.NoError(t, os.WriteFile(path, nil, 0o644))
	require.NoError(t, os.Truncate(path, maxFile+1))
	_, err := Open(dir)
	require.ErrorContains(t, err, path+": is more than 64 MiB")
}
