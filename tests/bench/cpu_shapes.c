// Times every operation of one SDXL UNet evaluation (or VAE decode) on the cpu backend, shape by
// shape. It compares the sum with the rate of oneDNN's own GEMM of 4096x1280x1280 in the same run:
// the target is a share of that rate.
//
// usage: cpu_shapes [--vae] [--f32] [--one-thread] [--seconds S] [SIZE]
//   SIZE          pixels of a side, 1024
//   --one-thread  processor time of one thread in place of wall-clock time: for a busy machine
//
// Each shape runs on its own buffers, again and again, so weights may stay in the cache where they
// would not in a model. `atedm bench step` times a model.
#include "tests/bench/cpu_shapes.h"

#include "core/base/clock.h"
#include "kernels/kernels.h"

#include <math.h>
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define GEMM_ROWS 4096
#define GEMM_INNER 1280
#define GEMM_COLUMNS 1280
#define MAX_RUNS 4096

static void die(const char *what)
{
    fprintf(stderr, "cpu_shapes: %s\n", what);
    exit(1);
}

static void require(atedm_status status, const atedm_error *err)
{
    if (status)
        die(err->message);
}

static void *checked(void *memory)
{
    if (!memory)
        die("out of memory");
    return memory;
}

// ---- timing

typedef void (*bench_call)(void *context);
typedef double (*bench_clock)(void); // seconds

static double thread_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// How long each shape is timed, and with which clock.
typedef struct bench_timing {
    bench_clock clock;
    double seconds;
} bench_timing;

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Median seconds of a call, after one unmeasured call.
static double time_call(bench_call call, void *context, const bench_timing *timing)
{
    static double runs[MAX_RUNS];
    size_t n = 0;
    call(context);
    double start = timing->clock();
    do {
        double before = timing->clock();
        call(context);
        runs[n++] = timing->clock() - before;
    } while (n < MAX_RUNS && (n < 3 || timing->clock() - start < timing->seconds));
    qsort(runs, n, sizeof *runs, by_value);
    return runs[n / 2];
}

// ---- the yardstick: oneDNN without anything of ours

typedef struct yardstick {
    dnnl_stream_t stream;
    dnnl_primitive_t primitive;
    dnnl_memory_t memory[3];
} yardstick;

static void require_dnnl(dnnl_status_t status)
{
    if (status)
        die("oneDNN refused the yardstick GEMM");
}

static void gemm_init(yardstick *g, dnnl_engine_t engine, dnnl_data_type_t type)
{
    dnnl_memory_desc_t src, weights, dst;
    dnnl_matmul_desc_t op;
    dnnl_primitive_desc_t desc;
    require_dnnl(dnnl_stream_create(&g->stream, engine, dnnl_stream_default_flags));
    require_dnnl(
        dnnl_memory_desc_init_by_tag(&src, 2, (dnnl_dims_t){GEMM_ROWS, GEMM_INNER}, type, dnnl_ab));
    require_dnnl(dnnl_memory_desc_init_by_tag(&weights, 2, (dnnl_dims_t){GEMM_INNER, GEMM_COLUMNS},
                                              type, dnnl_format_tag_any));
    require_dnnl(dnnl_memory_desc_init_by_tag(&dst, 2, (dnnl_dims_t){GEMM_ROWS, GEMM_COLUMNS}, type,
                                              dnnl_ab));
    require_dnnl(dnnl_matmul_desc_init(&op, &src, &weights, NULL, &dst));
    require_dnnl(dnnl_primitive_desc_create(&desc, &op, NULL, engine, NULL));
    require_dnnl(dnnl_primitive_create(&g->primitive, desc));
    const dnnl_query_t queries[3] = {dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_dst_md};
    for (int i = 0; i < 3; i++) {
        const dnnl_memory_desc_t *md = dnnl_primitive_desc_query_md(desc, queries[i], 0);
        void *data;
        require_dnnl(dnnl_memory_create(&g->memory[i], md, engine, DNNL_MEMORY_ALLOCATE));
        require_dnnl(dnnl_memory_get_data_handle(g->memory[i], &data));
        memset(data, 0x3c, dnnl_memory_desc_get_size(md)); // 0.0115 in bf16 and in f32
    }
    require_dnnl(dnnl_primitive_desc_destroy(desc));
}

static void gemm_finish(yardstick *g)
{
    for (int i = 0; i < 3; i++)
        dnnl_memory_destroy(g->memory[i]);
    dnnl_primitive_destroy(g->primitive);
    dnnl_stream_destroy(g->stream);
}

static void gemm_call(void *context)
{
    const yardstick *g = context;
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, g->memory[0]},
                                    {DNNL_ARG_WEIGHTS, g->memory[1]},
                                    {DNNL_ARG_DST, g->memory[2]}};
    require_dnnl(dnnl_primitive_execute(g->primitive, g->stream, 3, args));
    require_dnnl(dnnl_stream_wait(g->stream));
}

// FLOP/s of the yardstick.
static double gemm_rate(atedm_dtype act, const bench_timing *timing)
{
    dnnl_engine_t engine;
    yardstick g;
    require_dnnl(dnnl_engine_create(&engine, dnnl_cpu, 0));
    gemm_init(&g, engine, act == ATEDM_BF16 ? dnnl_bf16 : dnnl_f32);
    double median = time_call(gemm_call, &g, timing);
    gemm_finish(&g);
    dnnl_engine_destroy(engine);
    return 2.0 * GEMM_ROWS * GEMM_INNER * GEMM_COLUMNS / median;
}

// ---- one shape

typedef struct bench_run {
    const bench_shape *shape;
    atedm_device *device;
    atedm_stream *stream;
    atedm_weight *weight;
    void *x, *residual, *y, *v;
} bench_run;

// Values around zero from a small generator. They may be any values but zeros and denormal ones.
static float next_value(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return ((float)(*state >> 8) / 8388608.0f - 1.0f);
}

// A buffer of `count` activations.
static void *take(const bench_run *r, int64_t count)
{
    atedm_error err;
    void *memory, *floats;
    size_t n = (size_t)count;
    require(atedm_device_alloc(r->device, n * atedm_dtype_size(atedm_stream_dtype(r->stream)),
                               &memory, &err),
            &err);
    require(atedm_device_alloc(r->device, n * sizeof(float), &floats, &err), &err);
    float *host = checked(malloc(n * sizeof *host));
    uint32_t state = 1;
    for (size_t i = 0; i < n; i++)
        host[i] = next_value(&state);
    atedm_upload(r->stream, host, floats, n * sizeof *host);
    atedm_scale_input(r->stream, floats, &(double){1}, memory, 1, count);
    require(atedm_stream_sync(r->stream, &err), &err);
    free(host);
    atedm_device_free(r->device, floats);
    return memory;
}

static void make_weight(bench_run *r)
{
    const bench_shape *s = r->shape;
    atedm_dtype act = atedm_stream_dtype(r->stream);
    atedm_error err;
    bool norm = s->kind == BENCH_GROUP_NORM || s->kind == BENCH_LAYER_NORM;
    int64_t taps = s->kind == BENCH_CONV ? (int64_t)s->kernel * s->kernel : 1;
    int64_t out = norm ? 1 : s->out, count = s->in * out * taps;
    float *values = checked(malloc((size_t)count * sizeof *values));
    float *bias = checked(malloc((size_t)(norm ? s->in : s->out) * sizeof *bias));
    uint32_t state = 7;
    for (int64_t i = 0; i < count; i++)
        values[i] = next_value(&state) / sqrtf((float)(s->in * taps));
    for (int64_t i = 0; i < (norm ? s->in : s->out); i++)
        bias[i] = next_value(&state);
    atedm_host_tensor matrix = {.data = values, .dtype = ATEDM_F32, .ndim = 2};
    atedm_host_tensor vector = {
        .data = bias, .dtype = ATEDM_F32, .ndim = 1, .shape = {norm ? s->in : s->out}};
    matrix.shape[0] = norm ? s->in : s->out;
    matrix.shape[1] = s->in;
    if (norm) {
        matrix.ndim = 1;
        require(atedm_norm_weight_create(r->device, &matrix, &vector, &r->weight, &err), &err);
    } else if (s->kind == BENCH_CONV) {
        matrix.ndim = 4;
        matrix.shape[2] = matrix.shape[3] = s->kernel;
        require(
            atedm_conv_weight_create(r->device, act, &matrix, &vector, s->stride, &r->weight, &err),
            &err);
    } else {
        require(atedm_linear_weight_create(r->device, act, &matrix, &vector, 1, &r->weight, &err),
                &err);
    }
    free(values);
    free(bias);
}

static void run_init(bench_run *r, const bench_shape *s, atedm_device *device, atedm_stream *stream)
{
    *r = (bench_run){.shape = s, .device = device, .stream = stream};
    int64_t x = s->rows * s->in, y = s->rows * s->in;
    if (s->kind == BENCH_LINEAR || s->kind == BENCH_CONV || s->kind == BENCH_GROUP_NORM ||
        s->kind == BENCH_LAYER_NORM)
        make_weight(r);
    if (s->kind == BENCH_LINEAR || s->kind == BENCH_CONV)
        y = s->rows * s->out;
    if (s->kind == BENCH_CONCAT) {
        y = s->rows * (s->in + s->out);
        r->v = take(r, s->rows * s->out);
    }
    if (s->kind == BENCH_ATTENTION) { // q, k and v side by side, or k and v
        int64_t width = s->out * s->head_dim;
        y = s->rows * width;
        x = s->rows * width * (s->rows == s->in ? 3 : 1);
        r->v = take(r, s->in * width * 2);
    }
    r->x = take(r, x);
    r->y = take(r, y);
    if (s->residual)
        r->residual = r->y;
}

static void run_finish(bench_run *r)
{
    atedm_weight_destroy(r->weight);
    atedm_device_free(r->device, r->x);
    atedm_device_free(r->device, r->y);
    atedm_device_free(r->device, r->v);
}

static void call_attention(const bench_run *r)
{
    const bench_shape *s = r->shape;
    int64_t width = s->out * s->head_dim;
    bool self = s->rows == s->in;
    size_t column = (size_t)width * atedm_dtype_size(atedm_stream_dtype(r->stream));
    const char *kv = self ? (const char *)r->x + column : r->v;
    atedm_span span = {0, s->rows, 0, s->in};
    atedm_attention(r->stream, &(atedm_attention_args){.q = r->x,
                                                       .k = kv,
                                                       .v = kv + column,
                                                       .q_stride = self ? 3 * width : width,
                                                       .k_stride = self ? 3 * width : 2 * width,
                                                       .v_stride = self ? 3 * width : 2 * width,
                                                       .o = r->y,
                                                       .spans = &span,
                                                       .n_spans = 1,
                                                       .heads = (int)s->out,
                                                       .head_dim = (int)s->head_dim});
}

static void call_norm(const bench_run *r)
{
    const bench_shape *s = r->shape;
    if (s->kind == BENCH_LAYER_NORM)
        atedm_layer_norm(
            r->stream,
            &(atedm_layer_norm_args){
                .weight = r->weight, .x = r->x, .y = r->y, .rows = s->rows, .epsilon = 1e-5f});
    else
        atedm_group_norm(r->stream, &(atedm_group_norm_args){.weight = r->weight,
                                                             .x = r->x,
                                                             .y = r->y,
                                                             .n = 1,
                                                             .hw = s->rows,
                                                             .groups = 32,
                                                             .epsilon = 1e-5f,
                                                             .silu = s->silu});
}

static void run_call(void *context)
{
    const bench_run *r = context;
    const bench_shape *s = r->shape;
    int64_t side = (int64_t)(sqrt((double)s->rows) + 0.5);
    atedm_error err;
    switch (s->kind) {
    case BENCH_LINEAR:
        atedm_linear(r->stream, &(atedm_linear_args){.weight = r->weight,
                                                     .x = r->x,
                                                     .residual = r->residual,
                                                     .y = r->y,
                                                     .rows = s->rows});
        break;
    case BENCH_CONV:
        atedm_conv(r->stream, &(atedm_conv_args){.weight = r->weight,
                                                 .x = r->x,
                                                 .residual = r->residual,
                                                 .y = r->y,
                                                 .n = 1,
                                                 .h = side,
                                                 .w = side});
        break;
    case BENCH_ATTENTION:
        call_attention(r);
        break;
    case BENCH_GROUP_NORM:
    case BENCH_LAYER_NORM:
        call_norm(r);
        break;
    case BENCH_GEGLU:
        atedm_geglu(r->stream, r->x, r->y, s->rows, s->in / 2);
        break;
    case BENCH_CONCAT:
        atedm_concat(r->stream, r->x, s->in, r->v, s->out, r->y, s->rows);
        break;
    case BENCH_UPSAMPLE:
        atedm_upsample2(r->stream, r->x, r->y, 1, side, side, s->in);
        break;
    default:
        atedm_add(r->stream, r->x, r->y, r->y, s->rows * s->in);
        break;
    }
    require(atedm_stream_sync(r->stream, &err), &err);
}

// ---- report

static void print_shape(const bench_shape *s, double seconds, double gemm)
{
    char text[64];
    double macs = bench_shape_macs(s);
    if (s->kind == BENCH_CONV)
        snprintf(text, sizeof text, "%lld px, %lld -> %lld, %dx%d / %d%s", (long long)s->rows,
                 (long long)s->in, (long long)s->out, s->kernel, s->kernel, s->stride,
                 s->residual ? " +" : "");
    else if (s->kind == BENCH_ATTENTION)
        snprintf(text, sizeof text, "%lld x %lld, %lld heads of %lld", (long long)s->rows,
                 (long long)s->in, (long long)s->out, (long long)s->head_dim);
    else
        snprintf(text, sizeof text, "%lld x %lld -> %lld%s", (long long)s->rows, (long long)s->in,
                 (long long)s->out, s->residual ? " +" : "");
    printf("%-10s %-36s x%-4d %9.3f ms %9.1f ms", bench_kind_name(s->kind), text, s->count,
           seconds * 1e3, seconds * 1e3 * s->count);
    if (macs > 0)
        printf(" %8.1f GFLOP/s %4.0f %%", 2e-9 * macs / seconds, 200 * macs / seconds / gemm);
    puts("");
}

static void bench_all(const bench_shapes *shapes, atedm_device *device, atedm_dtype act,
                      const bench_timing *timing)
{
    atedm_stream *stream;
    atedm_error err;
    double by_kind[BENCH_KINDS] = {0}, macs = 0, total = 0;
    double gemm = gemm_rate(act, timing);
    require(atedm_stream_create(device, act, &stream, &err), &err);
    printf("oneDNN %dx%dx%d %s: %.1f GFLOP/s\n", GEMM_ROWS, GEMM_INNER, GEMM_COLUMNS,
           atedm_dtype_name(act), gemm * 1e-9);
    for (size_t i = 0; i < shapes->n; i++) {
        const bench_shape *s = &shapes->list[i];
        bench_run r;
        run_init(&r, s, device, stream);
        double median = time_call(run_call, &r, timing);
        run_finish(&r);
        print_shape(s, median, gemm);
        by_kind[s->kind] += median * s->count;
        macs += bench_shape_macs(s) * s->count;
        total += median * s->count;
    }
    double after = gemm_rate(act, timing), mean = (gemm + after) / 2;
    printf("oneDNN again: %.1f GFLOP/s\n", after * 1e-9);
    for (int k = 0; k < BENCH_KINDS; k++)
        if (by_kind[k] > 0)
            printf("%-10s %9.1f ms  %4.1f %%\n", bench_kind_name((bench_kind)k), by_kind[k] * 1e3,
                   100 * by_kind[k] / total);
    printf("sum: %.3f TFLOP in %.3f s: %.1f GFLOP/s, %.1f %% of the GEMM's rate\n", 2e-12 * macs,
           total, 2e-9 * macs / total, 200 * macs / total / mean);
    atedm_stream_destroy(stream);
}

int main(int argc, char **argv)
{
    static bench_shapes shapes;
    bool vae = false;
    long size = 1024;
    bench_timing timing = {atedm_clock_monotonic, 0.3};
    atedm_device *device;
    atedm_error err;
    require(atedm_device_create("cpu", &device, &err), &err);
    atedm_dtype act = atedm_device_best_dtype(device);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--vae") == 0)
            vae = true;
        else if (strcmp(argv[i], "--f32") == 0)
            act = ATEDM_F32;
        else if (strcmp(argv[i], "--one-thread") == 0)
            timing.clock = thread_clock;
        else if (strcmp(argv[i], "--seconds") == 0 && i + 1 < argc)
            timing.seconds = strtod(argv[++i], NULL);
        else
            size = strtol(argv[i], NULL, 10);
    }
    if (size < 64 || size > 2048 || size % 64 || !(timing.seconds >= 0))
        die("usage: cpu_shapes [--vae] [--f32] [--one-thread] [--seconds S] [SIZE: 64..2048, by "
            "64]");
    if (timing.clock == thread_clock)
        omp_set_num_threads(1);
    if (vae)
        bench_shapes_vae(&shapes, size / 8);
    else
        bench_shapes_unet(&shapes, size / 8);
    bench_all(&shapes, device, act, &timing);
    atedm_device_destroy(device);
    return 0;
}
