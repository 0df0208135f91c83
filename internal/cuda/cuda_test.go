//go:build cuda

package cuda

import (
	"runtime"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// TestNoDriver: without a driver there are zero devices, a reason, and errors
// instead of crashes.
func TestNoDriver(t *testing.T) {
	if Status() == "" {
		t.Skip("this machine has a driver")
	}
	require.Zero(t, Devices())
	require.Contains(t, Status(), "driver")
	_, err := Open(0)
	require.ErrorContains(t, err, Status())
	_, err = Malloc(1 << 20)
	require.ErrorContains(t, err, "cuMemAlloc")
	require.False(t, OutOfMemory(err))
	_, err = NewStream()
	require.Error(t, err)
	_, err = LoadModule("x")
	require.Error(t, err)
}

// device opens GPU 0 or skips.
func device(t *testing.T) *Device {
	if Devices() == 0 {
		t.Skip("no GPU: " + Status())
	}
	runtime.LockOSThread()
	d, err := Open(0)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

func TestDevice(t *testing.T) {
	d := device(t)
	require.NotEmpty(t, d.Name)
	require.Positive(t, d.SMs)
	require.Positive(t, d.SharedBytes)
	free, total, err := d.MemInfo()
	require.NoError(t, err)
	require.Greater(t, total, free)
	_, err = Open(99)
	require.ErrorContains(t, err, "99")
	require.NoError(t, d.Bind())
}

// TestRange grows, shrinks and grows a range under data that must stay, and
// fails to grow past the card without losing what it had.
func TestRange(t *testing.T) {
	d := device(t)
	s, err := NewStream()
	require.NoError(t, err)
	r, err := d.NewRange(4*d.TotalMemory, ChunkBytes)
	require.NoError(t, err)
	require.NoError(t, r.Resize(1))
	require.EqualValues(t, ChunkBytes, r.Backed())
	host, err := HostAlloc(4096)
	require.NoError(t, err)
	bytes := unsafe.Slice((*byte)(host), 4096)
	for i := range bytes {
		bytes[i] = byte(i * 7)
	}
	require.NoError(t, s.ToDevice(r.Base+ChunkBytes-4096, host, 4096))
	require.NoError(t, s.Sync())
	require.NoError(t, r.Resize(5*ChunkBytes))
	err = r.Resize(2 * d.TotalMemory)
	require.Error(t, err)
	require.True(t, OutOfMemory(err), err)
	require.EqualValues(t, 5*ChunkBytes, r.Backed())
	require.NoError(t, r.Resize(ChunkBytes))
	clear(bytes)
	require.NoError(t, s.ToHost(host, r.Base+ChunkBytes-4096, 4096))
	require.NoError(t, s.Sync())
	for i := range bytes {
		require.Equal(t, byte(i*7), bytes[i])
	}
	require.NoError(t, HostFree(host))
	require.NoError(t, r.Free())
	require.NoError(t, s.Destroy())
}

// TestBack: any parts of a range are backed, what stays keeps its content, and the
// memory of what goes really returns.
func TestBack(t *testing.T) {
	d := device(t)
	s, err := NewStream()
	require.NoError(t, err)
	r, err := d.NewRange(300*PatchBytes, PatchBytes)
	require.NoError(t, err)
	_, err = r.Back([]Span{{299 * PatchBytes, PatchBytes + 1}})
	require.Error(t, err, "past its end")
	fresh, err := r.Back([]Span{{5, 1}, {100 * PatchBytes, 200 * PatchBytes}, {7 * PatchBytes, 0}})
	require.NoError(t, err)
	require.Len(t, fresh, 201)
	require.EqualValues(t, 201*PatchBytes, r.Backed())
	word, err := HostAlloc(8)
	require.NoError(t, err)
	values := unsafe.Slice((*uint32)(word), 2)
	values[0] = 77
	require.NoError(t, s.ToDevice(r.Base+150*PatchBytes, word, 4))
	require.NoError(t, s.Sync())
	before, _, err := d.MemInfo()
	require.NoError(t, err)
	fresh, err = r.Back([]Span{{150 * PatchBytes, 4}, {2 * PatchBytes, 1}})
	require.NoError(t, err)
	require.Equal(t, []Span{{2 * PatchBytes, PatchBytes}}, fresh)
	after, _, err := d.MemInfo()
	require.NoError(t, err)
	require.GreaterOrEqual(t, after-before, int64(190*PatchBytes))
	require.NoError(t, s.ToHost(unsafe.Add(word, 4), r.Base+150*PatchBytes, 4))
	require.NoError(t, s.Sync())
	require.EqualValues(t, 77, values[1])
	require.NoError(t, HostFree(word))
	require.NoError(t, r.Free())
	require.NoError(t, s.Destroy())
}
