package tokenizer_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/model/tokenizer"
)

// smallJSON is a valid tokenizer.json: 256 bytes, six merges, three added
// tokens; NFC, Qwen2's way of splitting and ByteLevel.
var smallJSON = func() string {
	vocab := map[string]int{}
	next := 0x100
	for b := range 0x100 {
		r := rune(b)
		if !('!' <= b && b <= '~' || 0xA1 <= b && b <= 0xAC || 0xAE <= b) {
			r = rune(next)
			next++
		}
		vocab[string(r)] = b
	}
	merges := [][2]string{{"a", "b"}, {"ab", "c"}, {"h", "e"}, {"t", "he"}, {"Ġ", "the"}, {"t", "h"}}
	for i, m := range merges {
		vocab[m[0]+m[1]] = 256 + i
	}
	parts := []any{vocab, merges}
	texts := make([]any, len(parts))
	for i, p := range parts {
		text, err := json.Marshal(p)
		if err != nil {
			panic(err)
		}
		texts[i] = text
	}
	const byteLevel = `{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":false,"use_regex":false}`
	return fmt.Sprintf(`{"version":"1.0","truncation":null,"padding":null,"added_tokens":[`+
		`{"id":262,"content":"<|end|>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},`+
		`{"id":263,"content":"<tool>","single_word":false,"lstrip":false,"rstrip":true,"normalized":false,"special":false},`+
		`{"id":264,"content":"<n>","single_word":true,"lstrip":true,"rstrip":false,"normalized":true,"special":false}],`+
		`"normalizer":{"type":"NFC"},"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":`+
		`{"Regex":"(?i:'s|'t)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s+(?!\\S)|\\s+"},`+
		`"behavior":"Isolated","invert":false},`+byteLevel+`]},"post_processor":`+byteLevel+`,"decoder":`+byteLevel+`,`+
		`"model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":"","end_of_word_suffix":"",`+
		`"fuse_unk":false,"byte_fallback":false,"vocab":%s,"merges":%s}}`, texts...)
}()

const mutants = 2000

var mutantDir = flag.String("mutant-dir", "", "run the mutants in this directory (used by the test on its own child)")

// TestMutants opens 2,000 damaged tokenizer.json files in a child process, for
// Rust could abort it: each is refused with an error that names the file, or
// works.
func TestMutants(t *testing.T) {
	if *mutantDir != "" {
		for seed := range uint64(mutants) {
			fmt.Printf("mutant %d\n", seed)
			openMutant(t, *mutantDir, seed)
		}
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // a hang, not a slow machine
	defer cancel()
	out, err := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestMutants$", "-mutant-dir="+t.TempDir()).CombinedOutput()
	tail := out[max(0, len(out)-2000):]
	require.NoError(t, err, "%s", tail)
	require.Contains(t, string(out), fmt.Sprintf("mutant %d\n", mutants-1), "%s", tail)
	require.NotContains(t, string(out), "panicked at")
	refused := strings.Count(string(out), "refused")
	t.Logf("%d of %d refused", refused, mutants)
	require.Greater(t, refused, mutants/4, "the mutations damage too little")
	require.Less(t, refused, mutants, "the mutations damage too much")
}

func openMutant(t *testing.T, dir string, seed uint64) {
	path := filepath.Join(dir, "tokenizer.json")
	require.NoError(t, os.WriteFile(path, mutate(rand.New(rand.NewPCG(seed, 7))), 0o644))
	tok, err := tokenizer.Open(dir)
	if err != nil {
		require.ErrorContains(t, err, path)
		fmt.Println("refused")
		return
	}
	defer tok.Close()
	const text = "abc the <|end|> cab 12'S\n\n <tool>  <n> \u00e9\u4f60\U0001F600\x00"
	for _, encode := range []func(string) ([]int32, error){tok.Encode, tok.EncodePlain} {
		if ids, err := encode(text); err == nil {
			require.Equal(t, tok.Decode(ids, true), stream(tok, ids, true))
		}
	}
	for id := range int32(tok.VocabSize() + 1) {
		tok.Decode([]int32{id}, false)
	}
}

// mutate damages the text of the file (bytes) or its meaning (values).
func mutate(rng *rand.Rand) []byte {
	data := []byte(smallJSON)
	if rng.IntN(2) == 0 {
		for range 1 + rng.IntN(4) {
			at := rng.IntN(len(data))
			to := min(len(data), at+1+rng.IntN(40))
			switch rng.IntN(5) {
			case 0:
				data[at] ^= 1 << rng.IntN(8)
			case 1:
				data[at] = `0123456789-"{}[]:,\`[rng.IntN(19)]
			case 2:
				data = append(data[:at:at], data[to:]...)
			case 3:
				data = append(data[:to:to], data[at:]...)
			case 4:
				if rng.IntN(8) == 0 {
					data = data[:at]
				}
			}
			if len(data) == 0 {
				break
			}
		}
		return data
	}
	var tree any
	if err := json.Unmarshal(data, &tree); err != nil {
		panic(err)
	}
	for range 1 + rng.IntN(3) {
		tree = mutateValue(rng, tree)
	}
	data, err := json.Marshal(tree)
	if err != nil {
		panic(err)
	}
	return data
}

var junk = []any{
	nil, true, -1, 0, 1, 255, 262, 4294967295, 4294967296, 1e30, "", "a", "Ġ", "ab c", strings.Repeat("a", 300),
	"\x00", "(", "(a+)+$", "BPE", "ByteLevel", "WordPiece", "Unigram", "Metaspace", "Strip", "Replace", "Prepend", "Lowercase",
	"NFKD", "Fuse", "Sequence", "TemplateProcessing", "Digits", "Removed", []any{}, map[string]any{}, []any{"a", "b", "c"},
}

// mutateValue walks down to a random value and replaces, removes or doubles it.
func mutateValue(rng *rand.Rand, value any) any {
	replacement := junk[rng.IntN(len(junk))]
	switch v := value.(type) {
	case map[string]any:
		if len(v) == 0 || rng.IntN(12) == 0 {
			return replacement
		}
		keys := make([]string, 0, len(v))
		for key := range v {
			keys = append(keys, key)
		}
		slices.Sort(keys)
		key := keys[rng.IntN(len(keys))]
		if rng.IntN(10) == 0 {
			delete(v, key)
		} else {
			v[key] = mutateValue(rng, v[key])
		}
		return v
	case []any:
		if len(v) == 0 || rng.IntN(12) == 0 {
			return replacement
		}
		at := rng.IntN(len(v))
		switch rng.IntN(6) {
		case 0:
			return append(v[:at:at], v[at+1:]...)
		case 1:
			return append(v, v[at])
		}
		v[at] = mutateValue(rng, v[at])
		return v
	}
	return replacement
}
