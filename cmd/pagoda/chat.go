package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"
)

// chat is a conversation on a terminal. Ctrl-D or an empty line ends it.
func (f *runFlags) chat(ctx context.Context, s *session) error {
	fmt.Fprintln(os.Stderr, "chat: an empty line or Ctrl-D ends it")
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	var turns []message
	for {
		fmt.Fprint(os.Stderr, "\n> ")
		if !in.Scan() || strings.TrimSpace(in.Text()) == "" {
			return in.Err()
		}
		turns = append(turns, message{Role: "user", Content: in.Text()})
		ids, err := f.encodeChat(s, turns)
		if err != nil {
			return err
		}
		generating, stop := interruptible(ctx)
		a, err := f.generate(generating, s, ids, os.Stdout)
		stop()
		if err != nil {
			return err
		}
		fmt.Println()
		if !f.quiet {
			fmt.Fprintln(os.Stderr, a.timing())
		}
		turns = append(turns, message{Role: "assistant", Content: a.Text})
	}
}
