// Packing of panels. pack.c.
#pragma once

#include "weight.h"

// pg_pack packs `count` panels of w from `first` on with the device's threads, or only one of them
// (alone), or all rows of PG_ROWS. false: the file of source *failed cannot be read (EIO), or
// there is no memory.
bool pg_pack(const struct pg_device *d, const struct pg_weight *w, const struct pg_source *sources, int num, int first, int count,
             bool alone, int *failed);

// pg_pack_held packs a panel of a deferred weight to out, pg_kept_bytes or less, where it stays in
// the cache, and its codes; a panel that is kept is at out, too. The buffer has
// pg_pack_buffer_bytes. false: a file cannot be read.
bool pg_pack_held(const struct pg_device *d, const struct pg_weight *w, int panel, char *buffer, struct pg_codes *codes, char *out);
// pg_pack_buffer_bytes is what a panel's rows in files take in memory.
int64_t pg_pack_buffer_bytes(const struct pg_weight *w, const struct pg_source *sources, int num);
