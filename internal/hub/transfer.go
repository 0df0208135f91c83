package hub

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// errDamaged is a file whose contents are not what the hub says.
var errDamaged = errors.New("damaged")

// fetch brings files into the cache, after it is known that they fit on the disk.
func (c *Client) fetch(ctx context.Context, cache cache, id, commit string, files []string) error {
	var list []*remote
	var total, missing int64
	for _, file := range files {
		r, err := c.head(ctx, id, commit, file)
		if err != nil {
			return err
		}
		list = append(list, r)
		total += r.size
		if !exists(cache.blob(r.hash)) {
			missing += r.size - sizeOf(cache.incomplete(r.hash))
		}
	}
	blobs := filepath.Join(cache.dir, "blobs")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return fmt.Errorf("cache directory: %w; set HF_HUB_CACHE to one that you may write to", err)
	}
	if room, err := c.free(blobs); err == nil && missing > room {
		return fmt.Errorf("%w: %s takes %d bytes more (%.1f GB), %s has %d free (%.1f GB): make room, or set HF_HUB_CACHE to a directory elsewhere",
			ErrSpace, id, missing, float64(missing)/1e9, blobs, room, float64(room)/1e9)
	}
	if missing > 0 {
		c.cfg.Note(fmt.Sprintf("fetching %s, %.2f GB in %d files, to %s", id, float64(missing)/1e9, len(list), cache.dir))
	}
	var done int64
	for _, r := range list {
		if err := c.bring(ctx, cache, r, func(n int64) { c.cfg.Progress(r.name, done+n, total) }); err != nil {
			return fmt.Errorf("%s/%s: %w", id, r.name, err)
		}
		done += r.size
		if err := cache.link(commit, r); err != nil {
			return err
		}
	}
	return nil
}

// sizeOf is the size of a file, 0 without one.
func sizeOf(name string) int64 {
	info, err := os.Stat(name)
	if err != nil {
		return 0
	}
	return info.Size()
}

// bring makes a blob whole. One that turns out damaged is fetched anew, once.
func (c *Client) bring(ctx context.Context, cache cache, r *remote, progress func(int64)) error {
	unlock, err := cache.lock(r.hash, func() { c.cfg.Note("another process is fetching " + r.name + ": waiting for it") })
	if err != nil {
		return err
	}
	defer unlock()
	blob, part := cache.blob(r.hash), cache.incomplete(r.hash)
	if sizeOf(blob) == r.size && exists(blob) {
		return nil // another process was faster
	}
	for again := false; ; again = true {
		if err := c.download(ctx, part, r, progress); err != nil {
			return err
		}
		err := verify(part, r)
		if err == nil {
			return os.Rename(part, blob)
		}
		if e := os.Remove(part); e != nil {
			return errors.Join(err, e)
		}
		if again || !errors.Is(err, errDamaged) {
			return err
		}
	}
}

// download completes the file at part. It goes on after a break for as long as
// attempts bring something.
func (c *Client) download(ctx context.Context, part string, r *remote, progress func(int64)) error {
	f, err := os.OpenFile(part, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	have, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if have > r.size {
		have = 0
	}
	for vain := 0; have < r.size; {
		progress(have)
		at, err := c.attempt(ctx, f, have, r, progress)
		if at > have {
			vain = 0
		} else {
			vain++
		}
		have = at
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !errors.Is(err, ErrUnreachable) || vain >= c.attempts {
			return fmt.Errorf("%w; %d of %d bytes are there: start again to go on", err, have, r.size)
		}
		select {
		case <-time.After(c.pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	progress(have)
	return errors.Join(f.Truncate(r.size), f.Sync())
}

// attempt asks for the rest of a file from offset have on and appends what comes;
// it returns how much there is then.
func (c *Client) attempt(ctx context.Context, f *os.File, have int64, r *remote, progress func(int64)) (int64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	header := http.Header{}
	if have > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", have))
	}
	answer, err := c.request(ctx, http.MethodGet, r.url, header)
	if err != nil {
		return have, err
	}
	defer answer.Body.Close()
	switch answer.StatusCode {
	case http.StatusOK:
		have = 0 // the range was not heeded
	case http.StatusPartialContent:
		if !strings.HasPrefix(answer.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", have)) {
			return have, fmt.Errorf("asked for bytes from %d on, got %q", have, answer.Header.Get("Content-Range"))
		}
	default:
		return have, c.refusal(r.name, answer)
	}
	stalled := time.AfterFunc(c.idle, cancel)
	defer stalled.Stop()
	buffer := make([]byte, 1<<20)
	for have < r.size {
		n, err := answer.Body.Read(buffer[:min(int64(len(buffer)), r.size-have)])
		if _, e := f.WriteAt(buffer[:n], have); e != nil {
			return have, e
		}
		have += int64(n)
		progress(have)
		stalled.Reset(c.idle)
		if err != nil && have < r.size {
			return have, fmt.Errorf("%w (%s): the connection broke: %w", ErrUnreachable, c.cfg.Endpoint, err)
		}
	}
	return have, nil
}

// verify compares a file with the hash that names it: SHA-256 of the contents for
// large files, SHA-1 of the git object for small ones. Other names say nothing.
func verify(name string, r *remote) error {
	var h hash.Hash
	switch _, err := hex.DecodeString(r.hash); {
	case err == nil && len(r.hash) == 2*sha256.Size:
		h = sha256.New()
	case err == nil && len(r.hash) == 2*sha1.Size:
		h = sha1.New()
		fmt.Fprintf(h, "blob %d\x00", r.size)
	default:
		return nil
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != r.hash {
		return fmt.Errorf("%w: the hash is %s, not %s as the hub says; what was fetched is deleted, start again", errDamaged, got, r.hash)
	}
	return nil
}
