// Coded bfloat16 (weight.h). coded.c.
#pragma once

#include "weight.h"

#ifdef __x86_64__
// pg_largest_bf16 is the greatest |w| of n bfloat16, as its bits.
uint16_t pg_largest_bf16(const char *row, int n);

// A panel that is being coded.
struct pg_coder {
	struct pg_codes *codes;
	char *out;   // the next pair
	int base;    // exponent that code 0 stands for
	int step;    // the next one's number
	int room;    // for exceptions
	int most;    // that there may be
	bool cached; // the pairs stay in the cache
};

// pg_code_begin starts a panel whose greatest |w| has the bits largest, at out, which is
// aligned to 64 bytes.
void pg_code_begin(struct pg_coder *c, struct pg_codes *codes, uint16_t largest, char *out);
// pg_code_steps codes steps of 128 bytes; they are an even number but at the end, where
// another one, of zeros, must follow an odd one. false: there are too many
// exceptions, or no memory for them.
bool pg_code_steps(struct pg_coder *c, const char *lines, int steps);
// pg_code_end gives back the memory that the panel's exceptions do not need, and makes
// what was coded visible to other threads.
void pg_code_end(struct pg_coder *c);
#endif

// pg_coded_row decodes output column (0…31, a0…a15 b0…b15) of a panel, [cols] float32.
void pg_coded_row(const struct pg_weight *w, int panel, int column, float *out);
