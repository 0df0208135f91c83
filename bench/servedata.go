package bench

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
)

// Dataset says what prompts a run sends. Lengths are in tokens; zero lengths are
// the dataset's default.
type Dataset struct {
	Name       string // of DatasetNames
	Path       string // of mt-bench, gsm8k and jsonl
	InputLen   int    // random, shared-prefix: exact; sharegpt-like: the mean
	OutputLen  int
	RangeRatio float64 // random: lengths are even in [1−r, 1+r] of the above
	PrefixLen  int     // random: of one prefix that all share; shared-prefix: of each
	Prefixes   int     // shared-prefix: how many different ones
	TokenIDs   bool    // send ids, not text: exact lengths, completions only
	Vocab      int     // TokenIDs: ids are below this
	TextOnly   bool    // conversations in a file are refused: completions take none
}

// DatasetNames are the values of Dataset.Name.
var DatasetNames = []string{"random", "sharegpt-like", "shared-prefix", "mt-bench", "gsm8k", "jsonl"}

// made says whether the prompts are made up, not read.
func (d *Dataset) made() bool { return slices.Index(DatasetNames, d.Name) < 3 }

// NeedsCodec says whether lengths have to be made to measure by a tokenizer.
func (d *Dataset) NeedsCodec() bool { return d.made() && !d.TokenIDs }

// Check finds what a Dataset cannot be and fills in defaults.
func (d *Dataset) Check() error {
	if !slices.Contains(DatasetNames, d.Name) {
		return fmt.Errorf("--dataset-name %s: want one of %s", d.Name, strings.Join(DatasetNames, ", "))
	}
	switch {
	case d.InputLen < 0 || d.OutputLen < 0 || d.PrefixLen < 0 || d.Prefixes < 0:
		return errors.New("lengths must not be negative")
	case d.made() && d.Path != "":
		return fmt.Errorf("--dataset-path: %s prompts are made, not read; for a file use --dataset-name jsonl", d.Name)
	case !d.made() && d.Path == "":
		return fmt.Errorf("--dataset-name %s needs --dataset-path with its file: %s", d.Name, datasetFiles[d.Name])
	case !(d.RangeRatio >= 0 && d.RangeRatio < 1):
		return fmt.Errorf("--random-range-ratio %g: want at least 0 and below 1", d.RangeRatio)
	case !d.made() && d.TokenIDs:
		return fmt.Errorf("--prompt-token-ids: %s prompts are text", d.Name)
	}
	for _, value := range []struct {
		of      *int
		missing map[string]int
	}{
		{&d.InputLen, map[string]int{"random": 1024, "sharegpt-like": 161, "shared-prefix": 256}},
		{&d.OutputLen, map[string]int{"random": 128, "sharegpt-like": 338, "shared-prefix": 128, "mt-bench": 256, "gsm8k": 256, "jsonl": 256}},
		{&d.PrefixLen, map[string]int{"shared-prefix": 256}},
		{&d.Prefixes, map[string]int{"shared-prefix": 10}},
	} {
		*value.of = cmp.Or(*value.of, value.missing[d.Name])
	}
	return nil
}

var datasetFiles = map[string]string{
	"mt-bench": `question.jsonl of lm-sys/FastChat (lines with "turns")`,
	"gsm8k":    `train.jsonl or test.jsonl of openai/grade-school-math (lines with "question")`,
	"jsonl":    `lines with "prompt" or "messages", and "output_tokens" if wanted`,
}

// Prompts makes or reads n prompts. codec cuts made ones to length; it may be nil
// when NeedsCodec is false.
func (d *Dataset) Prompts(n int, seed uint64, codec Codec) ([]ServePrompt, error) {
	r := rand.New(rand.NewPCG(seed, 2))
	if !d.made() {
		return d.read(n, r)
	}
	// What all share comes from a seed of its own, the same in every repeat.
	shared := rand.New(rand.NewPCG(7, 3))
	prefixes := make([]piece, max(d.Prefixes, 1))
	for i := range prefixes {
		var err error
		if prefixes[i], err = d.piece(shared, codec, d.PrefixLen); err != nil {
			return nil, err
		}
	}
	prompts := make([]ServePrompt, n)
	for i := range prompts {
		input, output := d.lengths(r)
		body, err := d.piece(r, codec, input)
		if err != nil {
			return nil, err
		}
		prefix := prefixes[i%len(prefixes)]
		p := ServePrompt{OutputTokens: output, PromptTokens: prefix.tokens + body.tokens}
		if d.TokenIDs {
			p.IDs = slices.Concat(prefix.ids, body.ids)
		} else {
			p.Text = prefix.text + body.text
		}
		prompts[i] = p
	}
	r.Shuffle(n, func(i, j int) { prompts[i], prompts[j] = prompts[j], prompts[i] })
	return prompts, nil
}

// CheckPrompt is a prompt for a request that is not measured: like the dataset's, but
// none of them, which a server might keep in its cache.
func (d *Dataset) CheckPrompt(seed uint64, codec Codec) (ServePrompt, error) {
	if !d.made() {
		const tokens = 32
		return ServePrompt{Text: randomWords(rand.New(rand.NewPCG(seed, 4)), tokens), OutputTokens: d.OutputLen}, nil
	}
	prompts, err := d.Prompts(1, seed, codec)
	if err != nil {
		return ServePrompt{}, err
	}
	return prompts[0], nil
}

// lengths draws the lengths of one request.
func (d *Dataset) lengths(r *rand.Rand) (input, output int) {
	if d.Name == "sharegpt-like" {
		// As vLLM keeps of ShareGPT: prompt ≤ 1024, both ≤ 2048.
		input = min(logNormal(r, d.InputLen), 1024)
		return input, min(logNormal(r, d.OutputLen), 2048-input)
	}
	draw := func(mean int) int {
		low := int(math.Floor(float64(mean) * (1 - d.RangeRatio)))
		high := int(math.Ceil(float64(mean) * (1 + d.RangeRatio)))
		return max(1, low+r.IntN(high-low+1))
	}
	return draw(d.InputLen), draw(d.OutputLen)
}

// logNormal draws a length of a mean, with the wide right tail of conversations
// (σ = 1), at least 4.
func logNormal(r *rand.Rand, mean int) int {
	const sigma = 1.0
	return max(4, int(math.Round(float64(mean)*math.Exp(sigma*r.NormFloat64()-sigma*sigma/2))))
}

// piece is a part of a prompt.
type piece struct {
	text   string
	ids    []int32
	tokens int
}

// piece makes a random piece of so many tokens: ids, or words that are cut by the
// tokenizer until they are as long.
func (d *Dataset) piece(r *rand.Rand, codec Codec, tokens int) (piece, error) {
	if tokens == 0 {
		return piece{}, nil
	}
	if d.TokenIDs {
		ids := make([]int32, tokens)
		for i := range ids {
			ids[i] = int32(r.IntN(d.Vocab))
		}
		return piece{ids: ids, tokens: tokens}, nil
	}
	if e, ok := codec.(Estimate); ok {
		return piece{text: randomWords(r, max(1, int(math.Round(float64(tokens)/e.TokensPerWord)))), tokens: tokens}, nil
	}
	text := randomWords(r, tokens)
	var ids []int32
	// What is cut inside a word may be read back as more or fewer tokens.
	for range 8 {
		var err error
		if ids, err = codec.Encode(text); err != nil {
			return piece{}, fmt.Errorf("tokenizing a prompt: %w", err)
		}
		switch {
		case len(ids) == tokens:
			return piece{text: text, tokens: tokens}, nil
		case len(ids) < tokens:
			text += randomWords(r, tokens-len(ids))
		default:
			if text, err = codec.Decode(ids[:tokens]); err != nil {
				return piece{}, fmt.Errorf("cutting a prompt to length: %w", err)
			}
		}
	}
	return piece{text: text, tokens: len(ids)}, nil
}

// randomWords writes n words, each after a space.
func randomWords(r *rand.Rand, n int) string {
	var out strings.Builder
	for range n {
		out.WriteByte(' ')
		out.WriteString(words[r.IntN(len(words))])
	}
	return out.String()
}

// words are common English ones, which most tokenizers have a token for.
var words = strings.Fields(`time year people way day man thing woman life child world school state family student group country
problem hand part place case week company system program question work government number night point home water room mother area
money story fact month lot right study book eye job word business issue side kind head house service friend father power hour game
line end member law car city name team minute idea body back face others level office door health person art war history party result
change morning reason research girl guy moment air teacher force education foot boy age policy music market sense nation plan college
interest death course experience behind river stone green light north summer winter garden paper table window letter answer picture
center field glass horse island kitchen leader machine mountain ocean pattern quality record season signal square station street sugar
theory travel union valley village voice weather yellow bridge castle dinner engine forest guitar hammer insect jacket kingdom ladder
market needle orange pencil rabbit silver temple uncle violin wagon zone begin build carry dance enter follow gather happen improve
join keep learn measure notice offer prepare reach seem teach understand visit wonder`)

// read takes prompts from the file in a random order, again and again when it has
// fewer than n.
func (d *Dataset) read(n int, r *rand.Rand) ([]ServePrompt, error) {
	f, err := os.Open(d.Path)
	if err != nil {
		return nil, fmt.Errorf("--dataset-path: %w", err)
	}
	defer func() { _ = f.Close() }() // it is only read
	var all []ServePrompt
	scan := bufio.NewScanner(f)
	scan.Buffer(nil, 64<<20)
	for line := 1; scan.Scan(); line++ {
		if len(strings.TrimSpace(scan.Text())) == 0 {
			continue
		}
		p, err := parsePrompt(scan.Bytes())
		if err == nil && p.Messages != nil && d.TextOnly {
			err = errNeedsChat
		}
		if err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", d.Path, line, err)
		}
		p.OutputTokens = cmp.Or(p.OutputTokens, d.OutputLen)
		all = append(all, p)
	}
	if err := scan.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", d.Path, err)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s holds no prompts", d.Path)
	}
	prompts := make([]ServePrompt, 0, n)
	for len(prompts) < n {
		for _, i := range r.Perm(len(all))[:min(len(all), n-len(prompts))] {
			prompts = append(prompts, all[i])
		}
	}
	return prompts, nil
}

// parsePrompt reads a line of any of the formats.
func parsePrompt(line []byte) (ServePrompt, error) {
	var fields struct {
		Prompt    string    `json:"prompt"`
		Messages  []Message `json:"messages"`
		Turns     []string  `json:"turns"`
		Question  string    `json:"question"`
		Output    int       `json:"output_tokens"`
		MaxTokens int       `json:"max_tokens"`
	}
	if err := json.Unmarshal(line, &fields); err != nil {
		return ServePrompt{}, fmt.Errorf("no JSON object: %w", err)
	}
	p := ServePrompt{Text: cmp.Or(fields.Prompt, fields.Question), Messages: fields.Messages, OutputTokens: cmp.Or(fields.Output, fields.MaxTokens)}
	if len(fields.Turns) > 0 {
		p.Text = fields.Turns[0] // the second turn would need the answer to the first
	}
	if p.Text == "" && p.Messages == nil {
		return p, errors.New(`no "prompt", "messages", "turns" or "question"`)
	}
	if p.OutputTokens < 0 {
		return p, errors.New(`"output_tokens" is negative`)
	}
	return p, nil
}
