//go:build cuda

package cuda

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	kernelName  = regexp.MustCompile(`extern "C" __global__ void(?: __launch_bounds__\([^{;]*?\))? (\w+)\(`)
	constantOf  = regexp.MustCompile(`grid\("(\w+)", "(\w+)",`)
	cudaHeaders = []string{"cuda_fp16.h", "cuda_bf16.h", "cstddef", "cstdint"}
)

// kernelsOf are the kernels of an image by its source: macros make most of them, so the preprocessor is asked. What
// they are made of it need not know.
func kernelsOf(t *testing.T, headers, image string) map[string]bool {
	text, err := exec.Command("gcc", "-E", "-P", "-x", "c++", "-nostdinc", "-I", headers, "-D__CUDA_ARCH_FEAT_SM90_ALL", image+".cu").Output()
	require.NoError(t, err)
	names := map[string]bool{}
	for _, m := range kernelName.FindAllSubmatch(text, -1) {
		names[string(m[1])] = true
	}
	require.NotEmpty(t, names, image)
	return names
}

// TestKernelsExist: each kernel that a plan may name is in the source of its image. A GPU would say so at the
// first launch, which for some ways is a batch that no test has.
func TestKernelsExist(t *testing.T) {
	headers := t.TempDir()
	for _, h := range cudaHeaders {
		require.NoError(t, os.WriteFile(filepath.Join(headers, h), nil, 0o644))
	}
	images := map[string]map[string]bool{}
	exists := func(image, kernel string) {
		if images[image] == nil {
			images[image] = kernelsOf(t, headers, image)
		}
		require.True(t, images[image][kernel], "%s.cu has no %s", image, kernel)
	}

	sources, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, name := range sources {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		for _, m := range constantOf.FindAllSubmatch(text, -1) {
			exists(string(m[1]), string(m[2]))
		}
	}
	for _, a := range append(hoppers, archs...) {
		for _, s := range gemmShapes() {
			for _, s.kind = range []epilogueKind{epilogueStore, epilogueResidual, epilogueSwiGLU, epilogueQKV} {
				ways, same := candidates(s, a), s
				same.invariant = true
				for _, s := range []gemmShape{s, same} {
					plan, ok := planProduct(s, a)
					require.True(t, ok, "%+v", s)
					ways = append(ways, candidate{productPlan: plan})
				}
				for _, way := range ways {
					exists(way.image, way.of(s.kind).kernel)
					if normed, ok := normedLaunch(way.gemmPlan, s, s.k); ok {
						exists(normed.image, normed.of(s.kind).kernel)
					}
				}
				exists("gemm_plain", planGemmPlain(s).kernel)
			}
		}
		for _, headDim := range []int{64, 128} {
			for _, tokens := range []int32{20, 200, 3000} {
				for _, invariant := range []bool{false, true} {
					b := prefillBatch{queryStart: []int32{0, tokens}, lens: []int32{tokens + 30000}}
					p, _ := planAttentionPrefill(attentionShape{heads: 14, kvHeads: 2, headDim: headDim}, a, b, invariant)
					exists(p.layer.image, p.layer.kernel)
					if p.per > 0 {
						exists(p.merge.image, p.merge.kernel)
					}
				}
			}
		}
	}
	for _, w := range decodeWays {
		exists("attention_decode", w.kernel)
		exists("attention_decode", w.kernel+clustersSuffix)
	}
	for _, hidden := range []int{896, 3584, 8192} {
		l := planRMSNorm(1, hidden)
		exists(l.image, l.kernel)
	}
}
