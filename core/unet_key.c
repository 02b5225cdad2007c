// Keys of UNet evaluations: see unet_key.h.
#include "core/unet_key.h"

#include <stddef.h>
#include <string.h>

_Static_assert(sizeof(atedm_unet_key) <= ATEDM_REPEAT_KEY_MAX, "keys are within the limit");
_Static_assert(sizeof(atedm_unet_key_head) == 14 * 8, "no padding");
_Static_assert(sizeof(atedm_unet_key_sample) ==
                   (14 + ATEDM_MAX_PRUNE_LAYERS) * 8 + ATEDM_MAX_BLOCKS * sizeof(float),
               "no padding");
_Static_assert(ATEDM_MAX_BLOCKS <= 64, "a bit for each block");

static void set_sample(const atedm_unet_sample *sample, int n_blocks, atedm_unet_key_sample *key)
{
    *key = (atedm_unet_key_sample){.mask_from = sample->mask_from};
    const atedm_prune_spec *spec = sample->prune;
    if (!spec)
        return;
    key->pruned = 1;
    key->enabled = spec->enabled;
    key->score_map = spec->score_map;
    key->selection = spec->selection;
    key->recovery = spec->recovery;
    key->copy = spec->copy;
    key->proportional_attention = spec->proportional_attention;
    key->n_prune_after = (int64_t)spec->n_prune_after;
    for (size_t i = 0; i < spec->n_prune_after; i++)
        key->prune_after[i] = spec->prune_after[i];
    key->heads = spec->rank.heads;
    key->max_iterations = spec->rank.max_iterations;
    key->tolerance = (double)spec->rank.tolerance;
    key->score_interval = spec->score_interval;
    for (int block = 0; sample->ranks && block < n_blocks; block++)
        key->reuses |= (uint64_t)!sample->ranks[block] << block;
    if (spec->enabled)
        memcpy(key->rho, sample->rho, (size_t)n_blocks * sizeof *key->rho);
}

size_t atedm_unet_key_make(const atedm_unet *unet, int n_blocks, const atedm_unet_args *args,
                           const void *embedding, const uint64_t *draws, const atedm_arena *arena,
                           atedm_unet_key *ret_key)
{
    ret_key->head = (atedm_unet_key_head){
        .unet = unet,
        .x = args->x,
        .context = args->context,
        .embedding = embedding,
        .draws = draws,
        .scores = args->scores,
        .y = args->y,
        .scratch = (const void *)((uintptr_t)arena->base + arena->used),
        .context_tokens = args->context_tokens,
        .n = args->n,
        .h = args->h,
        .w = args->w,
        .traced = args->traced,
        .mixed = args->mixed,
    };
    for (int64_t i = 0; i < args->n; i++)
        set_sample(&args->samples[i], n_blocks, &ret_key->samples[i]);
    return offsetof(atedm_unet_key, samples) + (size_t)args->n * sizeof *ret_key->samples;
}
