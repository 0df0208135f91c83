package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// writeCertificate makes a certificate of localhost that signs itself.
func writeCertificate(t *testing.T) (certFile, keyFile string, roots *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	write := func(name, kind string, data []byte) string {
		path := filepath.Join(t.TempDir(), name)
		require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}), 0o600))
		return path
	}
	roots = x509.NewCertPool()
	parsed, err := x509.ParseCertificate(cert)
	require.NoError(t, err)
	roots.AddCert(parsed)
	return write("cert.pem", "CERTIFICATE", cert), write("key.pem", "PRIVATE KEY", der), roots
}

// TestTLSFiles: the flags' files make a listener that a client trusts; half of
// them, or none that can be read, is a mistake on the command line.
func TestTLSFiles(t *testing.T) {
	certFile, keyFile, roots := writeCertificate(t)
	config, err := (&serveFlags{certFile: certFile, keyFile: keyFile}).tls()
	require.NoError(t, err)
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	web.Listener = tls.NewListener(web.Listener, config)
	web.Start()
	defer web.Close()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	resp, err := client.Get("https://" + web.Listener.Addr().String())
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusNoContent, resp.StatusCode)
	client.CloseIdleConnections()

	none, err := (&serveFlags{}).tls()
	require.NoError(t, err)
	require.Nil(t, none)
	for _, f := range []serveFlags{{certFile: certFile}, {keyFile: keyFile}, {certFile: keyFile, keyFile: certFile}} {
		_, err := f.tls()
		require.Equal(t, exitUsage, exitCode(err))
	}
}

// TestForeignFlags: a start script for vLLM works, is told what has no effect, and
// is refused what would change answers.
func TestForeignFlags(t *testing.T) {
	check := func(args ...string) (string, error) {
		cmd := serveCommand()
		require.NoError(t, cmd.ParseFlags(args))
		var warnings strings.Builder
		err := checkForeign(cmd, &warnings)
		return warnings.String(), err
	}
	said, err := check("--tensor-parallel-size", "1", "--dtype=auto", "--trust-remote-code", "--enable-chunked-prefill", "--disable-log-requests", "--seed", "0", "--no-enable-lora", "--chat-template-content-format", "auto")
	require.NoError(t, err)
	require.Empty(t, said)
	said, err = check("--enforce-eager", "--speculative-config", `{"method":"ngram"}`, "--no-enable-chunked-prefill", "--chat-template-content-format", "string")
	require.NoError(t, err)
	require.Equal(t, "warning: --speculative-config is ignored\nwarning: --chat-template-content-format is ignored\nwarning: --enable-chunked-prefill is ignored\n", said)
	for _, args := range [][]string{{"--tensor-parallel-size", "2"}, {"--dtype", "float16"}, {"--enable-lora"}, {"--kv-cache-dtype", "fp8"}} {
		_, err := check(args...)
		require.Equal(t, exitUsage, exitCode(err), args)
		require.ErrorContains(t, err, args[0])
	}
}

// TestDrainTimeoutOfZero: 0s asks for no time at all, not for the server's default.
func TestDrainTimeoutOfZero(t *testing.T) {
	require.Negative(t, (&serveFlags{}).drainLimit())
	require.Equal(t, time.Nanosecond, (&serveFlags{drain: time.Nanosecond}).drainLimit())
	require.Equal(t, time.Hour, (&serveFlags{drain: time.Hour}).drainLimit())
}
