// The waiting requests: order, removal from any place, sums.
#include "server/queue.h"

#include "core/base/splitmix.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

static size_t count_items(const atedm_queue *queue)
{
    size_t n = 0;
    atedm_queue_item *item, *const *link = &LIST_FIRST(&queue->items);
    for (; (item = *link); link = &LIST_NEXT(item, place), n++)
        cr_assert_eq(item->place.le_prev, link, "the link back");
    return n;
}

// Takes the items out in their order, and puts them back.
static void expect_order(atedm_queue *queue, const uint64_t *flops, size_t n)
{
    atedm_queue_item *taken[16];
    cr_assert_eq(queue->depth, n);
    cr_assert_eq(count_items(queue), n);
    for (size_t i = 0; i < n; i++) {
        taken[i] = atedm_queue_first(queue);
        cr_assert_not_null(taken[i], "only %zu items", i);
        cr_assert_eq(taken[i]->flops, flops[i], "item %zu", i);
        atedm_queue_remove(queue, taken[i]);
    }
    cr_assert_null(atedm_queue_first(queue));
    cr_assert_null(atedm_queue_most_urgent(queue));
    cr_assert_null(atedm_queue_oldest(queue));
    cr_assert(LIST_EMPTY(&queue->items));
    cr_assert_eq(queue->depth, 0);
    cr_assert_eq(queue->flops, 0);
    for (size_t i = 0; i < n; i++)
        atedm_queue_push(queue, taken[i]);
}

#define EXPECT_ORDER(queue, ...)                                                                   \
    expect_order(queue, (const uint64_t[]){__VA_ARGS__},                                           \
                 sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

Test(queue, by_priority_then_arrival)
{
    atedm_queue queue;
    atedm_queue_init(&queue, 10);
    atedm_queue_item items[] = {{.priority = 0, .arrival = 1, .flops = 1},
                                {.priority = 5, .arrival = 2, .flops = 2},
                                {.priority = 0, .arrival = 3, .flops = 4},
                                {.priority = -3, .arrival = 4, .flops = 8},
                                {.priority = 5, .arrival = 5, .flops = 16}};
    for (size_t i = 0; i < 5; i++)
        atedm_queue_push(&queue, &items[i]);
    EXPECT_ORDER(&queue, 2, 16, 1, 4, 8);
    cr_assert_eq(queue.flops, 31);
    cr_assert_eq(atedm_queue_flops_ahead(&queue, 10), 0);
    cr_assert_eq(atedm_queue_flops_ahead(&queue, 5), 18);
    cr_assert_eq(atedm_queue_flops_ahead(&queue, 1), 18);
    cr_assert_eq(atedm_queue_flops_ahead(&queue, 0), 23);
    cr_assert_eq(atedm_queue_flops_ahead(&queue, -10), 31);
}

Test(queue, by_deadline_within_a_priority)
{
    atedm_queue queue;
    atedm_queue_init(&queue, 10);
    atedm_queue_item items[] = {
        {.priority = 0, .deadline = INFINITY, .arrival = 1, .flops = 1},
        {.priority = 0, .deadline = 20, .arrival = 2, .flops = 2},
        {.priority = 0, .deadline = 10, .arrival = 3, .flops = 4},
        {.priority = 1, .deadline = INFINITY, .arrival = 4, .flops = 8},
        {.priority = 0, .deadline = 20, .arrival = 5, .flops = 16},
    };
    for (size_t i = 0; i < 5; i++)
        atedm_queue_push(&queue, &items[i]);
    EXPECT_ORDER(&queue, 8, 4, 2, 16, 1);
    cr_assert_eq(atedm_queue_most_urgent(&queue), &items[2]);
    // One that comes back takes its old place.
    atedm_queue_remove(&queue, &items[1]);
    atedm_queue_push(&queue, &items[1]);
    EXPECT_ORDER(&queue, 8, 4, 2, 16, 1);
}

Test(queue, removal_from_any_place)
{
    atedm_queue queue;
    atedm_queue_init(&queue, 10);
    atedm_queue_item items[4];
    for (size_t i = 0; i < 4; i++) {
        items[i] =
            (atedm_queue_item){.flops = UINT64_C(1) << i, .arrival = i, .since = 4 - (double)i};
        atedm_queue_push(&queue, &items[i]);
    }
    cr_assert_eq(atedm_queue_oldest(&queue), &items[3]);
    atedm_queue_remove(&queue, &items[1]);
    EXPECT_ORDER(&queue, 1, 4, 8);
    atedm_queue_remove(&queue, &items[0]);
    EXPECT_ORDER(&queue, 4, 8);
    atedm_queue_remove(&queue, &items[3]);
    EXPECT_ORDER(&queue, 4);
    cr_assert_eq(atedm_queue_oldest(&queue), &items[2]);
    atedm_queue_remove(&queue, &items[2]);
    cr_assert_null(atedm_queue_first(&queue));
    cr_assert(LIST_EMPTY(&queue.items));
    cr_assert_eq(queue.flops, 0);
    cr_assert_eq(queue.depth, 0);
    atedm_queue_push(&queue, &items[2]);
    EXPECT_ORDER(&queue, 4);
}

// ---- held against looking at all of them

enum { MANY = 500 };

static bool goes_before(const atedm_queue_item *a, const atedm_queue_item *b)
{
    if (a->priority != b->priority)
        return a->priority > b->priority;
    return a->deadline < b->deadline || (!(a->deadline > b->deadline) && a->arrival < b->arrival);
}

static void expect_as_looked_for(const atedm_queue *queue, atedm_queue_item *items,
                                 const bool *inside)
{
    const atedm_queue_item *first = NULL, *oldest = NULL;
    double nearest = INFINITY;
    uint64_t ahead = 0;
    size_t depth = 0;
    for (size_t i = 0; i < MANY; i++) {
        const atedm_queue_item *item = &items[i];
        if (!inside[i])
            continue;
        depth++;
        if (!first || goes_before(item, first))
            first = item;
        if (!oldest || item->since < oldest->since)
            oldest = item;
        nearest = fmin(nearest, item->deadline);
        ahead += item->priority >= 1 ? item->flops : 0;
    }
    cr_assert_eq(queue->depth, depth);
    cr_assert_eq(atedm_queue_first(queue), first);
    cr_assert_eq(atedm_queue_oldest(queue), oldest);
    const atedm_queue_item *urgent = atedm_queue_most_urgent(queue);
    cr_assert(urgent ? !(urgent->deadline > nearest) : !depth);
    cr_assert_eq(atedm_queue_flops_ahead(queue, 1), ahead);
}

Test(queue, thousands_come_and_go_at_random)
{
    atedm_queue queue;
    atedm_queue_init(&queue, MANY);
    static atedm_queue_item items[MANY];
    static bool inside[MANY];
    for (uint64_t i = 0; i < MANY; i++) {
        uint64_t draw = atedm_splitmix(1, i);
        items[i] =
            (atedm_queue_item){.priority = (int)(draw % ATEDM_QUEUE_CLASSES) - ATEDM_PRIORITY_MAX,
                               .deadline = draw & 1 ? INFINITY : (double)(draw >> 8 & 0xff),
                               .arrival = i,
                               .since = (double)(draw >> 16 & 0xffff) + (double)i * 1e-6,
                               .flops = draw >> 40};
    }
    for (uint64_t turn = 0; turn < 20000; turn++) {
        uint64_t draw = atedm_splitmix(2, turn);
        size_t i = draw % MANY;
        const atedm_queue_item *first = atedm_queue_first(&queue);
        if (first && draw >> 32 & 1) // who goes next is what goes most
            i = (size_t)(first - items);
        if (inside[i])
            atedm_queue_remove(&queue, &items[i]);
        else
            atedm_queue_push(&queue, &items[i]);
        inside[i] = !inside[i];
        expect_as_looked_for(&queue, items, inside);
    }
}
