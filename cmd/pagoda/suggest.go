package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// didYouMean is "; did you mean X?" for the candidate that word most likely
// stands for, or "".
func didYouMean(word string, candidates []string) string {
	if best := nearest(word, candidates); best != "" {
		return fmt.Sprintf("; did you mean %s?", best)
	}
	return ""
}

// nearest is the candidate with the fewest typing mistakes, at most one in three
// letters; failing that, the only one that word is a part of.
func nearest(word string, candidates []string) string {
	plain := func(s string) string { return strings.ReplaceAll(strings.ToLower(s), "_", "-") }
	best, least := "", 1+max(1, len(word)/3)
	for _, c := range candidates {
		if d := mistakes(plain(word), plain(c)); d < least {
			best, least = c, d
		}
	}
	if best != "" || len(word) < 3 {
		return best
	}
	for _, c := range candidates {
		if strings.Contains(plain(c), plain(word)) {
			if best != "" {
				return ""
			}
			best = c
		}
	}
	return best
}

// mistakes is the number of letters left out, added, replaced or swapped with
// their neighbour between a and b (optimal string alignment).
func mistakes(a, b string) int {
	x, y := []rune(a), []rune(b)
	rows := [3][]int{} // of the table, the last three
	for i := range rows {
		rows[i] = make([]int, len(y)+1)
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(x); i++ {
		above, row, two := rows[(i-1)%3], rows[i%3], rows[(i+1)%3]
		row[0] = i
		for j := 1; j <= len(y); j++ {
			same := 1
			if x[i-1] == y[j-1] {
				same = 0
			}
			row[j] = min(above[j]+1, row[j-1]+1, above[j-1]+same)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				row[j] = min(row[j], two[j-2]+1)
			}
		}
	}
	return rows[len(x)%3][len(y)]
}

// choice is a flag value that is one of few words.
type choice struct {
	to     *string
	values []string
}

// choose adds a flag that is one of values.
func choose(flags *pflag.FlagSet, to *string, name, value, usage string, values ...string) {
	*to = value
	flags.Var(&choice{to, values}, name, usage)
}

// Set implements pflag.Value.
func (c *choice) Set(text string) error {
	if !slices.Contains(c.values, text) {
		last := len(c.values) - 1
		return fmt.Errorf("want %s or %s%s", strings.Join(c.values[:last], ", "), c.values[last], didYouMean(text, c.values))
	}
	*c.to = text
	return nil
}

// String implements pflag.Value.
func (c *choice) String() string {
	if c.to == nil { // pflag makes a zero value to compare with
		return ""
	}
	return *c.to
}

// Type implements pflag.Value.
func (c *choice) Type() string { return strings.Join(c.values, "|") }
