package main

import (
	"github.com/pagoda-engine/pagoda/model/chat"
	"github.com/pagoda-engine/pagoda/model/demo"
	"github.com/pagoda-engine/pagoda/model/tokenizer"
)

// The names of the files that text needs, as a model directory has them.
const (
	tokenizerFile       = "tokenizer.json"
	tokenizerConfigFile = "tokenizer_config.json"
)

// openTokenizer opens the tokenizer of a directory or of the demo model.
func openTokenizer(dir string) (*tokenizer.Tokenizer, error) {
	if dir != demo.Name {
		return tokenizer.Open(dir)
	}
	data, err := readDemo(tokenizerFile)
	if err != nil {
		return nil, err
	}
	return tokenizer.New(data)
}

// peekVocabSize guesses how many ids the tokenizer knows that openTokenizer is going to
// open; 0 = there is no telling.
func peekVocabSize(dir string) int {
	read := tokenizer.ReadFile
	if dir == demo.Name {
		read = func(string) ([]byte, error) { return readDemo(tokenizerFile) }
	}
	data, err := read(dir)
	if err != nil {
		return 0 // openTokenizer will tell
	}
	return tokenizer.PeekVocabSize(data)
}

// loadTemplate loads the chat template of a directory or of the demo model.
func loadTemplate(dir string, control []string) (*chat.Template, error) {
	if dir != demo.Name {
		return chat.Load(dir, control)
	}
	data, err := readDemo(tokenizerConfigFile)
	if err != nil {
		return nil, err
	}
	return chat.LoadConfig(tokenizerConfigFile, data, control)
}

// loadSpecial reads the special-token variables that a template of --chat-template has,
// those of a directory or of the demo model.
func loadSpecial(dir string) (map[string]string, error) {
	if dir != demo.Name {
		return chat.Special(dir)
	}
	data, err := readDemo(tokenizerConfigFile)
	if err != nil {
		return nil, err
	}
	return chat.SpecialConfig(tokenizerConfigFile, data)
}

func readDemo(file string) ([]byte, error) {
	files, err := demo.Files()
	if err != nil {
		return nil, err
	}
	return files.ReadFile(file)
}
