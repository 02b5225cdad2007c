// Scratch memory on a device: a stack of allocations that is taken back to a mark. One big block,
// so nothing is allocated while steps run. An arena over no memory ("measuring") hands out
// addresses only and records the peak, which is how a dry run learns what a real run needs.
#ifndef ATEDM_ARENA_H
#define ATEDM_ARENA_H

#include "kernels/kernels.h"

typedef struct atedm_arena {
    atedm_device *device;
    char *base; // NULL: measuring
    size_t capacity, used, peak;
} atedm_arena;

ATEDM_MUST_CHECK atedm_status atedm_arena_init(atedm_arena *arena, atedm_device *device,
                                               size_t capacity, atedm_error *err);
void atedm_arena_init_measuring(atedm_arena *arena);
void atedm_arena_finish(atedm_arena *arena); // NULL allowed

// Memory of arenas that are finished, for those that come next: a device takes its time to give
// memory, and waits for all of its work to take it back. The owner sees to it that nothing is under
// way in it.
#define ATEDM_ARENA_SPARES 16
#define ATEDM_ARENA_SPARE_BYTES ((size_t)64 << 20) // of all
typedef struct atedm_arena_spares {
    atedm_arena blocks[ATEDM_ARENA_SPARES]; // the oldest first
    size_t n, bytes;
} atedm_arena_spares;
// As atedm_arena_init, by a spare one where one has the capacity and not more than twice that.
ATEDM_MUST_CHECK atedm_status atedm_arena_init_spare(atedm_arena *arena, atedm_arena_spares *spares,
                                                     atedm_device *device, size_t capacity,
                                                     atedm_error *err);
// As atedm_arena_finish, but that its memory is kept, and that of older ones goes for it.
void atedm_arena_keep(atedm_arena *arena, atedm_arena_spares *spares);
void atedm_arena_spares_finish(atedm_arena_spares *spares);

// `bytes` of scratch, aligned to ATEDM_DEVICE_ALIGN. Past the capacity the stream fails
// (ATEDM_ERR_NOMEM) and NULL comes back, which operations on a failed stream never touch.
void *atedm_arena_take(atedm_arena *arena, atedm_stream *s, size_t bytes);
size_t atedm_arena_mark(const atedm_arena *arena);
void atedm_arena_release(atedm_arena *arena, size_t mark);

#endif
