package scheduler

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// law is a synthetic machine: the time of a step in µs.
type law struct{ step, prefill, decode, context, pair, noise float64 }

func (l *law) time(load *Load, r *rand.Rand) time.Duration {
	t := l.step + l.prefill*float64(load.PrefillTokens) + l.decode*float64(load.Decodes) +
		l.context*float64(load.Context) + l.pair*float64(load.PrefillPairs)
	return time.Duration(t * (1 + l.noise*(2*r.Float64()-1)) * float64(time.Microsecond))
}

// randomLoad is a step of up to 64 decodes and a prefill chunk or none.
func randomLoad(r *rand.Rand) Load {
	var l Load
	for range r.IntN(65) {
		l.Decodes++
		l.Context += int64(1 + r.IntN(4000))
	}
	if r.IntN(2) == 0 || l.Decodes == 0 {
		l.addPrefill(r.IntN(2000), 1+r.IntN(1000))
	}
	return l
}

// The laws are those of a small model on a CPU, of a large one on a GPU, and of one
// that attention dominates.
var laws = []law{
	{step: 3000, prefill: 150, decode: 900, context: 0.4, pair: 0.02},
	{step: 9000, prefill: 25, decode: 12, context: 0.06, pair: 0.001},
	{step: 200, prefill: 1, decode: 2, context: 0.2, pair: 0.05},
}

// teach shows m steps of a law and returns the worst relative miss on others.
func teach(m *StepModel, l law, steps int, r *rand.Rand) (worst float64) {
	for range steps {
		load := randomLoad(r)
		m.Observe(load, l.time(&load, r))
	}
	l.noise = 0
	for range 200 {
		load := randomLoad(r)
		want := l.time(&load, r).Seconds()
		worst = max(worst, math.Abs(m.Predict(load).Seconds()-want)/want)
	}
	return worst
}

func TestStepModelFits(t *testing.T) {
	for _, l := range laws {
		var m StepModel
		require.Zero(t, m.Predict(Load{Decodes: 1}), "it knows nothing yet")
		require.False(t, m.Ready())
		r := rand.New(rand.NewPCG(1, 1))
		require.Less(t, teach(&m, l, 600, r), 0.02, "%+v", l)
		require.True(t, m.Ready())
		require.EqualValues(t, 600, m.Count())

		var noisy StepModel
		l.noise = 0.2
		require.Less(t, teach(&noisy, l, 1500, r), 0.10, "%+v", l)
	}
}

// A machine that gets three times slower, and fast again.
func TestStepModelFollowsADrift(t *testing.T) {
	var m StepModel
	r := rand.New(rand.NewPCG(2, 2))
	fast, slow := laws[0], laws[0]
	slow.step, slow.prefill, slow.decode, slow.context, slow.pair = 3*fast.step, 3*fast.prefill, 3*fast.decode, 3*fast.context, 3*fast.pair
	require.Less(t, teach(&m, fast, 1000, r), 0.02)
	require.Less(t, teach(&m, slow, 3000, r), 0.05)
	require.Less(t, teach(&m, fast, 3000, r), 0.05)
}

// One step in fifty takes twenty times as long: another process had the machine.
func TestStepModelSurvivesSpikes(t *testing.T) {
	for _, l := range laws {
		var m StepModel
		r := rand.New(rand.NewPCG(3, 3))
		for i := range 3000 {
			load := randomLoad(r)
			took := l.time(&load, r)
			if i%50 == 49 {
				took *= 20
			}
			m.Observe(load, took)
		}
		require.Less(t, teach(&m, l, 0, r), 0.10, "%+v", l)
	}
}

// Whatever it is shown, no part of a step takes less than no time, so that a larger
// step is never predicted to be shorter.
func TestStepModelIsMonotone(t *testing.T) {
	for seed := range uint64(50) {
		var m StepModel
		r := rand.New(rand.NewPCG(seed, 4))
		for range 500 {
			m.Observe(randomLoad(r), time.Duration(r.IntN(1_000_000)))
			a, b, c, d, e := m.Coefficients()
			for _, coefficient := range []time.Duration{a, b, c, d, e} {
				require.GreaterOrEqual(t, coefficient, time.Duration(0))
			}
			l := randomLoad(r)
			more := l
			more.addPrefill(r.IntN(1000), 1+r.IntN(500))
			more.Decodes++
			more.Context += int64(r.IntN(1000))
			require.GreaterOrEqual(t, m.Predict(more), m.Predict(l))
		}
	}
}

// TestStepModelError: the error is that of predictions made before the step was
// seen, from the first one on.
func TestStepModelError(t *testing.T) {
	var m StepModel
	load := Load{Decodes: 4, Context: 100}
	for range minSteps {
		m.Observe(load, time.Millisecond)
	}
	require.Zero(t, m.Error())
	m.Observe(load, 2*time.Millisecond) // predicted 1 ms
	require.InDelta(t, 0.5, m.Error(), 0.01)
	var steady StepModel
	r := rand.New(rand.NewPCG(5, 5))
	l := laws[1]
	l.noise = 0.1 // uniform: 5 % on average
	teach(&steady, l, 3000, r)
	require.InDelta(t, 0.05, steady.Error(), 0.025)
	steady.Observe(load, 0)
	require.EqualValues(t, 3000, steady.Count(), "a step of unknown time teaches nothing")
}

// Hours of decoding without a prefill: what was learned of prefill stands.
func TestStepModelRemembersWhatItNoLongerSees(t *testing.T) {
	var m StepModel
	r := rand.New(rand.NewPCG(6, 6))
	teach(&m, laws[1], 1000, r)
	before := m.Prefill(0, 1000)
	for range 500_000 {
		load := Load{Decodes: 1 + r.IntN(64)}
		load.Context = int64(load.Decodes * (1000 + r.IntN(1000)))
		m.Observe(load, laws[1].time(&load, r))
	}
	require.InEpsilon(t, before, m.Prefill(0, 1000), 0.2)
}

func TestStepModelAllocatesNothing(t *testing.T) {
	var m StepModel
	load := Load{Decodes: 4, Context: 100, PrefillTokens: 7}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		m.Observe(load, time.Millisecond)
		_ = m.Predict(load)
	}))
}

// TestPrefillIsWhatAPromptAdds: the estimate that preemption is priced by.
func TestPrefillIsWhatAPromptAdds(t *testing.T) {
	for _, l := range laws {
		var m StepModel
		teach(&m, l, 1000, rand.New(rand.NewPCG(7, 7)))
		want := l.prefill*512 + l.pair*float64(pairs(100, 512))
		require.InEpsilon(t, want, float64(m.Prefill(100, 512).Microseconds()), 0.05, "%+v", l)
	}
	require.EqualValues(t, 100+101+102, pairs(99, 3))
}
