package main

import (
	"bytes"
	"crypto/sha1"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
)

// startHub serves the directory as the model Org/Tiny and lists what was fetched.
func startHub(t *testing.T, dir string) *[]string {
	fetched := &[]string{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/models/Org/Tiny/revision/main", func(w http.ResponseWriter, _ *http.Request) {
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		type sibling struct {
			Name string `json:"rfilename"`
		}
		var list []sibling
		for _, e := range entries {
			list = append(list, sibling{e.Name()})
		}
		require.NoError(t, json.NewEncoder(w).Encode(map[string]any{"sha": "abc123", "siblings": list}))
	})
	mux.HandleFunc("/Org/Tiny/resolve/abc123/{file}", func(w http.ResponseWriter, r *http.Request) {
		data, err := os.ReadFile(filepath.Join(dir, r.PathValue("file")))
		require.NoError(t, err)
		if r.Method == http.MethodGet {
			*fetched = append(*fetched, r.PathValue("file"))
		}
		w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sha1.Sum(fmt.Appendf(nil, "blob %d\x00%s", len(data), data))))
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	t.Setenv("HF_ENDPOINT", s.URL)
	t.Setenv("HF_HOME", t.TempDir())
	return fetched
}

// TestModelOfTheHub: plan fetches the configuration alone, the engine's commands
// the rest, once; then the hub may be away.
func TestModelOfTheHub(t *testing.T) {
	tiny := filepath.Join("..", "..", "testdata", "golden", "tiny-yarn")
	fetched := startHub(t, tiny)
	_, err := execute("plan", "Org/Tiny", "--device", "cpu", "--memory-limit", "1GiB")
	require.NoError(t, err)
	require.Equal(t, []string{"config.json"}, *fetched)

	f := engineFlags{quiet: true}
	dir, err := f.locate(t.Context(), "Org/Tiny", modelFiles)
	require.NoError(t, err)
	require.Len(t, *fetched, 4, "two shards and their index; nothing twice, no golden.json")
	e, err := engine.New(engine.Config{Model: dir, Device: "cpu", MemoryLimit: 1 << 29, MaxNumSeqs: 1, MaxNumBatchedTokens: 16, Threads: 1})
	require.NoError(t, err, "the links of the cache are followed")
	require.NoError(t, e.Close())

	t.Setenv("HF_ENDPOINT", "http://127.0.0.1:1")
	offline := engineFlags{quiet: true, hub: hubFlags{offline: true}}
	again, err := offline.locate(t.Context(), "Org/Tiny", modelFiles)
	require.NoError(t, err)
	require.Equal(t, dir, again)
	_, err = execute("plan", "Org/Other", "--offline")
	require.Equal(t, exitModel, exitCode(err))
	require.ErrorContains(t, err, "Org/Other is no directory here")

	d := testDoctor(t)
	d.lookup = os.LookupEnv
	d.modelCache()
	require.Contains(t, d.found(t, "model cache").Detail, "1 models")
	_, err = execute("run", "Org/Tinny", "hi", "--offline", "--quiet")
	require.Equal(t, exitModel, exitCode(err))
}

func TestNoSuchModel(t *testing.T) {
	t.Setenv("HF_HUB_CACHE", t.TempDir())
	parent := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(parent, "qwen-instruct"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(parent, "qwen-instruct", "config.json"), nil, 0o600))
	for arg, want := range map[string]string{
		filepath.Join(parent, "qwen-instrct"): "did you mean " + filepath.Join(parent, "qwen-instruct"),
		"dmeo":                                "did you mean demo?",
		"qwen2.5-0.5b":                        "add --load-format dummy",
		"/nowhere/at/all":                     "is no directory: give one",
	} {
		_, err := execute("plan", arg)
		require.ErrorContains(t, err, want)
		require.Equal(t, exitModel, exitCode(err))
	}
	_, err := execute("plan", "qwen2.5-0.5", "--load-format", "dummy")
	require.ErrorContains(t, err, "did you mean qwen2.5-0.5b?")
}

func TestHubToken(t *testing.T) {
	home := t.TempDir()
	env := map[string]string{"HF_HOME": home}
	look := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	require.Empty(t, hubToken(look))
	require.NoError(t, os.WriteFile(filepath.Join(home, "token"), []byte("from-login\n"), 0o600))
	require.Equal(t, "from-login", hubToken(look))
	env["HF_TOKEN"] = "from-variable"
	require.Equal(t, "from-variable", hubToken(look))
}

// TestServedNames: a model of the hub goes by its full name, a directory by its
// last part; both spellings are accepted.
func TestServedNames(t *testing.T) {
	require.Equal(t, []string{"Org/Tiny", "Tiny"}, servedNames("Org/Tiny", true))
	require.Equal(t, []string{"tiny", "./models/tiny/"}, servedNames("./models/tiny/", false))
	require.Equal(t, []string{"demo"}, servedNames("demo", false))
}
