package engine

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Window is the time of step i on the host: to the next one's begin, where the
// loop runs a step ahead, else to its own end.
func (p *Profile) Window(i int) (begin, end time.Duration) {
	begin, end = p.Steps[i].Begin(), p.Steps[i].End()
	if i+1 < len(p.Steps) {
		end = min(end, p.Steps[i+1].Begin())
	}
	return begin, end
}

// CheckProfileDir makes a directory for traces and sees whether it can be written
// to. An error wraps ErrConfig, or ENOSPC where only room is wanting.
func CheckProfileDir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return profileDirError(dir, err)
	}
	file, err := os.CreateTemp(dir, ".pagoda-*")
	if err != nil {
		return profileDirError(dir, err)
	}
	_, err = file.Write(make([]byte, 4096))
	err = errors.Join(err, file.Close(), os.Remove(file.Name()))
	return profileDirError(dir, err)
}

// profileDirError says what to do about a file error; nil stays nil.
func profileDirError(dir string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return fmt.Errorf("no room for a trace in %s (%w): record fewer steps (--steps 4), bound the file (--max-trace-mb 2) or choose another --profile-dir", dir, err)
	}
	return fmt.Errorf("%w: --profile-dir %s cannot be written to (%w): choose another directory", ErrConfig, dir, err)
}

// Save writes the profile as a trace file of at most maxBytes, 0 = any size, into
// dir, and returns its path. Steps that do not fit are dropped from the file and
// from the profile, with a note. Nothing is left behind where it fails.
func (p *Profile) Save(dir string, maxBytes int64) (path string, err error) {
	if len(p.Steps) == 0 {
		return "", errors.New("the profile has no step: nothing ran while it was recorded")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", profileDirError(dir, err)
	}
	host, _ := os.Hostname() // the name is for people
	host = strings.NewReplacer("/", "-", ".", "-").Replace(cmp.Or(host, "pagoda"))
	path = filepath.Join(dir, fmt.Sprintf("%s_%d.%d.pt.trace.json", host, os.Getpid(), p.Begin.UnixMilli()))
	file, err := os.Create(path)
	if err != nil {
		return "", profileDirError(dir, err)
	}
	steps, err := p.WriteTrace(file, maxBytes)
	if err = cmp.Or(err, file.Close()); err != nil {
		_ = os.Remove(path) // the first error says more
		var inFile *fs.PathError
		if errors.As(err, &inFile) {
			err = profileDirError(dir, err)
		}
		return "", err
	}
	if left := len(p.Steps) - steps; left > 0 {
		p.Notes = append(p.Notes, fmt.Sprintf("the last %d of %d steps did not fit --max-trace-mb %g: raise it, or record fewer with --steps %d", left, len(p.Steps), float64(maxBytes)/1e6, steps))
		p.Steps = p.Steps[:steps]
	}
	return path, nil
}
