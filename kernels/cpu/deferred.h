// Weights that are not packed yet. deferred.c.
//
// The memory of packed weights is new to the process, and a system may be slow to give it: a
// virtual machine whose host took back what was unused waits for it longer than packing takes.
// So loading a weight that is to be coded, from files, only sees to it that they are in the page
// cache. A product that comes before its panels are packed packs each as it needs it, in
// memory of the worker's own that stays in the cache: the same bytes, so the same results. The
// caller packs the rest by and by, while no step is under way (pg_complete).
#pragma once

#include "weight.h"

// The panels that a worker packs at a time: as many as a kernel takes side by side.
#define PG_HELD 2

// Memory for panels as they are needed.
struct pg_held {
	bool unreadable; // a file could not be read since: what was computed is wrong
	int64_t stride;  // from a worker's to the next
	char *memory;
};

// Panels as they are needed, a worker's.
struct pg_held_panels {
	char *data;
	int64_t apart; // bytes from one to the next
	int num;
	struct pg_codes codes[PG_HELD];
};

// pg_deferrable says whether the panels of a new weight can wait: they are coded, from files.
bool pg_deferrable(const struct pg_weight *w, const struct pg_source *sources, int num);
// pg_defer leaves w with no panel packed. It keeps a copy of the sources, in w->sources, whose
// files must stay open until w is ready. false and errno: no memory, or EIO for a file that
// cannot be read, that of source *unreadable.
bool pg_defer(struct pg_device *d, struct pg_weight *w, const struct pg_source *sources, int num, int *unreadable);
// pg_complete packs the next `panels` panels of w, or what is left, on one worker (alone) or all;
// nothing is under way. false: a file cannot be read, or there is no memory (errno).
bool pg_complete(struct pg_device *d, struct pg_weight *w, int panels, bool alone);
// pg_held_free gives back the workers' memory.
void pg_held_free(struct pg_device *d);

// pg_hold packs n ≤ PG_HELD panels that are not ready. They are valid until pg_hold_end, which
// comes before the worker's next pg_hold. Where a file cannot be read they are undefined.
void pg_hold(const struct pg_device *d, const struct pg_weight *w, struct pg_held_panels *h, int panel, int n, int worker);
void pg_hold_end(struct pg_held_panels *h);
// pg_deferred_row reads a row of a plain weight whose panel is not ready, [cols] float32.
void pg_deferred_row(const struct pg_device *d, const struct pg_weight *w, int64_t row, float *out, int worker);
