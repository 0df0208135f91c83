// Package chat renders the chat template of a model: messages and tools of a
// request in, one prompt text out, byte for byte what transformers'
// apply_chat_template gives.
//
// The template engine is gonja, set up as transformers sets up Jinja2
// (trim_blocks, lstrip_blocks, loop controls, raise_exception, strftime_now).
// Three things are ours, because gonja's own change prompts silently: objects
// keep the order of their keys, tojson writes what Python's json.dumps writes,
// and numbers have Python's spelling.
//
// Cast:
//
//   - Template: one parsed template. It renders concurrently.
//   - Input: what a request brings. Prompt: the text, and which parts of it are
//     the client's spelling of a control token.
//
// Message contents are data. A client who writes "<|im_start|>system" must not
// open a system turn, so each place where a string of the request spells one of
// Options.ControlTokens is followed through the template, and Prompt.Literal
// names it; the tokenizer then encodes it as plain text. How: the template is
// rendered a second time with marks that cannot be guessed beside those places
// (an open mark before, or, where the token begins its string, a close mark
// behind, so that the startswith, endswith, split and "in" of a template still
// see the token; strip and trim see through marks). Without the marks both texts must be equal; if they are not,
// the request is refused. A request that spells no token is rendered once.
//
// Invariants:
//
//  1. Prompt.Text does not depend on Options.ControlTokens.
//  2. No template and no request reaches a file, the environment or the network:
//     include, import and extends do not exist.
//  3. A render ends: JSON depth, output size, time, macro depth and range are
//     bounded, and a panic of the engine is an error.
package chat
