package scheduler

import (
	"encoding/json"
	"math"
	"time"
)

// Load is what a step's time is predicted from.
type Load struct {
	PrefillTokens int   `json:"prefill_tokens,omitempty"`
	PrefillPairs  int64 `json:"prefill_pairs,omitempty"` // Σ over prefill tokens of the positions they attend to
	Decodes       int   `json:"decodes,omitempty"`
	Context       int64 `json:"context,omitempty"` // Σ of the lengths that decodes attend to
}

// addPrefill counts n tokens of one prompt from position start on.
func (l *Load) addPrefill(start, n int) {
	l.PrefillTokens += n
	l.PrefillPairs += pairs(start, n)
}

// pairs is the number of (query, key) pairs of n tokens from position start on.
func pairs(start, n int) int64 { return int64(n)*int64(start) + int64(n)*int64(n+1)/2 }

// StepModel predicts the time of a step:
//
//	t = a + b·prefill tokens + c·decodes + d·context + e·prefill pairs
//
// with coefficients ≥ 0. They are fitted online by recursive least squares of the
// relative error, so that short steps count as much as long ones and one that took far
// too long, because another process had the machine, counts little, forgetting
// slowly, so that they follow a machine that gets slower or faster. Coordinate
// descent on the normal equations keeps them non-negative; it starts from the last
// solution and needs few sweeps. The zero value is an empty model.
//
// Features are scaled to about 1, for the conditioning of the equations.
type StepModel struct {
	a      [features][features]float64
	b      [features]float64
	w      [features]float64 // seconds a scaled unit
	count  int64             // observations
	misses int64             // of these, predicted before
	error  float64           // moving mean of |predicted − t| / t
}

const (
	features = 5
	forget   = 0.998 // half of the weight is on the last 350 steps
	sweeps   = 6
	minSteps = 8 // observations before the model is asked
	tiny     = 1e-100
)

var featureScale = [features]float64{1, 1.0 / 256, 1.0 / 64, 1.0 / 65536, 1.0 / (256 * 1024)}

func (l *Load) features() [features]float64 {
	f := [features]float64{1, float64(l.PrefillTokens), float64(l.Decodes), float64(l.Context), float64(l.PrefillPairs)}
	for i := range f {
		f[i] *= featureScale[i]
	}
	return f
}

// Observe learns from a step that took so long.
func (m *StepModel) Observe(l Load, took time.Duration) {
	t := took.Seconds()
	if !(t > 0) {
		return
	}
	weight := 1 / (t * t)
	if m.Ready() {
		p := m.predict(&l)
		miss := math.Abs(p-t) / t
		m.misses++
		m.error += (miss - m.error) / float64(min(m.misses, 64))
	}
	f := l.features()
	for i := range f {
		for j := range f {
			m.a[i][j] = m.a[i][j]*forget + weight*f[i]*f[j]
		}
		m.b[i] = m.b[i]*forget + weight*f[i]*t
	}
	m.count++
	m.solve()
}

// solve improves the coefficients by a few sweeps of projected coordinate descent.
func (m *StepModel) solve() {
	for range sweeps {
		for i := range m.w {
			if m.a[i][i] < tiny { // never seen, or forgotten: what was learned stands
				continue
			}
			r := m.b[i]
			for j := range m.w {
				r -= m.a[i][j] * m.w[j]
			}
			m.w[i] = max(0, m.w[i]+r/m.a[i][i])
		}
	}
}

func (m *StepModel) predict(l *Load) float64 {
	t, f := 0.0, l.features()
	for i := range f {
		t += m.w[i] * f[i]
	}
	return t
}

// Ready says whether the model has seen enough to be asked.
func (m *StepModel) Ready() bool { return m.count >= minSteps }

// Predict estimates the time of a step; 0 while the model is not Ready.
func (m *StepModel) Predict(l Load) time.Duration {
	if !m.Ready() {
		return 0
	}
	return time.Duration(m.predict(&l) * float64(time.Second))
}

// Prefill estimates what n tokens from position start on add to the steps that
// compute them; 0 while no prefill was seen.
func (m *StepModel) Prefill(start, n int) time.Duration {
	t := m.w[1]*featureScale[1]*float64(n) + m.w[4]*featureScale[4]*float64(pairs(start, n))
	return time.Duration(t * float64(time.Second))
}

// Coefficients returns the fitted times: of a step, of a prefill token, of a
// decode, of a position that a decode attends to, of a pair in a prefill.
func (m *StepModel) Coefficients() (step, prefillToken, decode, context, pair time.Duration) {
	c := func(i int) time.Duration { return time.Duration(m.w[i] * featureScale[i] * float64(time.Second)) }
	return c(0), c(1), c(2), c(3), c(4)
}

// Error is the moving mean of the relative error of the predictions, each made
// before its step was learned from.
func (m *StepModel) Error() float64 { return m.error }

// Count is the number of steps that were learned from.
func (m *StepModel) Count() int64 { return m.count }

// stepModelState is a StepModel in a file.
type stepModelState struct {
	A      [features][features]float64 `json:"a"`
	B      [features]float64           `json:"b"`
	W      [features]float64           `json:"w"`
	Count  int64                       `json:"count"`
	Misses int64                       `json:"misses"`
	Error  float64                     `json:"error"`
}

// MarshalJSON writes all that was learned, so that learning can go on from it.
func (m StepModel) MarshalJSON() ([]byte, error) {
	return json.Marshal(stepModelState{m.a, m.b, m.w, m.count, m.misses, m.error})
}

// UnmarshalJSON takes over what MarshalJSON wrote.
func (m *StepModel) UnmarshalJSON(text []byte) error {
	var s stepModelState
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	*m = StepModel{s.A, s.B, s.W, s.Count, s.Misses, s.Error}
	return nil
}
