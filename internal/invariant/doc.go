// Package invariant says whether costly checks are compiled in: go test -tags
// invariants. The idea is pebble's internal/invariants.
package invariant
