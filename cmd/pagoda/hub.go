package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/internal/hub"
	"github.com/pagoda-engine/pagoda/model"
	"github.com/pagoda-engine/pagoda/model/demo"
)

// hubFlags say how a model of a hub is found.
type hubFlags struct {
	revision string
	cacheDir string
	offline  bool
}

func (f *hubFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.revision, "revision", "", "branch, tag or commit of a model of the hub (default: main)")
	flags.StringVar(&f.cacheDir, "download-dir", "", "cache of models of the hub (default: HF_HUB_CACHE, HF_HOME/hub or ~/.cache/huggingface/hub)")
	flags.BoolVar(&f.offline, "offline", false, "use only models that are cached, as HF_HUB_OFFLINE=1")
}

// lookup is os.LookupEnv, or a test's.
type lookup = func(string) (string, bool)

// hubCacheDir is where Hugging Face's tools keep what they fetched, by the
// variables that they read.
func hubCacheDir(env lookup) string {
	return cmp.Or(value(env, "HF_HUB_CACHE"), filepath.Join(hubHome(env), "hub"))
}

func hubHome(env lookup) string {
	cache := cmp.Or(value(env, "XDG_CACHE_HOME"), filepath.Join(value(env, "HOME"), ".cache"))
	return cmp.Or(value(env, "HF_HOME"), filepath.Join(cache, "huggingface"))
}

func value(env lookup, name string) string {
	text, _ := env(name)
	return text
}

// hubToken is the key of HF_TOKEN, or the one that Hugging Face's login left.
func hubToken(env lookup) string {
	if token := value(env, "HF_TOKEN"); token != "" {
		return token
	}
	file := cmp.Or(value(env, "HF_TOKEN_PATH"), filepath.Join(hubHome(env), "token"))
	text, err := os.ReadFile(file)
	if err != nil {
		return "" // most models need none
	}
	return strings.TrimSpace(string(text))
}

// client is what fetches, with Hugging Face's variables where no flag is given.
func (f *hubFlags) client(env lookup, progress func(string, int64, int64), note func(string)) (*hub.Client, error) {
	offline := f.offline || slices.Contains([]string{"1", "true", "yes", "on"}, strings.ToLower(value(env, "HF_HUB_OFFLINE")))
	c, err := hub.New(hub.Config{
		Endpoint: value(env, "HF_ENDPOINT"), CacheDir: cmp.Or(f.cacheDir, hubCacheDir(env)), Token: hubToken(env), Offline: offline,
		Progress: progress, Note: note,
	})
	if err != nil {
		return nil, usageError{err}
	}
	return c, nil
}

// textFiles are what a model needs beside weights.
var textFiles = []string{model.ConfigFile, model.GenerationConfigFile, tokenizerFile, tokenizerConfigFile, "chat_template.jinja", "additional_chat_templates/tool_use.jinja"}

// modelFiles accepts what an engine reads, configFiles the same without
// weights.
func modelFiles(file string) bool {
	return configFiles(file) || file == model.IndexFile || strings.HasPrefix(file, "model") && strings.HasSuffix(file, ".safetensors")
}

func configFiles(file string) bool { return slices.Contains(textFiles, file) }

// shapeFiles accepts what gives the model's dimensions.
func shapeFiles(file string) bool {
	return file == model.ConfigFile || file == model.GenerationConfigFile
}

// isDirectory says whether there is a directory of that name.
func isDirectory(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// locate turns MODEL into what the engine takes: a directory, "demo" or a built-in
// shape. A model of the hub is fetched where it is not cached.
func (f *engineFlags) locate(ctx context.Context, arg string, want func(file string) bool) (string, error) {
	dummy := f.config.LoadFormat == "dummy"
	_, builtin := model.BuiltinShape(arg)
	switch {
	case arg == demo.Name, isDirectory(arg), dummy && builtin:
		return arg, nil
	case !hub.IsID(arg):
		return "", fmt.Errorf("%w: %w", engine.ErrModel, noSuchModel(arg, builtin, hubCacheDir(os.LookupEnv)))
	case dummy && want(model.SingleFile):
		want = configFiles
	}
	progress := newProgress(f.quiet)
	log := f.logger()
	tenths := int64(0)
	client, err := f.hub.client(os.LookupEnv, func(_ string, done, total int64) {
		progress.update("fetching", done, total)
		// Where nobody sees the bar, a line each tenth says that it goes on.
		if now := done * 10 / max(total, 1); now > tenths && !progress.shown {
			tenths = now
			log.Info(fmt.Sprintf("fetched %d %% of %s", 10*now, formatBytes(total)))
		}
	}, func(text string) { log.Info(text) })
	if err != nil {
		return "", err
	}
	dir, err := client.Snapshot(ctx, arg, f.hub.revision, want)
	progress.finish()
	if err != nil {
		return "", fmt.Errorf("%w: %s is no directory here, and as a model of the hub: %w", engine.ErrModel, arg, err)
	}
	if weights, _ := filepath.Glob(filepath.Join(dir, "*.safetensors")); want(model.SingleFile) && len(weights) == 0 {
		return "", fmt.Errorf("%w: %s has no safetensors files: choose the model in that form, not GGUF, AWQ or PyTorch's", engine.ErrModel, arg)
	}
	return dir, nil
}

// noSuchModel says what MODEL could have been.
func noSuchModel(arg string, builtin bool, cacheDir string) error {
	if builtin {
		return fmt.Errorf("%s is a built-in shape without weights: add --load-format dummy, or give a directory or a model of the hub, such as Qwen/Qwen2.5-0.5B-Instruct", arg)
	}
	candidates := append([]string{demo.Name}, model.BuiltinShapes()...)
	parent := filepath.Dir(arg)
	beside, _ := filepath.Glob(filepath.Join(parent, "*", model.ConfigFile))
	for _, file := range beside {
		name := filepath.Dir(file)
		if strings.HasPrefix(arg, "./") {
			name = "./" + name
		}
		candidates = append(candidates, name)
	}
	cached, _ := filepath.Glob(filepath.Join(cacheDir, "models--*--*"))
	for _, dir := range cached {
		candidates = append(candidates, strings.ReplaceAll(strings.TrimPrefix(filepath.Base(dir), "models--"), "--", "/"))
	}
	return fmt.Errorf("%s is no directory%s: give one with config.json, tokenizer.json and safetensors; a model of the hub, such as Qwen/Qwen2.5-0.5B-Instruct; demo for the model in the binary; or with --load-format dummy a built-in shape",
		arg, didYouMean(arg, candidates))
}
