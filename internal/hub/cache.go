package hub

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/gomlx/go-huggingface/hub"
	"golang.org/x/sys/unix"
)

// cache is the folder of one model.
type cache struct {
	dir   string // models--owner--name
	locks string // of the files that are being fetched
}

func newCache(root, id string) cache {
	folder := string(hub.RepoTypeModel) + hub.RepoIdSeparator + strings.ReplaceAll(id, "/", hub.RepoIdSeparator)
	return cache{dir: filepath.Join(root, folder), locks: filepath.Join(root, ".locks", folder)}
}

func (c cache) snapshotDir(commit string) string { return filepath.Join(c.dir, "snapshots", commit) }

func (c cache) blob(hash string) string { return filepath.Join(c.dir, "blobs", hash) }

// incomplete is where a blob grows.
func (c cache) incomplete(hash string) string { return c.blob(hash) + ".incomplete" }

// snapshot finds the cached snapshot of a revision, if it is whole.
func (c cache) snapshot(revision string, want func(string) bool) (string, bool) {
	commit := revision
	if text, err := os.ReadFile(filepath.Join(c.dir, "refs", revision)); err == nil {
		commit = strings.TrimSpace(string(text))
	}
	if !safeName.MatchString(commit) {
		return "", false
	}
	dir := c.snapshotDir(commit)
	return dir, whole(dir, want)
}

// The files by which a snapshot can be judged without the hub.
const (
	configFile = "config.json"
	singleFile = "model.safetensors"
	indexFile  = "model.safetensors.index.json"
)

// whole says whether dir has the configuration and, where weights are wanted, all
// of them.
func whole(dir string, want func(string) bool) bool {
	if !exists(filepath.Join(dir, configFile)) {
		return false
	}
	if !want(singleFile) || exists(filepath.Join(dir, singleFile)) {
		return true
	}
	text, err := os.ReadFile(filepath.Join(dir, indexFile))
	var index struct {
		WeightMap map[string]string `json:"weight_map"`
	}
	if err != nil || json.Unmarshal(text, &index) != nil || len(index.WeightMap) == 0 {
		return false
	}
	for _, file := range index.WeightMap {
		if !safeName.MatchString(file) || !exists(filepath.Join(dir, file)) {
			return false
		}
	}
	return true
}

// exists follows links: one that leads nowhere does not count.
func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// missing lists those of the files that a snapshot lacks.
func (c cache) missing(commit string, files []string) []string {
	var list []string
	for _, f := range files {
		if !exists(filepath.Join(c.snapshotDir(commit), f)) {
			list = append(list, f)
		}
	}
	return list
}

// link makes a file of the snapshot of a whole blob.
func (c cache) link(commit string, r *remote) error {
	name := filepath.Join(c.snapshotDir(commit), r.name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	target := filepath.Join(strings.Repeat("../", 2+strings.Count(r.name, "/")), "blobs", r.hash)
	err := os.Symlink(target, name)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if there, err := os.Readlink(name); err == nil && there == target {
		return nil // another process was faster
	}
	if err := os.Remove(name); err != nil {
		return err
	}
	return os.Symlink(target, name)
}

// setRef notes the commit that a revision stands for.
func (c cache) setRef(revision, commit string) error {
	if revision == commit {
		return nil
	}
	name := filepath.Join(c.dir, "refs", revision)
	if there, err := os.ReadFile(name); err == nil && string(there) == commit {
		return nil // the cache may be one that others fill, and not to be written to
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, []byte(commit), 0o644)
}

// lock keeps other processes from fetching the same blob; unlock ends that. held is
// called when it must wait for one.
func (c cache) lock(hash string, held func()) (unlock func(), err error) {
	if err := os.MkdirAll(c.locks, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(c.locks, hash+".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		held()
		err = unix.EINTR
	}
	for errors.Is(err, unix.EINTR) {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("locking %s: %w", f.Name(), err)
	}
	return func() { f.Close() }, nil
}

// FreeBytes is the room on the file system of a directory.
func FreeBytes(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * s.Bsize, nil
}
