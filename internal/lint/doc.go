// Package lint holds the house rules that a test can check: the import table,
// documented exports, and text that must not be in the tree. It has no code of
// its own; go test ./internal/lint runs it.
//
// The idea of imports as policy is from the Go library's go/build/deps_test.go.
package lint
