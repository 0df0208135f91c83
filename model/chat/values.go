package chat

import (
	"github.com/nikolalohinski/gonja/v2/builtins"
	"github.com/nikolalohinski/gonja/v2/exec"
)

// none is Python's None: gonja holds null and what is undefined to be the same. It
// is false, and prints its name.
type none bool

func (none) String() string { return "None" }

func isNone(v *exec.Value) bool {
	_, is := v.Interface().(none)
	return is
}

// list is a list of a request or of split and |list; gonja's has no [-1] where it has one
// element.
type list []any

// GetItem implements exec.ItemGetter.
func (l list) GetItem(key any) (*exec.Value, bool) {
	i, ok := key.(int)
	if i < 0 {
		i += len(l)
	}
	if !ok || i < 0 || i >= len(l) {
		return exec.AsValue(nil), false
	}
	return exec.ToValue(l[i]), true
}

// tests are gonja's, except for those whose answers are not Jinja2's.
var tests = func() *exec.TestSet {
	set := exec.NewTestSet(map[string]exec.TestFunction{}).Update(builtins.Tests)
	for name, is := range map[string]func(v *exec.Value) bool{
		"none":     isNone,
		"boolean":  func(v *exec.Value) bool { return v.IsBool() && !isNone(v) },
		"true":     func(v *exec.Value) bool { return v.IsBool() && v.Bool() },
		"false":    func(v *exec.Value) bool { return v.IsBool() && !v.Bool() && !isNone(v) },
		"sequence": func(v *exec.Value) bool { return v.IsIterable() },
	} {
		test := func(_ *exec.Context, in *exec.Value, _ *exec.VarArgs) (bool, error) { return is(in), nil }
		if err := set.Replace(name, test); err != nil {
			panic(err)
		}
	}
	return set
}()
