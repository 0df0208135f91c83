package chat

import "github.com/pagoda-engine/pagoda/internal/regular"

// maxFile bounds tokenizer_config.json and a file with a template. Those of published
// models are below 300 KiB; New takes maxSource of a template.
const maxFile = 1 << 20

// ReadSource reads a template that a person names, for New; it may come from a pipe.
func ReadSource(path string) (string, error) {
	text, err := regular.ReadNamed(path, maxFile)
	return string(text), err
}
