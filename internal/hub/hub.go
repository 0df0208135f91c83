// Package hub fetches models from a Hugging Face hub into the cache that its tools
// share, once, when a program starts.
//
// # Cast
//
//   - Client.Snapshot gives the directory of a model: what is cached, or fetched.
//   - transfer.go moves one file: it goes on where an earlier attempt stopped, and
//     is checked against the size and the hash that the hub names.
//   - cache.go is the layout on disk: blobs/<hash>, snapshots/<commit>/<file>
//     linking to them, refs/<revision> with a commit.
//
// # Of github.com/gomlx/go-huggingface
//
// Its types of the hub's answer, header names and folder names are used. Its
// transfer is not: v0.3.1 takes a download that breaks off for a whole one (it
// wraps the wrong error variable), starts again from nothing, checks neither size
// nor hash, and tells a refused key from a missing model only in the text of an
// error.
//
// # Invariants
//
//  1. A name in snapshots links to a whole, checked file. What is not whole is
//     blobs/<hash>.incomplete.
//  2. The key goes to the hub's host alone, not to where it redirects to.
//  3. No name that the hub sends leads out of the cache.
package hub

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// DefaultEndpoint is the public hub.
const DefaultEndpoint = "https://huggingface.co"

// The classes of failure.
var (
	ErrNotFound    = errors.New("not found")
	ErrAccess      = errors.New("access refused")
	ErrUnreachable = errors.New("the hub cannot be reached")
	ErrSpace       = errors.New("not enough room on disk")
)

// Config configures a Client.
type Config struct {
	Endpoint string // "" = DefaultEndpoint
	CacheDir string // the cache's hub directory, such as ~/.cache/huggingface/hub
	Token    string // of gated and private models; "" = none
	Offline  bool   // use only what is cached
	// Progress is called with bytes done and in all.
	Progress func(stage string, done, total int64)
	// Note receives what a person should know: that a download begins, that the
	// cache is used since the hub is away. nil = nobody.
	Note func(text string)
}

// Client fetches models.
type Client struct {
	cfg  Config
	host string
	http *http.Client
	// Of a transfer: attempts that bring nothing, the time between two, and how
	// long one may bring nothing. Tests make them short.
	attempts    int
	pause, idle time.Duration
	free        func(dir string) (int64, error)
}

// New checks the configuration.
func New(cfg Config) (*Client, error) {
	if cfg.Endpoint == "" {
		cfg.Endpoint = DefaultEndpoint
	}
	u, err := url.Parse(cfg.Endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("HF_ENDPOINT %q: want an address such as %s", cfg.Endpoint, DefaultEndpoint)
	}
	cfg.Endpoint = strings.TrimRight(cfg.Endpoint, "/")
	if cfg.CacheDir == "" {
		return nil, errors.New("no cache directory: set HF_HUB_CACHE")
	}
	if cfg.Progress == nil {
		cfg.Progress = func(string, int64, int64) {}
	}
	if cfg.Note == nil {
		cfg.Note = func(string) {}
	}
	c := &Client{cfg: cfg, host: u.Host, attempts: 5, pause: 2 * time.Second, idle: time.Minute, free: FreeBytes}
	c.http = &http.Client{
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			TLSHandshakeTimeout:   10 * time.Second,
			ResponseHeaderTimeout: 30 * time.Second,
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if r.URL.Host != c.host {
				r.Header.Del("Authorization")
			}
			if len(via) > 10 {
				return errors.New("more than 10 redirects")
			}
			return nil
		},
	}
	return c, nil
}

var idPart = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,95}$`)

// IsID says whether text can be a model of a hub: owner/name. A path that begins
// with a dot or a slash is none.
func IsID(text string) bool {
	owner, name, ok := strings.Cut(text, "/")
	return ok && idPart.MatchString(owner) && idPart.MatchString(name) && !strings.Contains(text, "..") && !strings.Contains(text, "--")
}

// Snapshot returns the directory of the model's files that want accepts, at a
// revision: a branch, a tag or a commit; "" is main. What is missing is fetched.
// When the hub cannot be reached, a cached snapshot will do.
func (c *Client) Snapshot(ctx context.Context, id, revision string, want func(file string) bool) (string, error) {
	if !IsID(id) {
		return "", fmt.Errorf("%q is no model of a hub: want owner/name", id)
	}
	if revision == "" {
		revision = "main"
	}
	if !idPart.MatchString(revision) {
		return "", fmt.Errorf("revision %q: want a branch, a tag or a commit", revision)
	}
	cache := newCache(c.cfg.CacheDir, id)
	if c.cfg.Offline {
		if dir, ok := cache.snapshot(revision, want); ok {
			return dir, nil
		}
		return "", fmt.Errorf("%w: %s is not in %s, and the hub is not asked (offline)", ErrNotFound, id, c.cfg.CacheDir)
	}
	info, err := c.info(ctx, id, revision)
	if errors.Is(err, ErrUnreachable) {
		if dir, ok := cache.snapshot(revision, want); ok {
			c.cfg.Note(fmt.Sprintf("%v: the cached %s is used", err, id))
			return dir, nil
		}
	}
	if err != nil {
		return "", err
	}
	dir := cache.snapshotDir(info.CommitHash)
	files := wanted(info, want)
	if missing := cache.missing(info.CommitHash, files); len(missing) > 0 {
		if err := c.fetch(ctx, cache, id, info.CommitHash, missing); err != nil {
			return "", err
		}
	}
	return dir, cache.setRef(revision, info.CommitHash)
}
