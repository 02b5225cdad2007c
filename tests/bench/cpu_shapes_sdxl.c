// SDXL's shapes: see cpu_shapes.h. They are written down from the model's configs, not recorded, so
// that the program needs no weights and can time each shape alone. cpu_shapes.c checks the sum of
// multiply-accumulates against the cost model's.
#include "tests/bench/cpu_shapes.h"

#define TEXT_TOKENS 77
#define TEXT_WIDTH 2048
#define HEAD_DIM 64

// Adds `shape`, or adds its count to that of an equal shape.
static void add(bench_shapes *shapes, bench_shape shape)
{
    for (size_t i = 0; i < shapes->n; i++) {
        bench_shape *s = &shapes->list[i];
        if (s->kind == shape.kind && s->rows == shape.rows && s->in == shape.in &&
            s->out == shape.out && s->kernel == shape.kernel && s->stride == shape.stride &&
            s->residual == shape.residual && s->silu == shape.silu) {
            s->count += shape.count;
            return;
        }
    }
    if (shapes->n < BENCH_MAX_SHAPES)
        shapes->list[shapes->n++] = shape;
}

static void linear(bench_shapes *s, int64_t rows, int64_t in, int64_t out, bool residual, int count)
{
    add(s, (bench_shape){.kind = BENCH_LINEAR,
                         .rows = rows,
                         .in = in,
                         .out = out,
                         .residual = residual,
                         .count = count});
}

static void conv(bench_shapes *s, int64_t side, int64_t in, int64_t out, int kernel, int stride,
                 bool residual)
{
    add(s, (bench_shape){.kind = BENCH_CONV,
                         .rows = side * side,
                         .in = in,
                         .out = out,
                         .kernel = kernel,
                         .stride = stride,
                         .residual = residual,
                         .count = 1});
}

static void simple(bench_shapes *s, bench_kind kind, int64_t rows, int64_t in, int64_t out,
                   bool silu, int count)
{
    add(s, (bench_shape){
               .kind = kind, .rows = rows, .in = in, .out = out, .silu = silu, .count = count});
}

static void attention(bench_shapes *s, int64_t queries, int64_t keys, int64_t heads,
                      int64_t head_dim, int count)
{
    add(s, (bench_shape){.kind = BENCH_ATTENTION,
                         .rows = queries,
                         .in = keys,
                         .out = heads,
                         .head_dim = head_dim,
                         .count = count});
}

static void resnet(bench_shapes *s, int64_t side, int64_t in, int64_t out, int64_t embedding)
{
    simple(s, BENCH_GROUP_NORM, side * side, in, 0, true, 1);
    if (embedding)
        linear(s, 1, embedding, out, false, 1);
    conv(s, side, in, out, 3, 1, false);
    simple(s, BENCH_GROUP_NORM, side * side, out, 0, true, 1);
    if (in != out)
        conv(s, side, in, out, 1, 1, false);
    conv(s, side, out, out, 3, 1, true);
}

static void transformer(bench_shapes *s, int64_t side, int64_t c, int layers)
{
    int64_t rows = side * side, heads = c / HEAD_DIM;
    simple(s, BENCH_GROUP_NORM, rows, c, 0, false, 1);
    linear(s, rows, c, c, false, 1);
    simple(s, BENCH_LAYER_NORM, rows, c, 0, false, 3 * layers);
    linear(s, rows, c, 3 * c, false, layers);
    attention(s, rows, rows, heads, HEAD_DIM, layers);
    linear(s, rows, c, c, true, layers);
    linear(s, rows, c, c, false, layers);
    linear(s, TEXT_TOKENS, TEXT_WIDTH, 2 * c * layers, false, 1);
    attention(s, rows, TEXT_TOKENS, heads, HEAD_DIM, layers);
    linear(s, rows, c, c, true, layers);
    linear(s, rows, c, 8 * c, false, layers);
    simple(s, BENCH_GEGLU, rows, 8 * c, 0, false, layers);
    linear(s, rows, 4 * c, c, true, layers);
    linear(s, rows, c, c, true, 1);
}

static void upsampler(bench_shapes *s, int64_t side, int64_t c)
{
    simple(s, BENCH_UPSAMPLE, side * side, c, 0, false, 1);
    conv(s, side, c, c, 3, 1, false);
}

void bench_shapes_unet(bench_shapes *s, int64_t latent)
{
    static const int64_t channels[] = {320, 640, 1280},
                         skips[] = {320, 320, 320, 320, 640, 640, 640, 1280, 1280};
    static const int layers[] = {0, 2, 10};
    int64_t c = 320, embedding = 1280;
    s->n = 0;
    linear(s, 1, 320, embedding, false, 1);
    linear(s, 1, embedding, embedding, false, 1);
    conv(s, latent, 4, 320, 3, 1, false);
    for (int level = 0; level < 3; level++) {
        int64_t side = latent >> level;
        for (int i = 0; i < 2; i++, c = channels[level]) {
            resnet(s, side, c, channels[level], embedding);
            if (layers[level])
                transformer(s, side, channels[level], layers[level]);
        }
        if (level < 2)
            conv(s, side, c, c, 3, 2, false);
    }
    resnet(s, latent >> 2, c, c, embedding);
    transformer(s, latent >> 2, c, layers[2]);
    resnet(s, latent >> 2, c, c, embedding);
    int skip = 9;
    for (int level = 2; level >= 0; level--) {
        int64_t side = latent >> level;
        for (int i = 0; i < 3; i++, c = channels[level]) {
            simple(s, BENCH_CONCAT, side * side, c, skips[--skip], false, 1);
            resnet(s, side, c + skips[skip], channels[level], embedding);
            if (layers[level])
                transformer(s, side, channels[level], layers[level]);
        }
        if (level > 0)
            upsampler(s, 2 * side, c);
    }
    simple(s, BENCH_GROUP_NORM, latent * latent, 320, 0, true, 1);
    conv(s, latent, 320, 4, 3, 1, false);
}

void bench_shapes_vae(bench_shapes *s, int64_t latent)
{
    static const int64_t channels[] = {512, 512, 256, 128};
    int64_t c = 512, side = latent, tokens = latent * latent;
    s->n = 0;
    conv(s, side, 4, 4, 1, 1, false);
    conv(s, side, 4, c, 3, 1, false);
    resnet(s, side, c, c, 0);
    simple(s, BENCH_GROUP_NORM, tokens, c, 0, false, 1);
    linear(s, tokens, c, 3 * c, false, 1);
    attention(s, tokens, tokens, 1, c, 1);
    linear(s, tokens, c, c, true, 1);
    resnet(s, side, c, c, 0);
    for (int stage = 0; stage < 4; stage++) {
        for (int i = 0; i < 3; i++, c = channels[stage])
            resnet(s, side, c, channels[stage], 0);
        if (stage < 3)
            upsampler(s, side *= 2, c);
    }
    simple(s, BENCH_GROUP_NORM, side * side, c, 0, true, 1);
    conv(s, side, c, 3, 3, 1, false);
}

double bench_shape_macs(const bench_shape *s)
{
    double rows = (double)s->rows, in = (double)s->in, out = (double)s->out;
    switch (s->kind) {
    case BENCH_LINEAR:
        return rows * in * out;
    case BENCH_CONV:
        return rows / (s->stride * s->stride) * in * out * s->kernel * s->kernel;
    case BENCH_ATTENTION:
        return 2 * rows * in * out * (double)s->head_dim;
    default:
        return 0;
    }
}

const char *bench_kind_name(bench_kind kind)
{
    static const char *const names[BENCH_KINDS] = {
        [BENCH_LINEAR] = "linear",
        [BENCH_CONV] = "conv",
        [BENCH_ATTENTION] = "attention",
        [BENCH_GROUP_NORM] = "group_norm",
        [BENCH_LAYER_NORM] = "layer_norm",
        [BENCH_GEGLU] = "geglu",
        [BENCH_CONCAT] = "concat",
        [BENCH_UPSAMPLE] = "upsample2",
        [BENCH_ADD] = "add",
    };
    return names[kind];
}
