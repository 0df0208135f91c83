// Package server speaks the OpenAI HTTP API over an engine, with vLLM's additions,
// and Anthropic's messages. Text lives here and nowhere below: a handler turns JSON
// into token ids, submits them, and turns the tokens that come back into text, stop
// strings cut and tool calls told apart, as one JSON body or as server-sent events.
//
// # Life of a request
//
//  1. The middleware gives it an id, checks the key (only /v1/ needs one) and
//     sets the deadline of its body.
//  2. readBody takes at most maxBodyBytes and maxJSONDepth; the field tables
//     (fields.go) turn each field into a typed, range-checked value of a request,
//     or refuse it by name. Nothing is allocated from a number that was not
//     checked against limits.go. What a field table does not know is ignored, as
//     vLLM does, and logged at debug level.
//  3. The template renders messages, the tokenizer encodes them; a prompt is
//     never cut unasked. Long bodies and texts take their place in a budget
//     (budget.go) until then: their memory is in nobody's plan.
//  4. Each choice (n, several prompts) is one engine request. Its tokens pass the
//     streaming decoder, the stop matcher (stop.go) and, when the request has
//     tools, the tool parser (toolparser.go), and become deltas.
//  5. Deltas are collected, or written as events under a rolling write deadline.
//     One goroutine serves a single choice; several choices have one each and
//     share the writer. Chat and completions dress choices (shapes.go), messages
//     and responses the blocks of their only choice (blocks.go).
//
// # The page
//
// /ui is static files (page.go). What they show comes by one stream of frames
// (live.go, frame.go): one goroutine looks at the engine while there are viewers,
// and all of them read the same bytes. The inspector (inspect.go, inspected.go)
// keeps a bounded part of the last requests; a key sees what it sent itself.
//
// # Invariants
//
//  1. A request's context ends when its client goes, when a stop string is found
//     or when the handler returns; the engine frees its blocks then.
//  2. The joined deltas of a stream equal the text of the same request without
//     streaming, and contain neither a stop string nor the part of one that was
//     matched.
//  3. The first byte of a stream is sent with its first token, so an error before
//     that has a status, and clients measure a true time to first token. A later
//     error is one event {"error": …}, and no finish_reason is made up.
//  4. Error texts are fixed or speak about the request: no paths, no addresses.
package server
