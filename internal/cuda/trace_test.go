//go:build cuda

package cuda

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// library compiles a file of testdata with the headers that the package has.
func library(t *testing.T, source string) string {
	t.Helper()
	if _, err := exec.LookPath("gcc"); err != nil || !strings.Contains(os.Getenv("CGO_CFLAGS"), "-I") {
		t.Skip("no compiler here")
	}
	out := filepath.Join(t.TempDir(), "lib.so")
	args := append(strings.Fields(os.Getenv("CGO_CFLAGS")), "-w", "-shared", "-fPIC", "-o", out, filepath.Join("testdata", source))
	text, err := exec.Command("gcc", args...).CombinedOutput()
	require.NoError(t, err, string(text))
	return out
}

// TestTracer: every kind of record comes through with its fields, over more than
// one buffer, and a second trace begins empty.
func TestTracer(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	tracer, err := OpenTracer("/nowhere/libcupti.so.13", library(t, "cupti.c"))
	require.NoError(t, err)
	const ops = 5000
	for range 2 {
		require.NoError(t, tracer.Start())
		begin, err := tracer.Now()
		require.NoError(t, err)
		for id := range uint64(ops) {
			require.NoError(t, tracer.Push(id+1))
			require.NoError(t, tracer.Pop())
		}
		require.NoError(t, tracer.Stop())
		require.Positive(t, tracer.Dropped())
		records := tracer.Take()
		require.Len(t, records, 8*ops) // two links, three calls, copy, kernel, fill
		require.Empty(t, tracer.Take())
		first := records[:8]
		c := first[0].Correlation
		require.Equal(t, []Record{
			{Kind: LinkRecord, Correlation: c, External: 1},
			{Kind: CallRecord, Correlation: c, Start: begin, End: begin + 3},
			{Kind: CopyRecord, Name: "HtoD", Correlation: c, Start: begin + 10, End: begin + 15, Device: 1, Context: 2, Stream: 7, Bytes: 4096},
			{Kind: LinkRecord, Correlation: c + 1, External: 1},
			{Kind: CallRecord, Correlation: c + 1, Start: begin + 10, End: begin + 13},
			{
				Kind: KernelRecord, Name: "gemm", Correlation: c + 1, Start: begin + 20, End: begin + 120, Device: 1, Context: 2, Stream: 7,
				Grid: [3]int32{132, 2, 1}, CTA: [3]int32{384, 1, 1}, Registers: 168, StaticShared: 1024, DynamicShared: 200000, InGraph: true,
			},
			{Kind: CallRecord, Correlation: c + 2, Start: begin + 20, End: begin + 23},
			{Kind: SetRecord, Correlation: c + 2, Start: begin + 30, End: begin + 31, Device: 1, Stream: 7, Bytes: 64},
		}, first)
	}
}

// TestTracerMissing: what cannot be loaded is told by its loader, path by path.
func TestTracerMissing(t *testing.T) {
	_, err := OpenTracer("/nowhere/libcupti.so.13", "libm.so.6")
	require.ErrorContains(t, err, "/nowhere/libcupti.so.13")
	require.ErrorContains(t, err, "libm.so.6 has no cuptiActivityRegisterCallbacks")
}

// TestRanges runs itself under a tool.
func TestRanges(t *testing.T) {
	const inner = "PAGODA_TEST_RANGES"
	if os.Getenv(inner) != "" {
		runtime.LockOSThread()
		r := OpenRanges()
		for range 2 {
			r.Push("step")
			r.Push("qkv")
			r.Pop()
			r.Pop()
		}
		r.Close()
		return
	}
	require.Nil(t, OpenRanges(), "no tool is attached")
	OpenRanges().Push("nothing happens")
	OpenRanges().Pop()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestRanges$")
	cmd.Env = append(os.Environ(), inner+"=1", "NVTX_INJECTION64_PATH="+library(t, "nvtx.c"))
	var out strings.Builder
	cmd.Stderr = &out
	require.NoError(t, cmd.Run())
	require.Equal(t, strings.Repeat("<step<qkv>>", 2), out.String())
}
