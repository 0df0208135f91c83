package hub

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// fakeHub serves one model. Small files come from the hub itself, weights from a
// second host that it redirects to.
type fakeHub struct {
	*httptest.Server
	away *httptest.Server

	mu      sync.Mutex
	files   map[string][]byte
	extra   []string // further names in the description
	etag    map[string]string
	gated   bool
	breakAt int  // bytes of a weight file after which the next transfers break off
	breaks  int  // so many of them
	damage  bool // weights come with a wrong byte
	whole   bool // ranges are not heeded
	ranges  []string
	sent    map[string]int // transfers begun, by file
	leaked  bool           // the key came to the second host
}

func newFakeHub(t *testing.T) *fakeHub {
	h := &fakeHub{
		files: map[string][]byte{
			"config.json": []byte(`{"architectures":["Qwen2ForCausalLM"]}`), "tokenizer.json": []byte(`{}`), "README.md": []byte("read me"),
			"model.safetensors": make([]byte, 640_000),
		},
		etag: map[string]string{}, sent: map[string]int{},
	}
	rng := rand.New(rand.NewPCG(1, 2)) // no part is like another
	for i, weights := 0, h.files["model.safetensors"]; i < len(weights); i++ {
		weights[i] = byte(rng.Uint32())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/models/Org/Tiny-Model/revision/{revision}", h.describe)
	mux.HandleFunc("/Org/Tiny-Model/resolve/{commit}/{file...}", h.resolve)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Error-Message", "Repository not found")
		w.WriteHeader(http.StatusUnauthorized) // as the real one has it
	})
	h.Server, h.away = httptest.NewServer(mux), httptest.NewServer(http.HandlerFunc(h.weights))
	t.Cleanup(func() { h.Close(); h.away.Close() })
	return h
}

func (h *fakeHub) refused(w http.ResponseWriter, r *http.Request) bool {
	if h.gated && r.Header.Get("Authorization") != "Bearer "+testToken {
		w.WriteHeader(http.StatusForbidden)
		return true
	}
	return false
}

func (h *fakeHub) describe(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch revision := r.PathValue("revision"); {
	case h.refused(w, r):
		return
	case revision != "main" && revision != testCommit:
		w.WriteHeader(http.StatusNotFound)
		return
	}
	type sibling struct {
		Name string `json:"rfilename"`
	}
	var list []sibling
	for name := range h.files {
		list = append(list, sibling{name})
	}
	for _, name := range h.extra {
		list = append(list, sibling{name})
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"id": testID, "sha": testCommit, "siblings": list})
}

func (h *fakeHub) resolve(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	file := r.PathValue("file")
	data, ok := h.files[file]
	if !ok || h.refused(w, r) {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("X-Repo-Commit", testCommit)
	if strings.HasSuffix(file, ".safetensors") {
		sum := sha256.Sum256(data)
		w.Header().Set("X-Linked-Etag", `"`+hex.EncodeToString(sum[:])+`"`)
		w.Header().Set("X-Linked-Size", fmt.Sprint(len(data)))
		http.Redirect(w, r, h.away.URL+"/"+file+"?signature=s", http.StatusFound)
		return
	}
	sum := sha1.Sum(fmt.Appendf(nil, "blob %d\x00%s", len(data), data))
	etag := hex.EncodeToString(sum[:])
	if e := h.etag[file]; e != "" {
		etag = e
	}
	w.Header().Set("ETag", `W/"`+etag+`"`)
	if r.Method == http.MethodGet {
		h.sent[file]++
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

func (h *fakeHub) weights(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	file := strings.TrimPrefix(r.URL.Path, "/")
	data := bytes.Clone(h.files[file])
	h.sent[file]++
	h.ranges = append(h.ranges, r.Header.Get("Range"))
	h.leaked = h.leaked || r.Header.Get("Authorization") != ""
	breaks := h.breaks > 0
	if breaks {
		h.breaks--
	}
	if h.damage {
		data[len(data)/2] ^= 1
	}
	at := h.breakAt
	if h.whole {
		r.Header.Del("Range")
	}
	h.mu.Unlock()
	if breaks {
		w = &breaking{w, at}
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

// breaking drops the connection after so many bytes.
type breaking struct {
	http.ResponseWriter
	left int
}

func (b *breaking) Write(p []byte) (int, error) {
	if len(p) < b.left {
		b.left -= len(p)
		return b.ResponseWriter.Write(p)
	}
	_, _ = b.ResponseWriter.Write(p[:b.left])
	b.ResponseWriter.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

func newClient(t *testing.T, h *fakeHub, cache string, change func(*Config)) *Client {
	cfg := Config{Endpoint: h.URL, CacheDir: cache}
	if change != nil {
		change(&cfg)
	}
	c, err := New(cfg)
	require.NoError(t, err)
	c.pause = 0
	t.Cleanup(c.http.CloseIdleConnections)
	return c
}

// wantModel is what an engine needs.
func wantModel(file string) bool { return file != "README.md" }

func (h *fakeHub) requireWhole(t *testing.T, dir string) {
	for name, want := range h.files {
		if got, err := os.ReadFile(filepath.Join(dir, name)); wantModel(name) {
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, got), name)
		} else {
			require.ErrorIs(t, err, os.ErrNotExist, name)
		}
	}
}
