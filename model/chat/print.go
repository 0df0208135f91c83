package chat

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/nikolalohinski/gonja/v2/exec"
)

// printFilter is the filter that gonjaTag puts behind what a tag prints.
const printFilter = "printed"

// printed is v as Python's str writes it, where gonja does not escape the strings in a
// list or a dict.
func printed(v *exec.Value) *exec.Value {
	if !isContainer(v) {
		return v
	}
	d := dumper{itemSeparator: ", ", keySeparator: ": ", python: true}
	if err := d.value(v, 0); err != nil {
		return exec.AsValue(fmt.Errorf("print: %w", err))
	}
	return exec.AsValue(d.out.String())
}

func filterPrinted(e *exec.Evaluator, in *exec.Value, _ *exec.VarArgs) *exec.Value {
	if in.IsError() { // gonja would tell of a filter that the template does not name
		state, _ := e.Environment.Context.Get(runVariable)
		state.(*run).fail("%w", lastCause(in.Interface().(error)))
		return in
	}
	return printed(in)
}

func filterString(_ *exec.Evaluator, in *exec.Value, params *exec.VarArgs) *exec.Value {
	if err := params.Take(); err != nil {
		return exec.AsValue(exec.ErrInvalidCall(err))
	}
	if in = printed(in); in.IsError() {
		return in
	}
	return exec.AsValue(in.String())
}

// isContainer says whether v is a list or a dict; a tuple of gonja's own prints itself.
func isContainer(v *exec.Value) bool {
	switch v.Interface().(type) {
	case list, []any, exec.ValuesList, *exec.Dict, map[string]any:
		return true
	}
	return false
}

// pythonString is repr(s) in Python. The ends of marks stay as they are.
func pythonString(s string) string {
	quote := '\''
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		quote = '"'
	}
	var out strings.Builder
	out.WriteRune(quote)
	for _, r := range s {
		switch {
		case r == quote || r == '\\':
			out.WriteString(`\` + string(r))
		case r == '\n':
			out.WriteString(`\n`)
		case r == '\r':
			out.WriteString(`\r`)
		case r == '\t':
			out.WriteString(`\t`)
		case unicode.IsPrint(r) || r == markBegins || r == markEnds:
			out.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&out, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(&out, `\u%04x`, r)
		default:
			fmt.Fprintf(&out, `\U%08x`, r)
		}
	}
	out.WriteRune(quote)
	return out.String()
}
