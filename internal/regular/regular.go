// Package regular reads files that somebody else wrote, a model's, which may come from
// anywhere, and those that a person names.
package regular

import (
	"fmt"
	"io"
	"os"
	"syscall"
)

// ReadFile reads a regular file of at most most bytes, or what a symbolic link (the
// Hugging Face cache is made of them) leads to. O_NONBLOCK keeps a named pipe from
// hanging us, the limit a device from filling the memory.
func ReadFile(path string, most int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: is not a regular file, which it must be or link to; put the text itself there", path)
	}
	return read(f, most)
}

// ReadNamed reads a file that a person names on the command line: <(…), /dev/stdin and
// other pipes, too, whose writer it waits for as any program does. A device that never
// ends is more than most.
func ReadNamed(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return read(f, most)
}

func read(f *os.File, most int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(f, most+1)) // the size that Stat gives may grow
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("%s: is more than %d MiB, which no such file of a model is; see that it is the right one", f.Name(), most>>20)
	}
	return data, nil
}
