// Command mutants proves that the tests of kvcache and scheduler have teeth: it
// applies seeded bugs, one at a time, to a copy of a source file (go's -overlay; the
// tree stays as it is) and wants a test to fail for each. A mutant whose pattern
// does not match exactly once, or that does not compile, is an error: it has to
// follow the code.
//
//	go run ./internal/mutants            # all of them
//	go run ./internal/mutants -every 6   # every sixth, as CI does
//	go run ./internal/mutants -only NAME # one, with the output of the tests
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
)

// mutant is one seeded bug.
type mutant struct {
	name  string
	file  string // from the root of the module
	edits []edit
}

// edit replaces the one occurrence of old.
type edit struct{ old, new string }

func main() {
	every := flag.Int("every", 1, "apply every n-th mutant")
	parallel := flag.Int("j", 2, "mutants at a time")
	only := flag.String("only", "", "apply this one alone and print what the tests say")
	flag.Parse()
	var chosen []mutant
	for i, m := range mutants {
		if *only == m.name || *only == "" && i%*every == 0 {
			chosen = append(chosen, m)
		}
	}
	caught, err := run(chosen, *parallel, *only != "")
	fmt.Printf("%d/%d\n", caught, len(chosen))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run applies the mutants and counts those that a test catches.
func run(chosen []mutant, parallel int, verbose bool) (caught int, err error) {
	if len(chosen) == 0 {
		return 0, errors.New("no such mutant")
	}
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	var mu sync.Mutex
	var workers sync.WaitGroup
	next := make(chan mutant)
	for range parallel {
		workers.Go(func() {
			for m := range next {
				start := time.Now()
				by, e := m.test(dir, verbose)
				mu.Lock()
				switch {
				case e != nil:
					err = errors.Join(err, fmt.Errorf("%s: %w", m.name, e))
				case by == "":
					err = errors.Join(err, fmt.Errorf("%s: not caught", m.name))
				default:
					caught++
				}
				fmt.Printf("%-44s %5.1fs  %s\n", m.name, time.Since(start).Seconds(), by)
				mu.Unlock()
			}
		})
	}
	for _, m := range chosen {
		next <- m
	}
	close(next)
	workers.Wait()
	return caught, err
}

var failed = regexp.MustCompile(`(?m)^--- FAIL: (\w+)`)

// test runs the tests against the mutant and names those that fail.
func (m *mutant) test(dir string, verbose bool) (by string, err error) {
	overlay, err := m.overlay(dir)
	if err != nil {
		return "", err
	}
	packages := []string{"./scheduler"}
	if strings.HasPrefix(m.file, "kvcache/") {
		packages = []string{"./kvcache", "./scheduler"}
	}
	args := append([]string{"test", "-short", "-vet=off", "-count=1", "-timeout=5m", "-overlay", overlay}, packages...)
	out, err := exec.Command("go", args...).CombinedOutput()
	if verbose {
		os.Stdout.Write(out)
	}
	switch {
	case err == nil:
		return "", nil
	case strings.Contains(string(out), "[build failed]"), strings.Contains(string(out), "[setup failed]"):
		return "", fmt.Errorf("does not compile:\n%s", out)
	}
	var names []string
	for _, match := range failed.FindAllStringSubmatch(string(out), -1) {
		names = append(names, match[1])
	}
	if strings.Contains(string(out), "panic: test timed out") {
		names = append(names, "a timeout")
	}
	if len(names) == 0 {
		return "", fmt.Errorf("no test failed, the run did:\n%s", out)
	}
	if n := len(names); n > 3 {
		names = append(names[:3], fmt.Sprintf("and %d more", n-3))
	}
	return strings.Join(names, " "), nil
}

// overlay writes the mutated file and the JSON that puts it in place of the
// original.
func (m *mutant) overlay(dir string) (path string, err error) {
	source, err := os.ReadFile(m.file)
	if err != nil {
		return "", err
	}
	text := string(source)
	for _, e := range m.edits {
		if n := strings.Count(text, e.old); n != 1 {
			return "", fmt.Errorf("its pattern is %d times in %s, want once:\n%s", n, m.file, e.old)
		}
		text = strings.Replace(text, e.old, e.new, 1)
	}
	original, err := filepath.Abs(m.file)
	if err != nil {
		return "", err
	}
	base := filepath.Join(dir, strings.ReplaceAll(m.name, " ", "-"))
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {original: base + ".go"}})
	if err != nil {
		return "", err
	}
	return base + ".json", errors.Join(os.WriteFile(base+".go", []byte(text), 0o600), os.WriteFile(base+".json", replace, 0o600))
}
