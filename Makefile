# Pagoda. `make help` lists the targets.
#
# Two commands are all a newcomer needs: `make run` and `make test`. Both build
# what they need, from nothing: the Rust static library (tokenizers), bin/pagoda
# and, for what runs on real weights, the test model.

SHELL  := /bin/bash
GO     ?= go
PROMPT ?= Why is the sky blue? Answer in two sentences.
MODEL  ?= .cache/models/smollm2-135m

# What is built lies under .cache and bin; Go modules go where Go keeps them.
export GOCACHE    ?= $(CURDIR)/.cache/go-build
TOKENIZERS := .cache/lib/libtokenizers.a
STATICCHECK := .cache/bin/staticcheck
VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -X main.version=$(VERSION)

.PHONY: all build run test metamorphic race lint bench bench-peers fmt clean help test-model golden verify

all: build

## build: the Rust static library and bin/pagoda
build: $(TOKENIZERS)
	@scripts/need.sh go gcc g++
	$(GO) build -ldflags '$(LDFLAGS)' -o bin/ ./cmd/pagoda

$(TOKENIZERS): third_party/tokenizers-ffi/Cargo.toml third_party/tokenizers-ffi/Cargo.lock third_party/tokenizers-ffi/src/lib.rs go.mod
	@scripts/build-tokenizers.sh
	@touch $@

## run: answer PROMPT with the test model (PROMPT="…" MODEL=dir to change)
run: build test-model
	@bin/pagoda run '$(MODEL)' '$(subst ','\'',$(PROMPT))' --max-tokens 120 --temperature 0

## test: every test that needs no GPU
test: $(TOKENIZERS) test-model
	@scripts/need.sh go gcc g++
	$(GO) vet ./...
	$(GO) test ./...

## race: the same tests under the race detector
race: $(TOKENIZERS) test-model
	$(GO) test -race -short ./...

## metamorphic: greedy tokens of 1,000 prompts under 13 configurations (half an hour)
metamorphic: $(TOKENIZERS) test-model
	$(GO) test -tags invariants -run Metamorphic -v -timeout 3h ./cmd/pagoda -metamorphic-prompts 1000

## lint: go vet, gofmt and staticcheck
lint: $(TOKENIZERS) $(STATICCHECK)
	@files=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$files" || { echo "gofmt: $$files"; exit 1; }
	$(GO) vet ./...
	$(STATICCHECK) ./...

$(STATICCHECK):
	@scripts/need.sh go
	GOBIN=$(CURDIR)/.cache/bin $(GO) install honnef.co/go/tools/cmd/staticcheck@v0.8.2

## bench: speed beside this machine's read bandwidth and FMA peak, in one run
bench: build
	bin/pagoda bench roofline qwen2.5-0.5b --load-format dummy

## bench-peers: Pagoda and llama.cpp in turn, bf16 and 8-bit, with ratios (builds llama.cpp; MODELS="…" REPEATS=3)
bench-peers: build
	@scripts/bench-peers.sh

## verify: the engine's logits against an independent forward pass (gomlx)
verify: $(TOKENIZERS) test-model
	$(GO) run ./cmd/pagoda-verify $(MODEL)

## test-model: fetch and convert SmolLM2-135M-Instruct into .cache/models
test-model:
	@scripts/test-model.sh

## golden: make the reference outputs anew (PyTorch; minutes, 3 GB of wheels)
golden: test-model
	@scripts/goldens/make.sh

## fmt: gofmt
fmt:
	gofmt -w $$(git ls-files '*.go')

## clean: remove what make built; downloads in .cache stay
clean:
	rm -rf bin dist .cache/lib .cache/tokenizers .cache/cargo .cache/go-build

## help: this list
help:
	@sed -n 's/^## /  /p' $(MAKEFILE_LIST)
