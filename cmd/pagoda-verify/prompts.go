package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"

	"github.com/pagoda-engine/pagoda/model/tokenizer"
)

// paragraphs are plain English, with some digits and punctuation: prompt i
// starts at paragraph i.
var paragraphs = []string{
	`A lighthouse keeper on the north coast wrote down the weather every morning for 31 years. ` +
		`Most entries are short: wind from the west, rain before noon, two fishing boats passed. ` +
		`On a few days he added a sentence about the birds that rested on the rocks below the tower.`,
	`To make bread, mix 500 grams of flour with 350 grams of water, a little yeast and two teaspoons of salt. ` +
		`Let the dough rest until it has doubled in size, shape it, and bake it in a hot oven for forty minutes. ` +
		`When the loaf sounds hollow as you knock on its base, it is done.`,
	`The memory of a computer is divided into pages of equal size. A table says, for each page that a program sees, ` +
		`where it really is; pages that were not used for a long time may be moved to the disk. ` +
		`Because every page has the same size, any free page will do, and no space is lost between them.`,
	`"Have you counted the apples?" asked Anna. "There were 48 in the basket yesterday, and now I find only 45." ` +
		`Her brother looked at the ceiling. "Perhaps the goat has learned to open doors," he said, ` +
		`"or somebody was very hungry after school."`,
}

// makePrompts returns count prompts whose lengths rise evenly to length ids:
// English where the model in dir has a tokenizer, random ids below vocab where
// it has none. They are the same in every run.
func makePrompts(dir string, count, length, vocab int) ([][]int32, error) {
	encode := func(i int) ([]int32, error) {
		random := rand.New(rand.NewPCG(1, uint64(i)))
		ids := make([]int32, length)
		for j := range ids {
			ids[j] = random.Int32N(int32(vocab))
		}
		return ids, nil
	}
	t, err := tokenizer.Open(dir)
	switch {
	case err == nil:
		defer t.Close()
		encode = func(i int) ([]int32, error) { return encodeText(t, i, length) }
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	prompts := make([][]int32, count)
	for i := range prompts {
		ids, err := encode(i)
		if err != nil {
			return nil, fmt.Errorf("prompt %d: %w", i+1, err)
		}
		prompts[i] = ids[:max(1, length*(i+1)/count)]
	}
	return prompts, nil
}

// encodeText returns length ids of English from paragraph i on, round and round.
func encodeText(t *tokenizer.Tokenizer, i, length int) ([]int32, error) {
	var text strings.Builder
	for ; ; i++ {
		text.WriteString(paragraphs[i%len(paragraphs)] + "\n\n")
		ids, err := t.Encode(text.String())
		if err != nil || len(ids) >= length {
			return ids[:min(len(ids), length)], err
		}
	}
}
