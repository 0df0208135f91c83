package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// size is a flag value in bytes (or tokens) with an optional unit: 512MiB, 4GB,
// 8k. A bare number counts units of unit, or single bytes when it is zero.
type size struct {
	bytes, unit int64
}

// units are the suffixes a size may have: SI in powers of 1000, IEC and single
// letters in powers of 1024.
var units = map[string]int64{
	"b": 1, "k": 1 << 10, "kib": 1 << 10, "kb": 1e3, "m": 1 << 20, "mib": 1 << 20, "mb": 1e6,
	"g": 1 << 30, "gib": 1 << 30, "gb": 1e9, "t": 1 << 40, "tib": 1 << 40, "tb": 1e12,
}

// Set implements pflag.Value.
func (s *size) Set(text string) error {
	trimmed := strings.ToLower(strings.TrimSpace(text))
	digits := strings.TrimRight(trimmed, "abcdefghijklmnopqrstuvwxyz")
	unit, known := units[trimmed[len(digits):]]
	if len(digits) == len(trimmed) {
		unit, known = max(s.unit, 1), true
	}
	value, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
	if err != nil || !known || value < 0 || value*float64(unit) > math.MaxInt64/2 || math.IsNaN(value) {
		return fmt.Errorf("%q is not a size: want a number with an optional unit (k, MiB, GB, …)", text)
	}
	s.bytes = int64(value * float64(unit))
	return nil
}

// String implements pflag.Value.
func (s *size) String() string {
	if s.bytes == 0 {
		return "0"
	}
	return formatBytes(s.bytes)
}

// Type implements pflag.Value.
func (s *size) Type() string { return "size" }

// sizeList is a flag value of several sizes, such as 0,512MiB,4.
type sizeList struct {
	bytes []int64
	unit  int64
}

// Set implements pflag.Value.
func (l *sizeList) Set(text string) error {
	l.bytes = nil
	for part := range strings.SplitSeq(text, ",") {
		one := size{unit: l.unit}
		if err := one.Set(part); err != nil {
			return err
		}
		l.bytes = append(l.bytes, one.bytes)
	}
	return nil
}

// String implements pflag.Value.
func (l *sizeList) String() string {
	var parts []string
	for _, n := range l.bytes {
		parts = append(parts, formatBytes(n))
	}
	return strings.Join(parts, ",")
}

// Type implements pflag.Value.
func (l *sizeList) Type() string { return "sizes" }

// formatBytes prints a byte count with a binary unit and up to two decimals.
func formatBytes(n int64) string {
	value, names := float64(n), []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for ; math.Abs(value) >= 1024 && i+1 < len(names); i++ {
		value /= 1024
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return strings.TrimSuffix(strings.TrimSuffix(strconv.FormatFloat(value, 'f', 2, 64), "0"), ".0") + " " + names[i]
}
