// Package grammar restricts what a model may generate to a JSON schema, a regular
// expression, a Lark grammar or a list of texts. It says after each token which
// ids may come next, as a mask for the sampler, and when the output may or must
// end. The work is llguidance's (Rust), in the same static library as the
// tokenizer: third_party/tokenizers-ffi/src/grammar.rs.
//
// # Cast
//
//   - Spec: what an output has to look like, as text.
//   - Vocabulary: the bytes of a tokenizer's tokens, as a trie; about a second to
//     make, once a tokenizer.
//   - Grammar: a compiled Spec. It does not change and may be shared.
//   - Matcher: one output's way through a Grammar.
//   - Compiler: compiles within bounds of time, size and concurrency, and keeps
//     the last Grammars.
//
// # Invariants
//
//  1. A token is allowed if and only if its bytes may come next. Special tokens
//     are none of the text: they are allowed only where a Lark grammar names them.
//  2. The end of the output is no id: Mask reports it, and the caller knows which
//     ids end an output.
//  3. A fault of one Matcher reaches no other: each has caches of its own.
//
// Source: Guidance, "llguidance", an Earley parser over derivatives of regular
// expressions (Earley 1970; Owens, Reppy and Turon 2009), walked over the trie.
package grammar
