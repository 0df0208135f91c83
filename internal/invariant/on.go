//go:build invariants

package invariant

// Enabled is true under build tag invariants: state is verified after every
// step, and freed KV blocks are filled with NaN so that a stray read shows.
const Enabled = true
