package server

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/pagoda-engine/pagoda/engine"
)

const (
	statsInterval = 5 * time.Second // between two lines
	guardInterval = time.Second     // between two looks of the watchdog

	// defaultStall is how long an engine with work may go without a step: longer
	// than the first one takes of a large model on a CPU. slowSteps of the steps
	// that it does are always allowed.
	defaultStall = 120 * time.Second
	slowSteps    = 20
)

// progress tells an engine that works from one that hangs: HTTP that answers says
// nothing about it. It is asked by probes and by the server's own ticker.
type progress struct {
	mu    sync.Mutex
	steps int64     // and the prompt tokens that were scored between steps
	since time.Time // the last step, or the last time that there was no work
}

// stalled is for how long there has been work and no step.
func (p *progress) stalled(st *engine.Stats, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.since.IsZero() || st.Steps+st.ScoredTokens != p.steps || st.Running+st.Waiting+st.Jobs == 0 {
		p.steps, p.since = st.Steps+st.ScoredTokens, now
	}
	return now.Sub(p.since)
}

// wedged says that the engine hangs.
func (s *Server) wedged(now time.Time) *apiError {
	st := s.engine.Stats()
	if stalled := s.progress.stalled(&st, now); stalled > max(s.stall, slowSteps*max(st.LastStep, st.PredictedStep)) {
		return unavailable("engine_stalled", fmt.Sprintf("the engine has made no progress for %.0f s with work pending", stalled.Seconds()), 60)
	}
	return nil
}

// handleReady answers /health, /ping and /readyz: 200 while requests are taken and
// the engine makes progress.
func (s *Server) handleReady(w http.ResponseWriter, _ *http.Request) {
	err := s.notReady()
	if err == nil {
		err = s.wedged(time.Now())
	}
	if err != nil {
		s.writeError(w, err)
		return
	}
	w.WriteHeader(http.StatusOK)
}

// handleLive answers /livez: it fails only where a restart helps, so not while
// the server drains.
func (s *Server) handleLive(w http.ResponseWriter, _ *http.Request) {
	err := s.wedged(time.Now())
	select {
	case <-s.engine.Done():
		if s.engine.Err() != nil {
			err = unavailable("engine_closed", "the engine has stopped", 60)
		}
	default:
	}
	if err != nil {
		s.writeError(w, err)
		return
	}
	w.WriteHeader(http.StatusOK)
}

// watch looks at the engine until stop is closed, and writes vLLM's line while
// there is something to say.
func (s *Server) watch(stop <-chan struct{}) {
	ticker, look := time.NewTicker(statsInterval), time.NewTicker(guardInterval)
	defer ticker.Stop()
	defer look.Stop()
	line := statsLine{last: s.engine.Stats(), at: time.Now()}
	for {
		select {
		case <-stop:
			return
		case now := <-look.C:
			s.guard(now)
		case now := <-ticker.C:
			st := s.engine.Stats()
			if text := line.next(&st, now); text != "" && s.logStats {
				s.log.Info(text)
			}
		}
	}
}

// statsLine is the line that vLLM's users grep for.
type statsLine struct {
	last engine.Stats
	at   time.Time
	busy bool // the last line had something to say
}

// next is the line for the time since the last one; "" when nothing happens, but
// for one line at the end of a busy time.
func (l *statsLine) next(st *engine.Stats, now time.Time) string {
	seconds := max(now.Sub(l.at).Seconds(), 1e-9)
	prompt, generated := float64(st.PromptTokens-l.last.PromptTokens)/seconds, float64(st.GenerationTokens-l.last.GenerationTokens)/seconds
	queries, hits := st.PrefixQueries-l.last.PrefixQueries, st.PrefixHits-l.last.PrefixHits
	rate := st.PrefixHitRate()
	if queries > 0 {
		rate = float64(hits) / float64(queries)
	}
	was := l.busy
	l.busy = prompt > 0 || generated > 0 || st.Running+st.Waiting > 0
	l.last, l.at = *st, now
	if !l.busy && !was {
		return ""
	}
	return fmt.Sprintf("Engine 000: Avg prompt throughput: %.1f tokens/s, Avg generation throughput: %.1f tokens/s, Running: %d reqs, Waiting: %d reqs, GPU KV cache usage: %.1f%%, Prefix cache hit rate: %.1f%%",
		prompt, generated, st.Running, st.Waiting, 100*st.KVUsage(), 100*rate)
}
