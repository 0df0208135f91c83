package engine

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// TestTraceBounds: what is issued across a bound of steps is within its larger side in the
// trace, by the plugin's float64 sums.
func TestTraceBounds(t *testing.T) {
	const us = time.Microsecond
	p := &Profile{}
	p.Info.Device.GPU = &kernels.GPU{}
	for i := range 2 {
		begin := time.Duration(i) * 2679490 * time.Nanosecond
		p.Steps = append(p.Steps, ProfiledStep{Number: int64(i), Phases: []Phase{{Kind: PhaseLaunch, Start: 1415664 + begin, Duration: 2679490}}})
	}
	_, bound := p.Window(0)
	issue := func(step int, start, duration time.Duration) {
		p.Steps[step].Ops = append(p.Steps[step].Ops, kernels.OpRecord{Op: kernels.OpQKV, Layer: -1, Issued: start, IssueTime: duration, Activities: []kernels.Activity{}})
	}
	issue(0, bound-900*us, 800*us)
	issue(0, bound-43*us, 50*us)
	issue(1, bound-5*us, 20*us)
	var out bytes.Buffer
	_, err := p.WriteTrace(&out, 0)
	require.NoError(t, err)
	var trace struct{ TraceEvents []traceEvent }
	require.NoError(t, json.Unmarshal(out.Bytes(), &trace))
	var steps, ops [][2]float64
	for _, e := range trace.TraceEvents {
		switch e.Category {
		case "user_annotation":
			steps = append(steps, [2]float64{e.Ts, e.Ts + *e.Dur})
		case "cpu_op":
			ops = append(ops, [2]float64{e.Ts, e.Ts + *e.Dur})
		}
	}
	require.Len(t, steps, 2)
	require.Len(t, ops, 3)
	for i, step := range []int{0, 0, 1} {
		require.GreaterOrEqual(t, ops[i][0], steps[step][0], i)
		require.LessOrEqual(t, ops[i][1], steps[step][1], i)
		require.Greater(t, ops[i][1], ops[i][0], i)
	}
}
