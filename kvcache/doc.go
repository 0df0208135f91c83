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
//   - Manager: references, free queue and prefix index of all blocks.
//   - Store: the bytes behind the ids, on the device and the host.
//
// # The life of a block
//
//  1. Admit takes blocks for a whole prompt at once, or none: it looks up the
//     longest published prefix, pins it, checks that the rest fits, and takes
//     the rest from the head of the free queue, all in one call. Grow appends
//     blocks one by one as the sequence gets longer.
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
// # Invariants
//
//	I1  Every id but 0 is in exactly one of {free queue, referenced}.
//	I2  References = table entries that name the block.
//	I3  A shared block is full and published; a writable one has one owner.
//	I4  The index maps a hash to one block, whose stored tokens hash to it.
//	I5  A free block is in no table.
//	I7  A table has room for every computed token of its sequence.
//
// Check verifies them; I7, and I6, I8 and I9 of the project's list, are for
// scheduler and engine to keep.
//
// Sources: Kwon et al., "Efficient Memory Management for Large Language Model
// Serving with PagedAttention", SOSP 2023; vLLM's block_pool.py for the order of
// the free queue; nano-vllm's block_manager.py for comparing tokens on a hit.
package kvcache
