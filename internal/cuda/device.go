//go:build cuda

package cuda

// #include "driver.h"
import "C"

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
	"gorgonia.org/cu"
)

// Error is a driver call that failed.
type Error struct {
	Call string // name of the call
	Code int    // CUresult
}

// Error names the call and says what the driver says.
func (e *Error) Error() string {
	var name, text *C.char
	if C.cuGetErrorName(C.CUresult(e.Code), &name) != 0 || C.cuGetErrorString(C.CUresult(e.Code), &text) != 0 {
		return fmt.Sprintf("%s: CUDA error %d", e.Call, e.Code)
	}
	return fmt.Sprintf("%s: %s (%s)", e.Call, C.GoString(text), C.GoString(name))
}

// OutOfMemory says whether err is a driver call, or one of the system, that found no memory.
func OutOfMemory(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == C.CUDA_ERROR_OUT_OF_MEMORY || errors.Is(err, unix.ENOMEM)
}

// check is nil for CUDA_SUCCESS.
func check(call string, code C.int) error {
	if code == C.CUDA_SUCCESS {
		return nil
	}
	return &Error{Call: call, Code: int(code)}
}

// Devices is the number of GPUs; 0 without a driver.
func Devices() int {
	n, err := cu.NumDevices()
	if err != nil {
		return 0
	}
	return n
}

// BusID is where the GPU of that number is on the PCI bus, as the management library writes it:
// its numbers are others where CUDA_VISIBLE_DEVICES or CUDA_DEVICE_ORDER say so.
func BusID(ordinal int) (string, error) {
	dev, err := cu.GetDevice(ordinal)
	if err != nil {
		return "", fmt.Errorf("GPU %d: %w", ordinal, err)
	}
	var at [3]int
	for i, attribute := range []cu.DeviceAttribute{C.CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID, C.CU_DEVICE_ATTRIBUTE_PCI_BUS_ID, C.CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID} {
		if at[i], err = dev.Attribute(attribute); err != nil {
			return "", fmt.Errorf("GPU %d: %w", ordinal, err)
		}
	}
	return fmt.Sprintf("%08x:%02x:%02x.0", at[0], at[1], at[2]), nil
}

// Status says why there is no driver; "" when there is one.
func Status() string { return C.GoString(C.pagoda_cuda_status()) }

// Device is a GPU with its primary context.
type Device struct {
	Name         string
	TotalMemory  int64 // bytes
	Major, Minor int   // compute capability
	SMs          int   // multiprocessors
	L2Bytes      int
	SharedBytes  int // that a CTA can have at most
	WarpSize     int

	// Of a multiprocessor, and of a CTA.
	ThreadsPerSM, CTAsPerSM, RegistersPerSM, SharedPerSM int
	ThreadsPerCTA, RegistersPerCTA, ReservedShared       int

	ClockKHz, MemoryClockKHz int // greatest
	BusBits                  int // of the memory

	dev cu.Device
	ctx cu.CUContext
}

// Open retains the primary context of the GPU of that number and makes it
// current on this OS thread.
func Open(ordinal int) (*Device, error) {
	if n := Devices(); ordinal < 0 || ordinal >= n {
		if s := Status(); s != "" {
			return nil, errors.New(s)
		}
		return nil, fmt.Errorf("GPU %d: there are %d", ordinal, n)
	}
	dev, err := cu.GetDevice(ordinal)
	if err != nil {
		return nil, fmt.Errorf("GPU %d: %w", ordinal, err)
	}
	d := &Device{dev: dev}
	if err := d.describe(); err != nil {
		return nil, fmt.Errorf("GPU %d: %w", ordinal, err)
	}
	if d.ctx, err = dev.RetainPrimaryCtx(); err != nil {
		return nil, fmt.Errorf("GPU %d (%s): primary context: %w", ordinal, d.Name, err)
	}
	return d, d.Bind()
}

func (d *Device) describe() (err error) {
	if d.Name, err = d.dev.Name(); err != nil {
		return err
	}
	if d.TotalMemory, err = d.dev.TotalMem(); err != nil {
		return err
	}
	for attribute, to := range map[cu.DeviceAttribute]*int{
		cu.ComputeCapabilityMajor: &d.Major, cu.ComputeCapabilityMinor: &d.Minor,
		cu.MultiprocessorCount: &d.SMs, cu.L2CacheSize: &d.L2Bytes,
		C.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:    &d.SharedBytes,
		C.CU_DEVICE_ATTRIBUTE_WARP_SIZE:                            &d.WarpSize,
		C.CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR:       &d.ThreadsPerSM,
		C.CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR:        &d.CTAsPerSM,
		C.CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR:     &d.RegistersPerSM,
		C.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: &d.SharedPerSM,
		C.CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK:                &d.ThreadsPerCTA,
		C.CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK:              &d.RegistersPerCTA,
		C.CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK:     &d.ReservedShared,
		C.CU_DEVICE_ATTRIBUTE_CLOCK_RATE:                           &d.ClockKHz,
		C.CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE:                    &d.MemoryClockKHz,
		C.CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH:              &d.BusBits,
	} {
		if *to, err = d.dev.Attribute(attribute); err != nil {
			return err
		}
	}
	return nil
}

// Bind makes the context current on this OS thread.
func (d *Device) Bind() error { return cu.SetCurrentContext(d.ctx) }

// MemInfo is the free and the total memory of the device, in bytes, now.
func (d *Device) MemInfo() (free, total int64, err error) {
	var f, t C.size_t
	err = check("cuMemGetInfo", C.int(C.cuMemGetInfo(&f, &t)))
	return int64(f), int64(t), err
}

// Close gives the primary context back.
func (d *Device) Close() error { return d.dev.ReleasePrimaryCtx() }

// raw is the handle in one of cu's one-pointer structs.
func raw[T any](handle *T) C.uintptr_t {
	return *(*C.uintptr_t)(unsafe.Pointer(handle))
}

// The structs that raw reads are one pointer.
var (
	_ [unsafe.Sizeof(uintptr(0))]byte = [unsafe.Sizeof(cu.Stream{})]byte{}
	_ [unsafe.Sizeof(uintptr(0))]byte = [unsafe.Sizeof(cu.Event{})]byte{}
	_ [unsafe.Sizeof(uintptr(0))]byte = [unsafe.Sizeof(cu.Function{})]byte{}
)
