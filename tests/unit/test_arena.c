// Memory that arenas leave behind and others take: what fits, and how much of it is kept.
#include "core/arena.h"

#include <criterion/criterion.h>

static atedm_device *device;
static atedm_arena_spares spares;

static void open_device(void)
{
    cr_assert_eq(atedm_device_create("ref", &device, NULL), ATEDM_OK);
}

static void close_device(void)
{
    atedm_arena_spares_finish(&spares);
    cr_expect_eq(spares.n + spares.bytes, 0);
    atedm_device_destroy(device);
}

TestSuite(arena_spares, .init = open_device, .fini = close_device);

static atedm_arena make(size_t capacity)
{
    atedm_arena arena;
    cr_assert_eq(atedm_arena_init_spare(&arena, &spares, device, capacity, NULL), ATEDM_OK);
    return arena;
}

static void keep(size_t capacity)
{
    atedm_arena arena;
    cr_assert_eq(atedm_arena_init(&arena, device, capacity, NULL), ATEDM_OK);
    atedm_arena_keep(&arena, &spares);
    cr_expect_null(arena.base);
}

Test(arena_spares, memory_comes_back)
{
    atedm_arena arena = make(1000);
    const char *base = arena.base;
    cr_expect_eq(atedm_arena_take(&arena, NULL, 300), base);
    atedm_arena_keep(&arena, &spares);
    cr_expect_eq(spares.bytes, 1000);
    arena = make(700);
    cr_expect_eq(arena.base, base);
    cr_expect_eq(arena.capacity, 1000);
    cr_expect_eq(arena.used, 0); // as a new one
    cr_expect_eq(spares.n, 0);
    atedm_arena_keep(&arena, &spares);
}

// The smallest that suffices, but not one that is mostly for nothing.
Test(arena_spares, what_fits)
{
    static const size_t kept[] = {100, 900, 800, 2000};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        keep(kept[i]);
    static const struct {
        size_t wanted, given;
    } cases[] = {{700, 800}, {700, 900}, {999, 999}, {1000, 2000}, {101, 101}, {49, 49}, {50, 100}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        atedm_arena arena = make(cases[i].wanted);
        cr_expect_eq(arena.capacity, cases[i].given, "%zu of %zu", arena.capacity, cases[i].wanted);
        atedm_arena_finish(&arena);
    }
    cr_expect_eq(spares.n, 0);
}

Test(arena_spares, number_of_blocks)
{
    for (size_t i = 0; i < ATEDM_ARENA_SPARES + 2; i++)
        keep(100 + i);
    cr_expect_eq(spares.n, ATEDM_ARENA_SPARES);
    cr_expect_eq(spares.blocks[0].capacity, 102); // the oldest went
}

Test(arena_spares, number_of_bytes)
{
    keep(ATEDM_ARENA_SPARE_BYTES + 1);
    cr_expect_eq(spares.n, 0);
    keep(ATEDM_ARENA_SPARE_BYTES / 2);
    keep(ATEDM_ARENA_SPARE_BYTES / 2);
    cr_expect_eq(spares.n, 2);
    keep(1);
    cr_expect_eq(spares.n, 2);
    cr_expect_eq(spares.bytes, ATEDM_ARENA_SPARE_BYTES / 2 + 1);
}
