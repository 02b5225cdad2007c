// The hash table: all that was put in is found, among others of the same hash too.
#include "server/index.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct thing {
    atedm_index_node node;
    char name[16];
} thing;

static bool is_there(const atedm_index *index, const thing *wanted, uint64_t hash)
{
    const atedm_index_node *node = NULL;
    while ((node = atedm_index_find(index, hash, node))) {
        cr_assert_eq(node->hash, hash);
        if (node == &wanted->node)
            return true;
    }
    return false;
}

Test(index, more_than_there_are_buckets)
{
    enum { MANY = 3 * ATEDM_INDEX_BUCKETS };
    atedm_index *index = malloc(sizeof *index);
    thing *things = calloc(MANY, sizeof *things);
    atedm_index_init(index);
    for (int i = 0; i < MANY; i++) {
        snprintf(things[i].name, sizeof things[i].name, "%d", i);
        atedm_index_add(index, &things[i].node, atedm_index_hash(index, things[i].name, "key"));
    }
    for (int i = 0; i < MANY; i += 3)
        atedm_index_remove(index, &things[i].node);
    for (int i = 0; i < MANY; i++)
        cr_assert_eq(is_there(index, &things[i], atedm_index_hash(index, things[i].name, "key")),
                     i % 3 != 0, "%d", i);
    free(things);
    free(index);
}

Test(index, one_hash)
{
    atedm_index *index = malloc(sizeof *index);
    thing things[3];
    atedm_index_init(index);
    for (int i = 0; i < 3; i++)
        atedm_index_add(index, &things[i].node, 7);
    atedm_index_remove(index, &things[1].node);
    cr_expect(is_there(index, &things[0], 7));
    cr_expect_not(is_there(index, &things[1], 7));
    cr_expect(is_there(index, &things[2], 7));
    cr_expect_null(atedm_index_find(index, 7 + ATEDM_INDEX_BUCKETS, NULL));
    free(index);
}

Test(index, hashes_are_of_both_texts)
{
    atedm_index *index = malloc(sizeof *index), *other = malloc(sizeof *other);
    atedm_index_init(index);
    atedm_index_init(other);
    cr_expect_neq(atedm_index_hash(index, "ab", "c"), atedm_index_hash(index, "a", "bc"));
    cr_expect_neq(atedm_index_hash(index, "", "abcdefgh"), atedm_index_hash(index, "abcdefgh", ""));
    cr_expect_eq(atedm_index_hash(index, "ab", "c"), atedm_index_hash(index, "ab", "c"));
    cr_expect_neq(atedm_index_hash(index, "ab", "c"), atedm_index_hash(other, "ab", "c"));
    free(index);
    free(other);
}
