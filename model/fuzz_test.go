package model

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Each target is run on its committed corpus (testdata/fuzz) by go test, and
// explores with go test -fuzz=FuzzConfig ./model.

func FuzzConfig(f *testing.F) {
	addConfigs(f, ConfigFile)
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseConfig("dir/config.json", data)
		if err != nil {
			requireFileError(t, err)
			return
		}
		require.Positive(t, c.Parameters())
		require.Positive(t, c.KVBytesPerToken())
		require.Positive(t, c.MaxModelLen())
		require.LessOrEqual(t, c.MaxModelLen(), maxPositions)
		scale := float64(c.AttentionScale())
		require.False(t, math.IsNaN(scale) || math.IsInf(scale, 0) || scale <= 0, "scale %g", scale)
		freq := c.InvFreq()
		require.Len(t, freq, c.HeadDim/2)
		for _, v := range freq {
			require.True(t, v > 0 && v <= 1, "frequency %g", v)
		}
	})
}

func FuzzGenerationConfig(f *testing.F) {
	addConfigs(f, GenerationConfigFile)
	f.Fuzz(func(t *testing.T, data []byte) {
		g, err := ParseGenerationConfig("dir/generation_config.json", data, 1000)
		if err != nil {
			requireFileError(t, err)
			return
		}
		for _, id := range g.EOSTokenIDs {
			require.True(t, id >= 0 && id < 1000)
		}
		require.True(t, g.TopP == nil || *g.TopP > 0 && *g.TopP <= 1)
	})
}

// FuzzHeader reads whole files, as OpenCheckpoint does.
func FuzzHeader(f *testing.F) {
	c := tinyConfig(f, true)
	c.NumLayers = 1
	f.Add(encode(tinyTensors(c, "BF16")))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := headerLength("dir/model.safetensors", data, int64(len(data)))
		if err != nil {
			requireFileError(t, err)
			return
		}
		infos, err := parseHeader("dir/model.safetensors", data[prefixBytes:prefixBytes+n], int64(len(data)))
		if err != nil {
			requireFileError(t, err)
			return
		}
		at := int64(prefixBytes + n)
		for _, info := range infos {
			require.Equal(t, at, info.begin)
			require.Equal(t, elements(info.shape)*int64(elementBytes[info.dtype]), info.end-info.begin)
			at = info.end
		}
		require.Equal(t, int64(len(data)), at)
	})
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"metadata":{"total_size":4},"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		index, err := parseIndex("dir/model.safetensors.index.json", data)
		if err != nil {
			requireFileError(t, err)
			return
		}
		for _, file := range index {
			require.True(t, filepath.IsLocal(file))
			require.Equal(t, file, filepath.Base(file))
		}
	})
}

func addConfigs(f *testing.F, file string) {
	names, err := filepath.Glob(filepath.Join("testdata", "*", file))
	require.NoError(f, err)
	require.NotEmpty(f, names)
	for _, name := range names {
		data, err := os.ReadFile(name)
		require.NoError(f, err)
		f.Add(data)
	}
}

// requireFileError checks that an error names its file and fields.
func requireFileError(t *testing.T, err error) {
	var fe *FileError
	require.True(t, errors.As(err, &fe), "%v", err)
	requireNamed(t, mutant{}, "dir", err)
}
