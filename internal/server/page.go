package server

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"path"
	"strings"
)

// The page: static files at /ui, which hold nothing of anybody, and what it reads
// under /ui/api/, which needs a key as /v1/ does. Prompts are shown to the key
// that sent them.

//go:embed ui
var pageFiles embed.FS

// pageHeaders let the page load and reach nothing but this server, and be framed
// by nobody.
var pageHeaders = map[string]string{
	"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
	"X-Content-Type-Options":     "nosniff",
	"Referrer-Policy":            "no-referrer",
	"Cross-Origin-Opener-Policy": "same-origin",
	"Cache-Control":              "no-cache", // asked again, answered 304
}

const pageData = "/ui/api/"

func (s *Server) pageRoutes(mux *http.ServeMux) {
	files, err := fs.Sub(pageFiles, "ui")
	if err != nil {
		panic("server: " + err.Error()) // the name above is wrong
	}
	mux.HandleFunc("GET /ui", servePage(files, "index.html"))
	mux.HandleFunc("GET /ui/{$}", func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Location", "../ui") // a proxy may have put something before it
		w.WriteHeader(http.StatusMovedPermanently)
	})
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		panic("server: " + err.Error())
	}
	for _, entry := range entries {
		mux.HandleFunc("GET /ui/"+entry.Name(), servePage(files, entry.Name()))
	}
	mux.HandleFunc("GET "+pageData+"stream", s.handleStream)
	mux.HandleFunc("GET "+pageData+"requests", s.handleInspectedList)
	mux.HandleFunc("GET "+pageData+"requests/{id}", s.handleInspected)
}

// servePage answers with one file, which is not sent again while it is the same.
func servePage(files fs.FS, name string) http.HandlerFunc {
	data, err := fs.ReadFile(files, name)
	if err != nil {
		panic("server: " + err.Error())
	}
	sum := sha256.Sum256(data)
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	media := mime.TypeByExtension(path.Ext(name))
	return func(w http.ResponseWriter, req *http.Request) {
		h := w.Header()
		for key, value := range pageHeaders {
			h.Set(key, value)
		}
		h.Set("ETag", tag)
		if req.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		h.Set("Content-Type", media)
		_, _ = w.Write(data) // a client that went away loses nothing
	}
}

// needsKey says which paths are for those with a key.
func needsKey(p string) bool { return strings.HasPrefix(p, "/v1/") || strings.HasPrefix(p, pageData) }

// foreignHost says that a request for the page's data comes by a name that may be
// anybody's. Without keys, a web site could make a name of its own mean this
// machine (DNS rebinding) and read the prompts with the browser of who visits it;
// an address, localhost and names without a dot are out of its reach.
func (s *Server) foreignHost(req *http.Request) bool {
	if s.inspector == nil || len(s.keys) > 0 || !strings.HasPrefix(req.URL.Path, pageData) {
		return false
	}
	host := req.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.Trim(host, "[]")
	if _, err := netip.ParseAddr(host); err == nil {
		return false
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return strings.Contains(host, ".") && !strings.HasSuffix(host, ".localhost")
}
