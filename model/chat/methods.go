package chat

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"unicode"

	"github.com/nikolalohinski/gonja/v2/builtins"
	"github.com/nikolalohinski/gonja/v2/exec"
)

// methods are gonja's, except that those of a dict keep its order, that a
// string's replace may do without its last argument, and that its strips and
// splits are Python's and blind to the marks of f.
func (f *finder) methods() exec.Methods {
	m := builtins.Methods
	m.Dict = dictMethods
	m.Str = f.stringMethods()
	return m
}

var dictMethods = func() *exec.MethodSet[map[string]any] {
	own := inherit(builtins.Methods.Dict, "pop", "setdefault", "update", "clear")
	own["copy"] = func(self map[string]any, value *exec.Value, _ *exec.VarArgs) (any, error) {
		if len(self) == 0 {
			return map[string]any{}, nil
		}
		return &exec.Dict{Pairs: pairsOf(value)}, nil
	}
	own["keys"] = func(_ map[string]any, self *exec.Value, _ *exec.VarArgs) (any, error) {
		keys := []any{}
		for _, pair := range pairsOf(self) {
			keys = append(keys, pair.Key.Interface())
		}
		return keys, nil
	}
	own["values"] = func(_ map[string]any, self *exec.Value, _ *exec.VarArgs) (any, error) {
		values := []any{}
		for _, pair := range pairsOf(self) {
			values = append(values, pair.Value.Interface())
		}
		return values, nil
	}
	own["items"] = func(_ map[string]any, self *exec.Value, _ *exec.VarArgs) (any, error) {
		return items(self), nil
	}
	own["get"] = func(_ map[string]any, self *exec.Value, arguments *exec.VarArgs) (any, error) {
		if n := len(arguments.Args); n < 1 || n > 2 {
			return nil, fmt.Errorf("get takes one or two arguments, not %d", n)
		}
		if value, found := self.GetItem(arguments.Args[0].Interface()); found {
			return value.Interface(), nil
		}
		if len(arguments.Args) == 2 {
			return arguments.Args[1].Interface(), nil
		}
		return none(false), nil
	}
	return exec.NewMethodSet(own)
}()

func (f *finder) stringMethods() *exec.MethodSet[string] {
	own := inherit(builtins.Methods.Str, "capitalize", "casefold", "center", "count", "endswith", "expandtabs",
		"find", "format", "isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "islower", "isnumeric",
		"isprintable", "isspace", "istitle", "isupper", "join", "ljust", "lower", "partition", "removeprefix",
		"removesuffix", "rfind", "rjust", "rpartition", "splitlines", "startswith",
		"swapcase", "title", "upper", "zfill")
	strip := func(left, right bool) exec.Method[string] {
		return func(self string, _ *exec.Value, arguments *exec.VarArgs) (any, error) {
			switch args := arguments.Args; {
			case len(arguments.KwArgs) > 0 || len(args) > 1 || len(args) == 1 && !noArgument(args[0]) && !args[0].IsString():
				return nil, errors.New("strip takes the characters to remove, or nothing")
			case len(args) == 0 || noArgument(args[0]):
				return f.trim(self, isSpace, left, right), nil
			default:
				return f.trim(self, oneOf(args[0].String()), left, right), nil
			}
		}
	}
	own["strip"], own["lstrip"], own["rstrip"] = strip(true, true), strip(true, false), strip(false, true)
	own["replace"] = func(self string, _ *exec.Value, arguments *exec.VarArgs) (any, error) {
		count := -1
		switch args := arguments.Args; {
		case len(args) == 3 && args[2].IsInteger():
			count = args[2].Integer()
		case len(args) != 2:
			return nil, errors.New("replace takes old, new and perhaps a count")
		}
		return strings.Replace(self, arguments.Args[0].String(), arguments.Args[1].String(), count), nil
	}
	lines := own["splitlines"]
	own["splitlines"] = func(self string, value *exec.Value, arguments *exec.VarArgs) (any, error) {
		out, err := lines(self, value, arguments)
		if err != nil {
			return nil, err
		}
		texts, of := list{}, exec.AsValue(out) // strings of a type of gonja's own
		for i := range of.Len() {
			texts = append(texts, of.Index(i).String())
		}
		return texts, nil
	}
	own["split"] = func(self string, _ *exec.Value, arguments *exec.VarArgs) (any, error) {
		return f.split(self, arguments, false)
	}
	own["rsplit"] = func(self string, _ *exec.Value, arguments *exec.VarArgs) (any, error) {
		return f.split(self, arguments, true)
	}
	return exec.NewMethodSet(own)
}

// split is Python's split(sep=None, maxsplit=-1), or its rsplit.
func (f *finder) split(self string, arguments *exec.VarArgs, fromRight bool) (any, error) {
	var sep, limit *exec.Value
	if err := arguments.Take(
		exec.KeywordArgument("sep", exec.AsValue(nil), take(&sep)), exec.KeywordArgument("maxsplit", exec.AsValue(-1), take(&limit)),
	); err != nil {
		return nil, exec.ErrInvalidCall(err)
	}
	switch {
	case !limit.IsInteger() || noArgument(sep) && limit.Integer() >= 0:
		return nil, errors.New("split takes a whole number of cuts, at a separator")
	case noArgument(sep):
		words := list{}
		for _, word := range strings.FieldsFunc(self, isSpace) {
			words = append(words, word)
		}
		return words, nil
	case !sep.IsString() || sep.String() == "":
		return nil, errors.New("split takes a separator that is not empty")
	}
	at, cuts := sep.String(), limit.Integer()
	var pieces []string
	switch {
	case fromRight:
		for i := strings.LastIndex(self, at); i >= 0 && cuts != 0; i = strings.LastIndex(self, at) {
			pieces = append(pieces, self[i+len(at):])
			self = self[:i]
			cuts--
		}
		pieces = append(pieces, self)
		slices.Reverse(pieces)
	case cuts < 0:
		pieces = strings.Split(self, at)
	default:
		pieces = strings.SplitN(self, at, cuts+1)
	}
	cut := list{}
	for _, piece := range pieces {
		cut = append(cut, f.bare(piece))
	}
	return cut, nil
}

// noArgument says that an argument is left to its default, by None or by leaving it out.
func noArgument(v *exec.Value) bool { return v.IsNil() || isNone(v) }

// take receives an argument as it is.
func take(to **exec.Value) func(*exec.Value) error {
	return func(v *exec.Value) error {
		*to = v
		return nil
	}
}

// isSpace is Python's str.isspace of one character.
func isSpace(r rune) bool { return unicode.IsSpace(r) || '\x1c' <= r && r <= '\x1f' }

func oneOf(characters string) func(rune) bool {
	return func(r rune) bool { return strings.ContainsRune(characters, r) }
}

func inherit[T any](set *exec.MethodSet[T], names ...string) map[string]exec.Method[T] {
	own := map[string]exec.Method[T]{}
	for _, name := range names {
		method, ok := set.Get(name)
		if !ok {
			panic("chat: gonja has no method " + name)
		}
		own[name] = method
	}
	return own
}

// pairsOf returns the members of a dict in order: a Dict's own, sorted for a Go
// map (a namespace, an empty object).
func pairsOf(v *exec.Value) []*exec.Pair {
	if dict, ok := v.Interface().(*exec.Dict); ok {
		return append([]*exec.Pair(nil), dict.Pairs...)
	}
	pairs := v.Items()
	sort.Slice(pairs, func(i, j int) bool { return pairs[i].Key.String() < pairs[j].Key.String() })
	return pairs
}

func items(v *exec.Value) []any {
	list := []any{}
	for _, pair := range pairsOf(v) {
		list = append(list, []any{pair.Key.Interface(), pair.Value.Interface()})
	}
	return list
}
