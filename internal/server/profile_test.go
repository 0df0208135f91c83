package server

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
)

type fakeRecording struct {
	options engine.ProfileOptions
	done    chan struct{}
	end     func()
	profile engine.Profile
}

func newFakeRecording(steps int) *fakeRecording {
	r := &fakeRecording{done: make(chan struct{})}
	for i := range steps {
		at := time.Duration(i) * time.Millisecond
		r.profile.Steps = append(r.profile.Steps, engine.ProfiledStep{Number: int64(i), Phases: []engine.Phase{{Kind: engine.PhaseSchedule, Start: at, Duration: time.Millisecond}}})
	}
	r.end = sync.OnceFunc(func() { close(r.done) })
	return r
}

func (r *fakeRecording) Done() <-chan struct{} { return r.done }
func (r *fakeRecording) Stop() *engine.Profile {
	r.end()
	return &r.profile
}

func (f *fakeEngine) StartProfile(_ context.Context, o engine.ProfileOptions) (Recording, error) {
	r := f.record
	if r == nil {
		return nil, engine.ErrProfiling
	}
	f.record, r.options = nil, o
	return r, nil
}

// TestProfileRoutes: start, a second start, stop with the trace, and stop again.
func TestProfileRoutes(t *testing.T) {
	dir := t.TempDir()
	f := newFakeEngine("x")
	recording := newFakeRecording(2)
	f.record = recording
	h := newTestServer(t, f, Config{Profile: ProfileConfig{Dir: dir, Steps: 7, Time: time.Hour, MaxTraceBytes: 1e6}}).Handler()
	require.Equal(t, http.StatusBadRequest, do(h, "POST", "/stop_profile", "").Code, "nothing was started")
	require.Equal(t, http.StatusOK, do(h, "POST", "/start_profile", "").Code)
	require.Equal(t, engine.ProfileOptions{Steps: 7, Time: time.Hour}, recording.options)
	require.Equal(t, http.StatusConflict, do(h, "POST", "/start_profile", "").Code)
	for range 2 {
		w := do(h, "POST", "/stop_profile", "")
		require.Equal(t, http.StatusOK, w.Code, w.Body)
		var result profileResult
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &result))
		require.Equal(t, 2, result.Steps)
		require.FileExists(t, result.Trace)
		require.Equal(t, dir, filepath.Dir(result.Trace))
	}
	require.Equal(t, http.StatusMethodNotAllowed, do(h, "GET", "/start_profile", "").Code)

	// SGLang's field, and bodies that are wrong.
	f.record = newFakeRecording(1)
	for _, body := range []string{`{"num_steps": 8}`, `{"num_steps": 0}`, `[]`, `{`} {
		require.Equal(t, http.StatusBadRequest, do(h, "POST", "/start_profile", body).Code, body)
	}
	recording = f.record
	require.Equal(t, http.StatusOK, do(h, "POST", "/start_profile", `{"num_steps": 3}`).Code)
	require.Equal(t, 3, recording.options.Steps)
	recording.end() // as many steps as were asked for
	require.Equal(t, http.StatusOK, do(h, "POST", "/stop_profile", "").Code, "it tells of a profile that ended by itself")
}

// TestProfileTroubles: off without a directory; a trace that cannot be written is
// told, and the next profile is not in its way.
func TestProfileTroubles(t *testing.T) {
	f := newFakeEngine("x")
	f.record = newFakeRecording(1)
	h := newTestServer(t, f, Config{}).Handler()
	for _, path := range []string{"/start_profile", "/stop_profile"} {
		w := do(h, "POST", path, "")
		require.Equal(t, http.StatusNotFound, w.Code)
		require.Contains(t, w.Body.String(), "--profile-dir")
	}
	require.NotNil(t, f.record, "nothing was started")

	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	h = newTestServer(t, f, Config{Profile: ProfileConfig{Dir: filepath.Join(file, "x")}}).Handler()
	require.Equal(t, http.StatusOK, do(h, "POST", "/start_profile", "").Code)
	w := do(h, "POST", "/stop_profile", "")
	require.Equal(t, http.StatusInternalServerError, w.Code)
	require.Contains(t, w.Body.String(), "requests go on")
	require.Contains(t, w.Body.String(), "--profile-dir")
	f.record = newFakeRecording(1)
	require.Equal(t, http.StatusOK, do(h, "POST", "/start_profile", "").Code)
	require.Equal(t, http.StatusInternalServerError, do(h, "POST", "/stop_profile", "").Code)
}
