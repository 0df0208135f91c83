// Package chat renders the chat template of a model: messages and tools of a
// request in, one prompt text out, byte for byte what transformers'
// apply_chat_template gives, but for the differences named below.
//
// The template engine is gonja, set up as transformers sets up Jinja2
// (trim_blocks, lstrip_blocks, loop controls, raise_exception, strftime_now,
// generation). What of gonja's own changes prompts silently is ours: objects
// keep the order of their keys, tojson writes what Python's json.dumps writes,
// numbers have Python's spelling, and so has a list or dict that is printed, None is
// not what is undefined (values.go), and some filters, methods and tests are Jinja2's
// (jinja_test.go lists them). Each tag is spelled as gonja reads it (tags.go).
//
// Models differ in what their templates want of a message. New finds out whether that
// is a content as a string or as a list of parts, and arguments of a tool call parsed
// or as a string (form.go), by renders of chats of its own. A model may have a template
// of its own for requests with tools (load.go).
//
// The differences from Jinja2 that are left and known. Silent: 'é'[0] is a byte;
// 'abc'[-3] is undefined, and so is [-1] of a list of one that the template made
// with brackets, + or a step [::2]; // and % round to zero; [1] * 2 is 0; 2 ** 3
// is a float; an empty {} that a template writes is true; a tuple prints as a
// list; the strings of a list or dict are not escaped where ~ or join writes it; a
// dict that is called by another name sorts its keywords; an attribute of what is
// undefined "is defined" not, None is an empty list to a loop, and str + dict is a
// text, which are errors in Python. Refused when the template is read:
// "a if b" without else, in parentheses or chained in a set, a set of two names,
// f(*list), two strings side by side, recursive loops. Refused when it is
// rendered: '%s' % x, and methods of a filtered value, (x | trim).startswith.
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
// see the token; strip and trim see through marks). Without the marks both texts
// must be equal; if they are not, the request is refused. A request that spells
// no token is rendered once.
//
// Invariants:
//
//  1. Prompt.Text does not depend on Options.ControlTokens.
//  2. No template and no request reaches a file, the environment or the network:
//     include, import and extends do not exist.
//  3. A render ends: JSON depth, output size, time, macro depth and range are
//     bounded, and a panic of the engine is an error.
package chat
