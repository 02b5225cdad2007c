// The waiting requests: order, removal from any place, sums.
#include "server/queue.h"

#include <criterion/criterion.h>
#include <math.h>

static void expect_order(const atedm_queue *queue, const uint64_t *flops, size_t n)
{
    const atedm_queue_item *item = queue->first;
    const atedm_queue_item *before = NULL;
    for (size_t i = 0; i < n; i++) {
        cr_assert_not_null(item, "only %zu items", i);
        cr_assert_eq(item->flops, flops[i], "item %zu", i);
        cr_assert_eq(item->before, before);
        before = item;
        item = item->after;
    }
    cr_assert_null(item);
    cr_assert_eq(queue->last, before);
    cr_assert_eq(queue->depth, n);
}

#define EXPECT_ORDER(queue, ...)                                                                   \
    expect_order(queue, (const uint64_t[]){__VA_ARGS__},                                           \
                 sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

Test(queue, by_priority_then_arrival)
{
    atedm_queue queue;
    atedm_queue_init(&queue, 10);
    atedm_queue_item items[] = {{.priority = 0, .flops = 1},
                                {.priority = 5, .flops = 2},
                                {.priority = 0, .flops = 4},
                                {.priority = -3, .flops = 8},
                                {.priority = 5, .flops = 16}};
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
    // One that comes back takes its old place.
    atedm_queue_remove(&queue, &items[1]);
    atedm_queue_push(&queue, &items[1]);
    EXPECT_ORDER(&queue, 8, 4, 2, 16, 1);
}

Test(queue, removal_from_any_place)
{
    atedm_queue queue;
    atedm_queue_init(&queue, 10);
    atedm_queue_item items[4] = {{.flops = 1}, {.flops = 2}, {.flops = 4}, {.flops = 8}};
    for (size_t i = 0; i < 4; i++)
        atedm_queue_push(&queue, &items[i]);
    atedm_queue_remove(&queue, &items[1]);
    EXPECT_ORDER(&queue, 1, 4, 8);
    atedm_queue_remove(&queue, &items[0]);
    EXPECT_ORDER(&queue, 4, 8);
    atedm_queue_remove(&queue, &items[3]);
    EXPECT_ORDER(&queue, 4);
    atedm_queue_remove(&queue, &items[2]);
    cr_assert_null(queue.first);
    cr_assert_null(queue.last);
    cr_assert_eq(queue.flops, 0);
    cr_assert_eq(queue.depth, 0);
    atedm_queue_push(&queue, &items[2]);
    EXPECT_ORDER(&queue, 4);
}
