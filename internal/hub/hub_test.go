package hub

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	testID     = "Org/Tiny-Model"
	testCommit = "2439f60ef33a0d46d85da5001d52aeda5b00ce9f"
	testToken  = "hf_secret"
)

// TestSnapshot: the files in the layout that other tools know, once.
func TestSnapshot(t *testing.T) {
	h, cache := newFakeHub(t), t.TempDir()
	var done, total int64
	c := newClient(t, h, cache, func(c *Config) { c.Progress = func(_ string, d, n int64) { done, total = d, n } })
	dir, err := c.Snapshot(t.Context(), testID, "", wantModel)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(cache, "models--Org--Tiny-Model", "snapshots", testCommit), dir)
	h.requireWhole(t, dir)
	require.Equal(t, total, done)
	require.Greater(t, total, int64(640_000))
	link, err := os.Readlink(filepath.Join(dir, "model.safetensors"))
	require.NoError(t, err)
	require.Regexp(t, `^\.\./\.\./blobs/[0-9a-f]{64}$`, link)
	ref, err := os.ReadFile(filepath.Join(cache, "models--Org--Tiny-Model", "refs", "main"))
	require.NoError(t, err)
	require.Equal(t, testCommit, string(ref))

	name, past := filepath.Join(cache, "models--Org--Tiny-Model", "refs", "main"), time.Unix(1e9, 0)
	require.NoError(t, os.Chtimes(name, past, past))
	_, err = newClient(t, h, cache, nil).Snapshot(t.Context(), testID, "main", wantModel)
	require.NoError(t, err)
	info, err := os.Stat(name)
	require.NoError(t, err)
	require.Equal(t, past, info.ModTime(), "what is right is not written: the cache may be read-only")
	_, err = newClient(t, h, cache, nil).Snapshot(t.Context(), testID, testCommit, wantModel)
	require.NoError(t, err)
	for file, n := range h.sent {
		require.Equal(t, 1, n, "%s is fetched once", file)
	}
}

// TestFolder: a file in a folder is one of the snapshot.
func TestFolder(t *testing.T) {
	h, cache := newFakeHub(t), t.TempDir()
	const name = "additional/tools.json"
	h.files[name] = []byte("in a folder")
	dir, err := newClient(t, h, cache, nil).Snapshot(t.Context(), testID, "", func(file string) bool { return wantModel(file) || file == name })
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(dir, name))
	require.NoError(t, err)
	require.Equal(t, "in a folder", string(text))
}

// TestInterrupted: a transfer that breaks goes on where it stopped, in the same
// call as long as it gets on, else in the next one.
func TestInterrupted(t *testing.T) {
	h, cache := newFakeHub(t), t.TempDir()
	h.breakAt, h.breaks = 200_000, 2
	dir, err := newClient(t, h, cache, nil).Snapshot(t.Context(), testID, "", wantModel)
	require.NoError(t, err)
	h.requireWhole(t, dir)
	require.Equal(t, []string{"", "bytes=200000-", "bytes=400000-"}, h.ranges)

	h, cache = newFakeHub(t), t.TempDir()
	h.breakAt, h.breaks = 100_000, 1
	c := newClient(t, h, cache, nil)
	c.attempts = 0
	_, err = c.Snapshot(t.Context(), testID, "", wantModel)
	require.ErrorIs(t, err, ErrUnreachable)
	require.ErrorContains(t, err, "100000 of 640000 bytes are there")
	parts, err := filepath.Glob(filepath.Join(cache, "models--Org--Tiny-Model", "blobs", "*.incomplete"))
	require.NoError(t, err)
	require.Len(t, parts, 1)
	_, err = newClient(t, h, cache, func(c *Config) { c.Offline = true }).Snapshot(t.Context(), testID, "", wantModel)
	require.ErrorIs(t, err, ErrNotFound, "half a model is none")
	dir, err = newClient(t, h, cache, nil).Snapshot(t.Context(), testID, "", wantModel)
	require.NoError(t, err)
	h.requireWhole(t, dir)
	require.Equal(t, []string{"", "bytes=100000-"}, h.ranges)
}

// TestNoRanges: from a host that cannot go on in the middle, the file comes anew.
func TestNoRanges(t *testing.T) {
	h := newFakeHub(t)
	h.breakAt, h.breaks, h.whole = 200_000, 1, true
	dir, err := newClient(t, h, t.TempDir(), nil).Snapshot(t.Context(), testID, "", wantModel)
	require.NoError(t, err)
	h.requireWhole(t, dir)
	require.Equal(t, 2, h.sent["model.safetensors"])
}

// TestDamaged: bytes that are not what the hub says never become a model.
func TestDamaged(t *testing.T) {
	h, cache := newFakeHub(t), t.TempDir()
	sum := sha256.Sum256(h.files["model.safetensors"])
	blobs := filepath.Join(cache, "models--Org--Tiny-Model", "blobs")
	require.NoError(t, os.MkdirAll(blobs, 0o755))
	part := filepath.Join(blobs, hex.EncodeToString(sum[:])+".incomplete")
	require.NoError(t, os.WriteFile(part, []byte("not the beginning"), 0o600))
	dir, err := newClient(t, h, cache, nil).Snapshot(t.Context(), testID, "", wantModel)
	require.NoError(t, err)
	h.requireWhole(t, dir)
	require.Equal(t, 2, h.sent["model.safetensors"], "the rest, then all of it")

	h, cache = newFakeHub(t), t.TempDir()
	h.damage = true
	_, err = newClient(t, h, cache, nil).Snapshot(t.Context(), testID, "", wantModel)
	require.ErrorIs(t, err, errDamaged)
	left, err := filepath.Glob(filepath.Join(cache, "models--Org--Tiny-Model", "blobs", hex.EncodeToString(sum[:])+"*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

// TestRefusals: each failure says which it is and what to do.
func TestRefusals(t *testing.T) {
	h := newFakeHub(t)
	fetch := func(change func(*Config), id, revision string) error {
		_, err := newClient(t, h, t.TempDir(), change).Snapshot(t.Context(), id, revision, wantModel)
		return err
	}
	err := fetch(nil, "Org/Other", "")
	require.ErrorIs(t, err, ErrAccess)
	require.ErrorContains(t, err, "is there such a model?")
	require.ErrorContains(t, err, "Repository not found")
	err = fetch(nil, testID, "v9")
	require.ErrorIs(t, err, ErrNotFound)
	require.ErrorContains(t, err, "--revision")
	h.gated = true
	require.ErrorContains(t, fetch(nil, testID, ""), "set HF_TOKEN")
	require.ErrorContains(t, fetch(func(c *Config) { c.Token = "wrong" }, testID, ""), "accept the model's terms")
	require.NoError(t, fetch(func(c *Config) { c.Token = testToken }, testID, ""))
	require.False(t, h.leaked, "the key is for the hub alone")
	for _, id := range []string{"", "a", "a/b/c", "../b", "a/..", "./b", "/b", "a/b c", "a/b--c", "a/.."} {
		require.False(t, IsID(id), id)
		require.Error(t, fetch(nil, id, ""), id)
	}
	require.Error(t, fetch(nil, testID, "../main"))
	_, err = New(Config{Endpoint: "hub.example", CacheDir: "x"})
	require.ErrorContains(t, err, "HF_ENDPOINT")
}

// TestHubAway: the cache serves, with a note; without it the error names the host.
func TestHubAway(t *testing.T) {
	h, cache := newFakeHub(t), t.TempDir()
	_, err := newClient(t, h, cache, nil).Snapshot(t.Context(), testID, "", wantModel)
	require.NoError(t, err)
	h.Close()
	h.URL = "http://127.0.0.1:0" // nobody listens there, while another may come to the port it had
	var notes []string
	dir, err := newClient(t, h, cache, func(c *Config) { c.Note = func(s string) { notes = append(notes, s) } }).Snapshot(t.Context(), testID, "", wantModel)
	require.NoError(t, err)
	h.requireWhole(t, dir)
	require.Len(t, notes, 1)
	require.Contains(t, notes[0], "the cached Org/Tiny-Model is used")
	dir, err = newClient(t, h, cache, func(c *Config) { c.Offline = true }).Snapshot(t.Context(), testID, "", wantModel)
	require.NoError(t, err)
	h.requireWhole(t, dir)
	_, err = newClient(t, h, t.TempDir(), nil).Snapshot(t.Context(), testID, "", wantModel)
	require.ErrorIs(t, err, ErrUnreachable)
	require.ErrorContains(t, err, h.URL)
}

// TestNoRoom: a download that cannot fit is refused before it begins.
func TestNoRoom(t *testing.T) {
	h := newFakeHub(t)
	c := newClient(t, h, t.TempDir(), nil)
	c.free = func(string) (int64, error) { return 600_000, nil }
	_, err := c.Snapshot(t.Context(), testID, "", wantModel)
	require.ErrorIs(t, err, ErrSpace)
	require.ErrorContains(t, err, "make room")
	require.Empty(t, h.sent)
}

// TestHostileNames: what the hub names cannot leave the cache.
func TestHostileNames(t *testing.T) {
	h, cache := newFakeHub(t), t.TempDir()
	h.extra = []string{"../../evil.json", "/etc/evil.json", "sub/../evil.json", "a/b/evil.json", "sub/", "/evil.json", "..", ""}
	dir, err := newClient(t, h, cache, nil).Snapshot(t.Context(), testID, "", wantModel)
	require.NoError(t, err)
	h.requireWhole(t, dir)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 3)
	h.etag["config.json"] = "../../../evil"
	_, err = newClient(t, h, t.TempDir(), nil).Snapshot(t.Context(), testID, "", wantModel)
	require.ErrorContains(t, err, "without hash or size")
}

// TestTwoProcesses: they share one transfer.
func TestTwoProcesses(t *testing.T) {
	h, cache := newFakeHub(t), t.TempDir()
	var group sync.WaitGroup
	for range 4 {
		c := newClient(t, h, cache, nil)
		group.Go(func() {
			dir, err := c.Snapshot(t.Context(), testID, "", wantModel)
			if err == nil {
				h.requireWhole(t, dir)
			} else {
				t.Error(err)
			}
		})
	}
	group.Wait()
	require.Equal(t, 1, h.sent["model.safetensors"])
}

// TestShards: a snapshot is whole when every file of its index is there.
func TestShards(t *testing.T) {
	h, cache := newFakeHub(t), t.TempDir()
	delete(h.files, "model.safetensors")
	h.files["model.safetensors.index.json"] = []byte(`{"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors"}}`)
	h.files["model-1.safetensors"], h.files["model-2.safetensors"] = []byte("one"), []byte("two")
	dir, err := newClient(t, h, cache, nil).Snapshot(t.Context(), testID, "", wantModel)
	require.NoError(t, err)
	offline := newClient(t, h, cache, func(c *Config) { c.Offline = true })
	_, err = offline.Snapshot(t.Context(), testID, "", wantModel)
	require.NoError(t, err)
	require.NoError(t, os.Remove(filepath.Join(dir, "model-2.safetensors")))
	_, err = offline.Snapshot(t.Context(), testID, "", wantModel)
	require.ErrorIs(t, err, ErrNotFound)
}
