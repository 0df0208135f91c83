package chat

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"github.com/nikolalohinski/gonja/v2/builtins"
	"github.com/nikolalohinski/gonja/v2/exec"
)

// filters are gonja's, except for those whose results are not Jinja2's, and for
// trim, which is blind to the marks of f.
func (f *finder) filters() *exec.FilterSet {
	set := exec.NewFilterSet(map[string]exec.FilterFunction{}).Update(builtins.Filters)
	for name, filter := range map[string]exec.FilterFunction{
		"tojson": filterToJSON, "items": filterItems, "reverse": filterReverse, "dictsort": filterDictSort, "list": filterList, "trim": f.filterTrim, "string": filterString,
	} {
		if err := set.Replace(name, filter); err != nil {
			panic(err)
		}
	}
	if err := set.Register(printFilter, filterPrinted); err != nil {
		panic(err)
	}
	return set
}

// filterTrim is the filter trim(chars=None) of what in prints, blind to the marks of f.
func (f *finder) filterTrim(_ *exec.Evaluator, in *exec.Value, params *exec.VarArgs) *exec.Value {
	var chars *exec.Value
	if err := params.Take(exec.KeywordArgument("chars", exec.AsValue(nil), take(&chars))); err != nil {
		return exec.AsValue(exec.ErrInvalidCall(err))
	}
	switch in = printed(in); {
	case in.IsError():
		return in
	case noArgument(chars):
		return exec.AsValue(f.trim(in.String(), isSpace, true, true))
	default:
		return exec.AsValue(f.trim(in.String(), oneOf(chars.String()), true, true))
	}
}

func filterItems(_ *exec.Evaluator, in *exec.Value, _ *exec.VarArgs) *exec.Value {
	switch {
	case in.IsError():
		return in
	case in.IsNil():
		return exec.AsValue([]any{})
	case in.IsDict():
		return exec.AsValue(items(in))
	default:
		return exec.AsValue(errors.New("items requires a mapping"))
	}
}

// filterList is gonja's, with a list of ours.
func filterList(e *exec.Evaluator, in *exec.Value, params *exec.VarArgs) *exec.Value {
	gonjas, _ := builtins.Filters.Get("list")
	out := gonjas(e, in, params)
	if out.IsError() || !out.IsList() {
		return out
	}
	elements := make(list, out.Len())
	for i := range elements {
		elements[i] = out.Index(i).Interface()
	}
	return exec.AsValue(elements)
}

// filterReverse is the filter reverse; gonja's sorts, too.
func filterReverse(_ *exec.Evaluator, in *exec.Value, _ *exec.VarArgs) *exec.Value {
	switch {
	case in.IsError():
		return in
	case in.IsString():
		text := []rune(in.String())
		slices.Reverse(text)
		return exec.AsValue(string(text))
	case in.IsNil():
		return exec.AsValue([]any{})
	case !in.IsIterable():
		return exec.AsValue(errors.New("reverse requires a list, a mapping or a string"))
	}
	list := []any{}
	in.Iterate(func(_, _ int, element, _ *exec.Value) bool {
		list = append(list, element.Interface())
		return true
	}, func() {})
	slices.Reverse(list)
	return exec.AsValue(list)
}

// filterDictSort is dictsort(value, case_sensitive=False, by="key",
// reverse=False); gonja's knows no object of a request.
func filterDictSort(_ *exec.Evaluator, in *exec.Value, params *exec.VarArgs) *exec.Value {
	var caseSensitive, by, reverse *exec.Value
	if err := params.Take(
		exec.KeywordArgument("case_sensitive", exec.AsValue(false), take(&caseSensitive)),
		exec.KeywordArgument("by", exec.AsValue("key"), take(&by)),
		exec.KeywordArgument("reverse", exec.AsValue(false), take(&reverse)),
	); err != nil {
		return exec.AsValue(exec.ErrInvalidCall(err))
	}
	switch {
	case in.IsError():
		return in
	case !in.IsDict():
		return exec.AsValue(errors.New("dictsort requires a mapping"))
	case by.String() != "key" && by.String() != "value":
		return exec.AsValue(errors.New(`dictsort: by must be "key" or "value"`))
	}
	pairs := pairsOf(in)
	mixed := false
	slices.SortStableFunc(pairs, func(a, b *exec.Pair) int {
		x, y := a.Key, b.Key
		if by.String() == "value" {
			x, y = a.Value, b.Value
		}
		order := 0
		switch {
		case x.IsNumber() && y.IsNumber():
			order = cmp.Compare(x.Float(), y.Float())
		case !x.IsString() || !y.IsString():
			mixed = true
		case caseSensitive.IsTrue():
			order = cmp.Compare(x.String(), y.String())
		default:
			order = cmp.Compare(strings.ToLower(x.String()), strings.ToLower(y.String()))
		}
		if reverse.IsTrue() {
			return -order
		}
		return order
	})
	if mixed {
		return exec.AsValue(errors.New("dictsort cannot compare these"))
	}
	list := []any{}
	for _, pair := range pairs {
		list = append(list, []any{pair.Key.Interface(), pair.Value.Interface()})
	}
	return exec.AsValue(list)
}
