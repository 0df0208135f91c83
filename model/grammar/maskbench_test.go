package grammar_test

import (
	"bufio"
	"encoding/json"
	"flag"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/model/grammar"
)

// The file is not part of the tree: its texts have no licence file.
var maskbench = flag.String("maskbench", "", "test all schemas of this file, not one in ten of the one beside the tree")

type benchCase struct {
	ID     string
	Schema json.RawMessage
	Tests  []struct {
		Valid  bool
		Data   json.RawMessage
		Agrees *bool `json:"validator_agrees"`
	}
}

// benchCount is what came out.
type benchCount struct {
	schemas, unsupported, doubtful int
	accepted, refused              int // rightly
	wrong                          []string
	compile, masks                 []time.Duration
}

// TestMaskbench walks masks of 151,665 tokens along JSON texts that are known to be
// valid or not: those that are must be accepted to their end.
func TestMaskbench(t *testing.T) {
	path, every := *maskbench, 1
	if path == "" {
		path, every = "../../../shared/data/cases/maskbench_dev.jsonl", 10
	}
	f, err := os.Open(path)
	if err != nil && every > 1 {
		t.Skip("maskbench is not here")
	}
	require.NoError(t, err)
	defer f.Close()
	v := qwen(t)
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<24)
	var n benchCount
	for i := 0; lines.Scan(); i++ {
		if i%every != 0 {
			continue
		}
		var c benchCase
		require.NoError(t, json.Unmarshal(lines.Bytes(), &c))
		n.schema(t, v, &c)
	}
	require.NoError(t, lines.Err())
	t.Logf("%d schemas: %d unsupported; %d valid instances accepted, %d invalid refused, %d where validators differ; %d wrong",
		n.schemas, n.unsupported, n.accepted, n.refused, n.doubtful, len(n.wrong))
	t.Logf("compile p50 %v, p99 %v; mask of %d tokens p50 %v, p99 %v, max %v (%d masks)",
		quantile(n.compile, 0.5), quantile(n.compile, 0.99), v.tokenizer.VocabSize(), quantile(n.masks, 0.5), quantile(n.masks, 0.99), quantile(n.masks, 1), len(n.masks))
	require.Empty(t, n.wrong)
	require.NotZero(t, n.accepted)
	require.Less(t, n.unsupported, n.schemas/8)
}

func (n *benchCount) schema(t *testing.T, v *vocabulary, c *benchCase) {
	n.schemas++
	s, err := grammar.JSONSchema(c.Schema, "")
	require.NoError(t, err)
	begin := time.Now()
	g, err := v.Compile(s)
	n.compile = append(n.compile, time.Since(begin))
	if err != nil {
		require.NotEmpty(t, err.Error())
		t.Logf("%s: %v", c.ID, err)
		n.unsupported++
		return
	}
	for i, test := range c.Tests {
		ok := n.walk(t, v, g, string(test.Data))
		switch {
		case test.Agrees != nil && !*test.Agrees:
			n.doubtful++
		case ok != test.Valid:
			n.wrong = append(n.wrong, c.ID)
			t.Logf("%s, instance %d: accepted %v, valid %v\n%.2000s\n%.2000s", c.ID, i, ok, test.Valid, c.Schema, test.Data)
		case ok:
			n.accepted++
		default:
			n.refused++
		}
	}
}

// walk is accepts with a clock.
func (n *benchCount) walk(t *testing.T, v *vocabulary, g *grammar.Grammar, text string) bool {
	ids, err := v.tokenizer.EncodePlain(text)
	require.NoError(t, err)
	m, err := g.NewMatcher()
	require.NoError(t, err)
	defer m.Close()
	mask := make([]uint32, v.words)
	for _, id := range ids {
		begin := time.Now()
		_, must, err := m.Mask(mask)
		n.masks = append(n.masks, time.Since(begin))
		require.NoError(t, err)
		if must || !allows(mask, id) {
			return false
		}
		require.NoError(t, m.Accept(id))
	}
	may, _, err := m.Mask(mask)
	require.NoError(t, err)
	return may
}

func quantile(times []time.Duration, q float64) time.Duration {
	slices.Sort(times)
	return times[int(q*float64(len(times)-1))]
}
