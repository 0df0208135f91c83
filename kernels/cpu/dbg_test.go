package cpu

import (
	"fmt"
	"testing"

	"github.com/pagoda-engine/pagoda/kernels"
)

func TestDbg(t *testing.T) {
	m := newTiny(t, Config{ISA: "avx512", Threads: 1})
	var first [][]float32
	for rep := range 3 {
		if rep == 1 {
			m.reset(8)
			for n := 1; n <= 100; n++ {
				m.Wait(m.decode(8, n))
			}
		}
		m.reset(8)
		for n := 1; n <= 64; n++ {
			var taps [][]float32
			var names []string
			if n == 64 {
				m.SetTap(func(op kernels.Op, l int, a kernels.Activation, v []float32) {
					taps = append(taps, append([]float32(nil), v...))
					names = append(names, fmt.Sprint(op, l))
				})
			}
			r, _ := m.Wait(m.decode(8, n))
			if n == 64 {
				fmt.Println(r.Logprobs, r.Tokens)
				if rep == 0 {
					first = taps
				} else {
					for i := range taps {
						c := 0
						at := -1
						for j := range taps[i] {
							if taps[i][j] != first[i][j] {
								c++
								if at < 0 {
									at = j
								}
							}
						}
						fmt.Println(names[i], len(taps[i]), c, at)
					}
				}
				m.SetTap(nil)
			}
		}
	}
}
