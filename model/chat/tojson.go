package chat

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"

	"github.com/nikolalohinski/gonja/v2/exec"
)

// dumper writes values as Python's json.dumps does. The zero value with the
// separators ", " and ": " is json.dumps(x, ensure_ascii=False), the tojson of
// transformers.
type dumper struct {
	out           strings.Builder
	itemSeparator string
	keySeparator  string
	indent        *string // nil: one line
	sortKeys      bool
	ensureASCII   bool
	python        bool // as Python's repr writes them, not JSON
}

func (d *dumper) value(v *exec.Value, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("value nested deeper than %d", maxDepth)
	}
	if big, ok := v.Interface().(*big.Int); ok {
		d.out.WriteString(big.String())
		return nil
	}
	switch {
	case v.IsError():
		return errors.New(v.Error())
	case d.python && v.IsNil():
		d.out.WriteString("Undefined")
	case d.python && v.IsString():
		d.out.WriteString(pythonString(v.String()))
	case d.python && !isContainer(v):
		d.out.WriteString(v.String())
	case v.IsNil() || isNone(v):
		d.out.WriteString("null")
	case v.IsBool():
		d.out.WriteString(strconv.FormatBool(v.Bool()))
	case v.IsInteger():
		d.out.WriteString(strconv.Itoa(v.Integer()))
	case v.IsFloat():
		d.out.WriteString(pythonFloat(v.Float()))
	case v.IsString():
		d.string(v.String())
	case v.IsList():
		return d.list(v, depth)
	case v.IsDict():
		return d.dict(v, depth)
	default:
		return fmt.Errorf("a value of type %T cannot be written as JSON", v.Interface())
	}
	return nil
}

func (d *dumper) list(v *exec.Value, depth int) error {
	d.out.WriteByte('[')
	for i := range v.Len() {
		d.separate(i, depth)
		if err := d.value(v.Index(i), depth+1); err != nil {
			return err
		}
	}
	d.end(v.Len(), depth, ']')
	return nil
}

func (d *dumper) dict(v *exec.Value, depth int) error {
	pairs := pairsOf(v)
	if d.sortKeys {
		slices.SortStableFunc(pairs, func(a, b *exec.Pair) int { return strings.Compare(a.Key.String(), b.Key.String()) })
	}
	d.out.WriteByte('{')
	for i, pair := range pairs {
		d.separate(i, depth)
		if d.python {
			if err := d.value(pair.Key, depth+1); err != nil {
				return err
			}
		} else {
			d.string(pair.Key.String())
		}
		d.out.WriteString(d.keySeparator)
		if err := d.value(pair.Value, depth+1); err != nil {
			return err
		}
	}
	d.end(len(pairs), depth, '}')
	return nil
}

// separate writes what stands before item i.
func (d *dumper) separate(i, depth int) {
	if i > 0 {
		d.out.WriteString(d.itemSeparator)
	}
	if d.indent != nil {
		d.newline(depth + 1)
	}
}

func (d *dumper) end(items, depth int, bracket byte) {
	if d.indent != nil && items > 0 {
		d.newline(depth)
	}
	d.out.WriteByte(bracket)
}

func (d *dumper) newline(depth int) {
	d.out.WriteByte('\n')
	for range depth {
		d.out.WriteString(*d.indent)
	}
}

func (d *dumper) string(s string) {
	d.out.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			d.out.WriteByte('\\')
			d.out.WriteRune(r)
		case r == '\n':
			d.out.WriteString(`\n`)
		case r == '\r':
			d.out.WriteString(`\r`)
		case r == '\t':
			d.out.WriteString(`\t`)
		case r == '\f':
			d.out.WriteString(`\f`)
		case r == '\b':
			d.out.WriteString(`\b`)
		case r < ' ' || d.ensureASCII && r > '~':
			for _, unit := range utf16.Encode([]rune{r}) {
				fmt.Fprintf(&d.out, `\u%04x`, unit)
			}
		default:
			d.out.WriteRune(r)
		}
	}
	d.out.WriteByte('"')
}

// pythonFloat is repr(f) in Python, with the names that json.dumps has for what
// JSON cannot say.
func pythonFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	scientific := strconv.FormatFloat(f, 'e', -1, 64)
	_, exponent, _ := strings.Cut(scientific, "e")
	if e, _ := strconv.Atoi(exponent); e < -4 || e >= 16 {
		return scientific
	}
	plain := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(plain, ".") {
		plain += ".0"
	}
	return plain
}
