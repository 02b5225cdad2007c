// Calls that an operation has to refuse: the stream fails with a message, the next sync reports it,
// and after that the stream works as before. Each refused call is an accepted one with one mistake,
// and the accepted one is made too.
//
// Also other duties of every backend: a call over nothing does nothing; a failure is kept until the
// sync, and calls until then do nothing.
#include "tests/parity/parity.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define COUNT 64 // elements of each of the fixture's tensors

typedef struct fixture {
    atedm_device *device;
    atedm_stream *s;
    atedm_weight *linear, *conv, *norm, *table; // [4, 4], [4, 4, 3, 3], [4], [4, 4]
    atedm_weight *long_norm, *long_table;       // [5], [4, 5]
    void *memory[8];
    void *x, *y;                    // act [COUNT]
    float *f, *g;                   // [COUNT]
    int32_t *kept, *source, *place; // [COUNT]
    uint8_t *bytes;                 // [COUNT]
    int failed;
} fixture;

// The stream has failed, says why, and works again.
static void expect_refused(fixture *f, const char *call)
{
    atedm_error err = {{0}};
    atedm_status status = atedm_stream_sync(f->s, &err);
    const char *problem = NULL;
    if (!status)
        problem = "was not refused";
    else if (status != ATEDM_ERR_INVALID && status != ATEDM_ERR_LIMIT)
        problem = "was refused with the wrong status";
    else if (!strchr(err.message, ':') || strlen(err.message) < 12)
        problem = "was refused without saying why";
    if (!problem) {
        atedm_add(f->s, f->x, f->x, f->y, COUNT);
        if (atedm_stream_sync(f->s, &err))
            problem = "left the stream unusable";
    }
    if (problem)
        printf("FAIL %s %s: \"%s\"\n", call, problem, err.message);
    f->failed += problem != NULL;
}

#define REFUSED(...)                                                                               \
    do {                                                                                           \
        __VA_ARGS__;                                                                               \
        expect_refused(f, #__VA_ARGS__);                                                           \
    } while (0)

// The call must not fail.
static void expect_accepted(fixture *f, const char *call)
{
    atedm_error err = {{0}};
    if (!atedm_stream_sync(f->s, &err))
        return;
    printf("FAIL %s was refused: %s\n", call, err.message);
    f->failed++;
}

// A call that does something, or one that does nothing.
#define ACCEPTED(...)                                                                              \
    do {                                                                                           \
        __VA_ARGS__;                                                                               \
        expect_accepted(f, #__VA_ARGS__);                                                          \
    } while (0)

static void linear_calls(fixture *f)
{
    const atedm_linear_args good = {.weight = f->linear, .x = f->x, .y = f->y, .rows = 2};
    atedm_linear_args a;
    ACCEPTED(a = good, atedm_linear(f->s, &a));
    REFUSED(a = good, a.weight = NULL, atedm_linear(f->s, &a));
    REFUSED(a = good, a.weight = f->conv, atedm_linear(f->s, &a));
    REFUSED(a = good, a.x = NULL, atedm_linear(f->s, &a));
    REFUSED(a = good, a.y = NULL, atedm_linear(f->s, &a));
    REFUSED(a = good, a.y = f->x, atedm_linear(f->s, &a));
    REFUSED(a = good, a.residual = (char *)f->y + 4, atedm_linear(f->s, &a));
    REFUSED(a = good, a.rows = -1, atedm_linear(f->s, &a));
    REFUSED(a = good, a.rows = INT64_MAX, atedm_linear(f->s, &a));
    REFUSED(a = good, a.rows = INT64_MAX / 4 + 2, atedm_linear(f->s, &a));
    REFUSED(a = good, a.activation = (atedm_activation)99, atedm_linear(f->s, &a));
    ACCEPTED(a = good, a.rows = 0, atedm_linear(f->s, &a));
}

static void conv_calls(fixture *f)
{
    const atedm_conv_args good = {.weight = f->conv, .x = f->x, .y = f->y, .n = 1, .h = 2, .w = 2};
    atedm_conv_args a;
    ACCEPTED(a = good, atedm_conv(f->s, &a));
    REFUSED(a = good, a.weight = NULL, atedm_conv(f->s, &a));
    REFUSED(a = good, a.weight = f->linear, atedm_conv(f->s, &a));
    REFUSED(a = good, a.x = NULL, atedm_conv(f->s, &a));
    REFUSED(a = good, a.y = NULL, atedm_conv(f->s, &a));
    REFUSED(a = good, a.y = f->x, atedm_conv(f->s, &a));
    REFUSED(a = good, a.channel_add = f->y, atedm_conv(f->s, &a));
    REFUSED(a = good, a.n = -1, atedm_conv(f->s, &a));
    REFUSED(a = good, a.h = -1, atedm_conv(f->s, &a));
    REFUSED(a = good, a.h = 0, atedm_conv(f->s, &a));
    REFUSED(a = good, a.w = INT64_MAX, atedm_conv(f->s, &a));
    REFUSED(a = good, a.h = (int64_t)1 << 32, a.w = (int64_t)1 << 32, atedm_conv(f->s, &a));
    ACCEPTED(a = good, a.n = 0, atedm_conv(f->s, &a));
}

static void norm_calls(fixture *f)
{
    const atedm_group_norm_args good = {
        .weight = f->norm, .x = f->x, .y = f->y, .n = 1, .hw = 4, .groups = 2, .epsilon = 1e-5f};
    const atedm_layer_norm_args fine = {
        .weight = f->norm, .x = f->x, .y = f->y, .rows = 4, .epsilon = 1e-5f};
    atedm_group_norm_args a;
    atedm_layer_norm_args b;
    ACCEPTED(a = good, atedm_group_norm(f->s, &a));
    ACCEPTED(a = good, a.y = f->x, atedm_group_norm(f->s, &a));
    REFUSED(a = good, a.weight = f->linear, atedm_group_norm(f->s, &a));
    REFUSED(a = good, a.weight = f->long_norm, atedm_group_norm(f->s, &a)); // 5 channels, 2 groups
    REFUSED(a = good, a.x = NULL, atedm_group_norm(f->s, &a));
    REFUSED(a = good, a.y = (char *)f->x + 4, atedm_group_norm(f->s, &a));
    REFUSED(a = good, a.groups = 0, atedm_group_norm(f->s, &a));
    REFUSED(a = good, a.groups = -2, atedm_group_norm(f->s, &a));
    REFUSED(a = good, a.hw = 0, atedm_group_norm(f->s, &a));
    REFUSED(a = good, a.n = -1, atedm_group_norm(f->s, &a));
    REFUSED(a = good, a.epsilon = NAN, atedm_group_norm(f->s, &a));
    REFUSED(a = good, a.epsilon = -1, atedm_group_norm(f->s, &a));
    ACCEPTED(a = good, a.n = 0, atedm_group_norm(f->s, &a));
    ACCEPTED(b = fine, atedm_layer_norm(f->s, &b));
    REFUSED(b = fine, b.weight = f->table, atedm_layer_norm(f->s, &b));
    REFUSED(b = fine, b.y = NULL, atedm_layer_norm(f->s, &b));
    REFUSED(b = fine, b.rows = -1, atedm_layer_norm(f->s, &b));
    REFUSED(b = fine, b.rows = INT64_MAX, atedm_layer_norm(f->s, &b));
    REFUSED(b = fine, b.epsilon = NAN, atedm_layer_norm(f->s, &b));
    ACCEPTED(b = fine, b.rows = 0, atedm_layer_norm(f->s, &b));
}

static void elementwise_calls(fixture *f)
{
    ACCEPTED(atedm_geglu(f->s, f->x, f->y, 2, 4));
    REFUSED(atedm_geglu(f->s, NULL, f->y, 2, 4));
    REFUSED(atedm_geglu(f->s, f->x, f->x, 2, 4));
    REFUSED(atedm_geglu(f->s, f->x, f->y, 2, 0));
    REFUSED(atedm_geglu(f->s, f->x, f->y, -2, 4));
    REFUSED(atedm_geglu(f->s, f->x, f->y, 2, INT64_MAX));
    ACCEPTED(atedm_geglu(f->s, f->x, f->y, 0, 4));
    ACCEPTED(atedm_activate(f->s, ATEDM_ACT_SILU, f->x, f->y, 4));
    REFUSED(atedm_activate(f->s, (atedm_activation)-1, f->x, f->y, 4));
    REFUSED(atedm_activate(f->s, ATEDM_ACT_SILU, f->x, NULL, 4));
    REFUSED(atedm_activate(f->s, ATEDM_ACT_SILU, f->x, f->y, -4));
    ACCEPTED(atedm_activate(f->s, ATEDM_ACT_SILU, f->x, f->y, 0));
    ACCEPTED(atedm_add(f->s, f->x, f->y, f->y, 4));
    REFUSED(atedm_add(f->s, f->x, NULL, f->y, 4));
    REFUSED(atedm_add(f->s, f->x, f->x, (char *)f->x + 4, 4));
    REFUSED(atedm_add(f->s, f->x, f->x, f->y, INT64_MAX));
    ACCEPTED(atedm_add(f->s, f->x, f->x, f->y, 0));
    ACCEPTED(atedm_upsample2(f->s, f->x, f->y, 1, 4, 4, 4));
    REFUSED(atedm_upsample2(f->s, f->x, f->x, 1, 4, 4, 4));
    REFUSED(atedm_upsample2(f->s, f->x, f->y, 1, 4, -4, 4));
    REFUSED(atedm_upsample2(f->s, f->x, f->y, 1, 4, 4, 0));
    REFUSED(atedm_upsample2(f->s, f->x, f->y, 1, INT64_MAX, 4, 4));
    ACCEPTED(atedm_upsample2(f->s, f->x, f->y, 0, 4, 4, 4));
    ACCEPTED(atedm_concat(f->s, f->x, 2, f->x, 2, f->y, 2));
    REFUSED(atedm_concat(f->s, f->x, 2, f->x, 2, NULL, 2));
    REFUSED(atedm_concat(f->s, f->x, 0, f->x, 2, f->y, 2));
    REFUSED(atedm_concat(f->s, f->x, 2, f->x, INT64_MAX, f->y, 2));
    REFUSED(atedm_concat(f->s, f->x, 2, f->y, 2, f->y, 2));
    REFUSED(atedm_concat(f->s, f->y, 2, f->x, 2, f->y, 2));
    ACCEPTED(atedm_concat(f->s, f->x, 2, f->x, 2, f->y, 0));

    ACCEPTED(atedm_copy(f->s, f->x, f->y, 4));
    REFUSED(atedm_copy(f->s, NULL, f->y, 4));
    REFUSED(atedm_upload(f->s, f->failed ? NULL : &f->failed, NULL, 4));
    REFUSED(atedm_download(f->s, NULL, &f->failed, 4));
    ACCEPTED(atedm_copy(f->s, NULL, NULL, 0));
}

static void embedding_calls(fixture *f)
{
    const int64_t ids[4] = {0, 1, 2, 3}, negative[4] = {0, 1, -2, 3}, beyond[4] = {0, 1, 2, 4};
    const double values[2] = {1, 2};
    ACCEPTED(atedm_embed_tokens(f->s, f->table, f->table, ids, 4, 2, f->y));
    REFUSED(atedm_embed_tokens(f->s, f->table, f->table, negative, 4, 2, f->y));
    REFUSED(atedm_embed_tokens(f->s, f->table, f->table, beyond, 4, 2, f->y));
    REFUSED(atedm_embed_tokens(f->s, f->table, f->table, NULL, 4, 2, f->y));
    REFUSED(atedm_embed_tokens(f->s, f->table, f->table, ids, 4, 0, f->y));
    REFUSED(atedm_embed_tokens(f->s, f->table, f->table, ids, 4, 5, f->y)); // 4 positions
    REFUSED(atedm_embed_tokens(f->s, f->table, f->long_table, ids, 4, 2, f->y));
    REFUSED(atedm_embed_tokens(f->s, f->table, NULL, ids, 4, 2, f->y));
    REFUSED(atedm_embed_tokens(f->s, f->linear, f->table, ids, 4, 2, f->y));
    REFUSED(atedm_embed_tokens(f->s, f->table, f->table, ids, -4, 2, f->y));
    ACCEPTED(atedm_embed_tokens(f->s, f->table, f->table, ids, 0, 2, f->y));
    ACCEPTED(atedm_sinusoid(f->s, values, 2, 8, f->y));
    REFUSED(atedm_sinusoid(f->s, values, 2, 7, f->y));
    REFUSED(atedm_sinusoid(f->s, values, 2, 0, f->y));
    REFUSED(atedm_sinusoid(f->s, NULL, 2, 8, f->y));
    REFUSED(atedm_sinusoid(f->s, values, -2, 8, f->y));
    ACCEPTED(atedm_sinusoid(f->s, values, 0, 8, f->y));
}

static void attention_calls(fixture *f)
{
    const atedm_span span = {0, 2, 0, 2}, uneven = {0, 2, 0, 1}, negative = {-1, 2, 0, 2},
                     empty = {0, 0, 0, 2}, keyless = {0, 2, 0, 0}, huge = {INT64_MAX, 2, 0, 2};
    const atedm_attention_args good = {.q = f->x,
                                       .k = f->x,
                                       .v = f->x,
                                       .q_stride = 4,
                                       .k_stride = 4,
                                       .v_stride = 4,
                                       .o = f->y,
                                       .lse = f->f,
                                       .lse_stride = 2,
                                       .spans = &span,
                                       .n_spans = 1,
                                       .heads = 2,
                                       .head_dim = 2};
    atedm_attention_args a;
    ACCEPTED(a = good, atedm_attention(f->s, &a));
    REFUSED(a = good, a.q = NULL, atedm_attention(f->s, &a));
    REFUSED(a = good, a.v = NULL, atedm_attention(f->s, &a));
    REFUSED(a = good, a.o = NULL, atedm_attention(f->s, &a));
    REFUSED(a = good, a.o = f->x, atedm_attention(f->s, &a));
    ACCEPTED(a = good, a.key_bias = f->f, a.lse = NULL, atedm_attention(f->s, &a));
    REFUSED(a = good, a.key_bias = f->f, atedm_attention(f->s, &a)); // lse is given
    REFUSED(a = good, a.key_bias = f->y, atedm_attention(f->s, &a));
    REFUSED(a = good, a.lse = f->x, atedm_attention(f->s, &a));
    REFUSED(a = good, a.lse = f->y, atedm_attention(f->s, &a));
    REFUSED(a = good, a.heads = 0, atedm_attention(f->s, &a));
    REFUSED(a = good, a.head_dim = -2, atedm_attention(f->s, &a));
    REFUSED(a = good, a.head_dim = 3, atedm_attention(f->s, &a)); // wider than the strides
    REFUSED(a = good, a.v_stride = 3, atedm_attention(f->s, &a));
    REFUSED(a = good, a.q_stride = INT64_MAX, atedm_attention(f->s, &a));
    REFUSED(a = good, a.lse_stride = 1, atedm_attention(f->s, &a));
    REFUSED(a = good, a.spans = NULL, atedm_attention(f->s, &a));
    REFUSED(a = good, a.spans = &negative, atedm_attention(f->s, &a));
    REFUSED(a = good, a.spans = &empty, atedm_attention(f->s, &a));
    REFUSED(a = good, a.spans = &keyless, atedm_attention(f->s, &a));
    REFUSED(a = good, a.spans = &huge, atedm_attention(f->s, &a));
    REFUSED(a = good, a.causal = true, a.spans = &uneven, atedm_attention(f->s, &a));
    REFUSED(a = good, a.n_spans = -1, atedm_attention(f->s, &a));
    ACCEPTED(a = good, a.n_spans = 0, atedm_attention(f->s, &a));
}

static void rank_calls(fixture *f)
{
    const atedm_span span = {0, 2, 0, 2}, uneven = {0, 2, 0, 1}, elsewhere = {0, 2, 2, 2};
    const atedm_rank_params params = {ATEDM_HEADS_RMS, 8, 1e-3f};
    atedm_rank_params p;
    const atedm_rank_args good = {.q = f->x,
                                  .k = f->x,
                                  .q_stride = 4,
                                  .k_stride = 4,
                                  .lse = f->f,
                                  .lse_stride = 2,
                                  .scores = f->g,
                                  .spans = &span,
                                  .params = &p,
                                  .n_spans = 1,
                                  .heads = 2,
                                  .head_dim = 2};
    atedm_rank_args a;
    ACCEPTED(p = params, a = good, atedm_rank_tokens(f->s, &a));
    REFUSED(p = params, a = good, a.k = NULL, atedm_rank_tokens(f->s, &a));
    REFUSED(p = params, a = good, a.lse = NULL, atedm_rank_tokens(f->s, &a));
    REFUSED(p = params, a = good, a.scores = NULL, atedm_rank_tokens(f->s, &a));
    REFUSED(p = params, a = good, a.params = NULL, atedm_rank_tokens(f->s, &a));
    REFUSED(p = params, a = good, a.spans = &uneven, atedm_rank_tokens(f->s, &a));
    REFUSED(p = params, a = good, a.spans = &elsewhere, atedm_rank_tokens(f->s, &a));
    REFUSED(p = params, a = good, a.lse_stride = 1, atedm_rank_tokens(f->s, &a));
    REFUSED(p = params, a = good, a.heads = 3, atedm_rank_tokens(f->s, &a));
    REFUSED(a = good, p = params, p.max_iterations = 0, atedm_rank_tokens(f->s, &a));
    REFUSED(a = good, p = params, p.max_iterations = ATEDM_MAX_RANK_ITERATIONS + 1,
            atedm_rank_tokens(f->s, &a));
    REFUSED(a = good, p = params, p.tolerance = -1, atedm_rank_tokens(f->s, &a));
    REFUSED(a = good, p = params, p.tolerance = NAN, atedm_rank_tokens(f->s, &a));
    REFUSED(a = good, p = params, p.heads = (atedm_head_combine)7, atedm_rank_tokens(f->s, &a));
    ACCEPTED(p = params, a = good, a.n_spans = 0, atedm_rank_tokens(f->s, &a));
}

static void random_calls(fixture *f)
{
    const atedm_random_span good = {.first = 1, .n = 4, .draw = 1, .salt = 7};
    const uint64_t *draws = (const uint64_t *)f->x;
    atedm_random_span p;
    ACCEPTED(p = good, atedm_random_scores(f->s, draws, f->g, f->f, &p, 1));
    REFUSED(p = good, atedm_random_scores(f->s, draws, f->g, NULL, &p, 1));
    REFUSED(p = good, atedm_random_scores(f->s, draws, f->g, f->f, NULL, 1));
    REFUSED(p = good, atedm_random_scores(f->s, draws, f->g, f->f, &p, -1));
    ACCEPTED(p = good, atedm_random_scores(f->s, draws, NULL, f->f, &p, 1));
    REFUSED(p = good, atedm_random_scores(f->s, NULL, f->y, f->f, &p, 1));
    REFUSED(p = good, atedm_random_scores(f->s, draws, f->f, f->f, &p, 1));
    REFUSED(p = good, atedm_random_scores(f->s, (const uint64_t *)f->f, f->g, f->f, &p, 1));
    REFUSED(p = good, p.draw = -1, atedm_random_scores(f->s, draws, f->g, f->f, &p, 1));
    REFUSED(p = good, p.draw = INT64_MAX, atedm_random_scores(f->s, draws, f->g, f->f, &p, 1));
    REFUSED(p = good, p.n = 0, atedm_random_scores(f->s, draws, f->g, f->f, &p, 1));
    REFUSED(p = good, p.first = -1, atedm_random_scores(f->s, draws, f->g, f->f, &p, 1));
    REFUSED(p = good, p.n = INT64_MAX, atedm_random_scores(f->s, draws, f->g, f->f, &p, 1));
    ACCEPTED(p = good, atedm_random_scores(f->s, draws, f->g, f->f, &p, 0));
}

static void prune_calls(fixture *f)
{
    const atedm_prune_span good = {.first = 0, .n = 4, .kept_first = 0, .keep = 2};
    atedm_prune_span p;
    ACCEPTED(p = good, atedm_select_tokens(f->s, f->f, f->kept, &p, 1));
    REFUSED(p = good, atedm_select_tokens(f->s, NULL, f->kept, &p, 1));
    REFUSED(p = good, atedm_select_tokens(f->s, f->f, NULL, &p, 1));
    REFUSED(p = good, atedm_select_tokens(f->s, f->f, f->kept, NULL, 1));
    REFUSED(p = good, atedm_select_tokens(f->s, f->f, f->kept, &p, -1));
    REFUSED(p = good, p.keep = 0, atedm_select_tokens(f->s, f->f, f->kept, &p, 1));
    REFUSED(p = good, p.keep = 5, atedm_select_tokens(f->s, f->f, f->kept, &p, 1));
    REFUSED(p = good, p.n = 0, atedm_select_tokens(f->s, f->f, f->kept, &p, 1));
    REFUSED(p = good, p.n = (int64_t)1 << 31, atedm_select_tokens(f->s, f->f, f->kept, &p, 1));
    REFUSED(p = good, p.first = -1, atedm_select_tokens(f->s, f->f, f->kept, &p, 1));
    REFUSED(p = good, p.kept_first = INT64_MAX, atedm_select_tokens(f->s, f->f, f->kept, &p, 1));
    ACCEPTED(p = good, atedm_select_tokens(f->s, f->f, f->kept, &p, 0));
    const atedm_source_args fine = {
        .kept = f->kept, .source = f->source, .spans = &good, .n_spans = 1};
    const atedm_source_map map = {.q = f->x,
                                  .k = f->x,
                                  .q_stride = 4,
                                  .k_stride = 4,
                                  .lse = f->f,
                                  .lse_stride = 4,
                                  .heads = 2,
                                  .head_dim = 2};
    atedm_source_args a;
    atedm_source_map m;
    ACCEPTED(m = map, a = fine, atedm_source_attention(f->s, &a, &m));
    REFUSED(m = map, a = fine, a.kept = NULL, atedm_source_attention(f->s, &a, &m));
    REFUSED(m = map, a = fine, a.source = f->kept, atedm_source_attention(f->s, &a, &m));
    REFUSED(m = map, a = fine, a.source = f->x, atedm_source_attention(f->s, &a, &m));
    REFUSED(m = map, a = fine, a.source = (int32_t *)f->f, atedm_source_attention(f->s, &a, &m));
    REFUSED(a = fine, m = map, m.lse = NULL, atedm_source_attention(f->s, &a, &m));
    REFUSED(a = fine, m = map, m.lse_stride = 3, atedm_source_attention(f->s, &a, &m));
    REFUSED(a = fine, m = map, m.k_stride = 3, atedm_source_attention(f->s, &a, &m));
    ACCEPTED(a = fine, m = map, a.n_spans = 0, atedm_source_attention(f->s, &a, &m));
    ACCEPTED(a = fine, atedm_source_cosine(f->s, &a, f->x, 4));
    ACCEPTED(a = fine, atedm_source_nearest(f->s, &a, f->place, 4));
    ACCEPTED(a = fine, atedm_source_zero(f->s, &a));
    REFUSED(a = fine, a.source = f->x, atedm_source_cosine(f->s, &a, f->x, 4));
    REFUSED(a = fine, a.source = f->place, atedm_source_nearest(f->s, &a, f->place, 4));
    REFUSED(a = fine, atedm_source_cosine(f->s, &a, NULL, 4));
    REFUSED(a = fine, atedm_source_cosine(f->s, &a, f->x, 0));
    REFUSED(a = fine, atedm_source_cosine(f->s, &a, f->x, INT64_MAX));
    REFUSED(a = fine, atedm_source_nearest(f->s, &a, NULL, 4));
    REFUSED(a = fine, atedm_source_nearest(f->s, &a, f->place, 0));
    REFUSED(a = fine, a.spans = NULL, atedm_source_zero(f->s, &a));
    REFUSED(a = fine, a.n_spans = -1, atedm_source_zero(f->s, &a));
    ACCEPTED(a = fine, a.n_spans = 0, atedm_source_zero(f->s, &a));
    ACCEPTED(p = good, atedm_source_weights(f->s, f->source, NULL, f->f, &p, 1));
    REFUSED(p = good, atedm_source_weights(f->s, NULL, NULL, f->f, &p, 1));
    REFUSED(p = good, atedm_source_weights(f->s, f->source, NULL, NULL, &p, 1));
    REFUSED(p = good, atedm_source_weights(f->s, f->source, f->f, f->f, &p, 1));
    REFUSED(p = good, atedm_source_weights(f->s, f->source, NULL, f->f, NULL, 1));
    REFUSED(p = good, p.keep = 5, atedm_source_weights(f->s, f->source, NULL, f->f, &p, 1));
    ACCEPTED(p = good, atedm_source_weights(f->s, f->source, NULL, f->f, &p, 0));
    const atedm_gather_span rows = {0, 0, 0, 2};
    atedm_gather_span g;
    ACCEPTED(g = rows, atedm_gather_rows(f->s, f->x, f->kept, f->y, 8, &g, 1));
    REFUSED(g = rows, atedm_gather_rows(f->s, f->x, f->kept, f->x, 8, &g, 1));
    REFUSED(g = rows, atedm_gather_rows(f->s, f->x, NULL, f->y, 8, &g, 1));
    REFUSED(g = rows, atedm_gather_rows(f->s, f->x, f->kept, f->y, 0, &g, 1));
    REFUSED(g = rows, atedm_gather_rows(f->s, f->x, f->kept, f->y, SIZE_MAX, &g, 1));
    REFUSED(g = rows, g.n = -1, atedm_gather_rows(f->s, f->x, f->kept, f->y, 8, &g, 1));
    REFUSED(g = rows, g.from = -1, atedm_gather_rows(f->s, f->x, f->kept, f->y, 8, &g, 1));
    REFUSED(g = rows, g.to = INT64_MAX, atedm_gather_rows(f->s, f->x, f->kept, f->y, 8, &g, 1));
    ACCEPTED(g = rows, g.n = 0, atedm_gather_rows(f->s, f->x, f->kept, f->y, 8, &g, 1));
    ACCEPTED(g = rows, atedm_add_rows(f->s, f->x, f->kept, 1, f->y, 2, &g, 1));
    REFUSED(g = rows, atedm_add_rows(f->s, f->x, f->kept, 1, f->x, 2, &g, 1));
    REFUSED(g = rows, atedm_add_rows(f->s, NULL, f->kept, 1, f->y, 2, &g, 1));
    REFUSED(g = rows, atedm_add_rows(f->s, f->x, f->kept, 1, f->y, 0, &g, 1));
    REFUSED(g = rows, atedm_add_rows(f->s, f->x, f->kept, 1, f->y, INT64_MAX, &g, 1));
    REFUSED(g = rows, g.n = -1, atedm_add_rows(f->s, f->x, f->kept, 1, f->y, 2, &g, 1));
    ACCEPTED(g = rows, atedm_add_rows(f->s, f->x, f->kept, 1, f->y, 2, &g, 0));
}

static void sampler_calls(fixture *f)
{
    const double scales[2] = {1, 2};
    const atedm_step_args good = {
        .cond = f->x, .x = f->f, .count = 4, .guidance_scale = 7, .step = {.x = 1, .output = -1}};
    atedm_step_args a;
    ACCEPTED(atedm_scale_input(f->s, f->f, scales, f->y, 2, 4));
    REFUSED(atedm_scale_input(f->s, f->f, NULL, f->y, 2, 4));
    REFUSED(atedm_scale_input(f->s, NULL, scales, f->y, 2, 4));
    REFUSED(atedm_scale_input(f->s, f->f, scales, f->f, 2, 4));
    REFUSED(atedm_scale_input(f->s, f->f, scales, f->y, -2, 4));
    REFUSED(atedm_scale_input(f->s, f->f, scales, f->y, 2, INT64_MAX));
    ACCEPTED(atedm_scale_input(f->s, f->f, scales, f->y, 0, 4));
    ACCEPTED(a = good, atedm_sampler_step(f->s, &a));
    REFUSED(a = good, a.cond = NULL, atedm_sampler_step(f->s, &a));
    REFUSED(a = good, a.x = NULL, atedm_sampler_step(f->s, &a));
    REFUSED(a = good, a.count = -4, atedm_sampler_step(f->s, &a));
    REFUSED(a = good, a.guidance_scale = NAN, atedm_sampler_step(f->s, &a));
    REFUSED(a = good, a.step.output = INFINITY, atedm_sampler_step(f->s, &a));
    ACCEPTED(a = good, a.history = f->f + 4, atedm_sampler_step(f->s, &a));
    REFUSED(a = good, a.history = f->f + 3, atedm_sampler_step(f->s, &a));
    REFUSED(a = good, a.uncond = f->y, a.history = f->y, atedm_sampler_step(f->s, &a));
    REFUSED(a = good, a.history = f->f + 4, a.step.keep_output = NAN, atedm_sampler_step(f->s, &a));
    ACCEPTED(a = good, a.count = 0, atedm_sampler_step(f->s, &a));
    ACCEPTED(atedm_image_finish(f->s, f->x, f->bytes, 4));
    REFUSED(atedm_image_finish(f->s, f->x, NULL, 4));
    REFUSED(atedm_image_finish(f->s, f->x, f->bytes, -4));
    ACCEPTED(atedm_image_finish(f->s, f->x, f->bytes, 0));
}

static void do_nothing(void *user)
{
}

// Work aside begins, ends and is joined, in this order. Only some operations are allowed in it.
static void aside_calls(fixture *f)
{
    atedm_stream *s = f->s;
    const atedm_prune_span p = {0, 4, 0, 2};
    const atedm_linear_args linear = {.weight = f->linear, .x = f->x, .y = f->y, .rows = 2};
    float value = 0;
    ACCEPTED(atedm_stream_begin_aside(s), atedm_select_tokens(s, f->f, f->kept, &p, 1),
             atedm_stream_end_aside(s), atedm_linear(s, &linear), atedm_stream_join_aside(s));
    REFUSED(atedm_stream_end_aside(s));
    REFUSED(atedm_stream_join_aside(s));
    REFUSED(atedm_stream_begin_aside(s)); // then the sync waits, as below
    REFUSED(atedm_stream_begin_aside(s), atedm_stream_end_aside(s));
    REFUSED(atedm_stream_begin_aside(s), atedm_stream_begin_aside(s));
    REFUSED(atedm_stream_begin_aside(s), atedm_stream_join_aside(s));
    REFUSED(atedm_stream_begin_aside(s), atedm_stream_end_aside(s), atedm_stream_begin_aside(s),
            atedm_stream_join_aside(s));
    REFUSED(atedm_stream_begin_aside(s), atedm_linear(s, &linear), atedm_stream_end_aside(s),
            atedm_stream_join_aside(s));
    REFUSED(atedm_stream_begin_aside(s), atedm_add(s, f->x, f->x, f->y, 4),
            atedm_stream_end_aside(s), atedm_stream_join_aside(s));
    REFUSED(atedm_stream_begin_aside(s), atedm_copy(s, f->x, f->y, 4), atedm_stream_end_aside(s),
            atedm_stream_join_aside(s));
    REFUSED(atedm_stream_begin_aside(s), atedm_download(s, f->f, &value, 4),
            atedm_stream_end_aside(s), atedm_stream_join_aside(s));
    REFUSED(atedm_stream_begin_aside(s), atedm_stream_end_aside(s),
            atedm_stream_repeat(s, &value, sizeof value, do_nothing, NULL),
            atedm_stream_join_aside(s));
    ACCEPTED(atedm_stream_begin_aside(s), atedm_stream_end_aside(s), atedm_stream_join_aside(s));
}

// The first failure is kept, operations after it neither run nor count, and sync clears it.
static void sticky_failure(fixture *f)
{
    atedm_error err = {{0}};
    const float one = 1;
    float value = 5;
    atedm_linear_args linear = {.weight = f->linear, .x = f->x, .y = f->y, .rows = 2};
    atedm_upload(f->s, &one, f->f, sizeof one);
    atedm_stream_reset_counts(f->s);
    atedm_stream_fail(f->s, ATEDM_ERR_CANCELED, "the first: %d", 1);
    atedm_stream_fail(f->s, ATEDM_ERR_IO, "the second");
    atedm_linear(f->s, &linear);
    atedm_upload(f->s, &value, f->f, sizeof value);
    bool good = atedm_stream_failed(f->s) && !atedm_stream_wait(f->s) &&
                atedm_stream_counts(f->s).linear == 0 &&
                atedm_stream_sync(f->s, &err) == ATEDM_ERR_CANCELED &&
                !strcmp(err.message, "the first: 1") && !atedm_stream_failed(f->s);
    atedm_download(f->s, f->f, &value, sizeof value);
    good = good && !atedm_stream_sync(f->s, &err) && value == one;
    if (!good)
        printf("FAIL a failed stream: %s\n", err.message);
    f->failed += !good;
}

// Weights whose creation must fail, and must leave the result parameter untouched.
static void weight_calls(fixture *f)
{
    static const float data[64];
    const atedm_host_tensor matrix = {data, ATEDM_F32, 2, {4, 4}},
                            vector = {data, ATEDM_F32, 1, {4}},
                            cube = {data, ATEDM_F32, 4, {1, 4, 3, 3}};
    const atedm_host_tensor parts[2] = {matrix, {data, ATEDM_F32, 2, {4, 3}}};
    atedm_dtype act = atedm_stream_dtype(f->s);
    atedm_host_tensor t;
    atedm_weight *w = NULL;
    atedm_error err = {{0}};
    int good = 0, all = 0;
#define NO_WEIGHT(...)                                                                             \
    do {                                                                                           \
        err.message[0] = '\0';                                                                     \
        __VA_ARGS__;                                                                               \
        bool refused = status && !w && err.message[0];                                             \
        if (!refused)                                                                              \
            printf("FAIL %s was not refused\n", #__VA_ARGS__);                                     \
        good += refused;                                                                           \
        all++;                                                                                     \
    } while (0)
    atedm_status status;
    NO_WEIGHT(status = atedm_linear_weight_create(f->device, act, parts, NULL, 0, &w, &err));
    NO_WEIGHT(status = atedm_linear_weight_create(f->device, act, parts, NULL, 2, &w, &err));
    NO_WEIGHT(status = atedm_linear_weight_create(f->device, act, &cube, NULL, 1, &w, &err));
    NO_WEIGHT(status = atedm_linear_weight_create(f->device, act, parts, parts, 1, &w, &err));
    NO_WEIGHT(t = vector, t.shape[0] = 5,
              status = atedm_linear_weight_create(f->device, act, parts, &t, 1, &w, &err));
    NO_WEIGHT(t = matrix, t.shape[0] = 0,
              status = atedm_linear_weight_create(f->device, act, &t, NULL, 1, &w, &err));
    NO_WEIGHT(t = matrix, t.shape[0] = t.shape[1] = INT64_MAX,
              status = atedm_linear_weight_create(f->device, act, &t, NULL, 1, &w, &err));
    NO_WEIGHT(t = matrix, t.data = NULL,
              status = atedm_linear_weight_create(f->device, act, &t, NULL, 1, &w, &err));
    NO_WEIGHT(t = matrix, t.dtype = ATEDM_I32,
              status = atedm_linear_weight_create(f->device, act, &t, NULL, 1, &w, &err));
    NO_WEIGHT(status = atedm_linear_weight_create(f->device, ATEDM_U8, parts, NULL, 1, &w, &err));
    NO_WEIGHT(status = atedm_conv_weight_create(f->device, act, &cube, NULL, 3, &w, &err));
    NO_WEIGHT(status = atedm_conv_weight_create(f->device, act, &matrix, NULL, 1, &w, &err));
    NO_WEIGHT(status = atedm_conv_weight_create(f->device, act, &cube, &vector, 1, &w, &err));
    NO_WEIGHT(t = cube, t.shape[3] = 1,
              status = atedm_conv_weight_create(f->device, act, &t, NULL, 1, &w, &err));
    NO_WEIGHT(t = cube, t.shape[2] = t.shape[3] = 2,
              status = atedm_conv_weight_create(f->device, act, &t, NULL, 1, &w, &err));
    NO_WEIGHT(t = vector, t.shape[0] = 3,
              status = atedm_norm_weight_create(f->device, &vector, &t, &w, &err));
    NO_WEIGHT(status = atedm_norm_weight_create(f->device, &matrix, &vector, &w, &err));
    NO_WEIGHT(status = atedm_table_weight_create(f->device, act, &vector, &w, &err));
    NO_WEIGHT(status = atedm_table_weight_create(f->device, ATEDM_I64, &matrix, &w, &err));
#undef NO_WEIGHT
    f->failed += all - good;
}

static void fixture_init(fixture *f, atedm_stream *s)
{
    static const float zeros[256];
    const atedm_host_tensor matrix = {zeros, ATEDM_F32, 2, {4, 4}},
                            wide = {zeros, ATEDM_F32, 2, {4, 5}},
                            vector = {zeros, ATEDM_F32, 1, {4}},
                            longer = {zeros, ATEDM_F32, 1, {5}},
                            cube = {zeros, ATEDM_F32, 4, {4, 4, 3, 3}};
    atedm_error err = {{0}};
    atedm_dtype act = atedm_stream_dtype(s);
    *f = (fixture){.s = s, .device = atedm_stream_device(s)};
    for (size_t i = 0; i < sizeof f->memory / sizeof *f->memory; i++) {
        parity_require(atedm_device_alloc(f->device, COUNT * 4, &f->memory[i], &err), &err,
                       "alloc");
        atedm_upload(s, zeros, f->memory[i], COUNT * 4);
    }
    f->x = f->memory[0];
    f->y = f->memory[1];
    f->f = f->memory[2];
    f->g = f->memory[3];
    f->kept = f->memory[4];
    f->source = f->memory[5];
    f->bytes = f->memory[6];
    f->place = f->memory[7];
    const atedm_status made[] = {
        atedm_linear_weight_create(f->device, act, &matrix, NULL, 1, &f->linear, &err),
        atedm_conv_weight_create(f->device, act, &cube, NULL, 1, &f->conv, &err),
        atedm_norm_weight_create(f->device, &vector, &vector, &f->norm, &err),
        atedm_norm_weight_create(f->device, &longer, &longer, &f->long_norm, &err),
        atedm_table_weight_create(f->device, act, &matrix, &f->table, &err),
        atedm_table_weight_create(f->device, act, &wide, &f->long_table, &err),
        atedm_stream_sync(s, &err),
    };
    for (size_t i = 0; i < sizeof made / sizeof *made; i++)
        parity_require(made[i], &err, "setting up");
}

static void fixture_finish(fixture *f)
{
    atedm_weight *weights[] = {f->linear, f->conv, f->norm, f->long_norm, f->table, f->long_table};
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++)
        atedm_weight_destroy(weights[i]);
    for (size_t i = 0; i < sizeof f->memory / sizeof *f->memory; i++)
        atedm_device_free(f->device, f->memory[i]);
}

int parity_bad_calls(atedm_stream *stream)
{
    fixture f;
    fixture_init(&f, stream);
    linear_calls(&f);
    conv_calls(&f);
    norm_calls(&f);
    elementwise_calls(&f);
    embedding_calls(&f);
    attention_calls(&f);
    rank_calls(&f);
    random_calls(&f);
    prune_calls(&f);
    sampler_calls(&f);
    aside_calls(&f);
    sticky_failure(&f);
    weight_calls(&f);
    fixture_finish(&f);
    printf("%s bad_calls\n", f.failed ? "FAIL" : "ok  ");
    return f.failed;
}
