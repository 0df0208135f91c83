// Package machine says what the process may really use of the machine: processors and memory
// that affinity and cgroups leave to it.
package machine

import (
	"io/fs"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
)

// Linux's files under "/" are read as fs.FS so that tests can make their own.

// Processors is the number of processors that affinity and the cgroup
// leave to the process.
func Processors() int {
	n := runtime.NumCPU() // affinity
	if quota := processorQuota(os.DirFS("/")); quota > 0 && quota < n {
		n = quota
	}
	return n
}

// AvailableMemory is the memory that the process could take without swapping,
// in bytes: what the machine has available, or less by its cgroups' limits. Where ok is
// false it is not known.
func AvailableMemory() (bytes int64, ok bool) { return memoryAvailable(os.DirFS("/")) }

// ProcessorName is the model name in /proc/cpuinfo.
func ProcessorName() string {
	b, _ := fs.ReadFile(os.DirFS("/"), "proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// cgroupDirs lists the process's directories in the hierarchy of a controller,
// innermost first, up to the root: version 2's, then version 1's.
func cgroupDirs(root fs.FS, controller string) (v2, v1 []string) {
	b, _ := fs.ReadFile(root, "proc/self/cgroup")
	for line := range strings.Lines(string(b)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		mount, list := "", &v1
		switch {
		case fields[0] == "0" && fields[1] == "":
			mount, list = "sys/fs/cgroup", &v2
		case strings.Contains(","+fields[1]+",", ","+controller+","):
			mount = "sys/fs/cgroup/" + controller
		default:
			continue
		}
		for dir := path.Clean("/" + fields[2]); ; dir = path.Dir(dir) {
			*list = append(*list, path.Join(mount, dir))
			if dir == "/" {
				break
			}
		}
	}
	return v2, v1
}

// readInt reads a number from a file; ok is false for "max" and missing files.
func readInt(root fs.FS, name string) (n int64, ok bool) {
	b, err := fs.ReadFile(root, name)
	if err != nil {
		return 0, false
	}
	n, err = strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n, err == nil
}

// processorQuota is the tightest CPU quota in whole processors, rounded up; 0 =
// none.
func processorQuota(root fs.FS) int {
	least := 0
	apply := func(quota, period int64) {
		if quota > 0 && period > 0 {
			if n := int((quota + period - 1) / period); least == 0 || n < least {
				least = n
			}
		}
	}
	v2, v1 := cgroupDirs(root, "cpu")
	for _, dir := range v2 {
		b, _ := fs.ReadFile(root, dir+"/cpu.max")
		if quota, period, ok := strings.Cut(strings.TrimSpace(string(b)), " "); ok {
			q, _ := strconv.ParseInt(quota, 10, 64) // "max" is 0: no quota
			p, _ := strconv.ParseInt(period, 10, 64)
			apply(q, p)
		}
	}
	for _, dir := range v1 {
		quota, _ := readInt(root, dir+"/cpu.cfs_quota_us")
		period, _ := readInt(root, dir+"/cpu.cfs_period_us")
		apply(quota, period)
	}
	return least
}

// tableValue finds a number in lines of "name value" or "name: value kB".
func tableValue(root fs.FS, file, name string) int64 {
	b, _ := fs.ReadFile(root, file)
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) >= 2 && strings.TrimSuffix(f[0], ":") == name {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			if len(f) == 3 && f[2] == "kB" {
				n <<= 10
			}
			return n
		}
	}
	return 0
}

// memoryAvailable is the least of the machine's available memory and what each
// cgroup's limit leaves. Inactive file pages count as free: the kernel drops
// them first.
func memoryAvailable(root fs.FS) (bytes int64, ok bool) {
	least := tableValue(root, "proc/meminfo", "MemAvailable")
	if least == 0 {
		return 0, false
	}
	apply := func(dir, limitFile, usageFile, inactive string) {
		limit, ok := readInt(root, dir+"/"+limitFile)
		if !ok {
			return
		}
		usage, _ := readInt(root, dir+"/"+usageFile)
		left := limit - usage + tableValue(root, dir+"/memory.stat", inactive)
		least = max(0, min(least, left))
	}
	v2, v1 := cgroupDirs(root, "memory")
	for _, dir := range v2 {
		apply(dir, "memory.max", "memory.current", "inactive_file")
	}
	for _, dir := range v1 {
		apply(dir, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
	}
	return least, true
}
