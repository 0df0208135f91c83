package lint

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/pagoda-engine/pagoda/"

// importTable says which packages of ours a package may import in its non-test
// files; what is absent is forbidden. A name ending in /... stands for a tree.
// internal/invariant is a leaf that anyone may import.
var importTable = map[string][]string{
	"cmd/pagoda":           {"bench", "engine", "model", "model/demo", "model/tokenizer", "model/chat", "scheduler", "kvcache", "internal/server", "internal/sim", "internal/nvml", "internal/otlp", "internal/hub"},
	"cmd/pagoda-verify":    {"engine", "model", "model/tokenizer", "model/chat"},
	"bench":                {"engine", "scheduler", "kvcache", "model/tokenizer", "kernels", "internal/nvml", "internal/sim"},
	"internal/server":      {"engine", "model/tokenizer", "model/chat", "model/grammar", "internal/nvml", "internal/otlp"},
	"internal/sim":         {"engine", "scheduler", "kvcache"},
	"engine":               {"scheduler", "kvcache", "model", "model/demo", "kernels", "kernels/cpu", "kernels/cuda", "internal/nvml"},
	"scheduler":            {"kvcache"},
	"kvcache":              {"kernels"}, // store.go alone, see below
	"model":                {"kernels"},
	"kernels/cuda":         {"kernels", "internal/cuda"},
	"kernels/cpu":          {"kernels", "internal/machine"},
	"kernels/kernelstest":  {"kernels"},
	"kernels":              {},
	"model/demo":           {},
	"model/tokenizer":      {"internal/regular"},
	"model/chat":           {"internal/regular"},
	"model/grammar":        {},
	"internal/cuda":        {"internal/machine"},
	"internal/machine":     {},
	"internal/nvml":        {"internal/cuda"},
	"internal/otlp":        {},
	"internal/hub":         {},
	"internal/invariant":   {},
	"internal/regular":     {},
	"internal/lint":        {},
	"internal/mutants":     {},
	"examples/embed":       {"engine", "model/tokenizer", "model/chat"},
	"scripts/demo_model":   {},
	"third_party/licenses": {},
}

// restricted lists modules that only the named packages may import.
var restricted = map[string][]string{
	"github.com/gomlx/":             {"cmd/pagoda-verify", "internal/hub"},
	"go.yaml.in/":                   {"cmd/pagoda"},
	"gorgonia.org/cu":               {"internal/cuda", "kernels/cuda"},
	"github.com/daulet/tokenizers":  {"model/tokenizer"},
	"github.com/nikolalohinski/":    {"model/chat"},
	"github.com/spf13/cobra":        {"cmd/pagoda", "cmd/pagoda-verify"},
	"github.com/prometheus/":        {"internal/server"},
	"github.com/NVIDIA/go-nvml":     {"internal/nvml"},
	"github.com/schollz/":           {"cmd/pagoda", "cmd/pagoda-verify", "bench"},
	"github.com/jedib0t/go-pretty/": {"cmd/pagoda", "cmd/pagoda-verify", "bench"},
	"gonum.org/v1/plot":             {"bench"},
}

// goFiles calls f for each Go file of the module, with its package directory
// relative to the root.
func goFiles(t *testing.T, f func(dir, path string)) {
	t.Helper()
	const root = "../.."
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			switch name := d.Name(); {
			case path != root && strings.HasPrefix(name, "."), name == "testdata", name == "dist", name == "bin":
				return filepath.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(path, ".go") {
			rel, err := filepath.Rel(root, filepath.Dir(path))
			if err != nil {
				return err
			}
			f(filepath.ToSlash(rel), path)
		}
		return nil
	})
	require.NoError(t, err)
}

func TestImportTable(t *testing.T) {
	seen := 0
	goFiles(t, func(dir, path string) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		require.NoError(t, err)
		allowed, known := importTable[dir]
		require.True(t, known, "%s: package %q is not in the import table of internal/lint", path, dir)
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			require.NoError(t, err)
			for prefix, users := range restricted {
				if strings.HasPrefix(imported, prefix) {
					require.Contains(t, users, dir, "%s imports %s, which only %v may", path, imported, users)
				}
			}
			ours, ok := strings.CutPrefix(imported, module)
			if !ok || ours == "internal/invariant" {
				continue
			}
			seen++
			require.Contains(t, allowed, ours, "%s: %s may not import %s", path, dir, ours)
			if dir == "kvcache" {
				require.Equal(t, "store.go", filepath.Base(path), "only kvcache/store.go may import %s", ours)
			}
		}
	})
	require.Greater(t, seen, 10, "the walk found too few imports to mean anything")
}

// TestExportedAreDocumented wants a doc comment on every exported declaration
// and a package comment on every package.
func TestExportedAreDocumented(t *testing.T) {
	packages := map[string]bool{}
	goFiles(t, func(dir, path string) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		require.NoError(t, err)
		packages[dir] = packages[dir] || file.Doc != nil
		for _, missing := range undocumented(file) {
			t.Errorf("%s: exported %s has no doc comment", path, missing)
		}
	})
	for dir, documented := range packages {
		if !documented {
			t.Errorf("package %s has no package comment", dir)
		}
	}
}

// TestNoStrayText looks for what must not be in the tree.
func TestNoStrayText(t *testing.T) {
	stray := []string{"/work" + "/", "TODO" + ":", "FIX" + "ME", "XX" + "X:"}
	goFiles(t, func(_, path string) {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, s := range stray {
			if strings.Contains(string(text), s) {
				t.Errorf("%s contains %q", path, s)
			}
		}
	})
}
