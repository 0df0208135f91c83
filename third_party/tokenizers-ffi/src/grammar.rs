//! The Rust side of package model/grammar: llguidance behind a C ABI.
//!
//! A Vocabulary is the tokens' bytes as a trie, made once a tokenizer. A Grammar
//! is a compiled specification; it stays as it was compiled. A Matcher is one
//! output's way through a grammar, with lexer caches of its own, so that nothing
//! that happens to one reaches another. The vocabulary has one id more than the
//! tokenizer, the last: it stands for the end of the output, whatever ids the
//! model ends with.
//!
//! Threads: a Vocabulary and a Grammar may be shared; a Matcher has one user at a
//! time. Ownership: what `open`, `compile` and `matcher` return is freed by the
//! call of the same name with `_free`.

use std::sync::{Arc, Mutex};

use libc::c_char;
use llguidance::api::{GrammarWithLexer, ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};
use llguidance::{Matcher, ParserFactory};

use crate::{caught, guard, slice, Failure};

/// Compiling recurses over the specification. The pages that it does not touch
/// cost nothing.
const COMPILE_STACK: usize = 512 << 20;

/// Bits of the flags that `pagoda_matcher_mask` writes.
const MAY_END: u32 = 1;
const MUST_END: u32 = 2;

pub struct Vocabulary {
    factory: ParserFactory,
}

pub struct Grammar {
    fresh: Mutex<Matcher>,
}

/// The trie, without a tokenizer: nothing here asks how a model would spell text.
struct Trie(TokTrie);

impl TokenizerEnv for Trie {
    fn tok_trie(&self) -> &TokTrie {
        &self.0
    }

    fn tokenize_bytes(&self, s: &[u8]) -> Vec<TokenId> {
        self.0.greedy_tokenize(s)
    }

    fn tokenize_is_canonical(&self) -> bool {
        false
    }
}

/// Bounds of a grammar and of the work of one mask. The library's own units; the
/// comments are its measurements.
fn limits() -> ParserLimits {
    ParserLimits {
        initial_lexer_fuel: 1_000_000, // 20 ms
        step_lexer_fuel: 200_000,      // 14 ms
        step_max_items: 50_000,        // 2.5 ms
        max_items_in_row: 2_000,
        max_lexer_states: 50_000, // 100 MB
        max_grammar_size: 500_000,
        precompute_large_lexemes: true,
        verbose_errors: false,
    }
}

/// Builds a vocabulary from `count` tokens, ids ascending from 0: `lengths` are
/// their bytes' numbers, `bytes` the bytes, one behind the other. A token without
/// bytes is never allowed. A special token's bytes begin with 0xFF; text has none.
///
/// # Safety
/// `bytes` points to as many bytes as `lengths`' `count` entries add up to.
#[no_mangle]
pub unsafe extern "C" fn pagoda_vocabulary_open(
    bytes: *const u8,
    lengths: *const u32,
    count: usize,
    error: *mut *mut c_char,
) -> *mut Vocabulary {
    guard(error, || {
        let lengths = slice(lengths, count);
        let mut rest = slice(bytes, lengths.iter().map(|&n| n as usize).sum());
        let mut words: Vec<Vec<u8>> = Vec::with_capacity(count + 1);
        for &n in lengths {
            let (word, after) = rest.split_at(n as usize);
            words.push(word.to_vec());
            rest = after;
        }
        words.push(b"\xFF<|end of output|>".to_vec());
        let trie = TokTrie::from(&TokRxInfo::new(count as u32 + 1, count as u32), &words);
        let env: TokEnv = Arc::new(Trie(trie));
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        let mut factory = ParserFactory::new(&env, InferenceCapabilities::default(), &slices)?;
        factory.quiet();
        *factory.limits_mut() = limits();
        Ok(Box::into_raw(Box::new(Vocabulary { factory })))
    })
    .unwrap_or(std::ptr::null_mut())
}

/// # Safety
/// `v` came from `pagoda_vocabulary_open`; no grammar is being compiled with it.
#[no_mangle]
pub unsafe extern "C" fn pagoda_vocabulary_free(v: *mut Vocabulary) {
    drop(Box::from_raw(v));
}

/// Compiles a specification: `kind` 0 is Lark text, 1 a JSON schema, 2 a regular
/// expression. The result does not need the vocabulary's handle any more. `bytes`
/// is about the memory that it takes.
///
/// # Safety
/// `v` is open; `text` points to `len` bytes; `bytes` is writable.
#[no_mangle]
pub unsafe extern "C" fn pagoda_grammar_compile(
    v: *const Vocabulary,
    kind: u32,
    text: *const u8,
    len: usize,
    bytes: *mut usize,
    error: *mut *mut c_char,
) -> *mut Grammar {
    guard(error, || {
        let text = std::str::from_utf8(slice(text, len))?;
        let factory = &(*v).factory;
        let (fresh, size) = std::thread::scope(|scope| {
            std::thread::Builder::new()
                .stack_size(COMPILE_STACK)
                .spawn_scoped(scope, || caught(|| compile(factory, kind, text)))
                .map_err(|e| e.to_string())?
                .join()
                .unwrap_or_else(|_| Err("the grammar's compiler failed".into()))
        })
        .map_err(plain)?;
        *bytes = size;
        Ok(Box::into_raw(Box::new(Grammar { fresh: Mutex::new(fresh) })))
    })
    .unwrap_or(std::ptr::null_mut())
}

/// Also computes the first mask: what cannot begin is the compiler's error, and
/// every matcher starts with the caches that it filled.
fn compile(factory: &ParserFactory, kind: u32, text: &str) -> Result<(Matcher, usize), Failure> {
    let grammar = match kind {
        0 => GrammarWithLexer::from_lark(text.to_string()),
        1 => GrammarWithLexer::from_json_schema(serde_json::from_str(text)?),
        _ => GrammarWithLexer::from_regex(text),
    };
    let mut parser = factory.create_parser(TopLevelGrammar::from_grammar(grammar))?;
    parser.start_without_prompt();
    if !parser.check_stop()? {
        parser.compute_mask()?;
    }
    let size = parser.parser.lexer_stats().num_bytes;
    Ok((Matcher::new(Ok(parser)), size))
}

/// The library's reason without what it adds for its own developers.
fn plain(message: String) -> Failure {
    let end = message.find("\n<").unwrap_or(message.len());
    message[..end].trim_end().into()
}

/// # Safety
/// `g` came from `pagoda_grammar_compile`.
#[no_mangle]
pub unsafe extern "C" fn pagoda_grammar_free(g: *mut Grammar) {
    drop(Box::from_raw(g));
}

/// Starts an output.
///
/// # Safety
/// `g` is a grammar.
#[no_mangle]
pub unsafe extern "C" fn pagoda_matcher_new(g: *const Grammar, error: *mut *mut c_char) -> *mut Matcher {
    guard(error, || {
        let fresh = (*g).fresh.lock().map_err(|_| "the grammar is unusable after a panic")?;
        Ok(Box::into_raw(Box::new(fresh.deep_clone())))
    })
    .unwrap_or(std::ptr::null_mut())
}

/// # Safety
/// `m` came from `pagoda_matcher_new`.
#[no_mangle]
pub unsafe extern "C" fn pagoda_matcher_free(m: *mut Matcher) {
    drop(Box::from_raw(m));
}

/// Writes the set of ids that may come next, a bit an id, into `words`; what does
/// not fit is left out. `flags`: MAY_END, the output may end here; MUST_END,
/// nothing else can come, and the words are 0.
///
/// # Safety
/// `words` has `count` writable words; `flags` is writable.
#[no_mangle]
pub unsafe extern "C" fn pagoda_matcher_mask(
    m: *mut Matcher,
    words: *mut u32,
    count: usize,
    flags: *mut u32,
    error: *mut *mut c_char,
) -> bool {
    guard(error, || {
        let out = std::slice::from_raw_parts_mut(words, count);
        let m = &mut *m;
        out.fill(0);
        if m.is_stopped() && m.stop_reason().is_ok() {
            *flags = MAY_END | MUST_END;
            return Ok(());
        }
        let mask = m.compute_mask().map_err(|e| plain(e.to_string()))?;
        let end = m.tok_env()?.tok_trie().eos_token() as usize;
        let may_end = mask.is_allowed(end as TokenId);
        let allowed = mask.as_slice();
        let n = out.len().min(allowed.len());
        out[..n].copy_from_slice(&allowed[..n]);
        if let Some(word) = out.get_mut(end / 32) {
            *word &= !(1 << (end % 32));
        }
        *flags = match (may_end, out.iter().all(|&w| w == 0)) {
            (true, true) => MAY_END | MUST_END,
            (true, false) => MAY_END,
            _ => 0,
        };
        Ok(())
    })
    .is_some()
}

/// Takes the id that was drawn.
///
/// # Safety
/// `m` is a matcher.
#[no_mangle]
pub unsafe extern "C" fn pagoda_matcher_accept(m: *mut Matcher, id: u32, error: *mut *mut c_char) -> bool {
    guard(error, || (*m).consume_token(id).map_err(|e| plain(e.to_string()))).is_some()
}
