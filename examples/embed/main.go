// Command embed shows Pagoda as a library: it completes a text with a model
// directory, such as make test-model makes.
//
//	go run ./examples/embed .cache/models/smollm2-135m "Once upon a time"
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/model/tokenizer"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: embed DIR TEXT")
	}
	text, err := tokenizer.Open(os.Args[1])
	check(err)
	e, err := engine.New(engine.Config{Model: os.Args[1], SampleVocab: text.VocabSize()})
	check(err)
	defer e.Close()

	prompt, err := text.Encode(os.Args[2])
	check(err)
	ctx := context.Background()
	stream, err := e.Submit(ctx, engine.Request{Prompt: prompt, MaxTokens: 100, Sampling: engine.Sampling{Logprobs: -1}})
	check(err)
	decoder := text.NewDecoder(true)
	for ev, ok := stream.Next(ctx); ok; ev, ok = stream.Next(ctx) {
		check(ev.Err)
		if ev.HasToken {
			fmt.Print(decoder.Next(ev.Token))
		}
	}
	fmt.Println(decoder.Flush())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
