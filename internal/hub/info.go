package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/gomlx/go-huggingface/hub"
)

// maxInfoBytes bounds the hub's description of a model.
const maxInfoBytes = 8 << 20

// safeName is what a file, a commit or a hash may be called: it becomes a name in
// the cache.
var safeName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,191}$`)

// safePath says whether a file lies in the repository or in a folder of it, and may be called so.
func safePath(file string) bool {
	folder, name, in := strings.Cut(file, "/")
	return safeName.MatchString(folder) && (!in || safeName.MatchString(name))
}

// request asks the hub; the caller closes the body.
func (c *Client) request(ctx context.Context, method, address string, header http.Header) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, address, nil)
	if err != nil {
		return nil, err
	}
	for name, values := range header {
		r.Header[name] = values
	}
	r.Header.Set("User-Agent", "pagoda")
	// The bytes of a file are counted and hashed as they are stored.
	r.Header.Set("Accept-Encoding", "identity")
	if c.cfg.Token != "" && r.URL.Host == c.host {
		r.Header.Set("Authorization", "Bearer "+c.cfg.Token)
	}
	answer, err := c.http.Do(r)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the address, which may be signed
		}
		return nil, fmt.Errorf("%w (%s): %w", ErrUnreachable, c.cfg.Endpoint, err)
	}
	return answer, nil
}

// refusal turns a status into an error that says what to do. what is the model, or
// a file of it.
func (c *Client) refusal(what string, answer *http.Response) error {
	said := answer.Header.Get("X-Error-Message")
	if said != "" {
		said = "; the hub says: " + said
	}
	switch s := answer.StatusCode; {
	case s == http.StatusUnauthorized || s == http.StatusForbidden:
		advice := "is there such a model? If it is gated or private, set HF_TOKEN to a key that may read it"
		if c.cfg.Token != "" {
			advice = "the key in HF_TOKEN may not read it: accept the model's terms on its page, or use another key"
		}
		return fmt.Errorf("%w: %s: status %d: %s%s", ErrAccess, what, s, advice, said)
	case s == http.StatusNotFound:
		return fmt.Errorf("%w: %s is not on %s: check the spelling, capitals included, and --revision%s", ErrNotFound, what, c.cfg.Endpoint, said)
	case s == http.StatusTooManyRequests || s >= 500:
		return fmt.Errorf("%w (%s): status %d for %s: try again later%s", ErrUnreachable, c.cfg.Endpoint, s, what, said)
	default:
		return fmt.Errorf("%s: %s answers with status %d%s", what, c.cfg.Endpoint, s, said)
	}
}

// info asks for the files and the commit of a revision.
func (c *Client) info(ctx context.Context, id, revision string) (*hub.RepoInfo, error) {
	answer, err := c.request(ctx, http.MethodGet, c.cfg.Endpoint+"/api/"+string(hub.RepoTypeModel)+"/"+id+"/revision/"+revision, nil)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, c.refusal(id, answer)
	}
	var info hub.RepoInfo
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxInfoBytes)).Decode(&info); err != nil {
		return nil, fmt.Errorf("%s: the description of %s cannot be read: %w", c.cfg.Endpoint, id, err)
	}
	if !safeName.MatchString(info.CommitHash) {
		return nil, fmt.Errorf("%s: the description of %s names no commit", c.cfg.Endpoint, id)
	}
	return &info, nil
}

// wanted lists the files in the model's top directory that want accepts.
func wanted(info *hub.RepoInfo, want func(string) bool) []string {
	var files []string
	for _, f := range info.Siblings {
		if f != nil && safePath(f.Name) && want(f.Name) {
			files = append(files, f.Name)
		}
	}
	return files
}

// remote is a file on the hub.
type remote struct {
	name, url string
	hash      string // SHA-256 of the contents, SHA-1 of the git object, or any name without meaning
	size      int64
}

// head asks for hash and size of a file. They are in the hub's own answer, which
// as a rule redirects to where the bytes are.
func (c *Client) head(ctx context.Context, id, commit, file string) (*remote, error) {
	r := &remote{name: file, url: c.cfg.Endpoint + "/" + id + "/resolve/" + commit + "/" + file}
	address := r.url
	for range 5 {
		answer, err := c.headOnce(ctx, address)
		if err != nil {
			return nil, err
		}
		hash := answer.Header.Get(hub.HeaderXLinkedETag)
		if next, err := answer.Location(); err == nil && hash == "" && next.Host == c.host {
			address = next.String() // the model has another name now
			continue
		}
		if answer.StatusCode >= 400 {
			return nil, c.refusal(id+"/"+file, answer)
		}
		if hash == "" {
			hash = answer.Header.Get("ETag")
		}
		r.hash = strings.Trim(strings.TrimPrefix(hash, "W/"), `"`)
		if r.size, err = strconv.ParseInt(answer.Header.Get(hub.HeaderXLinkedSize), 10, 64); err != nil {
			r.size = answer.ContentLength
		}
		if !safeName.MatchString(r.hash) || r.size < 0 {
			return nil, fmt.Errorf("%s: %s/%s comes without hash or size: it could not be checked", c.cfg.Endpoint, id, file)
		}
		return r, nil
	}
	return nil, fmt.Errorf("%s: %s/%s: redirected in a circle", c.cfg.Endpoint, id, file)
}

// headOnce follows no redirect.
func (c *Client) headOnce(ctx context.Context, address string) (*http.Response, error) {
	stay := *c
	client := *c.http
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	stay.http = &client
	answer, err := stay.request(ctx, http.MethodHead, address, nil)
	if err == nil {
		answer.Body.Close()
	}
	return answer, err
}
