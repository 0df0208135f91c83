package chat

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nikolalohinski/gonja/v2/builtins"
	controlStructures "github.com/nikolalohinski/gonja/v2/builtins/control_structures"
	"github.com/nikolalohinski/gonja/v2/exec"
	"github.com/nikolalohinski/gonja/v2/loaders"
	"github.com/nikolalohinski/gonja/v2/nodes"
	"github.com/nikolalohinski/gonja/v2/parser"
	"github.com/nikolalohinski/gonja/v2/tokens"
)

const (
	// maxSource bounds the template, and maxOperators one {{ }} or {% %} in it:
	// gonja works by recursion, and Go cannot recover from a stack overflow.
	maxSource    = 128 << 10
	maxOperators = 512
	// maxOutput bounds the rendered text; the tokenizer takes no more either.
	maxOutput = 4 << 20
	// maxTime bounds one render. A long chat takes milliseconds.
	maxTime = 5 * time.Second
	// maxRange bounds range() and maxMacroDepth the nesting of macro calls.
	maxRange      = 100_000
	maxMacroDepth = 32
)

// structures are the control structures of a chat template; include, import,
// from, extends and block are left out, they read other templates.
var structures = func() *exec.ControlStructureSet {
	set := map[string]parser.ControlStructureParser{}
	for _, name := range []string{"for", "if", "set", "macro", "call", "filter", "with", "do", "raw", "break", "continue"} {
		parse, ok := builtins.ControlStructures.Get(name)
		if !ok {
			panic("chat: gonja has no control structure " + name)
		}
		set[name] = guarded(parse)
	}
	set["generation"] = guarded(parseGeneration)
	return exec.NewControlStructureSet(set)
}()

// generation is {% generation %}…{% endgeneration %}, transformers' own: training reads
// from it which text the model wrote. A render gives its body, with variables of its own
// as in Jinja2, where it is a call block.
type generation struct {
	position *tokens.Token
	body     *nodes.Wrapper
}

func parseGeneration(p, args *parser.Parser) (nodes.ControlStructure, error) {
	g := &generation{position: p.Current()}
	body, endArgs, err := p.WrapUntil("endgeneration")
	if err != nil {
		return nil, err
	}
	if !args.End() || !endArgs.End() {
		return nil, errors.New("generation takes no arguments")
	}
	g.body = body
	return g, nil
}

func (g *generation) Position() *tokens.Token { return g.position }
func (g *generation) String() string          { return "generation" }

func (g *generation) Execute(r *exec.Renderer, _ *nodes.ControlStructureBlock) error {
	return r.Inherit().ExecuteWrapper(g.body)
}

// run is the state of one render. Templates cannot name its variable.
type run struct {
	deadline   time.Time
	written    int
	macroDepth int
	failure    error // the first error of our own, which gonja wraps beyond reading
}

const runVariable = " run"

func runOf(r *exec.Renderer) *run {
	state, _ := r.Environment.Context.Get(runVariable)
	return state.(*run)
}

func (s *run) fail(format string, arguments ...any) error {
	err := fmt.Errorf("chat template: "+format, arguments...)
	if s.failure == nil {
		s.failure = err
	}
	return err
}

func (s *run) check() error {
	if time.Now().After(s.deadline) {
		return s.fail("it ran longer than %v", maxTime)
	}
	return nil
}

// boundedWriter counts what a render writes, captured blocks included.
type boundedWriter struct {
	io.Writer
	state *run
}

func (w *boundedWriter) Write(p []byte) (int, error) {
	if w.state.written += len(p); w.state.written > maxOutput {
		return 0, w.state.fail("it wrote more than %d bytes", maxOutput)
	}
	return w.Writer.Write(p)
}

// guardedStructure checks the budget wherever a template loops or branches.
type guardedStructure struct{ exec.ControlStructure }

func guarded(parse parser.ControlStructureParser) parser.ControlStructureParser {
	return func(p, args *parser.Parser) (nodes.ControlStructure, error) {
		parsed, err := parse(p, args)
		if err != nil {
			return nil, err
		}
		if loop, ok := parsed.(*controlStructures.ForControlStructure); ok && loop.Recursive {
			return nil, errors.New("recursive for loops are not supported")
		}
		return guardedStructure{parsed.(exec.ControlStructure)}, nil
	}
}

func (g guardedStructure) Execute(r *exec.Renderer, block *nodes.ControlStructureBlock) error {
	state := runOf(r)
	if err := state.check(); err != nil {
		return err
	}
	if _, bounded := r.Output.(*boundedWriter); !bounded { // a captured block
		r.Output = &boundedWriter{r.Output, state}
	}
	if err := g.ControlStructure.Execute(r, block); err != nil {
		return err
	}
	if macro, ok := g.ControlStructure.(*controlStructures.MacroControlStructure); ok {
		return boundMacro(r, macro.Name)
	}
	return nil
}

// boundMacro wraps the macro just defined, for gonja's has no limit of depth.
func boundMacro(r *exec.Renderer, name string) error {
	defined, _ := r.Environment.Context.Get(name)
	macro, ok := defined.(exec.Macro)
	if !ok {
		return fmt.Errorf("macro %s is a %T", name, defined)
	}
	state := runOf(r)
	r.Environment.Context.Set(name, exec.Macro(func(params *exec.VarArgs) *exec.Value {
		state.macroDepth++
		defer func() { state.macroDepth-- }()
		if state.macroDepth > maxMacroDepth {
			return exec.AsValue(state.fail("macro calls nested deeper than %d", maxMacroDepth))
		}
		if err := state.check(); err != nil {
			return exec.AsValue(err)
		}
		return macro(params)
	}))
	return nil
}

// globals are the functions of a template. Gonja's range leaks a goroutine when
// a loop breaks, its lipsum is random, and so is the order of its dict.
func globals(state *run, now time.Time) map[string]any {
	functions := map[string]any{
		runVariable: state,
		"range":     rangeFunction,
		"dict":      dictFunction,
		"none":      none(false),
		"raise_exception": func(message string) (any, error) {
			return nil, state.fail("it refuses this request: %s", message)
		},
		"strftime_now": func(format string) (string, error) { return strftime(now, format) },
	}
	for _, name := range []string{"namespace", "cycler", "joiner"} {
		functions[name], _ = builtins.GlobalFunctions.Get(name)
	}
	return functions
}

func rangeFunction(params *exec.VarArgs) *exec.Value {
	bounds := [3]int{0, 0, 1} // start, stop, step
	n := len(params.Args)
	if n < 1 || n > 3 || len(params.KwArgs) > 0 {
		return exec.AsValue(errors.New("range takes one to three numbers"))
	}
	for i, argument := range params.Args {
		if !argument.IsInteger() {
			return exec.AsValue(errors.New("range takes whole numbers"))
		}
		if n == 1 {
			i = 1
		}
		bounds[i] = argument.Integer()
	}
	start, stop, step := bounds[0], bounds[1], bounds[2]
	if step == 0 {
		return exec.AsValue(errors.New("range: the step is 0"))
	}
	list := []any{}
	for i := start; step > 0 && i < stop || step < 0 && i > stop; i += step {
		if len(list) == maxRange {
			return exec.AsValue(fmt.Errorf("range longer than %d", maxRange))
		}
		list = append(list, i)
	}
	return exec.AsValue(list)
}

// dictFunction is dict(mapping or pairs, **keywords). The keywords come as a mapping
// behind the rest (gonjaTag); those of a dict under another name come by name, sorted.
func dictFunction(params *exec.VarArgs) *exec.Value {
	dict := &exec.Dict{}
	set := func(key, value *exec.Value) {
		for _, pair := range dict.Pairs {
			if pair.Key.EqualValueTo(key) {
				pair.Value = value
				return
			}
		}
		dict.Pairs = append(dict.Pairs, &exec.Pair{Key: key, Value: value})
	}
	for _, argument := range params.Args {
		switch {
		case argument.IsNil():
		case argument.IsDict():
			for _, pair := range pairsOf(argument) {
				set(pair.Key, pair.Value)
			}
		case argument.IsList():
			for i := range argument.Len() {
				pair := argument.Index(i)
				if !pair.IsList() || pair.Len() != 2 {
					return exec.AsValue(errors.New("dict takes pairs"))
				}
				set(pair.Index(0), pair.Index(1))
			}
		default:
			return exec.AsValue(errors.New("dict takes a mapping or pairs"))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(params.KwArgs)) {
		set(exec.AsValue(name), params.KwArgs[name])
	}
	if len(dict.Pairs) == 0 {
		return exec.AsValue(map[string]any{}) // a Dict is true even when it is empty
	}
	return exec.AsValue(dict)
}

// oneTemplate is a loader of a single source; there are no other files.
type oneTemplate struct{ source string }

func (l oneTemplate) Read(string) (io.Reader, error)         { return strings.NewReader(l.source), nil }
func (l oneTemplate) Resolve(path string) (string, error)    { return path, nil }
func (l oneTemplate) Inherit(string) (loaders.Loader, error) { return l, nil }

// lastCause is the end of gonja's chain of wrapped errors, which repeats the
// template at each level.
func lastCause(err error) error {
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	const most = 240
	if text := err.Error(); len(text) > most {
		return errors.New("…" + strings.ToValidUTF8(text[len(text)-most:], ""))
	}
	return err
}
