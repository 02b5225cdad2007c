// Scratch memory: see arena.h.
#include "core/arena.h"

#include <stdint.h>
#include <string.h>

atedm_status atedm_arena_init(atedm_arena *arena, atedm_device *device, size_t capacity,
                              atedm_error *err)
{
    void *base;
    atedm_status status = atedm_device_alloc(device, capacity ? capacity : 1, &base, err);
    if (status)
        return status;
    *arena = (atedm_arena){.device = device, .base = base, .capacity = capacity};
    return ATEDM_OK;
}

void atedm_arena_init_measuring(atedm_arena *arena)
{
    *arena = (atedm_arena){.capacity = SIZE_MAX / 2};
}

void atedm_arena_finish(atedm_arena *arena)
{
    if (!arena)
        return;
    if (arena->base)
        atedm_device_free(arena->device, arena->base);
    *arena = (atedm_arena){0};
}

// ---- spare memory

static atedm_arena remove_spare(atedm_arena_spares *spares, size_t i)
{
    atedm_arena arena = spares->blocks[i];
    spares->bytes -= arena.capacity;
    spares->n--;
    memmove(&spares->blocks[i], &spares->blocks[i + 1], (spares->n - i) * sizeof arena);
    return arena;
}

atedm_status atedm_arena_init_spare(atedm_arena *arena, atedm_arena_spares *spares,
                                    atedm_device *device, size_t capacity, atedm_error *err)
{
    size_t best = spares->n;
    for (size_t i = 0; i < spares->n; i++) {
        size_t has = spares->blocks[i].capacity;
        if (has >= capacity && has / 2 <= capacity &&
            (best == spares->n || has < spares->blocks[best].capacity))
            best = i;
    }
    if (best == spares->n)
        return atedm_arena_init(arena, device, capacity, err);
    *arena = remove_spare(spares, best);
    return ATEDM_OK;
}

void atedm_arena_keep(atedm_arena *arena, atedm_arena_spares *spares)
{
    size_t capacity = arena->capacity;
    if (!arena->base || capacity > ATEDM_ARENA_SPARE_BYTES) {
        atedm_arena_finish(arena);
        return;
    }
    while (spares->n == ATEDM_ARENA_SPARES || spares->bytes + capacity > ATEDM_ARENA_SPARE_BYTES) {
        atedm_arena oldest = remove_spare(spares, 0);
        atedm_arena_finish(&oldest);
    }
    spares->blocks[spares->n++] =
        (atedm_arena){.device = arena->device, .base = arena->base, .capacity = capacity};
    spares->bytes += capacity;
    *arena = (atedm_arena){0};
}

void atedm_arena_spares_finish(atedm_arena_spares *spares)
{
    while (spares->n) {
        atedm_arena oldest = remove_spare(spares, 0);
        atedm_arena_finish(&oldest);
    }
}

// ---- taking

void *atedm_arena_take(atedm_arena *arena, atedm_stream *s, size_t bytes)
{
    size_t rounded = (bytes + ATEDM_DEVICE_ALIGN - 1) / ATEDM_DEVICE_ALIGN * ATEDM_DEVICE_ALIGN;
    if (rounded < bytes || rounded > arena->capacity - arena->used) {
        atedm_stream_fail(s, ATEDM_ERR_NOMEM, "scratch memory: %zu bytes wanted, %zu of %zu left",
                          bytes, arena->capacity - arena->used, arena->capacity);
        return NULL;
    }
    // A measuring arena's addresses must not be NULL, so they start past zero.
    uintptr_t base = arena->base ? (uintptr_t)arena->base : ATEDM_DEVICE_ALIGN;
    void *memory = (void *)(base + arena->used);
    arena->used += rounded;
    if (arena->used > arena->peak)
        arena->peak = arena->used;
    return memory;
}

size_t atedm_arena_mark(const atedm_arena *arena)
{
    return arena->used;
}

void atedm_arena_release(atedm_arena *arena, size_t mark)
{
    arena->used = mark;
}
