package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// lastWords is how long requests that are cut may take to say so.
const lastWords = time.Second

// httpServer has the limits of connections. A write timeout for whole answers
// would cut streams; pacedWriter has one for each piece.
func (s *Server) httpServer(base context.Context) *http.Server {
	return &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: s.headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return base },
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// Serve answers on ln until drain is done. Then it takes no new requests, lets
// open ones go on for at most DrainTimeout, cuts the rest, and returns nil. When
// stop is done it ends at once. When the engine stops by itself Serve returns
// why; when it hangs, by policy, ErrStalled. The engine is left to its owner.
func (s *Server) Serve(drain, stop context.Context, ln net.Listener) error {
	defer s.finishProfile()
	base, abort := context.WithCancel(context.Background())
	defer abort()
	srv := s.httpServer(base)
	quiet := make(chan struct{})
	defer close(quiet)
	go s.watch(quiet)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	var result error
	select {
	case err := <-served:
		return fmt.Errorf("serve %s: %w", ln.Addr(), err)
	case <-s.engine.Done():
		if err := s.engine.Err(); err != nil {
			result = fmt.Errorf("engine stopped: %w", err)
			s.log.Error("the engine stopped", "dump", s.dump(err.Error()))
		}
	case <-s.stalled:
		_ = srv.Close()
		<-served
		return ErrStalled
	case <-drain.Done():
		s.log.Info("draining", "limit", s.drainTimeout)
	case <-stop.Done():
	}
	s.draining.Store(true)
	s.live.close() // viewers would be waited for
	limit, cancel := context.WithTimeout(stop, s.drainTimeout)
	defer cancel()
	if err := srv.Shutdown(limit); err != nil {
		s.log.Warn("open requests are cut", "reason", err)
		s.aborting.Store(true)
		abort()
		words, cancel := context.WithTimeout(context.Background(), lastWords)
		defer cancel()
		if err := srv.Shutdown(words); err != nil {
			_ = srv.Close()
		}
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return result
}
