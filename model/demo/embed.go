//go:build !nodemo

package demo

import (
	"embed"
	"io/fs"
)

//go:embed config.json generation_config.json tokenizer.json tokenizer_config.json demo.safetensors
var embedded embed.FS

var files fs.ReadFileFS = embedded
