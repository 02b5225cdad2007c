// Cases of linear layers, convolutions and norms.
#include "tests/parity/parity.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

// Limit of multiply-accumulates of a random case, because the reference is slow.
#define MOST_WORK 4000000

// A number of channels: tiny and odd, medium, or one of SDXL's.
static int64_t random_channels(parity_rng *rng)
{
    static const int64_t sdxl[] = {4, 320, 640, 1280};
    int64_t kind = parity_range(rng, 0, 9);
    if (kind < 4)
        return parity_range(rng, 1, 40);
    if (kind < 8)
        return 8 * parity_range(rng, 1, 40);
    return sdxl[parity_range(rng, 0, 3)];
}

static int64_t at_most(int64_t value, int64_t limit)
{
    return value < limit ? value : limit > 1 ? limit : 1;
}

// Whether y is written over a residual, next to one, or without one. Arrays 1 (y) and 2 (residual).
typedef enum residual_kind { RESIDUAL_NONE, RESIDUAL_APART, RESIDUAL_IN_PLACE } residual_kind;

static residual_kind add_output(parity_case *c, size_t count)
{
    residual_kind kind = c->bench < 0 ? (residual_kind)parity_range(&c->rng, 0, 2) : RESIDUAL_NONE;
    parity_array *y = parity_add(c, "y", PARITY_ACT,
                                 kind == RESIDUAL_IN_PLACE ? PARITY_INOUT : PARITY_OUT, count);
    parity_array *residual = y;
    if (kind == RESIDUAL_APART)
        residual = parity_add(c, "residual", PARITY_ACT, PARITY_IN, count);
    if (kind != RESIDUAL_NONE) {
        parity_fill(c, residual, 0, 1);
        residual->absolute = true;
    }
    return kind;
}

static const void *residual_at(const parity_case *c, const parity_side *side, residual_kind kind,
                               int64_t i)
{
    if (kind == RESIDUAL_NONE)
        return NULL;
    return parity_at(side, c, kind == RESIDUAL_APART ? 2 : 1, i);
}

// ---- linear

typedef struct linear_params {
    int64_t rows, in, out;
    atedm_activation activation;
    residual_kind residual;
    int64_t *bounds; // rows of each part
} linear_params;

static void linear_sizes(parity_case *c, linear_params *p)
{
    // Rows, in, out of SDXL at 1024x1024, two samples. The first size is the benchmark's yardstick.
    // The last ones are the sizes that pruning leaves.
    static const int64_t bench[][3] = {
        {4096, 1280, 1280}, {2048, 1280, 3840}, {2048, 1280, 10240}, {2048, 5120, 1280},
        {8192, 640, 5120},  {8192, 2560, 640},  {8192, 640, 640},    {154, 2048, 2560},
        {154, 768, 3072},   {2, 2816, 1280},    {606, 1280, 1280},   {606, 1280, 3840},
        {606, 5120, 1280},  {303, 1280, 1280},  {2456, 640, 640},    {2456, 2560, 640}};
    if (c->bench >= 0) {
        p->rows = bench[c->bench][0];
        p->in = bench[c->bench][1];
        p->out = bench[c->bench][2];
        return;
    }
    // Whole vectors, a little less or more than one or several tiles, sometimes with long rows.
    if (c->bench == PARITY_LARGE) {
        bool is_long = parity_chance(&c->rng, 30);
        p->rows = parity_range(&c->rng, 1, is_long ? 140 : 400);
        p->in = is_long ? 64 * parity_range(&c->rng, 8, 17) : 8 * parity_range(&c->rng, 1, 40);
        p->out = 8 * parity_range(&c->rng, 1, is_long ? 24 : 52);
        return;
    }
    p->in = random_channels(&c->rng);
    p->out = random_channels(&c->rng);
    p->rows = at_most(parity_range(&c->rng, 1, parity_chance(&c->rng, 50) ? 20 : 300),
                      MOST_WORK / (p->in * p->out));
}

void parity_build_linear(parity_case *c)
{
    linear_params *p = c->params = parity_alloc(c, 1, sizeof *p);
    linear_sizes(c, p);
    // Without an activation, the product's own kernel adds bias and residual.
    if (c->bench < 0 && !(c->bench == PARITY_LARGE && parity_chance(&c->rng, 70)))
        p->activation =
            (atedm_activation)parity_range(&c->rng, ATEDM_ACT_NONE, ATEDM_ACT_QUICK_GELU);
    parity_array *x = parity_add(c, "x", PARITY_ACT, PARITY_IN, (size_t)(p->rows * p->in));
    parity_fill(c, x, 0, 1);
    x->absolute = true;
    p->residual = add_output(c, (size_t)(p->rows * p->out));
    p->bounds = parity_partition(c, p->rows);

    parity_weight *w = &c->weights[c->n_weights++];
    w->kind = PARITY_LINEAR;
    w->n_parts = (size_t)parity_range(&c->rng, 1, at_most(p->out, PARITY_MAX_PARTS));
    w->has_bias = parity_chance(&c->rng, 60);
    int64_t left = p->out;
    for (size_t i = 0; i < w->n_parts; i++) {
        int64_t others = (int64_t)(w->n_parts - 1 - i);
        int64_t out = others ? parity_range(&c->rng, 1, left - others) : left;
        int64_t shape[2] = {out, p->in};
        w->matrix[i] = parity_tensor(c, 2, shape, 0, 1 / sqrtf((float)p->in));
        w->bias[i] = parity_tensor(c, 1, shape, 0, 1);
        left -= out;
    }
    for (size_t i = 0; c->bench == PARITY_LARGE && i < c->n_arrays; i++)
        c->arrays[i].offset = 0;
    c->by_absolute = true;
    c->counts.linear = (uint64_t)(p->rows * p->in * p->out);
    c->bench_flops = 2 * (double)c->counts.linear;
    snprintf(c->text, sizeof c->text,
             "rows %" PRId64 ", in %" PRId64 ", out %" PRId64
             " in %zu parts, bias %d, activation %d, residual %d",
             p->rows, p->in, p->out, w->n_parts, w->has_bias, p->activation, p->residual);
}

void parity_run_linear(const parity_case *c, const parity_side *side, int64_t part)
{
    const linear_params *p = c->params;
    int64_t first = part < 0 ? 0 : p->bounds[part];
    atedm_linear_args args = {
        .weight = side->weights[0],
        .x = parity_at(side, c, 0, first * p->in),
        .residual = residual_at(c, side, p->residual, first * p->out),
        .y = parity_at(side, c, 1, first * p->out),
        .rows = part < 0 ? p->rows : p->bounds[part + 1] - first,
        // No activation has a slope above 1.13, so magnitudes are those before it.
        .activation = side->absolute ? ATEDM_ACT_NONE : p->activation,
    };
    atedm_linear(side->stream, &args);
}

// ---- conv

typedef struct conv_params {
    int64_t n, h, w, ho, wo, in, out;
    residual_kind residual;
    size_t channel_add; // its array; 0: none
    bool vectors;       // whole vectors of channels at aligned addresses, as libraries require
} conv_params;

static int conv_sizes(parity_case *c, conv_params *p, int *ret_stride)
{
    static const int64_t bench[][7] = {
        // n, h, w, in, out, kernel, stride
        {2, 128, 128, 320, 320, 3, 1},  {2, 64, 64, 640, 640, 3, 1},
        {2, 32, 32, 1280, 1280, 3, 1},  {2, 32, 32, 2560, 1280, 3, 1},
        {2, 64, 64, 640, 640, 3, 2},    {2, 64, 64, 960, 640, 1, 1},
        {1, 256, 256, 256, 256, 3, 1},  {1, 512, 512, 128, 128, 3, 1},
        {16, 32, 32, 1280, 1280, 3, 1}, {8, 64, 64, 640, 640, 3, 1},
        {7, 56, 72, 640, 640, 3, 1},    {2, 128, 128, 4, 320, 3, 1},
        {2, 128, 128, 320, 4, 3, 1}};
    if (c->bench >= 0) {
        const int64_t *size = bench[c->bench];
        *p = (conv_params){.n = size[0], .h = size[1], .w = size[2], .in = size[3], .out = size[4]};
        *ret_stride = (int)size[6];
        return (int)size[5];
    }
    int kernel = parity_chance(&c->rng, 30) ? 1 : 3;
    // Channels in steps of 64; all other sizes a little less than one or several tiles.
    if (c->bench == PARITY_LARGE) {
        *p = (conv_params){.n = parity_range(&c->rng, 1, 3),
                           .h = 8 * parity_range(&c->rng, 1, 3) - parity_range(&c->rng, 0, 1),
                           .w = 8 * parity_range(&c->rng, 1, 4) - parity_range(&c->rng, 0, 2),
                           .in = 64 * parity_range(&c->rng, 1, 4),
                           .out = 8 * parity_range(&c->rng, 16, 21),
                           .vectors = parity_chance(&c->rng, 70)};
        if (parity_chance(&c->rng, 30))
            p->out = 160 * parity_range(&c->rng, 1, 2);
        if (parity_chance(&c->rng, 25)) { // one row: some kernels divide it differently
            p->h = 1;
            p->w = parity_range(&c->rng, 86, 128);
        }
        *ret_stride = 1;
        return kernel;
    }
    *ret_stride = parity_chance(&c->rng, 30) ? 2 : 1;
    p->vectors = parity_chance(&c->rng, 30);
    p->in = p->vectors ? 32 * parity_range(&c->rng, 1, 10) : random_channels(&c->rng);
    p->out = p->vectors ? 8 * parity_range(&c->rng, 1, 40) : random_channels(&c->rng);
    // Backends use larger tiles for sizes that a single sample does not reach.
    if (parity_chance(&c->rng, 12)) {
        *p = (conv_params){.n = parity_range(&c->rng, 2, 3),
                           .h = parity_range(&c->rng, 12, 15),
                           .w = parity_range(&c->rng, 12, 15),
                           .in = 8 * parity_range(&c->rng, 1, 2),
                           .out = parity_range(&c->rng, 128, 180),
                           .vectors = true};
        *ret_stride = 1;
        return kernel;
    }
    // Backends have separate kernels for few channels on one side, as in images.
    if (!p->vectors && parity_chance(&c->rng, 20)) {
        p->in = parity_range(&c->rng, 1, 8);
    } else if (!p->vectors && parity_chance(&c->rng, 30)) {
        kernel = 3;
        p->vectors = true;
        p->in = 8 * parity_range(&c->rng, 1, 20);
        p->out = parity_range(&c->rng, 1, 5);
    }
    int64_t pixels = at_most(MOST_WORK / (p->in * p->out * kernel * kernel), 600);
    p->n = at_most(parity_range(&c->rng, 1, 3), pixels);
    p->h = at_most(parity_range(&c->rng, 1, 19), pixels / p->n);
    p->w = at_most(parity_range(&c->rng, 1, 19), pixels / (p->n * p->h));
    return kernel;
}

// Large cases have aligned addresses anyway.
static void place_conv(parity_case *c, bool vectors)
{
    for (size_t i = 0; i < c->n_arrays; i++)
        if (vectors)
            c->arrays[i].offset = 0;
        else if (c->bench == PARITY_LARGE)
            c->arrays[i].offset = (size_t)parity_range(&c->rng, 0, 7);
}

void parity_build_conv(parity_case *c)
{
    conv_params *p = c->params = parity_alloc(c, 1, sizeof *p);
    int stride, kernel = conv_sizes(c, p, &stride);
    p->ho = (p->h + stride - 1) / stride;
    p->wo = (p->w + stride - 1) / stride;
    parity_array *x =
        parity_add(c, "x", PARITY_ACT, PARITY_IN, (size_t)(p->n * p->h * p->w * p->in));
    parity_fill(c, x, 0, 1);
    x->absolute = true;
    p->residual = add_output(c, (size_t)(p->n * p->ho * p->wo * p->out));
    if (parity_chance(&c->rng, 50)) {
        p->channel_add = c->n_arrays;
        parity_array *add =
            parity_add(c, "channel_add", PARITY_ACT, PARITY_IN, (size_t)(p->n * p->out));
        parity_fill(c, add, 0, 1);
        add->absolute = true;
    }
    parity_weight *w = &c->weights[c->n_weights++];
    *w = (parity_weight){.kind = PARITY_CONV,
                         .n_parts = 1,
                         .has_bias = parity_chance(&c->rng, 70),
                         .stride = stride};
    int64_t shape[4] = {p->out, p->in, kernel, kernel};
    w->matrix[0] = parity_tensor(c, 4, shape, 0, 1 / sqrtf((float)(p->in * kernel * kernel)));
    w->bias[0] = parity_tensor(c, 1, shape, 0, 1);
    place_conv(c, p->vectors);
    c->by_absolute = true;
    c->n_parts = (size_t)p->n;
    c->counts.conv = (uint64_t)(p->n * p->ho * p->wo * p->in * p->out * kernel * kernel);
    c->bench_flops = 2 * (double)c->counts.conv;
    snprintf(c->text, sizeof c->text,
             "n %" PRId64 ", %" PRId64 "x%" PRId64 ", %" PRId64 " to %" PRId64
             " channels, kernel %d, stride %d, bias %d, channel_add %d, residual %d",
             p->n, p->h, p->w, p->in, p->out, kernel, stride, w->has_bias, p->channel_add != 0,
             p->residual);
}

void parity_run_conv(const parity_case *c, const parity_side *side, int64_t part)
{
    const conv_params *p = c->params;
    int64_t first = part < 0 ? 0 : part, y_first = first * p->ho * p->wo * p->out;
    atedm_conv_args args = {
        .weight = side->weights[0],
        .x = parity_at(side, c, 0, first * p->h * p->w * p->in),
        .channel_add = p->channel_add ? parity_at(side, c, p->channel_add, first * p->out) : NULL,
        .residual = residual_at(c, side, p->residual, y_first),
        .y = parity_at(side, c, 1, y_first),
        .n = part < 0 ? p->n : 1,
        .h = p->h,
        .w = p->w,
    };
    atedm_conv(side->stream, &args);
}

// ---- norms

// Magnitude of (x - mean) / deviation * scale + shift over `rows` rows of `width` columns in a
// matrix of `c` columns: x and mean are subtracted, so rounding errors are relative to x and to the
// sum that the mean is made from.
static void norm_magnitude(const parity_case *k, const float *x, size_t first, int64_t rows,
                           int64_t c, int64_t channel, int64_t width, double epsilon,
                           double *magnitude)
{
    const float *scale = k->weights[0].matrix[0].data, *shift = k->weights[0].bias[0].data;
    double mean = 0, absolute = 0, variance = 0, count = (double)(rows * width);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < width; i++) {
            mean += (double)x[first + (size_t)(r * c + i)] / count;
            absolute += fabs((double)x[first + (size_t)(r * c + i)]) / count;
        }
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < width; i++) {
            double d = (double)x[first + (size_t)(r * c + i)] - mean;
            variance += d * d / count;
        }
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < width; i++) {
            size_t at = first + (size_t)(r * c + i);
            magnitude[at] = (fabs((double)x[at]) + absolute) / sqrt(variance + epsilon) *
                                fabs((double)scale[channel + i]) +
                            fabs((double)shift[channel + i]);
        }
}

// Scale around 1, shift around 0, in f32.
static void add_norm_weight(parity_case *c, int64_t channels)
{
    parity_weight *w = &c->weights[c->n_weights++];
    *w = (parity_weight){.kind = PARITY_NORM, .n_parts = 1, .has_bias = true};
    float *values[2];
    for (int i = 0; i < 2; i++) {
        values[i] = parity_alloc(c, (size_t)channels, sizeof *values[i]);
        for (int64_t j = 0; j < channels; j++)
            values[i][j] = (i ? 0 : 1) + 0.3f * parity_normal(&c->rng);
    }
    w->matrix[0] = (atedm_host_tensor){values[0], ATEDM_F32, 1, {channels}};
    w->bias[0] = (atedm_host_tensor){values[1], ATEDM_F32, 1, {channels}};
}

// x alone, or x and y. Sometimes x is far from zero, where E[x^2] - mean^2 would cancel.
static parity_array *add_norm_arrays(parity_case *c, size_t count, bool *ret_in_place)
{
    *ret_in_place = parity_chance(&c->rng, 40);
    parity_array *x =
        parity_add(c, "x", PARITY_ACT, *ret_in_place ? PARITY_INOUT : PARITY_IN, count);
    parity_fill(c, x, parity_chance(&c->rng, 30) ? 60 : 0.1f,
                parity_chance(&c->rng, 20) ? 0.1f : 2);
    parity_array *y = *ret_in_place ? x : parity_add(c, "y", PARITY_ACT, PARITY_OUT, count);
    y->magnitude = parity_alloc(c, count, sizeof *y->magnitude);
    return y;
}

typedef struct group_norm_params {
    int64_t n, hw, c;
    int groups;
    float epsilon;
    bool silu, in_place;
} group_norm_params;

void parity_build_group_norm(parity_case *c)
{
    static const int64_t bench[][3] = {
        {2, 16384, 320}, {2, 4096, 640}, {2, 1024, 1280}, {1, 262144, 128}};
    group_norm_params *p = c->params = parity_alloc(c, 1, sizeof *p);
    p->groups = (int)parity_range(&c->rng, 1, 32);
    p->c = p->groups * parity_range(&c->rng, 1, parity_chance(&c->rng, 20) ? 40 : 10);
    p->n = parity_range(&c->rng, 1, 3);
    p->hw = parity_range(&c->rng, 1, parity_chance(&c->rng, 20) ? 600 : 90);
    // Backends merge the statistics of many groups and chunks differently from few, and divide very
    // wide groups.
    if (parity_chance(&c->rng, 6))
        *p = (group_norm_params){.n = 2,
                                 .hw = parity_range(&c->rng, 2300, 2500),
                                 .c = 32 * parity_range(&c->rng, 8, 12),
                                 .groups = 32};
    else if (parity_chance(&c->rng, 4)) {
        p->groups = (int)parity_range(&c->rng, 1, 2);
        p->c = p->groups * parity_range(&c->rng, 2000, 2200);
        p->hw = parity_range(&c->rng, 1, 20);
    }
    if (c->bench >= 0)
        *p = (group_norm_params){
            bench[c->bench][0], bench[c->bench][1], bench[c->bench][2], 32, 0, true, false};
    p->epsilon = parity_chance(&c->rng, 50) ? 1e-5f : 1e-6f;
    p->silu = parity_chance(&c->rng, 50);
    add_norm_weight(c, p->c);
    parity_array *y = add_norm_arrays(c, (size_t)(p->n * p->hw * p->c), &p->in_place);
    int64_t width = p->c / p->groups;
    for (int64_t n = 0; n < p->n; n++)
        for (int64_t g = 0; g < p->groups; g++)
            norm_magnitude(c, c->arrays[0].values, (size_t)(n * p->hw * p->c + g * width), p->hw,
                           p->c, g * width, width, (double)p->epsilon, y->magnitude);
    c->n_parts = (size_t)p->n;
    snprintf(c->text, sizeof c->text,
             "n %" PRId64 ", hw %" PRId64 ", c %" PRId64 ", groups %d, silu %d, in place %d", p->n,
             p->hw, p->c, p->groups, p->silu, p->in_place);
}

void parity_run_group_norm(const parity_case *c, const parity_side *side, int64_t part)
{
    const group_norm_params *p = c->params;
    int64_t first = part < 0 ? 0 : part * p->hw * p->c;
    atedm_group_norm_args args = {.weight = side->weights[0],
                                  .x = parity_at(side, c, 0, first),
                                  .y = parity_at(side, c, p->in_place ? 0 : 1, first),
                                  .n = part < 0 ? p->n : 1,
                                  .hw = p->hw,
                                  .groups = p->groups,
                                  .epsilon = p->epsilon,
                                  .silu = p->silu};
    atedm_group_norm(side->stream, &args);
}

typedef struct layer_norm_params {
    int64_t rows, c;
    float epsilon;
    bool in_place;
    int64_t *bounds;
} layer_norm_params;

void parity_build_layer_norm(parity_case *c)
{
    static const int64_t bench[][2] = {{8192, 640}, {2048, 1280}};
    layer_norm_params *p = c->params = parity_alloc(c, 1, sizeof *p);
    p->c = random_channels(&c->rng);
    if (parity_chance(&c->rng, 15)) // rows that backends hold in registers, and longer ones
        p->c = 8 * parity_range(&c->rng, 90, 270);
    p->rows = parity_range(&c->rng, 1, 90);
    if (c->bench >= 0) {
        p->rows = bench[c->bench][0];
        p->c = bench[c->bench][1];
    }
    p->epsilon = 1e-5f;
    add_norm_weight(c, p->c);
    parity_array *y = add_norm_arrays(c, (size_t)(p->rows * p->c), &p->in_place);
    for (int64_t r = 0; r < p->rows; r++)
        norm_magnitude(c, c->arrays[0].values, (size_t)(r * p->c), 1, p->c, 0, p->c,
                       (double)p->epsilon, y->magnitude);
    p->bounds = parity_partition(c, p->rows);
    snprintf(c->text, sizeof c->text, "rows %" PRId64 ", c %" PRId64 ", in place %d", p->rows, p->c,
             p->in_place);
}

void parity_run_layer_norm(const parity_case *c, const parity_side *side, int64_t part)
{
    const layer_norm_params *p = c->params;
    int64_t first = part < 0 ? 0 : p->bounds[part];
    atedm_layer_norm_args args = {.weight = side->weights[0],
                                  .x = parity_at(side, c, 0, first * p->c),
                                  .y = parity_at(side, c, p->in_place ? 0 : 1, first * p->c),
                                  .rows = part < 0 ? p->rows : p->bounds[part + 1] - first,
                                  .epsilon = p->epsilon};
    atedm_layer_norm(side->stream, &args);
}
