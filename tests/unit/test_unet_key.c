// Keys of UNet evaluations: whatever an evaluation reads on the host is in its key, and nothing
// else.
#include "core/unet_key.h"

#include <criterion/criterion.h>
#include <string.h>

enum { BLOCKS = 3, SAMPLES = 2 };

typedef struct evaluation {
    atedm_prune_spec spec;
    float rho[ATEDM_MAX_BLOCKS];
    atedm_unet_sample samples[SAMPLES];
    atedm_unet_args args;
} evaluation;

static char memory[8];
static const atedm_arena arena = {.base = memory, .capacity = sizeof memory};

static void init(evaluation *e)
{
    *e = (evaluation){.rho = {0.1F, 0.2F, 0.3F}};
    cr_assert_eq(atedm_prune_preset("at-edm-c", &e->spec), ATEDM_OK);
    e->samples[0] = (atedm_unet_sample){.timestep = 7, .mask_from = 1};
    e->samples[1] = (atedm_unet_sample){.timestep = 7, .prune = &e->spec, .rho = e->rho};
    e->args = (atedm_unet_args){.x = memory,
                                .context = memory + 1,
                                .context_tokens = 77,
                                .samples = e->samples,
                                .n = SAMPLES,
                                .h = 8,
                                .w = 8,
                                .y = memory + 2};
}

static size_t make(const evaluation *e, atedm_unet_key *key)
{
    memset(key, 0xa5, sizeof *key); // what it leaves as it was is not part of it
    return atedm_unet_key_make(NULL, BLOCKS, &e->args, memory + 3, NULL, &arena, key);
}

static bool same_key(const evaluation *a, const evaluation *b)
{
    static atedm_unet_key one, other;
    size_t bytes = make(a, &one);
    return bytes == make(b, &other) && !memcmp(&one, &other, bytes);
}

static float scores[1];
static const bool none_rank[BLOCKS], all_rank[BLOCKS] = {true, true, true};

Test(unet_key, everything_that_is_read)
{
    evaluation plain, e;
    init(&plain);
    init(&e);
    cr_expect(same_key(&plain, &e));
#define DIFFERS(change)                                                                            \
    do {                                                                                           \
        init(&e);                                                                                  \
        change;                                                                                    \
        cr_expect(!same_key(&plain, &e), #change);                                                 \
    } while (0)
    DIFFERS(e.args.x = memory + 4);
    DIFFERS(e.args.context = memory + 4);
    DIFFERS(e.args.y = memory + 4);
    DIFFERS(e.args.context_tokens = 76);
    DIFFERS(e.args.h = 16);
    DIFFERS(e.args.w = 16);
    DIFFERS(e.args.n = 1);
    DIFFERS(e.args.traced = true);
    DIFFERS(e.args.mixed = true);
    DIFFERS(e.args.scores = scores);
    DIFFERS(e.samples[1].ranks = none_rank);
    DIFFERS(e.samples[0].mask_from = 0);
    DIFFERS(e.samples[0].prune = &e.spec; e.samples[0].rho = e.rho);
    DIFFERS(e.samples[1].prune = NULL);
    DIFFERS(e.rho[BLOCKS - 1] = 0.4F);
    DIFFERS(e.spec.enabled = false);
    DIFFERS(e.spec.prune_after[0]++);
    DIFFERS(e.spec.n_prune_after++);
    DIFFERS(e.spec.score_map = ATEDM_SCORE_CROSS);
    DIFFERS(e.spec.rank.heads++);
    DIFFERS(e.spec.rank.max_iterations++);
    DIFFERS(e.spec.rank.tolerance *= 2);
    DIFFERS(e.spec.score_interval++);
    DIFFERS(e.spec.selection = ATEDM_SELECT_TOP);
    DIFFERS(e.spec.recovery = ATEDM_RECOVER_ZERO);
    DIFFERS(e.spec.copy = e.spec.copy == ATEDM_COPY_VALUE ? ATEDM_COPY_UPDATE : ATEDM_COPY_VALUE);
    DIFFERS(e.spec.proportional_attention = !e.spec.proportional_attention);
}

Test(unet_key, nothing_else)
{
    evaluation plain, e;
    init(&plain);
#define SAME(change)                                                                               \
    do {                                                                                           \
        init(&e);                                                                                  \
        change;                                                                                    \
        cr_expect(same_key(&plain, &e), #change);                                                  \
    } while (0)
    SAME(e.samples[1].timestep = 8);
    SAME(e.samples[1].draw = 8);
    SAME(e.rho[BLOCKS] = 0.4F);
    SAME(e.samples[1].ranks = all_rank);
    SAME(e.spec.ratio = 0.5);
    SAME(e.args.condition = memory + 4); // is in the embedding
}
