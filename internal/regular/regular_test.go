package regular

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestReadFileTakesTextOnly: a pipe does not hang, a device and a file that is too large
// do not fill the memory, and the link of a Hugging Face cache is followed.
func TestReadFileTakesTextOnly(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	read := func(name string) (data []byte, err error) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			data, err = ReadFile(path(name), 1<<20)
		}()
		select {
		case <-done:
			return data, err
		case <-time.After(10 * time.Second):
			t.Fatalf("reading %s hangs", name)
			return nil, nil
		}
	}
	require.NoError(t, syscall.Mkfifo(path("pipe"), 0o644))
	require.NoError(t, os.Symlink("/dev/zero", path("device")))
	for _, name := range []string{"pipe", "device", "."} {
		_, err := read(name)
		require.ErrorContains(t, err, path(name)+": is not a regular file", name)
	}

	require.NoError(t, os.WriteFile(path("large"), nil, 0o644))
	require.NoError(t, os.Truncate(path("large"), 1<<20))
	data, err := read("large")
	require.NoError(t, err)
	require.Len(t, data, 1<<20)
	require.NoError(t, os.Truncate(path("large"), 1<<20+1))
	_, err = read("large")
	require.ErrorContains(t, err, path("large")+": is more than 1 MiB")

	require.NoError(t, os.MkdirAll(path("snapshots/0"), 0o755))
	require.NoError(t, os.Mkdir(path("blobs"), 0o755))
	require.NoError(t, os.WriteFile(path("blobs/ab"), []byte("text"), 0o644))
	require.NoError(t, os.Symlink("../../blobs/ab", path("snapshots/0/link")))
	data, err = read("snapshots/0/link")
	require.NoError(t, err)
	require.Equal(t, "text", string(data))

	_, err = read("absent")
	require.ErrorIs(t, err, os.ErrNotExist)
}

// TestReadNamed: a pipe is read to its end, and a device that has none to the limit.
func TestReadNamed(t *testing.T) {
	dir := t.TempDir()
	pipe, file := filepath.Join(dir, "pipe"), filepath.Join(dir, "file")
	require.NoError(t, syscall.Mkfifo(pipe, 0o644))
	written := make(chan error, 1)
	go func() { written <- os.WriteFile(pipe, []byte("from a pipe"), 0) }()
	data, err := ReadNamed(pipe, 1<<20)
	require.NoError(t, err)
	require.Equal(t, "from a pipe", string(data))
	require.NoError(t, <-written)

	require.NoError(t, os.WriteFile(file, []byte("from a file"), 0o644))
	data, err = ReadNamed(file, 1<<20)
	require.NoError(t, err)
	require.Equal(t, "from a file", string(data))

	_, err = ReadNamed("/dev/zero", 1<<20)
	require.ErrorContains(t, err, "/dev/zero: is more than 1 MiB")
	_, err = ReadNamed(dir, 1<<20)
	require.ErrorContains(t, err, dir+": is a directory")
	_, err = ReadNamed(filepath.Join(dir, "absent"), 1<<20)
	require.ErrorIs(t, err, os.ErrNotExist)
}
