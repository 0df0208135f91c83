package tokenizer

import (
	"path/filepath"

	"github.com/pagoda-engine/pagoda/internal/regular"
)

// maxFile bounds a tokenizer.json; the largest of published models, with 256 Ki tokens,
// are 33 MiB.
const maxFile = 64 << 20

// ReadFile reads dir/tokenizer.json, for PeekVocabSize.
func ReadFile(dir string) ([]byte, error) {
	return regular.ReadFile(filepath.Join(dir, "tokenizer.json"), maxFile)
}
