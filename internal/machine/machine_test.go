package machine

import (
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

func files(m map[string]string) fstest.MapFS {
	root := fstest.MapFS{}
	for name, data := range m {
		root[name] = &fstest.MapFile{Data: []byte(data)}
	}
	return root
}

func TestMachineV2(t *testing.T) {
	root := files(map[string]string{
		"proc/self/cgroup":                  "0::/pod/app\n",
		"proc/meminfo":                      "MemTotal: 64 kB\nMemAvailable:   8000000 kB\n",
		"sys/fs/cgroup/pod/cpu.max":         "250000 100000\n",
		"sys/fs/cgroup/pod/app/cpu.max":     "max 100000\n",
		"sys/fs/cgroup/pod/memory.max":      "5000000\n",
		"sys/fs/cgroup/pod/memory.current":  "2000000\n",
		"sys/fs/cgroup/pod/memory.stat":     "anon 5\ninactive_file 600000\n",
		"sys/fs/cgroup/pod/app/memory.max":  "max\n",
		"sys/fs/cgroup/pod/app/memory.stat": "inactive_file 1\n",
	})
	require.Equal(t, 3, processorQuota(root), "2.5 processors are 3 threads")
	bytes, ok := memoryAvailable(root)
	require.True(t, ok)
	require.EqualValues(t, 3600000, bytes)

	root["sys/fs/cgroup/pod/memory.current"].Data = []byte("5600000\n")
	bytes, ok = memoryAvailable(root)
	require.True(t, ok, "that nothing is left is known")
	require.Zero(t, bytes)
	delete(root, "proc/meminfo")
	_, ok = memoryAvailable(root)
	require.False(t, ok)
}

func TestMachineV1(t *testing.T) {
	root := files(map[string]string{
		"proc/self/cgroup":                             "4:memory:/a\n2:cpu,cpuacct:/a\n0::/\n",
		"proc/meminfo":                                 "MemAvailable: 1000 kB\n",
		"sys/fs/cgroup/cpu/a/cpu.cfs_quota_us":         "-1\n",
		"sys/fs/cgroup/cpu/a/cpu.cfs_period_us":        "100000\n",
		"sys/fs/cgroup/memory/a/memory.limit_in_bytes": "9223372036854771712\n",
		"sys/fs/cgroup/memory/a/memory.usage_in_bytes": "1\n",
	})
	require.Zero(t, processorQuota(root), "no quota")
	bytes, ok := memoryAvailable(root)
	require.True(t, ok)
	require.EqualValues(t, 1000<<10, bytes)
}

func TestMachineHere(t *testing.T) {
	require.Positive(t, Processors())
	bytes, ok := AvailableMemory()
	require.True(t, ok)
	require.Positive(t, bytes)
	require.NotEmpty(t, ProcessorName())
}
