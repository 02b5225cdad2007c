// Scratch memory on a device: a stack of allocations in one block, released back to a mark. No
// device memory is allocated while steps run. A measuring arena has no memory: it returns addresses
// only and records the peak, from which a dry run learns how much memory a real run needs.
#ifndef ATEDM_ARENA_H
#define ATEDM_ARENA_H

#include "kernels/kernels.h"

typedef struct atedm_arena {
    atedm_device *device;
    char *base;                  // NULL: measuring
    size_t capacity, used, peak; // bytes
} atedm_arena;

// Allocates `capacity` bytes on the device. ATEDM_ERR_NOMEM: the device has no room.
ATEDM_MUST_CHECK atedm_status atedm_arena_init(atedm_arena *arena, atedm_device *device,
                                               size_t capacity, atedm_error *err);
void atedm_arena_init_measuring(atedm_arena *arena);
void atedm_arena_finish(atedm_arena *arena); // NULL allowed

// Blocks of finished arenas, kept for later ones. Allocating device memory takes time, and freeing
// it waits until the device has done all its work. No enqueued work may use a block that is kept;
// the owner makes sure of that.
#define ATEDM_ARENA_SPARES 16
#define ATEDM_ARENA_SPARE_BYTES ((size_t)64 << 20) // of all blocks together
typedef struct atedm_arena_spares {
    atedm_arena blocks[ATEDM_ARENA_SPARES]; // oldest first
    size_t n, bytes;                        // number of blocks, their total capacity
} atedm_arena_spares;
// Same as atedm_arena_init, but takes the smallest spare block that has the capacity, if there is
// one of at most about twice that capacity.
ATEDM_MUST_CHECK atedm_status atedm_arena_init_spare(atedm_arena *arena, atedm_arena_spares *spares,
                                                     atedm_device *device, size_t capacity,
                                                     atedm_error *err);
// Same as atedm_arena_finish, but keeps the block as a spare one and frees the oldest spare blocks
// that exceed the limits. A block over ATEDM_ARENA_SPARE_BYTES is freed.
void atedm_arena_keep(atedm_arena *arena, atedm_arena_spares *spares);
void atedm_arena_spares_finish(atedm_arena_spares *spares); // frees all blocks

// Takes `bytes` bytes, aligned to ATEDM_DEVICE_ALIGN. If they exceed the capacity, the stream fails
// (ATEDM_ERR_NOMEM) and the result is NULL; operations on a failed stream do not use it.
void *atedm_arena_take(atedm_arena *arena, atedm_stream *s, size_t bytes);
size_t atedm_arena_mark(const atedm_arena *arena);         // the present end of the stack
void atedm_arena_release(atedm_arena *arena, size_t mark); // takes everything since `mark` back

#endif
