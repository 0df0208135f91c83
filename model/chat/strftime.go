package chat

import (
	"fmt"
	"strings"
	"time"
)

// strftimeLayouts maps the directives of Python's strftime to Go layouts.
var strftimeLayouts = map[byte]string{
	'a': "Mon", 'A': "Monday", 'b': "Jan", 'B': "January", 'd': "02", 'm': "01", 'y': "06", 'Y': "2006",
	'H': "15", 'I': "03", 'M': "04", 'S': "05", 'p': "PM", 'j': "002", 'z': "-0700", 'Z': "MST",
	'c': "Mon Jan _2 15:04:05 2006", 'x': "01/02/06", 'X': "15:04:05", 'F': "2006-01-02", 'T': "15:04:05", 'D': "01/02/06", 'e': "_2", 'R': "15:04",
}

// strftime formats t as Python does in the C locale; %-d and the like drop the
// leading zeros.
func strftime(t time.Time, format string) (string, error) {
	var out strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			out.WriteByte(format[i])
			continue
		}
		i++
		trim := i < len(format) && format[i] == '-'
		if trim {
			i++
		}
		if i == len(format) {
			return "", fmt.Errorf("strftime_now: %q ends in the middle of a directive", format)
		}
		directive := format[i]
		layout, known := strftimeLayouts[directive]
		var text string
		switch {
		case directive == '%':
			text = "%"
		case directive == 'f':
			text = fmt.Sprintf("%06d", t.Nanosecond()/1000)
		case known:
			text = t.Format(layout)
		default:
			return "", fmt.Errorf("strftime_now: %%%c is not supported", directive)
		}
		if trim {
			if text = strings.TrimLeft(text, "0 "); text == "" {
				text = "0"
			}
		}
		out.WriteString(text)
	}
	return out.String(), nil
}
