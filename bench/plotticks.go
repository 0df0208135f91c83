package bench

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
)

// fixedTicks are ticks that were chosen for the data.
type fixedTicks []plot.Tick

// Ticks implements plot.Ticker.
func (t fixedTicks) Ticks(_, _ float64) []plot.Tick { return t }

// niceTicks divides [low, high] into about n steps of 1, 2 or 5 times a power of
// ten, and widens it to whole steps.
func niceTicks(low, high float64, n int) (ticks fixedTicks, from, to float64) {
	if high <= low {
		high = low + math.Max(1, math.Abs(low))
	}
	step := math.Pow(10, math.Floor(math.Log10((high-low)/float64(n))))
	for _, factor := range []float64{1, 2, 5, 10} {
		if (high-low)/(step*factor) <= float64(n) {
			step *= factor
			break
		}
	}
	first, last := math.Floor(low/step+1e-9), math.Ceil(high/step-1e-9)
	for i := first; i <= last; i++ {
		ticks = append(ticks, plot.Tick{Value: i * step, Label: tickText(i*step, step)})
	}
	return ticks, first * step, last * step
}

// tickText writes a value with the decimals that its step needs.
func tickText(v, step float64) string {
	if math.Abs(v) >= 1e6 && step >= 1e5 {
		return strconv.FormatFloat(v/1e6, 'f', decimals(step/1e6), 64) + "M"
	}
	return thousands(strconv.FormatFloat(v, 'f', decimals(step), 64))
}

func decimals(step float64) int {
	return max(0, int(math.Ceil(-math.Log10(step)-1e-9)))
}

// thousands puts commas into a number from ten thousand on.
func thousands(number string) string {
	sign := ""
	if strings.HasPrefix(number, "-") {
		sign, number = "−", number[1:]
	}
	whole, fraction, found := strings.Cut(number, ".")
	if len(whole) >= 4 {
		for i := len(whole) - 3; i > 0; i -= 3 {
			whole = whole[:i] + "," + whole[i:]
		}
	}
	if found {
		whole += "." + fraction
	}
	return sign + whole
}

// valueTicks puts a tick at each value when they are few enough to be read: the
// settings that were measured say more than round numbers between them.
func valueTicks(values []float64, x func(float64) float64, width vg.Length) fixedTicks {
	values = slices.Compact(slices.Sorted(slices.Values(values)))
	if len(values) == 0 || len(values) > 12 {
		return nil
	}
	style := textStyle(11, ink)
	span := x(values[len(values)-1]) - x(values[0])
	var ticks fixedTicks
	end := vg.Length(math.Inf(-1))
	for _, v := range values {
		label := thousands(strconv.FormatFloat(v, 'f', -1, 64))
		if len(label) > 9 {
			return nil
		}
		at := vg.Length(0)
		if span > 0 {
			at = vg.Length((x(v)-x(values[0]))/span) * width
		}
		if half := style.Width(label) / 2; at-half < end+4 {
			label = "" // a tick without a name: there is no room beside its neighbour
		} else {
			end = at + half
		}
		ticks = append(ticks, plot.Tick{Value: v, Label: label})
	}
	return ticks
}

// logTicks are the powers of a base inside [low, high]; when those of ten are few,
// also 2 and 5 times them.
func logTicks(low, high, base float64) fixedTicks {
	factors := []float64{1}
	if base == 10 && high < 300*low {
		factors = []float64{1, 2, 5}
	}
	var ticks fixedTicks
	for exponent := math.Floor(math.Log(low)/math.Log(base) + 1e-9); ; exponent++ {
		for _, factor := range factors {
			v := factor * math.Pow(base, exponent)
			if v > high*1.0001 {
				return ticks
			}
			if v >= low*0.9999 {
				ticks = append(ticks, plot.Tick{Value: v, Label: shortNumber(v)})
			}
		}
	}
}

// shortNumber writes a power of ten or two in a few characters.
func shortNumber(v float64) string {
	size, name := 1.0, ""
	switch {
	case math.Abs(v) >= 1e12:
		size, name = 1e12, "T"
	case math.Abs(v) >= 1e9:
		size, name = 1e9, "G"
	case math.Abs(v) >= 1e6:
		size, name = 1e6, "M"
	}
	return thousands(strconv.FormatFloat(v/size, 'f', -1, 64)) + name
}
