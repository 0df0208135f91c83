//! The Rust side of package model/tokenizer: daulet/tokenizers, unchanged, and
//! the guarded exports below. Module grammar is that of package model/grammar.
//!
//! A panic that crosses a C frame aborts the process, and the tokenizers crate
//! panics on some malformed tokenizer.json files. Every export here therefore
//! runs inside `guard`, which turns a panic into an error string. `open` also
//! tries the new tokenizer once, so that a file that builds but cannot encode
//! or decode is refused while the model loads and not by the first request.
//!
//! daulet's own encode takes NUL-terminated text, which would cut a prompt at
//! U+0000, and always parses added tokens. `pagoda_tokenizer_encode` takes a
//! length, and byte ranges in which added tokens are plain text.
//!
//! Ownership: a handle from `open` is daulet's `UnifiedTokenizer` and is freed
//! by `tokenizers_free_tokenizer`; error strings by `tokenizers_free_string`;
//! buffers by `pagoda_buffer_free`. A handle may be shared by threads.

#[path = "../../../.cache/tokenizers/lib.rs"]
#[allow(dead_code)]
mod daulet;

mod grammar;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Once;

use daulet::UnifiedTokenizer;
use libc::{c_char, c_void};
use tokenizers::models::bpe::BPE;
use tokenizers::tokenizer::{
    Model, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer, Tokenizer, TokenizerImpl,
};
use tokenizers::{DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper};

/// What a byte-level file holds. Reading it as a BPE straight away, rather than as one of
/// the crate's four models, spares four passes over trees of JSON values: a third of the time.
type BytePairs = TokenizerImpl<BPE, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// Opening a tokenizer makes a million small strings, on a thread of its own, for which
/// glibc's heaps grow a page at a time: two thirds of the time with this one. Only Rust's
/// memory is concerned.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Text that `open` encodes and decodes: words, digits, white space, quotes,
/// composed and decomposed letters, a script without spaces, an emoji, U+0000.
const PROBE: &str = "Hello, it's 12 o'clock\r\n\n  \t\u{e9} e\u{301} \u{4f60}\u{597d} \u{1f600}\0!";

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

static HOOK: Once = Once::new();

/// Runs `f`; an error or a panic becomes a message.
fn caught<T>(f: impl FnOnce() -> Result<T, Failure>) -> Result<T, String> {
    HOOK.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if GUARDED.get() {
                PANIC.set(info.payload_as_str().map(str::to_string));
            } else {
                default(info);
            }
        }));
    });
    GUARDED.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(f));
    GUARDED.set(false);
    match outcome {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err(format!("library panicked: {}", PANIC.take().unwrap_or_default()).replace('\n', " ")),
    }
}

/// `caught` for C: the message goes to `*error`, and `None` comes back.
fn guard<T>(error: *mut *mut c_char, f: impl FnOnce() -> Result<T, Failure>) -> Option<T> {
    let message = match caught(f) {
        Ok(value) => return Some(value),
        Err(message) => message,
    };
    if !error.is_null() {
        let text = CString::new(message.replace('\0', "\u{fffd}")).unwrap_or_default();
        unsafe { *error = text.into_raw() };
    }
    None
}

/// A heap block of `len` bytes handed to C.
#[repr(C)]
pub struct Buffer {
    data: *mut u8,
    len: usize,
}

impl Buffer {
    fn from_bytes(bytes: Vec<u8>) -> Buffer {
        let boxed = bytes.into_boxed_slice();
        let len = boxed.len();
        Buffer { data: Box::into_raw(boxed).cast(), len }
    }
}

unsafe fn slice<'a, T>(data: *const T, len: usize) -> &'a [T] {
    if len == 0 {
        &[]
    } else {
        std::slice::from_raw_parts(data, len)
    }
}

unsafe fn tokenizer<'a>(handle: *const c_void) -> Result<&'a Tokenizer, Failure> {
    match handle.cast::<UnifiedTokenizer>().as_ref() {
        Some(UnifiedTokenizer::HuggingFace(t)) => Ok(t),
        _ => Err("not an open tokenizer".into()),
    }
}

/// Builds a tokenizer from the bytes of tokenizer.json and tries it. Padding
/// and truncation of the file are switched off: a prompt is never cut.
///
/// # Safety
/// `bytes` points to `len` readable bytes; `error` is null or writable.
#[no_mangle]
pub unsafe extern "C" fn pagoda_tokenizer_open(
    bytes: *const u8,
    len: usize,
    error: *mut *mut c_char,
) -> *mut c_void {
    guard(error, || {
        let bytes = slice(bytes, len);
        let mut t = match BytePairs::from_bytes(bytes) {
            Ok(t) => t.into(),
            Err(_) => Tokenizer::from_bytes(bytes)?, // another model, or an error to tell
        };
        t.with_truncation(None)?;
        t.with_padding(None);
        require_byte_level(&t)?;
        if t.get_normalizer().is_some_and(makes_up) {
            return Err("a normalizer that replaces or prepends text is not supported".into());
        }
        let mut ids = t.encode_fast(PROBE, true)?.get_ids().to_vec();
        ids.extend(encode_with_literals(&t, PROBE, &[0, PROBE.len()])?);
        t.decode(&ids, false)?;
        t.decode(&ids, true)?;
        Ok(Box::into_raw(Box::new(UnifiedTokenizer::HuggingFace(t))).cast())
    })
    .unwrap_or(std::ptr::null_mut())
}

/// One more than the largest id of a tokenizer.json, or −1 where that cannot be told: read
/// from the text, which takes a twentieth of the time that `open` does. A file whose added
/// tokens have other ids than it says makes a tokenizer of another size.
///
/// # Safety
/// `bytes` points to `len` readable bytes.
#[no_mangle]
pub unsafe extern "C" fn pagoda_tokenizer_size(bytes: *const u8, len: usize) -> i64 {
    #[derive(serde::Deserialize)]
    struct File {
        #[serde(default)]
        added_tokens: Vec<Added>,
        model: Bpe,
    }
    #[derive(serde::Deserialize)]
    struct Added {
        id: u32,
    }
    #[derive(serde::Deserialize)]
    struct Bpe {
        vocab: Largest,
    }
    guard(std::ptr::null_mut(), || {
        let file: File = serde_json::from_slice(slice(bytes, len))?;
        let largest = file.added_tokens.iter().map(|token| token.id).fold(file.model.vocab.0, u32::max);
        Ok(i64::from(largest) + 1)
    })
    .unwrap_or(-1)
}

/// The largest value of a JSON object.
struct Largest(u32);

impl<'de> serde::Deserialize<'de> for Largest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Largest, D::Error> {
        struct Visit;
        impl<'de> serde::de::Visitor<'de> for Visit {
            type Value = Largest;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("an object of ids")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Largest, A::Error> {
                let mut largest = 0;
                while let Some((_, id)) = map.next_entry::<serde::de::IgnoredAny, u32>()? {
                    largest = id.max(largest);
                }
                Ok(Largest(largest))
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

/// The Go side joins token bytes itself, which is right for one decoder only.
fn require_byte_level(t: &Tokenizer) -> Result<(), Failure> {
    let decoder = serde_json::to_value(t.get_decoder())?;
    let kind = |d: &serde_json::Value| d["type"].as_str().unwrap_or("none").to_string();
    let parts = match decoder["decoders"].as_array() {
        Some(parts) => parts.iter().map(kind).collect(),
        None => vec![kind(&decoder)],
    };
    if parts != ["ByteLevel"] {
        return Err(format!("decoder {} is not supported (supported: ByteLevel)", parts.join("+")).into());
    }
    Ok(())
}

/// Whether a normalizer puts in text of its own. Byte-level models have no use for one, and a file could
/// make gigabytes of a prompt with it.
fn makes_up(n: &NormalizerWrapper) -> bool {
    match n {
        NormalizerWrapper::Sequence(parts) => parts.as_ref().iter().any(makes_up),
        NormalizerWrapper::Replace(_) | NormalizerWrapper::Prepend(_) | NormalizerWrapper::Precompiled(_) => true,
        _ => false,
    }
}

/// Encodes UTF-8 text into 32-bit ids. `literals` holds `n_literals` pairs of
/// byte offsets [start, end), ascending and disjoint; an added token is parsed
/// only where it touches none of them. `post_process` adds what the file's
/// post-processor adds (BOS, say); it counts only when there is no literal.
///
/// # Safety
/// `text` points to `len` bytes, `literals` to 2·`n_literals` offsets.
#[no_mangle]
pub unsafe extern "C" fn pagoda_tokenizer_encode(
    handle: *const c_void,
    text: *const u8,
    len: usize,
    literals: *const usize,
    n_literals: usize,
    post_process: bool,
    out: *mut Buffer,
    error: *mut *mut c_char,
) -> bool {
    guard(error, || {
        let t = tokenizer(handle)?;
        let text = std::str::from_utf8(slice(text, len))?;
        let ids = if n_literals == 0 {
            t.encode_fast(text, post_process)?.get_ids().to_vec()
        } else {
            encode_with_literals(t, text, slice(literals, 2 * n_literals))?
        };
        let bytes = ids.iter().flat_map(|id| id.to_ne_bytes()).collect();
        out.write(Buffer::from_bytes(bytes));
        Ok(())
    })
    .is_some()
}

/// The crate finds the added tokens as always; those that touch a literal range
/// (or span an empty one) are dropped, and the text between the others goes
/// through normalizer, pre-tokenizer and model, as the crate does with the text
/// between added tokens. Both sequences ascend, so one pass is enough.
fn encode_with_literals(t: &Tokenizer, text: &str, literals: &[usize]) -> Result<Vec<u32>, Failure> {
    let mut literals = literals.chunks_exact(2).peekable();
    let found = t.get_added_vocabulary().extract_and_normalize(t.get_normalizer(), text);
    let mut ids = Vec::new();
    let mut plain_from = 0;
    for (_, (start, end), tokens) in found.get_splits(OffsetReferential::Original, OffsetType::Byte) {
        let Some(tokens) = tokens else { continue };
        while literals.next_if(|range| range[1] <= start).is_some() {}
        if literals.peek().is_some_and(|range| range[0] < end) {
            continue;
        }
        encode_plain(t, &text[plain_from..start], &mut ids)?;
        ids.extend(tokens.iter().map(|token| token.id));
        plain_from = end;
    }
    encode_plain(t, &text[plain_from..], &mut ids)?;
    Ok(ids)
}

fn encode_plain(t: &Tokenizer, text: &str, ids: &mut Vec<u32>) -> Result<(), Failure> {
    if text.is_empty() {
        return Ok(());
    }
    let mut normalized = NormalizedString::from(text);
    if let Some(n) = t.get_normalizer() {
        n.normalize(&mut normalized)?;
    }
    let mut pieces = PreTokenizedString::from(normalized);
    if let Some(p) = t.get_pre_tokenizer() {
        p.pre_tokenize(&mut pieces)?;
    }
    pieces.tokenize(|piece| t.get_model().tokenize(piece.get()))?;
    for (_, _, tokens) in pieces.get_splits(OffsetReferential::Original, OffsetType::None) {
        ids.extend(tokens.iter().flatten().map(|token| token.id));
    }
    Ok(())
}

/// Writes every token as {id u32, flags u32, length u32, spelling}, native byte
/// order, ids ascending. Flag 1: added token; flag 2: special.
///
/// # Safety
/// `handle` is open; `out` is writable.
#[no_mangle]
pub unsafe extern "C" fn pagoda_tokenizer_vocab(
    handle: *const c_void,
    out: *mut Buffer,
    error: *mut *mut c_char,
) -> bool {
    guard(error, || {
        let t = tokenizer(handle)?;
        let added = t.get_added_tokens_decoder();
        let mut bytes = Vec::new();
        let mut write = |id: u32| {
            let Some(token) = t.id_to_token(id) else { return false };
            let is_added = added.contains_key(&id);
            let special = is_added && t.get_added_vocabulary().is_special_token(&token);
            for word in [id, u32::from(is_added) | u32::from(special) << 1, token.len() as u32] {
                bytes.extend(word.to_ne_bytes());
            }
            bytes.extend(token.as_bytes());
            true
        };
        // Almost all ids are below the number of tokens. The list of the others takes a copy
        // of the vocabulary, which is made only when there are any.
        let beside = t.get_added_vocabulary().get_vocab().keys().filter(|token| t.get_model().token_to_id(token).is_none());
        let size = t.get_model().get_vocab_size() + beside.count();
        let dense = (0..size as u32).filter(|&id| write(id)).count();
        if dense < size {
            let ids: BTreeSet<u32> = t.get_vocab(true).into_values().filter(|&id| id >= size as u32).collect();
            for id in ids {
                write(id);
            }
        }
        out.write(Buffer::from_bytes(bytes));
        Ok(())
    })
    .is_some()
}

/// The id of a token by its spelling in the vocabulary, or −1.
///
/// # Safety
/// `token` points to `len` bytes.
#[no_mangle]
pub unsafe extern "C" fn pagoda_tokenizer_id(handle: *const c_void, token: *const u8, len: usize) -> i64 {
    guard(std::ptr::null_mut(), || {
        let token = std::str::from_utf8(slice(token, len))?;
        Ok(tokenizer(handle)?.token_to_id(token).map_or(-1, i64::from))
    })
    .unwrap_or(-1)
}

/// Frees what an export wrote to its `out`.
///
/// # Safety
/// `buffer` came from this library and is freed once.
#[no_mangle]
pub unsafe extern "C" fn pagoda_buffer_free(buffer: Buffer) {
    drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(buffer.data, buffer.len)));
}
