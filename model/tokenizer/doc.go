// Package tokenizer turns text into token ids and ids back into text, as the
// model's tokenizer.json says.
//
// Encoding is done by Hugging Face's tokenizers (Rust) through the library of
// github.com/daulet/tokenizers, wrapped in third_party/tokenizers-ffi so that a
// malformed file or a panic in Rust is an error here. Decoding is done in Go:
// a byte-level token is a fixed run of bytes, so a Decoder appends bytes and
// never crosses into C.
//
// Cast:
//
//   - Tokenizer: one opened tokenizer.json. Encode for raw prompts,
//     EncodeRendered for rendered chats, EncodePlain for text that is only data.
//   - Decoder: the streaming half of one sequence; ids in, text out.
//
// Invariants:
//
//  1. A prompt is never cut: truncation and padding of the file are off.
//  2. The pieces of a Decoder joined with its Flush equal Decode of all ids, and
//     no piece ends inside a character that the next id may complete.
//  3. Bytes that are not UTF-8 become U+FFFD, one for each maximal invalid part
//     (Unicode Standard, section 3.9, "U+FFFD Substitution of Maximal
//     Subparts"), as Rust's String::from_utf8_lossy does.
//  4. An id outside the vocabulary decodes to nothing: models have more
//     embedding rows than their tokenizer has tokens.
//
// A Tokenizer may be used by many goroutines; a Decoder belongs to one.
package tokenizer
