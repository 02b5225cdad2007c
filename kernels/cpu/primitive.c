// oneDNN primitives and their cache: see primitive.h.
#include "kernels/cpu/primitive.h"

#include <inttypes.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

// The cache consists of CACHE_SETS lists of CACHE_WAYS primitives. A full list drops the least
// recently used one. One evaluation of the UNet needs about 60 primitives; pruning to other token
// counts needs others.
#define CACHE_SETS 64
#define CACHE_WAYS 8

enum { SRC, DST, BIAS, RESIDUAL, SCRATCHPAD, MEMORIES };

typedef struct cache_entry {
    atedm_cpu_key key;
    int threads;                // for which it was made
    dnnl_primitive_t primitive; // NULL: free
    dnnl_memory_t memory[MEMORIES];
    dnnl_memory_desc_t layout; // of the weight
    size_t scratchpad_bytes;
    uint64_t used; // time of last use, in runs of the lane
} cache_entry;

// Everything that a thread needs to run primitives beside other threads. Lane 0 also runs the
// primitives that all threads share.
struct atedm_cpu_lane {
    dnnl_stream_t stream;
    cache_entry entries[CACHE_SETS][CACHE_WAYS];
    uint64_t runs;
    atedm_cpu_buffer scratchpad;
};

// ---- descriptions

static dnnl_status_t append_activation(dnnl_post_ops_t ops, atedm_activation activation)
{
    switch (activation) {
    case ATEDM_ACT_SILU:
        return dnnl_post_ops_append_eltwise(ops, 1, dnnl_eltwise_swish, 1, 0);
    case ATEDM_ACT_GELU:
        return dnnl_post_ops_append_eltwise(ops, 1, dnnl_eltwise_gelu_erf, 0, 0);
    case ATEDM_ACT_QUICK_GELU: // x sigmoid(1.702 x)
        return dnnl_post_ops_append_eltwise(ops, 1, dnnl_eltwise_swish, 1.702f, 0);
    case ATEDM_ACT_NONE:
        break;
    }
    return dnnl_success;
}

static dnnl_status_t make_attributes(const atedm_cpu_key *key, const dnnl_memory_desc_t *dst,
                                     dnnl_primitive_attr_t *ret_attributes)
{
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_post_ops_t ops = NULL;
    dnnl_status_t status = dnnl_primitive_attr_create(&attributes);
    if (!status)
        status = dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user);
    if (!status)
        status = dnnl_post_ops_create(&ops);
    if (!status)
        status = append_activation(ops, key->activation);
    if (!status && key->residual == ATEDM_RESIDUAL_Y)
        status = dnnl_post_ops_append_sum(ops, 1);
    if (!status && key->residual == ATEDM_RESIDUAL_OTHER)
        status = dnnl_post_ops_append_binary(ops, dnnl_binary_add, dst);
    if (!status)
        status = dnnl_primitive_attr_set_post_ops(attributes, ops);
    if (ops)
        dnnl_post_ops_destroy(ops);
    if (status)
        dnnl_primitive_attr_destroy(attributes);
    else
        *ret_attributes = attributes;
    return status;
}

static dnnl_status_t describe_linear(dnnl_engine_t engine, const atedm_cpu_key *key,
                                     const dnnl_memory_desc_t *weights,
                                     dnnl_primitive_desc_t *ret_desc)
{
    dnnl_data_type_t type = atedm_cpu_dnnl_type(key->act);
    dnnl_memory_desc_t src, any, bias, dst;
    dnnl_matmul_desc_t op;
    dnnl_primitive_attr_t attributes;
    dnnl_memory_desc_init_by_tag(&src, 2, (dnnl_dims_t){key->h, key->in}, type, dnnl_ab);
    dnnl_memory_desc_init_by_tag(&dst, 2, (dnnl_dims_t){key->h, key->out}, type, dnnl_ab);
    dnnl_memory_desc_init_by_tag(&bias, 2, (dnnl_dims_t){1, key->out}, dnnl_f32, dnnl_ab);
    dnnl_memory_desc_init_by_tag(&any, 2, (dnnl_dims_t){key->in, key->out}, type,
                                 dnnl_format_tag_any);
    dnnl_status_t status = dnnl_matmul_desc_init(&op, &src, weights ? weights : &any, &bias, &dst);
    if (!status)
        status = make_attributes(key, &dst, &attributes);
    if (status)
        return status;
    status = dnnl_primitive_desc_create(ret_desc, &op, attributes, engine, NULL);
    dnnl_primitive_attr_destroy(attributes);
    return status;
}

static dnnl_status_t describe_conv(dnnl_engine_t engine, const atedm_cpu_key *key,
                                   const dnnl_memory_desc_t *weights,
                                   dnnl_primitive_desc_t *ret_desc)
{
    dnnl_data_type_t type = atedm_cpu_dnnl_type(key->act);
    int64_t k = key->kernel, stride = key->stride, pad = (k - 1) / 2;
    int64_t ho = atedm_conv_out(key->h, key->stride), wo = atedm_conv_out(key->w, key->stride);
    dnnl_memory_desc_t src, any, bias, dst;
    dnnl_convolution_desc_t op;
    dnnl_primitive_attr_t attributes;
    dnnl_memory_desc_init_by_tag(&src, 4, (dnnl_dims_t){1, key->in, key->h, key->w}, type,
                                 dnnl_nhwc);
    dnnl_memory_desc_init_by_tag(&dst, 4, (dnnl_dims_t){1, key->out, ho, wo}, type, dnnl_nhwc);
    dnnl_memory_desc_init_by_tag(&bias, 1, (dnnl_dims_t){key->out}, dnnl_f32, dnnl_a);
    dnnl_memory_desc_init_by_tag(&any, 4, (dnnl_dims_t){key->out, key->in, k, k}, type,
                                 dnnl_format_tag_any);
    // The right padding that gives ho and wo: one less than the left for odd strides.
    dnnl_dims_t strides = {stride, stride}, left = {pad, pad};
    dnnl_dims_t right = {(ho - 1) * stride + k - key->h - pad,
                         (wo - 1) * stride + k - key->w - pad};
    dnnl_status_t status = dnnl_convolution_forward_desc_init(
        &op, dnnl_forward_inference, dnnl_convolution_direct, &src, weights ? weights : &any, &bias,
        &dst, strides, left, right);
    if (!status)
        status = make_attributes(key, &dst, &attributes);
    if (status)
        return status;
    status = dnnl_primitive_desc_create(ret_desc, &op, attributes, engine, NULL);
    dnnl_primitive_attr_destroy(attributes);
    return status;
}

dnnl_status_t atedm_cpu_primitive_describe(dnnl_engine_t engine, const atedm_cpu_key *key,
                                           const dnnl_memory_desc_t *weights,
                                           dnnl_primitive_desc_t *ret_desc)
{
    if (key->kind == ATEDM_WEIGHT_CONV || key->as_conv)
        return describe_conv(engine, key, weights, ret_desc);
    return describe_linear(engine, key, weights, ret_desc);
}

// ---- cache

static void entry_finish(cache_entry *entry)
{
    for (int i = 0; i < MEMORIES; i++)
        if (entry->memory[i])
            dnnl_memory_destroy(entry->memory[i]);
    if (entry->primitive)
        dnnl_primitive_destroy(entry->primitive);
    *entry = (cache_entry){0};
}

atedm_cpu_lane *atedm_cpu_lanes_create(dnnl_engine_t engine, int n)
{
    atedm_cpu_lane *lanes = calloc((size_t)n, sizeof *lanes);
    for (int i = 0; lanes && i < n; i++)
        if (dnnl_stream_create(&lanes[i].stream, engine, dnnl_stream_default_flags)) {
            atedm_cpu_lanes_destroy(lanes, n);
            return NULL;
        }
    return lanes;
}

void atedm_cpu_lanes_destroy(atedm_cpu_lane *lanes, int n)
{
    for (int lane = 0; lanes && lane < n; lane++) {
        for (int i = 0; i < CACHE_SETS; i++)
            for (int j = 0; j < CACHE_WAYS; j++)
                entry_finish(&lanes[lane].entries[i][j]);
        if (lanes[lane].stream)
            dnnl_stream_destroy(lanes[lane].stream);
        free(lanes[lane].scratchpad.memory);
    }
    free(lanes);
}

static bool same_key(const atedm_cpu_key *a, const atedm_cpu_key *b)
{
    return a->kind == b->kind && a->act == b->act && a->in == b->in && a->out == b->out &&
           a->kernel == b->kernel && a->stride == b->stride && a->h == b->h && a->w == b->w &&
           a->as_conv == b->as_conv && a->activation == b->activation && a->residual == b->residual;
}

static size_t hash_key(const atedm_cpu_key *key)
{
    const uint64_t fields[] = {
        (uint64_t)key->in,     (uint64_t)key->out, (uint64_t)key->kernel,
        (uint64_t)key->stride, (uint64_t)key->h,   (uint64_t)key->w,
        (uint64_t)key->kind,   key->activation,    key->residual,
    };
    uint64_t hash = 0xcbf29ce484222325u; // FNV-1a over the fields
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        hash = (hash ^ fields[i]) * 0x100000001b3u;
    return (size_t)(hash >> 32) % CACHE_SETS;
}

// Creates memory objects for the primitive's tensors, without data yet.
static dnnl_status_t make_memories(dnnl_engine_t engine, dnnl_primitive_desc_t desc,
                                   cache_entry *entry)
{
    const dnnl_memory_desc_t *descs[MEMORIES] = {
        [SRC] = dnnl_primitive_desc_query_md(desc, dnnl_query_src_md, 0),
        [DST] = dnnl_primitive_desc_query_md(desc, dnnl_query_dst_md, 0),
        [BIAS] = dnnl_primitive_desc_query_md(desc, dnnl_query_weights_md, 1),
        [RESIDUAL] = dnnl_primitive_desc_query_md(desc, dnnl_query_dst_md, 0),
        [SCRATCHPAD] = dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0),
    };
    entry->scratchpad_bytes = dnnl_memory_desc_get_size(descs[SCRATCHPAD]);
    for (int i = 0; i < MEMORIES; i++) {
        dnnl_status_t status =
            dnnl_memory_create(&entry->memory[i], descs[i], engine, DNNL_MEMORY_NONE);
        if (status)
            return status;
    }
    return dnnl_success;
}

// oneDNN's reference implementations are a hundred times slower than its others.
static bool is_reference(dnnl_primitive_desc_t desc)
{
    const char *name = "";
    dnnl_primitive_desc_query(desc, dnnl_query_impl_info_str, 0, &name);
    return !strncmp(name, "ref", 3);
}

// Describes the primitive with the weight's own layout if that is fast, else with the layout that
// oneDNN prefers for this key.
static dnnl_status_t describe_fast(dnnl_engine_t engine, const atedm_cpu_key *key,
                                   const dnnl_memory_desc_t *weights,
                                   dnnl_primitive_desc_t *ret_desc)
{
    dnnl_primitive_desc_t desc, other;
    dnnl_status_t status = atedm_cpu_primitive_describe(engine, key, weights, &desc);
    if (status)
        return status;
    if (is_reference(desc) && !atedm_cpu_primitive_describe(engine, key, NULL, &other)) {
        dnnl_primitive_desc_destroy(desc);
        desc = other;
    }
    *ret_desc = desc;
    return dnnl_success;
}

static dnnl_status_t make_entry(dnnl_engine_t engine, const atedm_cpu_key *key,
                                const dnnl_memory_desc_t *weights, cache_entry *entry)
{
    dnnl_primitive_desc_t desc;
    dnnl_status_t status = describe_fast(engine, key, weights, &desc);
    if (status)
        return status;
    entry->layout = *dnnl_primitive_desc_query_md(desc, dnnl_query_weights_md, 0);
    status = make_memories(engine, desc, entry);
    if (!status)
        status = dnnl_primitive_create(&entry->primitive, desc);
    dnnl_primitive_desc_destroy(desc);
    if (status) {
        entry_finish(entry);
        return status;
    }
    entry->key = *key;
    entry->threads = omp_get_max_threads();
    return dnnl_success;
}

static void fail(atedm_cpu_stream *s, const atedm_cpu_key *key, dnnl_status_t status)
{
    atedm_status code = status == dnnl_out_of_memory ? ATEDM_ERR_NOMEM : ATEDM_ERR_DEVICE;
    if (key->kind == ATEDM_WEIGHT_CONV)
        atedm_stream_fail(&s->head, code,
                          "oneDNN: status %d for a %dx%d convolution, stride %d, %" PRId64
                          "x%" PRId64 "x%" PRId64 " to %" PRId64 " channels",
                          (int)status, key->kernel, key->kernel, key->stride, key->h, key->w,
                          key->in, key->out);
    else
        atedm_stream_fail(&s->head, code,
                          "oneDNN: status %d for a linear layer, %" PRId64 " rows of %" PRId64
                          " to %" PRId64,
                          (int)status, key->h, key->in, key->out);
}

static dnnl_status_t find_entry(dnnl_engine_t engine, atedm_cpu_lane *lane,
                                const atedm_cpu_key *key, const dnnl_memory_desc_t *weights,
                                cache_entry **ret_entry)
{
    cache_entry *set = lane->entries[hash_key(key)], *oldest = set;
    int threads = omp_get_max_threads();
    for (int i = 0; i < CACHE_WAYS; i++) {
        if (set[i].primitive && set[i].threads == threads && same_key(&set[i].key, key)) {
            *ret_entry = &set[i];
            return dnnl_success;
        }
        if (set[i].used < oldest->used)
            oldest = &set[i];
    }
    entry_finish(oldest);
    *ret_entry = oldest;
    return make_entry(engine, key, weights, oldest);
}

// oneDNN takes memory that it only reads through the same type as memory that it writes.
static void *writable(const void *memory)
{
    return (void *)(uintptr_t)memory;
}

// Runs the primitive on as many threads as OpenMP gives the caller.
static dnnl_status_t run_primitive(dnnl_engine_t engine, atedm_cpu_lane *lane,
                                   const atedm_cpu_key *key, const atedm_cpu_run *run)
{
    cache_entry *entry;
    dnnl_status_t status = find_entry(engine, lane, key, &run->weight->layout, &entry);
    if (status)
        return status;
    entry->used = ++lane->runs;
    dnnl_memory_t weight = atedm_cpu_weight_memory(run->weight, &entry->layout);
    void *scratchpad = atedm_cpu_buffer_get(&lane->scratchpad, entry->scratchpad_bytes);
    if (!weight || !scratchpad)
        return dnnl_out_of_memory;
    void *data[MEMORIES] = {
        [SRC] = writable(run->x),     [DST] = run->y,
        [BIAS] = writable(run->bias), [RESIDUAL] = writable(run->residual),
        [SCRATCHPAD] = scratchpad,
    };
    for (int i = 0; i < MEMORIES && !status; i++)
        if (data[i])
            status = dnnl_memory_set_data_handle_v2(entry->memory[i], data[i], lane->stream);
    int residual_arg = key->activation == ATEDM_ACT_NONE ? 0 : 1; // its index among the post-ops
    dnnl_exec_arg_t args[] = {
        {DNNL_ARG_SRC, entry->memory[SRC]},
        {DNNL_ARG_WEIGHTS, weight},
        {DNNL_ARG_BIAS, entry->memory[BIAS]},
        {DNNL_ARG_DST, entry->memory[DST]},
        {DNNL_ARG_SCRATCHPAD, entry->memory[SCRATCHPAD]},
        {DNNL_ARG_ATTR_MULTIPLE_POST_OP(residual_arg) | DNNL_ARG_SRC_1, entry->memory[RESIDUAL]},
    };
    int n_args = key->residual == ATEDM_RESIDUAL_OTHER ? 6 : 5;
    if (!status)
        status = dnnl_primitive_execute(entry->primitive, lane->stream, n_args, args);
    return status ? status : dnnl_stream_wait(lane->stream);
}

// Multiply-accumulates of one run.
static int64_t run_macs(const atedm_cpu_key *key)
{
    int64_t taps = (int64_t)key->kernel * key->kernel, stride = key->stride;
    return key->h * key->w * key->in * key->out * taps / (stride * stride);
}

void atedm_cpu_run_primitives(atedm_cpu_stream *s, const atedm_cpu_key *key,
                              const atedm_cpu_run *runs, int64_t n)
{
    dnnl_engine_t engine = ((const atedm_cpu_device *)s->head.device)->engine;
    int all = omp_get_max_threads(), share = atedm_cpu_threads(n * run_macs(key));
    if (share > s->n_lanes)
        share = s->n_lanes;
    int64_t beside = share > 1 ? n - n % share : 0;
    dnnl_status_t status = dnnl_success;
#pragma omp parallel for schedule(static) num_threads(share) if (beside)
    for (int64_t i = 0; i < beside; i++) {
        omp_set_num_threads(1); // for oneDNN in this thread
        dnnl_status_t own = run_primitive(engine, &s->lanes[omp_get_thread_num()], key, &runs[i]);
        if (own) {
#pragma omp atomic write
            status = own;
        }
    }
    omp_set_num_threads(atedm_cpu_threads(run_macs(key)));
    for (int64_t i = beside; i < n && !status; i++)
        status = run_primitive(engine, s->lanes, key, &runs[i]);
    omp_set_num_threads(all);
    if (status)
        fail(s, key, status);
}
