// Package demo holds the demo model: a chat model of 14 million parameters in
// Qwen2's architecture, small enough to lie in the binary. docs/demo-model.md
// says what it was made from and what it can do.
//
// The files are those of a model directory, but for the weights: WeightsFile is
// a safetensors file whose matrices are int8 with a scale a row, which
// model.OpenQuantized reads. The build tag nodemo leaves all of it out.
package demo

import (
	"errors"
	"io/fs"
)

// Name is the MODEL argument that means this model.
const Name = "demo"

// WeightsFile is the name of the weights in Files.
const WeightsFile = "demo.safetensors"

// ErrLeftOut says that the binary was built without the model.
var ErrLeftOut = errors.New("this binary was built without the demo model (build tag nodemo)")

// Files gives the files by name: config.json, generation_config.json,
// tokenizer.json, tokenizer_config.json and WeightsFile.
func Files() (fs.ReadFileFS, error) {
	if files == nil {
		return nil, ErrLeftOut
	}
	return files, nil
}
