package server

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPage: the files are there for everybody, reach nothing but this server, and
// are not sent twice.
func TestPage(t *testing.T) {
	h := newTestServer(t, newFakeEngine("x"), Config{APIKeys: []string{"k"}}).Handler()
	index := do(h, "GET", "/ui", "")
	require.Equal(t, http.StatusOK, index.Code)
	require.Equal(t, "text/html; charset=utf-8", index.Header().Get("Content-Type"))
	loaded := regexp.MustCompile(`(?:src|href)="(ui/[^"]+)"`).FindAllStringSubmatch(index.Body.String(), -1)
	require.NotEmpty(t, loaded)
	paths := map[string]bool{"/ui": true}
	for _, m := range loaded {
		paths["/"+m[1]] = true
	}
	imports := regexp.MustCompile(`from '\./([a-z]+\.js)'|import '\./([a-z]+\.js)'`)
	for before := 0; before < len(paths); { // modules load modules
		before = len(paths)
		for path := range paths {
			for _, m := range imports.FindAllStringSubmatch(do(h, "GET", path, "").Body.String(), -1) {
				paths["/ui/"+m[1]+m[2]] = true
			}
		}
	}
	require.Greater(t, len(paths), 8)
	for path := range paths {
		w := do(h, "GET", path, "")
		require.Equal(t, http.StatusOK, w.Code, path)
		policy := w.Header().Get("Content-Security-Policy")
		require.Contains(t, policy, "default-src 'none'; script-src 'self'; style-src 'self'", path)
		require.NotContains(t, policy, "unsafe")
		require.Equal(t, "nosniff", w.Header().Get("X-Content-Type-Options"))
		body := w.Body.String()
		for _, forbidden := range []string{"https://", " style=", " onclick=", "innerHTML", "eval(", "new Function"} {
			require.NotContains(t, body, forbidden, path)
		}
		if !strings.HasSuffix(path, ".svg") { // whose namespace is a name
			require.NotContains(t, body, "http://", path)
		}
		req := httptest.NewRequest("GET", path, nil)
		req.Header.Set("If-None-Match", w.Header().Get("ETag"))
		again := recordRequest(h, req)
		require.Equal(t, http.StatusNotModified, again.Code, path)
		require.Empty(t, again.Body.String())
	}
	require.Equal(t, "../ui", do(h, "GET", "/ui/", "").Header().Get("Location"))
	require.Equal(t, http.StatusNotFound, do(h, "GET", "/ui/other.js", "").Code)
	require.NotContains(t, do(h, "GET", "/metrics", "").Body.String(), `handler="/ui`)
}

func TestPageDisabled(t *testing.T) {
	s := newTestServer(t, newFakeEngine("x"), Config{DisableUI: true})
	for _, path := range []string{"/ui", "/ui/app.js", "/ui/api/stream", "/ui/api/requests"} {
		require.Equal(t, http.StatusNotFound, do(s.Handler(), "GET", path, "").Code, path)
	}
	require.Equal(t, http.StatusOK, do(s.Handler(), "POST", "/v1/completions", `{"prompt":"x"}`).Code)
	require.Nil(t, s.inspector, "nothing is kept")
}

// TestPageDataNeedsKey: what the page shows is for those with a key.
func TestPageDataNeedsKey(t *testing.T) {
	f := newFakeEngine("x")
	h := newTestServer(t, f, Config{APIKeys: []string{"k"}}).Handler()
	for _, path := range []string{"/ui/api/stream", "/ui/api/requests", "/ui/api/requests/any", "/ui/api/none"} {
		w := do(h, "GET", path, "")
		_, _, _, code := errorOf(t, w)
		require.Equal(t, http.StatusUnauthorized, w.Code, path)
		require.Equal(t, "invalid_api_key", code)
	}
	req := httptest.NewRequest("GET", "/ui/api/requests", nil)
	req.Header.Set("Authorization", "Bearer k")
	require.Equal(t, http.StatusOK, recordRequest(h, req).Code)
}

// TestForeignHost: without keys a name that a web site may have given this machine
// shows no prompts.
func TestForeignHost(t *testing.T) {
	open := newTestServer(t, newFakeEngine("x"), Config{}).Handler()
	keyed := newTestServer(t, newFakeEngine("x"), Config{APIKeys: []string{"k"}}).Handler()
	get := func(h http.Handler, path, host string) int {
		req := httptest.NewRequest("GET", path, nil)
		req.Host = host
		req.Header.Set("Authorization", "Bearer k")
		return recordRequest(h, req).Code
	}
	for host, want := range map[string]int{
		"localhost:8000": 200, "127.0.0.1:8000": 200, "[::1]:8000": 200, "10.1.2.3": 200, "gpubox:8000": 200, "a.localhost": 200, "LOCALHOST.": 200,
		"evil.example:8000": 403, "127.0.0.1.evil.example": 403, "evil.example.": 403,
	} {
		require.Equal(t, want, get(open, "/ui/api/requests", host), host)
		require.Equal(t, 200, get(keyed, "/ui/api/requests", host), host)
		require.Equal(t, 200, get(open, "/ui", host), host)
		require.Equal(t, 200, get(open, "/v1/models", host), host)
	}
}
