package engine

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// idleOf is the share of the time in which a GPU ran no kernel and no copy, and the time
// of a step, from the first step's first activity to the last one's. It wants each step to
// be a graph, but the last, which does not count.
func idleOf(steps []ProfiledStep) (share float64, step time.Duration, err error) {
	var busy []kernels.Span
	starts := make([]time.Duration, len(steps))
	for i := range steps {
		graph := false
		for _, o := range steps[i].Ops {
			for _, a := range o.Activities {
				if starts[i] == 0 || a.Start < starts[i] {
					starts[i] = a.Start
				}
				graph = graph || a.InGraph
				busy = append(busy, kernels.Span{Begin: a.Start, End: a.Start + a.Duration})
			}
		}
		if !graph && i < len(steps)-1 {
			return 0, 0, fmt.Errorf("step %d of %d was no graph", i, len(steps))
		}
	}
	begin, end := starts[0], starts[len(starts)-1]
	used := kernels.Within(kernels.Union(busy), begin, end)
	return 1 - float64(used)/float64(end-begin), (end - begin) / time.Duration(len(steps)-1), nil
}

// TestIdleOf: kernels that overlap count once, and gaps between steps as well as within
// them.
func TestIdleOf(t *testing.T) {
	at := func(start, duration time.Duration, graph bool) kernels.Activity {
		return kernels.Activity{Start: start, Duration: duration, InGraph: graph}
	}
	steps := []ProfiledStep{
		{Ops: []kernels.OpRecord{
			{Activities: []kernels.Activity{at(100, 10, false), at(110, 20, true)}},
			{Activities: []kernels.Activity{at(125, 25, true), at(160, 30, true)}}, // one begins early, one late
		}},
		{Ops: []kernels.OpRecord{{Activities: []kernels.Activity{at(200, 10, false), at(210, 80, true)}}}},
		{Ops: []kernels.OpRecord{{Activities: []kernels.Activity{at(300, 50, false)}}}},
	}
	share, step, err := idleOf(steps)
	require.NoError(t, err)
	require.EqualValues(t, 100, step)
	require.InDelta(t, (10+10+10)/200.0, share, 1e-9)
	_, _, err = idleOf(steps[1:])
	require.NoError(t, err)
	steps[1].Ops[0].Activities[1].InGraph = false
	_, _, err = idleOf(steps)
	require.ErrorContains(t, err, "step 1 of 3")
}
