// Multiply-accumulates of one evaluation of each network: see flops.h. Follows what unet.c,
// transformer.c, clip_text.c and vae.c run; a test compares it with what the operations count.
#include "core/flops.h"

_Static_assert(ATEDM_PRUNE_LAYER_MAX == ATEDM_UNET_MAX_LAYERS - 1, "limits of plan.h and unet.h");

static uint64_t product(int64_t a, int64_t b, int64_t c)
{
    return (uint64_t)a * (uint64_t)b * (uint64_t)c;
}

static uint64_t conv3x3(int64_t pixels, int64_t in, int64_t out)
{
    return 9 * product(pixels, in, out);
}

// QK^T and PV of all heads. channels = heads * head size.
static uint64_t attention_products(int64_t queries, int64_t keys, int64_t channels)
{
    return 2 * product(queries, keys, channels);
}

// ---- attention blocks of the UNet

void atedm_unet_cost_init(atedm_unet_cost *cost, const atedm_unet_config *config, int64_t h,
                          int64_t w, int64_t context_tokens)
{
    *cost = (atedm_unet_cost){.config = *config, .h = h, .w = w, .context_tokens = context_tokens};
    cost->n_blocks = atedm_unet_config_blocks(config, cost->blocks);
}

// Pixels of a feature map at `level`. Each downsampling rounds up.
static int64_t map_pixels(const atedm_unet_cost *cost, int level)
{
    int64_t round = ((int64_t)1 << level) - 1;
    return ((cost->h + round) >> level) * ((cost->w + round) >> level);
}

int64_t atedm_unet_cost_tokens(const atedm_unet_cost *cost, int block)
{
    return map_pixels(cost, cost->blocks[block].level);
}

// Ranking n tokens takes one pass over the logits, then the iterations (counted as in
// ops_tokens.c).
static uint64_t rank_overhead(const atedm_prune_spec *spec, int64_t heads, int64_t head_dim,
                              int64_t n, int64_t context_tokens)
{
    int64_t iterations = spec->rank.max_iterations;
    switch (spec->score_map) {
    case ATEDM_SCORE_SELF:
        return product(heads * n, n, head_dim + iterations);
    case ATEDM_SCORE_CROSS:
        return product(heads * n, context_tokens, head_dim + 2 * iterations);
    case ATEDM_SCORE_RANDOM:
        break;
    }
    return 0;
}

static uint64_t source_overhead(const atedm_prune_spec *spec, int64_t channels, int64_t n,
                                int64_t keep)
{
    switch (spec->recovery) {
    case ATEDM_RECOVER_ATTENTION:
    case ATEDM_RECOVER_COSINE:
        return product(n - keep, keep, channels);
    case ATEDM_RECOVER_NEAREST:
    case ATEDM_RECOVER_ZERO:
        break;
    }
    return 0;
}

static bool prunes_after(const atedm_prune_spec *spec, int layer)
{
    for (size_t i = 0; i < spec->n_prune_after; i++) {
        if (spec->prune_after[i] == layer)
            return true;
    }
    return false;
}

atedm_op_counts atedm_unet_cost_block(const atedm_unet_cost *cost, int block,
                                      const atedm_prune_spec *spec, float rho)
{
    const atedm_unet_config *config = &cost->config;
    const atedm_block_info *info = &cost->blocks[block];
    int64_t c = config->channels[info->level];
    int64_t heads = config->heads[info->level];
    int64_t grid = atedm_unet_cost_tokens(cost, block);
    int64_t text = cost->context_tokens;
    bool pruning = spec && spec->enabled && rho > 0;

    atedm_op_counts counts = {0};
    uint64_t projections = 2 * product(grid, c, c);
    if (config->linear_projection)
        counts.linear += projections;
    else
        counts.conv += projections;

    int64_t n = grid;
    for (int layer = 0; layer < info->layers; layer++) {
        counts.linear += 4 * product(n, c, c);                              // q, k, v, out
        counts.linear += 2 * product(n, c, c);                              // cross: q, out
        counts.linear += 2 * product(text, config->cross_attention_dim, c); // cross: k, v
        counts.linear += product(n, c, 8 * c) + product(n, 4 * c, c);       // feed-forward
        counts.attention += attention_products(n, n, c) + attention_products(n, text, c);
        if (!pruning || !prunes_after(spec, layer))
            continue;
        int64_t keep = atedm_prune_keep((double)rho, n);
        if (keep == n)
            continue;
        counts.overhead += rank_overhead(spec, heads, c / heads, n, text);
        counts.overhead += source_overhead(spec, c, n, keep);
        n = keep;
    }
    return counts;
}

// Only plans with one pruning layer have steps that reuse scores, so this is the ranking of the
// whole grid.
uint64_t atedm_unet_cost_rank(const atedm_unet_cost *cost, int block, const atedm_prune_spec *spec)
{
    const atedm_block_info *info = &cost->blocks[block];
    int64_t heads = cost->config.heads[info->level];
    return rank_overhead(spec, heads, cost->config.channels[info->level] / heads,
                         atedm_unet_cost_tokens(cost, block), cost->context_tokens);
}

atedm_op_counts atedm_unet_cost_step(const atedm_unet_cost *cost, const atedm_plan *plan, int k)
{
    const float *rho = atedm_plan_step(plan, k);
    const bool *ranks = atedm_plan_ranks(plan, k);
    atedm_op_counts counts = atedm_unet_cost_eval(cost, &plan->spec, rho);
    for (int block = 0; block < cost->n_blocks; block++) {
        int64_t tokens = atedm_unet_cost_tokens(cost, block);
        int64_t kept = atedm_plan_kept(plan, k, block, cost->blocks[block].layers, tokens);
        if (kept < tokens && !ranks[block])
            counts.overhead -= atedm_unet_cost_rank(cost, block, &plan->spec);
    }
    return counts;
}

// ---- the rest of the UNet

// The state of a walk over the UNet's feature maps: the current map, and the count so far.
typedef struct unet_walk {
    const atedm_unet_cost *cost;
    atedm_op_counts counts;
    int level;
    int64_t channels;
} unet_walk;

static int64_t pixels(const unet_walk *walk)
{
    return map_pixels(walk->cost, walk->level);
}

// Counts a ResNet block whose input is the current map and `skip` channels of a skip connection.
static void count_resnet(unet_walk *walk, int64_t skip, int64_t out)
{
    int64_t in = walk->channels + skip;
    int64_t embedding = 4 * walk->cost->config.channels[0];
    walk->counts.conv += conv3x3(pixels(walk), in, out) + conv3x3(pixels(walk), out, out);
    if (in != out)
        walk->counts.conv += product(pixels(walk), in, out); // shortcut
    walk->counts.linear += product(1, embedding, out);
    walk->channels = out;
}

static void count_conv(unet_walk *walk, int64_t out)
{
    walk->counts.conv += conv3x3(pixels(walk), walk->channels, out);
    walk->channels = out;
}

// Counts everything but the attention blocks: pruning does not change that.
static atedm_op_counts unet_frame(const atedm_unet_cost *cost)
{
    const atedm_unet_config *config = &cost->config;
    int last = config->levels - 1;
    int64_t embedding = 4 * config->channels[0];
    int64_t skips[ATEDM_UNET_MAX_LEVELS * (ATEDM_UNET_MAX_LAYERS + 1) + 1];
    size_t n_skips = 0;

    unet_walk walk = {.cost = cost, .channels = config->in_channels};
    walk.counts.linear = product(1, config->channels[0], embedding) // time embedding
                         + product(1, embedding, embedding);
    count_conv(&walk, config->channels[0]);
    skips[n_skips++] = walk.channels;
    for (int level = 0; level <= last; level++) {
        walk.level = level;
        for (int i = 0; i < config->layers_per_block; i++) {
            count_resnet(&walk, 0, config->channels[level]);
            skips[n_skips++] = walk.channels;
        }
        if (level == last)
            break;
        walk.level = level + 1; // the downsampling convolution makes the smaller map
        count_conv(&walk, walk.channels);
        skips[n_skips++] = walk.channels;
    }
    count_resnet(&walk, 0, config->channels[last]);
    count_resnet(&walk, 0, config->channels[last]);
    for (int level = last; level >= 0; level--) {
        walk.level = level;
        for (int i = 0; i <= config->layers_per_block; i++)
            count_resnet(&walk, skips[--n_skips], config->channels[level]);
        if (level == 0)
            break;
        walk.level = level - 1; // the map is enlarged before the convolution
        count_conv(&walk, walk.channels);
    }
    count_conv(&walk, config->out_channels);
    return walk.counts;
}

atedm_op_counts atedm_unet_cost_eval(const atedm_unet_cost *cost, const atedm_prune_spec *spec,
                                     const float *rho)
{
    atedm_op_counts counts = unet_frame(cost);
    for (int b = 0; b < cost->n_blocks; b++) {
        atedm_op_counts block = atedm_unet_cost_block(cost, b, spec, rho ? rho[b] : 0);
        atedm_op_counts_add(&counts, &block);
    }
    return counts;
}

atedm_op_counts atedm_unet_condition_cost(const atedm_unet_config *config)
{
    int64_t embedding = 4 * config->channels[0];
    return (atedm_op_counts){.linear = product(1, config->projection_input_dim, embedding) +
                                       product(1, embedding, embedding)};
}

// ---- text encoders

atedm_op_counts atedm_clip_cost(const atedm_clip_config *config, int64_t tokens)
{
    // The pipeline uses the hidden state of the second-to-last layer. Only an encoder with a
    // projection runs the last layer, for its pooled output.
    uint64_t layers = (uint64_t)(config->has_projection ? config->layers : config->layers - 1);
    atedm_op_counts counts = {0};
    counts.linear = layers * (4 * product(tokens, config->width, config->width) +
                              2 * product(tokens, config->width, config->mlp_width));
    counts.attention = layers * attention_products(tokens, tokens, config->width);
    if (config->has_projection)
        counts.linear += product(1, config->width, config->projection);
    return counts;
}

// ---- VAE decoder

static uint64_t vae_resnet(int64_t pixels, int64_t in, int64_t out)
{
    uint64_t macs = conv3x3(pixels, in, out) + conv3x3(pixels, out, out);
    return in == out ? macs : macs + product(pixels, in, out);
}

atedm_op_counts atedm_vae_cost(const atedm_vae_config *config, int64_t h, int64_t w)
{
    int last = config->levels - 1;
    int64_t c = config->channels[last];
    int64_t n = h * w;
    atedm_op_counts counts = {0};
    if (config->post_quant_conv)
        counts.conv += product(n, config->latent_channels, config->latent_channels);
    counts.conv += conv3x3(n, config->latent_channels, c);
    counts.conv += 2 * vae_resnet(n, c, c);
    if (config->mid_attention) { // one head
        counts.linear += 4 * product(n, c, c);
        counts.attention += attention_products(n, n, c);
    }
    for (int level = last; level >= 0; level--) {
        int64_t out = config->channels[level];
        for (int i = 0; i <= config->layers_per_block; i++) {
            counts.conv += vae_resnet(n, c, out);
            c = out;
        }
        if (level > 0) {
            n *= 4;
            counts.conv += conv3x3(n, c, c);
        }
    }
    counts.conv += conv3x3(n, c, config->out_channels);
    return counts;
}

uint64_t atedm_op_counts_flops(const atedm_op_counts *counts)
{
    return 2 * (counts->conv + counts->linear + counts->attention + counts->overhead);
}
