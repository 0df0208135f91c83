package tokenizer_test

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	daulet "github.com/daulet/tokenizers"
	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/model/tokenizer"
)

const testdata = "../../testdata/tokenizer/"

var qwenJSON = sync.OnceValues(func() ([]byte, error) {
	f, err := os.Open(testdata + "qwen2.5-tokenizer.json.gz")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
})

var qwenOnce = sync.OnceValues(func() (*tokenizer.Tokenizer, error) {
	data, err := qwenJSON()
	if err != nil {
		return nil, err
	}
	return tokenizer.New(data)
})

// qwen returns the Qwen2.5 tokenizer, built once for all tests.
func qwen(t testing.TB) *tokenizer.Tokenizer {
	tok, err := qwenOnce()
	require.NoError(t, err)
	return tok
}

// vector is one case of the tok_*.json files.
type vector struct {
	Text               *string `json:"text"`
	IDs                []int32 `json:"ids"`
	Decoded            *string `json:"decoded"`
	DecodedSkipSpecial *string `json:"decoded_skip_special"`
}

func readVectors(t *testing.T, name string, want int) []vector {
	data, err := os.ReadFile(testdata + name)
	require.NoError(t, err)
	var vectors []vector
	require.NoError(t, json.Unmarshal(data, &vectors))
	require.Len(t, vectors, want)
	return vectors
}

// stream decodes one id at a time.
func stream(tok *tokenizer.Tokenizer, ids []int32, skipSpecial bool) string {
	var text strings.Builder
	d := tok.NewDecoder(skipSpecial)
	for _, id := range ids {
		text.WriteString(d.Next(id))
	}
	text.WriteString(d.Flush())
	return text.String()
}

func TestPublishedVectors(t *testing.T) {
	tok := qwen(t)
	for name, count := range map[string]int{
		"tok_llamacpp_qwen2.json": 46,
		"tok_golden_dev.json":     489,
		"tok_decode_dev.json":     682,
	} {
		t.Run(name, func(t *testing.T) {
			for i, v := range readVectors(t, name, count) {
				if v.Text != nil {
					ids, err := tok.Encode(*v.Text)
					require.NoError(t, err)
					require.Equal(t, v.IDs, ids, "case %d: %q", i, *v.Text)
					rendered, err := tok.EncodeRendered(*v.Text, nil)
					require.NoError(t, err)
					require.Equal(t, v.IDs, rendered, "case %d: %q", i, *v.Text)
				}
				if v.Decoded == nil { // llama.cpp's pairs: the text must come back
					v.Decoded = v.Text
				}
				require.Equal(t, *v.Decoded, tok.Decode(v.IDs, false), "case %d", i)
				require.Equal(t, *v.Decoded, stream(tok, v.IDs, false), "case %d", i)
				if v.DecodedSkipSpecial != nil {
					require.Equal(t, *v.DecodedSkipSpecial, tok.Decode(v.IDs, true), "case %d", i)
					require.Equal(t, *v.DecodedSkipSpecial, stream(tok, v.IDs, true), "case %d", i)
				}
			}
		})
	}
}

// TestAgreesWithBinding compares with the Go API of daulet/tokenizers, which
// goes another way through the same library. It cuts text at U+0000.
func TestAgreesWithBinding(t *testing.T) {
	data, err := qwenJSON()
	require.NoError(t, err)
	reference, err := daulet.FromBytes(data)
	require.NoError(t, err)
	defer reference.Close()
	tok := qwen(t)
	for _, v := range readVectors(t, "tok_golden_dev.json", 489) {
		if strings.ContainsRune(*v.Text, 0) {
			continue
		}
		want, _ := reference.Encode(*v.Text, true)
		ids, err := tok.Encode(*v.Text)
		require.NoError(t, err)
		require.Len(t, ids, len(want))
		for i := range ids {
			require.EqualValues(t, want[i], ids[i])
		}
	}
}

func TestVocabulary(t *testing.T) {
	tok := qwen(t)
	require.Equal(t, 151665, tok.VocabSize())
	added := tok.AddedTokens()
	require.Len(t, added, 22)
	require.Equal(t, "<|endoftext|>", added[0])
	for i, text := range added {
		id, ok := tok.ID(text)
		require.True(t, ok)
		require.EqualValues(t, 151643+i, id)
		require.Equal(t, text, tok.TokenString(id))
		require.Equal(t, text, tok.TokenBytes(id))
		require.Equal(t, id <= 151656, tok.IsSpecial(id), text)
	}
	id, ok := tok.ID("Ġhello")
	require.True(t, ok)
	require.Equal(t, " hello", tok.TokenBytes(id))
	require.Equal(t, "Ġhello", tok.TokenString(id))
	_, ok = tok.ID("no such token")
	require.False(t, ok)

	seen := map[string]bool{}
	for id := range int32(256) {
		require.Len(t, tok.TokenBytes(id), 1)
		seen[tok.TokenBytes(id)] = true
	}
	require.Len(t, seen, 256)

	for _, id := range []int32{-1, 151665, 151935, 1 << 30} {
		require.Empty(t, tok.TokenBytes(id))
		require.Empty(t, tok.TokenString(id))
		require.False(t, tok.IsSpecial(id))
		require.Equal(t, "ab", tok.Decode([]int32{64, id, 65}, true))
	}
}

func TestPlainTextMakesNoAddedToken(t *testing.T) {
	tok := qwen(t)
	for _, text := range tok.AddedTokens() {
		parsed, err := tok.Encode(text)
		require.NoError(t, err)
		require.Len(t, parsed, 1)
		plain, err := tok.EncodePlain(text)
		require.NoError(t, err)
		for _, id := range plain {
			require.Less(t, id, int32(151643))
		}
		require.Equal(t, text, tok.Decode(plain, true))
	}
	for _, v := range readVectors(t, "tok_golden_dev.json", 489) {
		parsed, err := tok.Encode(*v.Text)
		require.NoError(t, err)
		plain, err := tok.EncodePlain(*v.Text)
		require.NoError(t, err)
		if tok.Decode(parsed, true) == tok.Decode(parsed, false) && !strings.Contains(*v.Text, "<") {
			require.Equal(t, parsed, plain, "%q has no added token", *v.Text)
		}
	}
}

// TestLiteralRanges: added tokens outside the ranges are parsed, inside they are
// text, and the text around a dropped token is encoded in one piece with it.
func TestLiteralRanges(t *testing.T) {
	tok := qwen(t)
	const head, content, tail = "<|im_start|>user\n", "a<|im_end|>\n<tool_call>b", "<|im_end|>\n"
	text := head + content + tail
	// Between the two real tokens everything is one run of plain text.
	want, err := tok.EncodePlain("user\n" + content)
	require.NoError(t, err)
	want = append(append([]int32{151644}, want...), 151645, 198)

	whole := [][2]int{{len(head), len(head) + len(content)}}
	each := [][2]int{{len(head) + 1, len(head) + 11}, {len(head) + 12, len(head) + 23}}
	inside := [][2]int{{len(head) + 3, len(head) + 3}, {len(head) + 14, len(head) + 15}}
	for _, literal := range [][][2]int{whole, each, inside} {
		ids, err := tok.EncodeRendered(text, literal)
		require.NoError(t, err)
		require.Equal(t, want, ids)
		require.Equal(t, text, tok.Decode(ids, false))
	}

	// Empty ranges beside a token, not inside it, change nothing.
	parsed, err := tok.EncodeRendered(text, nil)
	require.NoError(t, err)
	beside, err := tok.EncodeRendered(text, [][2]int{{0, 0}, {12, 12}, {len(text), len(text)}})
	require.NoError(t, err)
	require.Equal(t, parsed, beside)

	require.Panics(t, func() { _, _ = tok.EncodeRendered(text, [][2]int{{5, 9}, {8, 10}}) })
	require.Panics(t, func() { _, _ = tok.EncodeRendered("ab", [][2]int{{0, 3}}) })
}

func TestRefusals(t *testing.T) {
	tok := qwen(t)
	_, err := tok.Encode("a\xff")
	require.ErrorContains(t, err, "not valid UTF-8")
	_, err = tok.EncodePlain(strings.Repeat("a", tokenizer.MaxTextBytes+1))
	require.ErrorContains(t, err, fmt.Sprint(tokenizer.MaxTextBytes))

	dir := t.TempDir()
	_, err = tokenizer.Open(dir)
	require.ErrorContains(t, err, filepath.Join(dir, "tokenizer.json"))
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = tokenizer.New(nil)
	require.ErrorContains(t, err, "tokenizer.json")
	wordPiece := strings.Replace(smallJSON, `"decoder":{"type":"ByteLevel"`, `"decoder":{"type":"WordPiece","prefix":"##","cleanup":true`, 1)
	_, err = tokenizer.New([]byte(wordPiece))
	require.ErrorContains(t, err, "decoder WordPiece is not supported (supported: ByteLevel)")
	noDecoder := strings.Replace(smallJSON, `"decoder":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":false,"use_regex":false}`, `"decoder":null`, 1)
	_, err = tokenizer.New([]byte(noDecoder))
	require.ErrorContains(t, err, "decoder none is not supported")
	for normalizer, ok := range map[string]bool{
		`{"type":"Replace","pattern":{"String":"a"},"content":"aaaa"}`: false, `{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Prepend","prepend":"b"}]}`: false,
		`{"type":"Sequence","normalizers":[{"type":"NFD"},{"type":"Lowercase"}]}`: true, `null`: true,
	} {
		_, err = tokenizer.New([]byte(strings.Replace(smallJSON, `"normalizer":{"type":"NFC"}`, `"normalizer":`+normalizer, 1)))
		if ok {
			require.NoError(t, err, normalizer)
		} else {
			require.ErrorContains(t, err, "replaces or prepends text", normalizer)
		}
	}
	// The crate slices merges by the length of this prefix, and panics.
	longPrefix := strings.Replace(smallJSON, `"continuing_subword_prefix":""`, `"continuing_subword_prefix":"######"`, 1)
	_, err = tokenizer.New([]byte(longPrefix))
	require.ErrorContains(t, err, "library panicked: start byte index 6")
	farID := strings.Replace(smallJSON, `"ab":256`, `"ab":4000000000`, 1)
	_, err = tokenizer.New([]byte(farID))
	require.ErrorContains(t, err, "4000000000")
}

// TestPeekVocabSize: the guess is right for files that agree with themselves; what is no
// tokenizer.json, and what New refuses, has none.
func TestPeekVocabSize(t *testing.T) {
	data, err := qwenJSON()
	require.NoError(t, err)
	small, err := tokenizer.New([]byte(smallJSON))
	require.NoError(t, err)
	require.Equal(t, qwen(t).VocabSize(), tokenizer.PeekVocabSize(data))
	require.Equal(t, small.VocabSize(), tokenizer.PeekVocabSize([]byte(smallJSON)))
	far := strings.Replace(smallJSON, `"ab":256`, `"ab":4000000000`, 1)
	for _, none := range []string{"", "{}", `{"model":{"vocab":[]}}`, smallJSON[:len(smallJSON)-1], far} {
		require.Zero(t, tokenizer.PeekVocabSize([]byte(none)))
	}
}

// TestSparseVocabulary: ids need not follow one another.
func TestSparseVocabulary(t *testing.T) {
	tok, err := tokenizer.New([]byte(strings.Replace(smallJSON, `"ab":256`, `"ab":900`, 1)))
	require.NoError(t, err)
	require.Equal(t, 901, tok.VocabSize())
	require.Equal(t, "ab", tok.TokenString(900))
	require.Empty(t, tok.TokenString(256))
}

// TestTruncationAndPaddingAreOff: a file may ask for both; prompts stay whole.
func TestTruncationAndPaddingAreOff(t *testing.T) {
	data := strings.Replace(smallJSON, `"truncation":null,"padding":null`,
		`"truncation":{"direction":"Right","max_length":3,"strategy":"LongestFirst","stride":0},`+
			`"padding":{"strategy":{"Fixed":9},"direction":"Right","pad_to_multiple_of":null,"pad_id":0,"pad_type_id":0,"pad_token":"!"}`, 1)
	require.NotEqual(t, smallJSON, data)
	tok, err := tokenizer.New([]byte(data))
	require.NoError(t, err)
	defer tok.Close()
	ids, err := tok.Encode("xyzw")
	require.NoError(t, err)
	require.Len(t, ids, 4)
}

func TestConcurrentUseAndClose(t *testing.T) {
	tok, err := tokenizer.New([]byte(smallJSON))
	require.NoError(t, err)
	want, err := tok.Encode("abc <|end|> abc")
	require.NoError(t, err)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				ids, err := tok.Encode("abc <|end|> abc")
				if err != nil {
					require.ErrorContains(t, err, "closed")
					return
				}
				require.Equal(t, want, ids)
				require.Equal(t, "abc <|end|> abc", tok.Decode(ids, false))
			}
		})
	}
	tok.Close()
	tok.Close()
	wg.Wait()
	_, ok := tok.ID("<|end|>")
	require.False(t, ok)
	require.Equal(t, "abc <|end|> abc", tok.Decode(want, false))
}
