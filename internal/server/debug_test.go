package server

import (
	"bufio"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/scheduler"
)

func TestDebugSteps(t *testing.T) {
	f := newFakeEngine("x")
	for step := range int64(5) {
		f.steps = append(f.steps, engine.StepRecord{
			Record: scheduler.Record{Step: step + 1, WaitReason: scheduler.WaitBlocks, Tokens: 7},
			Start:  time.Unix(1, 500).UTC(), Host: 3, Device: 4,
		})
	}
	h := newTestServer(t, f, Config{}).Handler()
	w := do(h, "GET", "/debug/steps?n=2", "")
	require.Equal(t, http.StatusOK, w.Code)
	var got []engine.StepRecord
	for lines := bufio.NewScanner(w.Body); lines.Scan(); {
		var r engine.StepRecord
		require.NoError(t, json.Unmarshal(lines.Bytes(), &r))
		got = append(got, r)
	}
	require.Equal(t, f.steps[3:], got)
	require.Contains(t, do(h, "GET", "/debug/steps", "").Body.String(), `"device_ns":4`)

	for _, n := range []string{"0", "-1", "many", "1e9"} {
		w := do(h, "GET", "/debug/steps?n="+n, "")
		_, _, param, _ := errorOf(t, w)
		require.Equal(t, http.StatusBadRequest, w.Code, n)
		require.Equal(t, "n", param)
	}
	require.Equal(t, http.StatusMethodNotAllowed, do(h, "POST", "/debug/steps", "").Code)
}
