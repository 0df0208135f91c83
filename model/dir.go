package model

import (
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// directory is a model directory whose files are opened without leaving it: a
// symbolic link that points outside is refused by os.Root. A snapshot of the
// Hugging Face cache (…/models--org--name/snapshots/<commit>/, whose files link
// to ../../blobs) may use its whole repository folder.
type directory struct {
	name   string // as the caller gave it, for messages
	root   *os.Root
	prefix string // of the directory inside root
}

func openDirectory(name string) (*directory, error) {
	resolved, err := filepath.EvalSymlinks(name)
	if err == nil {
		resolved, err = filepath.Abs(resolved)
	}
	if err != nil {
		return nil, fileError(name, "directory", "%v", cause(err))
	}
	d := &directory{name: name, prefix: "."}
	top := resolved
	if parent := filepath.Dir(resolved); filepath.Base(parent) == "snapshots" {
		if repo := filepath.Dir(parent); isDirectory(filepath.Join(repo, "blobs")) {
			top, d.prefix = repo, path.Join("snapshots", filepath.Base(resolved))
		}
	}
	if d.root, err = os.OpenRoot(top); err != nil {
		return nil, fileError(name, "directory", "%v", cause(err))
	}
	return d, nil
}

func isDirectory(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

func (d *directory) close() { d.root.Close() }

// path is the path of a file for messages.
func (d *directory) path(file string) string { return filepath.Join(d.name, file) }

// exists says whether there is an entry of that name, be it faulty.
func (d *directory) exists(file string) bool {
	_, err := d.root.Lstat(path.Join(d.prefix, file))
	return err == nil
}

// open opens a regular file. O_NONBLOCK keeps a named pipe from hanging us.
func (d *directory) open(file string) (*os.File, fs.FileInfo, error) {
	f, err := d.root.OpenFile(path.Join(d.prefix, file), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fileError(d.path(file), "file", "%v", cause(err))
	}
	info, err := f.Stat()
	switch {
	case err != nil:
		err = fileError(d.path(file), "file", "%v", cause(err))
	case !info.Mode().IsRegular():
		err = fileError(d.path(file), "file", "is not a regular file")
	default:
		return f, info, nil
	}
	f.Close()
	return nil, nil, err
}

// read returns the whole of a file of at most max bytes.
func (d *directory) read(file string, max int64) ([]byte, error) {
	f, info, err := d.open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info.Size() > max {
		return nil, fileError(d.path(file), "size", "is %d bytes, at most %d are supported", info.Size(), max)
	}
	data, err := io.ReadAll(io.LimitReader(f, max+1)) // it may have grown since
	if err == nil && int64(len(data)) > max {
		return nil, fileError(d.path(file), "size", "is more than %d bytes", max)
	}
	if err != nil {
		return nil, fileError(d.path(file), "file", "%v", cause(err))
	}
	return data, nil
}
