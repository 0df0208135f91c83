package main

import (
	"cmp"
	"path/filepath"
)

// hubCacheDir is where Hugging Face's tools keep what they fetched, by the
// variables that they read.
func hubCacheDir(lookup func(string) (string, bool)) string {
	get := func(name string) string {
		value, _ := lookup(name)
		return value
	}
	cache := cmp.Or(get("XDG_CACHE_HOME"), filepath.Join(get("HOME"), ".cache"))
	home := cmp.Or(get("HF_HOME"), filepath.Join(cache, "huggingface"))
	return cmp.Or(get("HF_HUB_CACHE"), filepath.Join(home, "hub"))
}
