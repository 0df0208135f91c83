package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pagoda-engine/pagoda/internal/server"
)

// topFlags are the flags of pagoda top.
type topFlags struct {
	url    string
	apiKey string
	once   bool
	json   bool
}

func topCommand() *cobra.Command {
	var f topFlags
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch a running server: requests, KV blocks, scheduler",
		Long: `Show what a running server does, as its page at /ui does: speed, queue, the map of
the KV blocks, the last decision of the scheduler with its reasons, and the requests.
q or Ctrl-C ends it. Where the output is no terminal it is printed once.

In the map a letter (on a terminal a colour) is a sequence, # is a shared block,
- a cached one, ~ one that is being copied and . a free one.`,
		Example: `  pagoda top
  pagoda top --url http://gpu-box:8000 --api-key "$KEY"
  pagoda top --json | jq .stats.running`,
		Args: exactly(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.url, "url", "http://127.0.0.1:8000", "address of the server")
	flags.StringVar(&f.apiKey, "api-key", "", "key, where the server asks for one")
	flags.BoolVar(&f.once, "once", false, "print once and end")
	flags.BoolVar(&f.json, "json", false, "print the present state as one JSON object and end")
	addNegations(flags)
	return cmd
}

func (f *topFlags) run(cmd *cobra.Command) error {
	ctx, stop := interruptible(cmd.Context())
	defer stop()
	ctx, quit := context.WithCancel(ctx)
	defer quit()
	resp, err := openURL(ctx, f.url, "/ui/api/stream", f.apiKey)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	out := cmd.OutOrStdout()
	if f.json {
		return eachEvent(resp.Body, func(data []byte) (bool, error) {
			_, err := out.Write(append(data, '\n'))
			return false, err
		})
	}
	terminal, isFile := out.(*os.File)
	if f.once || !isFile || !term.IsTerminal(int(terminal.Fd())) {
		var view topView
		return eachEvent(resp.Body, func(data []byte) (bool, error) {
			if err := view.apply(data); err != nil {
				return false, err
			}
			_, err := fmt.Fprintln(out, strings.Join(view.lines(80, 24, false), "\n"))
			return false, err
		})
	}
	err = watch(ctx, terminal, resp.Body, quit)
	if ctx.Err() != nil {
		return nil // asked to end
	}
	if err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%s has ended the stream", f.url)
	}
	return err
}

// watch draws on a terminal, in its other screen, until the stream ends. It calls
// quit when q is typed.
func watch(ctx context.Context, terminal *os.File, stream io.Reader, quit func()) error {
	if keys := int(os.Stdin.Fd()); term.IsTerminal(keys) {
		before, err := term.MakeRaw(keys)
		if err != nil {
			return err
		}
		defer func() { _ = term.Restore(keys, before) }()
		go func() {
			in := bufio.NewReader(os.Stdin)
			for {
				switch key, err := in.ReadByte(); {
				case err != nil:
					return
				case key == 'q' || key == 'Q' || key == 3: // Ctrl-C
					quit()
					return
				}
			}
		}()
	}
	fmt.Fprint(terminal, "\x1b[?1049h\x1b[?25l")
	defer fmt.Fprint(terminal, "\x1b[?25h\x1b[?1049l")
	_, plain := os.LookupEnv("NO_COLOR")
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	return follow(ctx, stream, resized, func(view *topView) error {
		width, height, err := term.GetSize(int(terminal.Fd()))
		if err != nil {
			width, height = 80, 24
		}
		_, err = fmt.Fprintf(terminal, "\x1b[H%s\x1b[K\x1b[J", strings.Join(view.lines(width, height, !plain), "\x1b[K\r\n"))
		return err
	})
}

// follow draws every frame of a stream, and what there is once a second and when
// the screen's size changes: an engine with nothing to do sends nothing, and what is
// told of the last seconds gets old.
func follow(ctx context.Context, stream io.Reader, resized <-chan os.Signal, draw func(*topView) error) error {
	frames, ended := make(chan []byte), make(chan error, 1)
	go func() {
		ended <- eachEvent(stream, func(data []byte) (bool, error) {
			select {
			case frames <- data:
				return true, nil
			case <-ctx.Done():
				return false, ctx.Err()
			}
		})
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var view topView
	var came time.Time
	for {
		select {
		case data := <-frames:
			if err := view.apply(data); err != nil {
				return err
			}
			came = time.Now()
		case <-tick.C:
		case <-resized:
		case err := <-ended:
			return err
		}
		if came.IsZero() {
			continue
		}
		view.age = time.Since(came)
		if err := draw(&view); err != nil {
			return err
		}
	}
}

// eachEvent calls f with the data of each server-sent event until it says false.
func eachEvent(stream io.Reader, f func(data []byte) (more bool, err error)) error {
	in := bufio.NewReader(stream)
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		data, ok := strings.CutPrefix(strings.TrimSuffix(string(line), "\n"), "data: ")
		if !ok {
			continue
		}
		if more, err := f([]byte(data)); err != nil || !more {
			return err
		}
	}
}

// openURL gets a path of a running server, with a key if there is one.
func openURL(ctx context.Context, base, path, key string) (*http.Response, error) {
	if !strings.HasPrefix(base, "http://") && !strings.HasPrefix(base, "https://") {
		return nil, usageError{fmt.Errorf("--url %s: want an address with its scheme, such as http://%s", base, base)}
	}
	address := strings.TrimSuffix(base, "/") + path
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, usageError{fmt.Errorf("--url %s: %w", base, err)}
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		return nil, usageError{fmt.Errorf("%s wants a key: give --api-key", base)}
	case http.StatusNotFound:
		if !strings.HasPrefix(path, "/ui/") {
			break
		}
		return nil, fmt.Errorf("%s answers %s: is it a pagoda server, started without --no-ui?", address, resp.Status)
	}
	return nil, fmt.Errorf("%s answers %s: is it a pagoda server?", address, resp.Status)
}

// topView is what the frames so far add up to.
type topView struct {
	frame  server.Frame // the last one
	info   server.FrameInfo
	blocks map[int]server.FrameBlock
	steps  []server.FrameStep // the last ones
	age    time.Duration      // of frame
}

// nowMs is the engine's clock.
func (v *topView) nowMs() float64 { return float64(v.frame.NowMs + v.age.Milliseconds()) }

const topSteps = 1024

func (v *topView) apply(data []byte) error {
	var f server.Frame
	if err := json.Unmarshal(data, &f); err != nil {
		return fmt.Errorf("the stream is not understood: %w", err)
	}
	if f.Full && f.Info != nil {
		v.info, v.blocks, v.steps = *f.Info, map[int]server.FrameBlock{}, nil
	}
	if v.blocks == nil {
		return errors.New("the stream does not begin with a full frame")
	}
	for _, b := range f.Blocks {
		v.blocks[b.ID] = b
	}
	v.steps = append(v.steps, f.Steps...)
	v.steps = v.steps[max(0, len(v.steps)-topSteps):]
	v.frame, v.age = f, 0
	return nil
}
