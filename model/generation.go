package model

// GenerationConfig is generation_config.json: the sampling that the model's
// authors recommend, the default of requests that do not choose. A nil pointer
// is a field that the file does not give.
type GenerationConfig struct {
	EOSTokenIDs []int32 // stop on each; replaces Config.EOSTokenIDs when not empty
	BOSTokenID  *int32

	DoSample          *bool // false = greedy
	Temperature       *float64
	TopP              *float64 // 1 = off; never 0, which a Sampling takes for off
	TopK              *int     // 0 or −1 = off
	MinP              *float64
	RepetitionPenalty *float64
	MaxNewTokens      *int
	MaxLength         *int // prompt and output
}

// firstAlone is a top_p below the share of any most likely id: the smallest set of ids,
// as which transformers and a request to the server read 0.
const firstAlone = 1e-9

// GenerationConfigFile is the name of the sampling defaults in a model
// directory.
const GenerationConfigFile = "generation_config.json"

// ReadGenerationConfig reads generation_config.json of a model directory. An
// absent file gives the zero value. Ids that we read must be below vocabSize;
// other faults, too, are refused with a *FileError that lists every problem.
func ReadGenerationConfig(dir string, vocabSize int) (*GenerationConfig, error) {
	d, err := openDirectory(dir)
	if err != nil {
		return nil, err
	}
	defer d.close()
	if !d.exists(GenerationConfigFile) {
		return &GenerationConfig{}, nil
	}
	data, err := d.read(GenerationConfigFile, maxConfigBytes)
	if err != nil {
		return nil, err
	}
	return ParseGenerationConfig(d.path(GenerationConfigFile), data, vocabSize)
}

// ParseGenerationConfig is ReadGenerationConfig for the bytes of a file; name
// is for messages.
func ParseGenerationConfig(name string, data []byte, vocabSize int) (*GenerationConfig, error) {
	o, err := parseObject(name, data)
	if err != nil {
		return nil, err
	}
	g := &GenerationConfig{EOSTokenIDs: o.tokenIDs("eos_token_id", vocabSize)}
	if ids := o.tokenIDs("bos_token_id", vocabSize); len(ids) > 0 {
		g.BOSTokenID = &ids[0]
	}
	if o.has("do_sample") {
		do := o.optBoolean("do_sample", false)
		g.DoSample = &do
	}
	number := func(field string, lo, hi float64) *float64 {
		if v, ok := o.optNumber(field, lo, hi); ok {
			return &v
		}
		return nil
	}
	integer := func(field string, lo, hi int) *int {
		if v, ok := o.optInteger(field, lo, hi); ok {
			return &v
		}
		return nil
	}
	g.Temperature = number("temperature", 0, 100)
	if g.TopP = number("top_p", 0, 1); g.TopP != nil {
		*g.TopP = max(*g.TopP, firstAlone)
	}
	g.TopK = integer("top_k", -1, maxVocab)
	g.MinP = number("min_p", 0, 1)
	g.RepetitionPenalty = number("repetition_penalty", 1e-3, 100)
	g.MaxNewTokens = integer("max_new_tokens", 1, maxPositions)
	g.MaxLength = integer("max_length", 1, maxPositions)
	if err := o.errs.orNil(); err != nil {
		return nil, err
	}
	return g, nil
}
