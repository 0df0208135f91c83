// Package kvcache decides which KV block belongs to whom. It hands out ids;
// the bytes are a kernels.Backend's. It is pure and single-threaded: the engine's
// goroutine owns it.
//
// # Cast
//
//   - Block: BlockSize tokens' keys and values over all layers, named by a
//     BlockID. Block 0 is reserved for padding writes and never handed out.
//   - BlockTable: the blocks of one sequence, in order. Position p of the
//     sequence is slot p % BlockSize of block p / BlockSize. Tables grow at the
//     end and are given up whole; an entry is never re-pointed.
//   - Host block: the same in the swap pool in host memory, named by a HostID.
//   - HostTable: what a swapped-out sequence has there, entry for entry of the
//     BlockTable that it had.
//   - Copy: one whole block, from one id to another. The Manager says which; the
//     caller has them performed, in the order in which it got them.
//   - Manager: references, free queue and prefix index of all blocks, and the
//     swap pool.
//   - Store: the bytes behind the ids, on the device and the host.
//
// # The life of a block
//
//  1. Admit takes blocks for a whole prompt at once, or none: it looks up the
//     longest published prefix, checks that it can be pinned and that the rest
//     fits, pins it, and takes the rest from the head of the free queue, all in
//     one call. Grow appends blocks as the sequence gets longer.
//  2. The sequence's tokens fill it, slot by slot.
//  3. Publish enters a block that is full and whose KV was computed into the
//     prefix index under SHA-256(parent hash, tokens). The first block's parent
//     is SHA-256(key, model, cache salt), so that other salts, other models and
//     other processes never match. If the hash is there already (two sequences
//     computed the same prefix side by side) the later block stays unpublished.
//  4. Admit of another sequence finds it: the stored tokens are compared, the
//     reference count goes up; from now on the block is read only. A hit never
//     covers a prompt's last token, whose logits must be computed.
//  5. Release drops a table's references from the end to the start. A block
//     without references enters the free queue: at the tail when it is
//     published, so that it can still be hit and the least recently used is
//     reused first, and of one sequence the tail before the head; at the head
//     when it is not, for nobody can ask for it.
//  6. Taken from the free queue, a published block is evicted: it leaves the
//     index before it gets a new owner.
//
// # Forks
//
// Fork makes the table of a second choice of a prompt: it shares the parent's full
// blocks, published or not, and gets a copy of the partial last one, because both
// sequences write to that next:
//
//	parent  │ full │ full │ 2 of 4 │
//	             ↑      ↑       ↓ CopyBlocks, before the next step
//	child   │ same │ same │ copy   │
//
// # Swap
//
// SwapOut moves the content of a table to the host, SwapIn brings it back. A block
// that a copy names is in flight, from the call until Copied reports the copy: on
// both sides nobody else gets it, whatever becomes of its owner. References and
// copies are counted apart:
//
//	            SwapOut         Copied           SwapIn          Copied
//	device  ─ referenced ─┤ in flight ├─ free …… ─┤ referenced and named by a copy ├─ referenced
//	host    ─────── free ─┤ held, being written ├ held ┤ in flight, being read ├─ free
//
// A published block with other owners is not copied out; its entry says dropped.
// SwapIn looks up the prefix first, then takes from the host what continues it up to
// the first dropped entry, and the caller computes the rest. A block that was
// published when it was copied out stays findable on the device until evicted, so
// that a sequence which returns soon copies little. A full swap pool is no error:
// CanSwapOut says so, and the sequence is recomputed.
//
// # Limits
//
// SetLimits changes both pools while sequences run. Growing takes effect at once.
// Shrinking retires the ids beyond the limit: free ones leave the free queue, cached
// ones are evicted, published ones leave the index, and those that are held leave
// circulation when they are given back. Excess is what is still held: at 0 the
// memory may go.
//
// # Resetting the prefix cache
//
// ResetPrefixCache begins a new era. Tables and host tables remember the era of the
// oldest of their content, and those from before publish nothing more: nothing
// computed before the reset is hit after it, however it was kept.
//
// # Invariants
//
//	I1  Every id but 0 is in exactly one of {free queue, referenced, in flight,
//	    retired}; every host id in one of {free, held, in flight, retired}.
//	I2  References = table entries that name the block; copies = those under way.
//	I3  A shared block is full and computed; a writable one has one owner.
//	I4  The index maps a hash to one block, whose stored tokens hash to it.
//	I5  A free, evicted or retired block is in no table and not in the index.
//	I6  A block that a copy names is handed out to nobody until it is reported.
//	    (A block that only a launched step names may be: the device runs what is
//	    launched next, copies included, after it.)
//	I7  A table has room for every launched token of its sequence.
//
// Check verifies them, I3 and I7 together with the scheduler; I8 and I9 of the
// project's list are the scheduler's and the engine's.
//
// Sources: Kwon et al., "Efficient Memory Management for Large Language Model
// Serving with PagedAttention", SOSP 2023; vLLM's block_pool.py for the order of
// the free queue; nano-vllm's block_manager.py for comparing tokens on a hit;
// candle-vllm for swap plans that fall back to recompute.
package kvcache
