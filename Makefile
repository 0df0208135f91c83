# Pagoda. `make help` lists the targets.
#
# Two commands are all a newcomer needs: `make run` and `make test`. Both build
# what they need, from nothing: the Rust static library (tokenizers, llguidance), bin/pagoda
# and, for the tests, a second model beside the one in the binary.

SHELL  := /bin/bash
GO     ?= go
PROMPT ?= Tell me a story about a fox.
MODEL  ?= demo
TEST_MODEL := .cache/models/smollm2-135m

# What is built lies under .cache and bin; Go modules go where Go keeps them.
export GOCACHE    ?= $(CURDIR)/.cache/go-build
TOKENIZERS := .cache/lib/libtokenizers.a
STATICCHECK := .cache/bin/staticcheck
VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -X main.version=$(VERSION)

# BACKEND is cpu, or cuda (which runs --device cpu, too); the default is cuda
# where there is an NVIDIA driver. No CUDA toolkit is needed for either.
BACKEND ?= $(if $(wildcard /proc/driver/nvidia/version),cuda,cpu)
ifeq ($(filter $(BACKEND),cpu cuda),)
$(error BACKEND=$(BACKEND): want cpu or cuda)
endif
ifeq ($(BACKEND),cuda)
include scripts/cuda.mk
endif
TEST_TAGS ?= $(TAGS)
TIMEOUT   := -timeout 30m # of a package, for machines with other work to do

.PHONY: all bench bench-peers bench-serve-peers build check-clients clean conformance demo-eval fmt golden help check-qwen lint maskbench metamorphic mutants profile-check race reference run server-soak soak test test-model ui-screenshots verify

all: build

## build: the Rust static library and bin/pagoda (BACKEND=cpu|cuda)
build: $(TOKENIZERS) $(CUDA)
	@scripts/need.sh go gcc g++
	$(GO) build $(TAGS) -ldflags '$(LDFLAGS)' -o bin/ ./cmd/pagoda

$(TOKENIZERS): third_party/tokenizers-ffi/Cargo.toml third_party/tokenizers-ffi/Cargo.lock $(wildcard third_party/tokenizers-ffi/src/*.rs) go.mod
	@scripts/build-tokenizers.sh
	@touch $@

## run: answer PROMPT with the model in the binary (PROMPT="…" MODEL=dir to change)
run: build
	@bin/pagoda run '$(MODEL)' '$(subst ','\'',$(PROMPT))' --max-tokens 200

## test: every test that needs no GPU (of the long suites a fraction: conformance, metamorphic, mutants and soak have the rest)
test: $(TOKENIZERS) $(CUDA) test-model
	@scripts/need.sh go gcc g++
	$(GO) vet $(TEST_TAGS) ./...
	$(GO) test $(TEST_TAGS) $(TIMEOUT) ./...

## conformance: the kernels' conformance suite whole (make test takes every eighth of its many shapes but on the
## processor's best path, make race every sixteenth)
conformance:
	$(GO) test $(TIMEOUT) -count=1 ./kernels/cpu ./kernels/kernelstest -run 'Conformance|Oracle' -args -every 1

## race: the same tests under the race detector
race: $(TOKENIZERS) test-model
	$(GO) test -race -short $(TIMEOUT) ./...

## soak: the state machine of kvcache and scheduler: 100,000,000 operations over
## 40,000 seeds (OPS=…), and 10,000 seeds of a pool for one request
OPS ?= 100000000
soak:
	@set -o pipefail; $(GO) test ./scheduler -count=1 -timeout 24h -run 'TestSoak|TestPoolForOne' -soak $(OPS) -full -v | \
		awk '/^=== / {next} /^soak: / {n = $$2} {print} END {print n}'

## mutants: seeded bugs in kvcache and scheduler; each must fail a test
mutants:
	$(GO) run ./internal/mutants

## metamorphic: greedy tokens of 1,000 prompts under 16 configurations (half an hour; BACKEND=cuda: on the GPU, METAMORPHIC=demo)
METAMORPHIC ?=
comma := ,
metamorphic: $(TOKENIZERS) $(CUDA) $(if $(METAMORPHIC),,test-model)
	$(GO) test -tags 'invariants$(if $(CUDA),$(comma)cuda)' -run Metamorphic -v -timeout 3h ./cmd/pagoda -device $(BACKEND) -metamorphic-model '$(METAMORPHIC)' -metamorphic-prompts 1000

## check-clients: a tour of the server with the official OpenAI and Anthropic clients
check-clients: build
	scripts/clients/check.sh

## server-soak: 10,000 disconnects, 1,000 slow readers, 500 silent sockets; a million requests (a quarter of an hour)
server-soak: $(TOKENIZERS)
	$(GO) test -run Crowds -v ./internal/server -crowd 100
	$(GO) test -run ServerSoak -v -timeout 3h ./cmd/pagoda -soak-requests 1000000

## maskbench: masks of the grammars along 1,671 JSON texts, which are not in the tree (MASKBENCH=…/maskbench_dev.jsonl)
MASKBENCH ?= ../shared/data/cases/maskbench_dev.jsonl
maskbench: $(TOKENIZERS)
	$(GO) test ./model/grammar -count=1 -run TestMaskbench -v -maskbench '$(abspath $(MASKBENCH))'

## lint: go vet, gofmt and staticcheck
lint: $(TOKENIZERS) $(CUDA) $(STATICCHECK)
	@files=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$files" || { echo "gofmt: $$files"; exit 1; }
	$(GO) vet $(TEST_TAGS) ./...
	$(STATICCHECK) $(TEST_TAGS) ./...

$(STATICCHECK):
	@scripts/need.sh go
	GOBIN=$(CURDIR)/.cache/bin $(GO) install honnef.co/go/tools/cmd/staticcheck@v0.8.2

## bench: speed beside this machine's read bandwidth and FMA peak, in one run
bench: build
	bin/pagoda bench roofline qwen2.5-0.5b --load-format dummy

## bench-peers: Pagoda and llama.cpp in turn, with ratios: bf16 and 8-bit, beside a busy neighbour, from the start
## to the first token (builds llama.cpp; MODELS="…" REPEATS=3 PARTS=rates,invariant,neighbour,starts)
bench-peers: build
	@scripts/bench-peers.sh

## bench-serve-peers: bench serve beside guidellm, on Pagoda and on llama-cpp-python's server (builds that; ROUNDS=4)
bench-serve-peers: build
	@scripts/bench-serve-peers.sh

## profile-check: traces of bench profile as TensorBoard's torch-tb-profiler reads them (SCREENSHOTS=dir)
profile-check: build
	@scripts/profile-check.sh

## reference: against transformers in float32, token by token and layer by layer: true
## shapes with random weights, SmolLM2, and CPU against GPU (a GPU; PyTorch; 30 GB of disk)
REFERENCE ?= qwen2.5-0.5b qwen2.5-1.5b qwen2.5-7b $(TEST_MODEL) --cpu qwen2.5-0.5b --cpu $(TEST_MODEL)
reference: build test-model
	@scripts/reference/make.sh $(REFERENCE)

## check-qwen: real Qwen2.5-Instruct weights in DIR: tensor hashes (0.5B), a chat, a
## book's perplexity, and logits against the independent forward pass
check-qwen: $(TOKENIZERS) $(CUDA)
	@test -f '$(DIR)/config.json' || { echo "check-qwen: DIR='$(DIR)' has no config.json; want make check-qwen DIR=…/Qwen2.5-0.5B-Instruct" >&2; exit 2; }
	$(GO) test $(TAGS) ./cmd/pagoda-verify ./cmd/pagoda -count=1 -run CheckQwen -v -timeout 2h -qwen '$(abspath $(DIR))'
	$(GO) run $(TAGS) ./cmd/pagoda-verify '$(DIR)' --prompts 2 --tokens 48

## verify: the engine's logits against an independent forward pass (gomlx)
verify: $(TOKENIZERS) test-model
	$(GO) run ./cmd/pagoda-verify $(TEST_MODEL)

## test-model: fetch and convert SmolLM2-135M-Instruct into .cache/models
test-model:
	@scripts/test-model.sh

## demo-eval: the figures of docs/demo-model.md, on the CPU (PyTorch; minutes, 3 GB of wheels)
demo-eval:
	@scripts/demo_model/make.sh evaluate

## ui-screenshots: look at the page with Chromium under load; the pictures of the docs
ui-screenshots: $(TOKENIZERS)
	$(GO) test -tags screenshots -count=1 -run 'Screenshots|KeyDialog' -v ./cmd/pagoda -images $(CURDIR)/.cache/screenshots
	@mkdir -p docs/images
	cp .cache/screenshots/page-desktop.png .cache/screenshots/page-dark.png .cache/screenshots/phone-memory.png docs/images/

## golden: make the reference outputs anew (PyTorch; minutes, 3 GB of wheels)
golden: test-model
	@scripts/goldens/make.sh

## fmt: gofmt
fmt:
	gofmt -w $$(git ls-files '*.go')

## clean: remove what make built; downloads in .cache stay
clean:
	rm -rf bin dist kernels/cuda/cubin .cache/cuda-build .cache/lib .cache/tokenizers .cache/cargo .cache/go-build

## help: this list
help:
	@sed -n 's/^## /  /p' $(MAKEFILE_LIST)
