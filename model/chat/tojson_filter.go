package chat

import (
	"errors"
	"fmt"
	"strings"

	"github.com/nikolalohinski/gonja/v2/exec"
)

// filterToJSON is tojson(value, ensure_ascii=False, indent=None,
// separators=None, sort_keys=False), as transformers defines it.
func filterToJSON(_ *exec.Evaluator, in *exec.Value, params *exec.VarArgs) *exec.Value {
	d := dumper{itemSeparator: ", ", keySeparator: ": "}
	arguments := map[string]*exec.Value{}
	names := []string{"ensure_ascii", "indent", "separators", "sort_keys"}
	if len(params.Args) > len(names) {
		return exec.AsValue(fmt.Errorf("tojson takes at most %d arguments", len(names)))
	}
	for i, argument := range params.Args {
		arguments[names[i]] = argument
	}
	for name, argument := range params.KwArgs {
		arguments[name] = argument
	}
	for name, argument := range arguments {
		switch name {
		case "ensure_ascii":
			d.ensureASCII = argument.IsTrue()
		case "sort_keys":
			d.sortKeys = argument.IsTrue()
		case "indent":
			if err := d.setIndent(argument, arguments["separators"]); err != nil {
				return exec.AsValue(err)
			}
		case "separators":
			if noArgument(argument) {
				continue
			}
			if !argument.IsList() || argument.Len() != 2 {
				return exec.AsValue(errors.New("tojson: separators must be a pair"))
			}
			d.itemSeparator, d.keySeparator = argument.Index(0).String(), argument.Index(1).String()
		default:
			return exec.AsValue(fmt.Errorf("tojson has no argument %q", name))
		}
	}
	if err := d.value(in, 0); err != nil {
		return exec.AsValue(fmt.Errorf("tojson: %w", err))
	}
	return exec.AsSafeValue(d.out.String())
}

func (d *dumper) setIndent(indent, separators *exec.Value) error {
	switch {
	case noArgument(indent):
		return nil
	case indent.IsString():
		text := indent.String()
		d.indent = &text
	case indent.IsInteger() && indent.Integer() <= 64:
		text := strings.Repeat(" ", max(0, indent.Integer()))
		d.indent = &text
	default:
		return errors.New("tojson: indent must be a number up to 64 or a string")
	}
	if separators == nil || noArgument(separators) {
		d.itemSeparator = "," // Python drops the space when it breaks lines
	}
	return nil
}
