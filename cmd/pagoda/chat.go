package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"

	"github.com/pagoda-engine/pagoda/engine"
)

// chat is a conversation on a terminal. Ctrl-D or an empty line ends it, Ctrl-C an answer.
func (f *runFlags) chat(ctx context.Context, s *session, input io.Reader, out, notes io.Writer) error {
	fmt.Fprintln(notes, "chat: Ctrl-C ends the answer that is being written, an empty line or Ctrl-D the chat")
	in := bufio.NewScanner(input)
	in.Buffer(nil, 1<<20)
	var turns []message
	for {
		fmt.Fprint(notes, "\n> ")
		if !in.Scan() || strings.TrimSpace(in.Text()) == "" {
			return in.Err()
		}
		asked := append(slices.Clip(turns), message{Role: "user", Content: in.Text()})
		ids, err := f.encodeChat(s, asked)
		if err != nil {
			return err
		}
		generating, stop := signal.NotifyContext(ctx, os.Interrupt)
		a, err := f.generate(generating, s, ids, out)
		interrupted := generating.Err() != nil && ctx.Err() == nil
		stop()
		switch {
		case errors.Is(err, engine.ErrTooLong):
			fmt.Fprintf(notes, "chat: %v; what was said is forgotten, ask again (--max-model-len is the context)\n", err)
			turns = nil
			continue
		case err != nil && !interrupted:
			return err
		}
		fmt.Fprintln(out)
		if err == nil && !f.quiet {
			fmt.Fprintln(notes, a.timing())
		}
		turns = append(asked, message{Role: "assistant", Content: a.Text})
	}
}
