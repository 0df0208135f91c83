package kernelstest

import (
	"fmt"
	"math"

	"github.com/pagoda-engine/pagoda/kernels"
)

// Tolerance is how far a Backend's output may be from the Oracle's. A row x of
// an output against the Oracle's y passes when
//
//	|x[i] − y[i]| ≤ Rel·|y[i]| + Abs·rms(y) for each i, and
//	1 − 2⟨x,y⟩/(|x|²+|y|²) ≤ Diff
type Tolerance struct {
	Rel, Abs, Diff float64
	// Flips is the share of KV elements that may be the neighbouring number of the
	// pool's type: those whose exact value lies near the middle of two.
	Flips float64
	// Margin is the least margin (see Draw) at which tokens of a whole forward
	// pass must be the Oracle's.
	Margin float64
	// LossyWeights says that weights are coarser than bfloat16: a look-up in a tied
	// embedding is not exact, and whole passes choose other tokens than the Oracle.
	LossyWeights bool
	// Activations is what inputs are rounded to: the type that activations have, or enter
	// products in. FP32: they are not.
	Activations kernels.DType
	// NoQKNorm says that the Backend refuses LinearSpec.QKNorm.
	NoQKNorm bool
}

// Float32 is for Backends that keep activations in float32: what is left is the
// rounding of sums of up to 5,000 products.
func Float32() Tolerance {
	return Tolerance{Rel: 1e-5, Abs: 2e-5, Diff: 1e-10, Flips: 0.01, Margin: 0.05, Activations: kernels.FP32}
}

// Float16 is for Backends that round activations, and probabilities before the
// product with V, to float16 (11 bits of mantissa).
func Float16() Tolerance {
	return Tolerance{Rel: 1.0 / 1024, Abs: 1.0 / 512, Diff: 1e-6, Flips: 0.02, Margin: 0.05, Activations: kernels.FP16}
}

// bfloat16 is what one rounding to bfloat16 (8 bits of mantissa) moves.
func bfloat16() Tolerance {
	return Tolerance{Rel: 1.0 / 128, Abs: 1.0 / 64, Diff: 5e-5}
}

// BFloat16Products is for Backends that keep activations in float32 and round what
// enters a matrix product to bfloat16.
func BFloat16Products() Tolerance {
	return Tolerance{Rel: 1.0 / 256, Abs: 1.0 / 128, Diff: 1e-5, Flips: 0.02, Margin: 0.1, Activations: kernels.BF16}
}

// Int8Weights is for Backends that keep linear weights and what enters a product
// with them as int8: 7 bits below the largest of a row and of a group. What a whole
// model loses by it, its perplexity tells.
func Int8Weights() Tolerance {
	return Tolerance{Rel: 1.0 / 32, Abs: 1.0 / 8, Diff: 1e-3, Flips: 1, LossyWeights: true, Activations: kernels.FP32}
}

// compare returns what is wrong with the rows of got, or nil.
func (tol Tolerance) compare(got, want []float32, width int) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d values, want %d", len(got), len(want))
	}
	for at := 0; at < len(want); at += width {
		x, y := got[at:at+width], want[at:at+width]
		var xx, yy, xy float64
		for i := range y {
			a, b := float64(x[i]), float64(y[i])
			xx, yy, xy = xx+a*a, yy+b*b, xy+a*b
		}
		rms := math.Sqrt(yy / float64(width))
		for i := range y {
			limit := tol.Rel*math.Abs(float64(y[i])) + tol.Abs*rms
			// The negation makes a NaN fail.
			if err := math.Abs(float64(x[i]) - float64(y[i])); !(err <= limit) {
				return fmt.Errorf("row %d, element %d: %v, want %v; off by %.3g, allowed %.3g (rms %.3g)",
					at/width, i, x[i], y[i], err, limit, rms)
			}
		}
		if diff := 1 - 2*xy/(xx+yy); diff > tol.Diff {
			return fmt.Errorf("row %d: difference %.3g, allowed %.3g", at/width, diff, tol.Diff)
		}
	}
	return nil
}

// compareKV compares elements of a pool: equal bits, any NaN for a NaN, or, for
// a share of Flips, the same within one unit of the last place or (near zero) within
// Abs of the root mean square. Abs is stated for elements of bfloat16; for float16, whose
// units are an eighth, it is an eighth, unless it is there for coarser weights.
func (tol Tolerance) compareKV(dtype kernels.DType, got, want []uint16) error {
	unit := 1.0 / 128
	if dtype == kernels.FP16 {
		unit = 1.0 / 1024
	}
	sum, n, flips := 0.0, 0, 0
	for _, bits := range want {
		if v := float64(dtype.Float(bits)); !math.IsNaN(v) {
			sum, n = sum+v*v, n+1
		}
	}
	abs := tol.Abs * math.Sqrt(sum/math.Max(1, float64(n)))
	if !tol.LossyWeights {
		abs *= 128 * unit
	}
	for i, bits := range want {
		x, y := float64(dtype.Float(got[i])), float64(dtype.Float(bits))
		if got[i] == bits || math.IsNaN(x) && math.IsNaN(y) {
			continue
		}
		if err := math.Abs(x - y); !(err <= math.Abs(y)*unit+abs) {
			return fmt.Errorf("KV element %d: %v, want %v", i, x, y)
		}
		flips++
	}
	if limit := 1 + tol.Flips*float64(n); float64(flips) > limit {
		return fmt.Errorf("%d of %d KV elements are rounded otherwise, allowed %.0f", flips, n, limit)
	}
	return nil
}
