// Command mutants proves that the tests of kvcache and scheduler have teeth: it
// applies seeded bugs, one at a time, to a copy of a source file (go's -overlay; the
// tree stays as it is) and wants a test to fail for each. A mutant whose pattern
// does not match exactly once, or that does not compile, is an error: it has to
// follow the code. The tests must pass without a mutant first, or nothing is proven;
// a mutant that makes them hang counts as caught after ten times as long.
//
//	go run ./internal/mutants            # all of them
//	go run ./internal/mutants -every 8   # every eighth, as CI does
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
	if *every < 1 || *parallel < 1 || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "want -every and -j of at least 1, and no arguments")
		os.Exit(2)
	}
	var chosen []mutant
	for i, m := range mutants {
		if *only == m.name || *only == "" && i%*every == 0 {
			chosen = append(chosen, m)
		}
	}
	h := harness{test: goTest, parallel: *parallel, verbose: *only != ""}
	caught, err := h.run(chosen)
	fmt.Printf("%d/%d\n", caught, len(chosen))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// harness runs tests against mutants.
type harness struct {
	test     func(args ...string) (output []byte, err error)
	parallel int
	verbose  bool
	timeout  time.Duration // of a test binary, by the time that all take without a mutant
}

func goTest(args ...string) ([]byte, error) {
	return exec.Command("go", append([]string{"test", "-short", "-vet=off", "-count=1"}, args...)...).CombinedOutput()
}

// baseline runs the tests without a mutant and sets the timeout.
func (h *harness) baseline(chosen []mutant) error {
	packages := []string{"./scheduler"}
	for i := range chosen {
		if all := chosen[i].packages(); len(all) > len(packages) {
			packages = all
		}
	}
	start := time.Now()
	if out, err := h.test(append([]string{"-timeout=30m"}, packages...)...); err != nil {
		return fmt.Errorf("the tests fail without a mutant: %w\n%s", err, out)
	}
	took := time.Since(start)
	h.timeout = max(10*took, time.Minute).Round(time.Second)
	fmt.Printf("%-44s %5.1fs  a mutant may take %s\n", "no mutant", took.Seconds(), h.timeout)
	return nil
}

// run applies the mutants and counts those that a test catches.
func (h *harness) run(chosen []mutant) (caught int, err error) {
	if len(chosen) == 0 {
		return 0, errors.New("no such mutant")
	}
	if err := h.baseline(chosen); err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	var mu sync.Mutex
	var workers sync.WaitGroup
	next := make(chan mutant)
	for range h.parallel {
		workers.Go(func() {
			for m := range next {
				start := time.Now()
				by, e := h.try(&m, dir)
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

// packages are those whose tests a mutant must fail.
func (m *mutant) packages() []string {
	if strings.HasPrefix(m.file, "kvcache/") {
		return []string{"./kvcache", "./scheduler"}
	}
	return []string{"./scheduler"}
}

// try runs the tests against the mutant and names those that fail.
func (h *harness) try(m *mutant, dir string) (by string, err error) {
	overlay, err := m.overlay(dir)
	if err != nil {
		return "", err
	}
	out, err := h.test(append([]string{fmt.Sprint("-timeout=", h.timeout), "-overlay", overlay}, m.packages()...)...)
	if h.verbose {
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
		names = append(names, fmt.Sprintf("a timeout of %s", h.timeout))
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
