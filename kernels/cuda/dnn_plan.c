// Plans of convolutions in cuDNN's graph API: one graph of operations for the convolution and what
// is added to it, with intermediate sums in F32, and engines that execute it.
//
// cuDNN's heuristics propose engines, but only some of them are candidates here: the same call has
// to give the same bits each time, products of act have to be summed in F32, and no request may
// have to wait for a compiler.
#include "kernels/cuda/dnn.h"

#include <stdlib.h>
#include <string.h>

// Proposals that are looked at, of each of the heuristics' modes.
#define MOST_CONFIGS 24

// A plan that is being made. After a failure, which `status` keeps, the functions below that take a
// builder do nothing.
typedef struct builder {
    const atedm_cuda_dnn *dnn;
    atedm_cuda_dnn_plan *plan;
    cudnnStatus_t status;
} builder;

static cudnnBackendDescriptor_t make(builder *b, cudnnBackendDescriptorType_t type)
{
    cudnnBackendDescriptor_t made = NULL;
    if (!b->status && b->plan->n_made == ATEDM_CUDA_DNN_DESCRIPTORS)
        b->status = CUDNN_STATUS_INTERNAL_ERROR;
    if (!b->status)
        b->status = b->dnn->library->make(type, &made);
    if (!b->status)
        b->plan->made[b->plan->n_made++] = made;
    return made;
}

static void set(builder *b, cudnnBackendDescriptor_t of, cudnnBackendAttributeName_t name,
                cudnnBackendAttributeType_t type, int64_t count, const void *values)
{
    if (!b->status)
        b->status = b->dnn->library->set(of, name, type, count, values);
}

static void set_descriptor(builder *b, cudnnBackendDescriptor_t of,
                           cudnnBackendAttributeName_t name, cudnnBackendDescriptor_t value)
{
    set(b, of, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

static void finalize(builder *b, cudnnBackendDescriptor_t of)
{
    if (!b->status)
        b->status = b->dnn->library->finalize(of);
}

static cudnnDataType_t data_type(atedm_dtype dtype)
{
    return dtype == ATEDM_F32    ? CUDNN_DATA_FLOAT
           : dtype == ATEDM_BF16 ? CUDNN_DATA_BFLOAT16
                                 : CUDNN_DATA_HALF;
}

// ---- the graph

// Dimensions are in the order n, c, h, w, whatever the layout; `row` is the stride of n.
static cudnnBackendDescriptor_t make_tensor(builder *b, int64_t uid, atedm_dtype dtype,
                                            const int64_t dimensions[4], int64_t row)
{
    const int64_t c = dimensions[1], w = dimensions[3], align = ATEDM_CUDA_DNN_ALIGN;
    const int64_t strides[4] = {row, 1, w * c, c};
    const cudnnDataType_t type = data_type(dtype);
    const bool is_virtual = uid >= ATEDM_CUDA_DNN_SUMS;
    cudnnBackendDescriptor_t t = make(b, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    set(b, t, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    set(b, t, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dimensions);
    set(b, t, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides);
    set(b, t, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid);
    set(b, t, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &align);
    set(b, t, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual);
    finalize(b, t);
    return t;
}

// Values [1, ho, wo, out]: sums number `step` on the way, or y after the last step.
static cudnnBackendDescriptor_t make_result(builder *b, int step, int last)
{
    const atedm_cuda_dnn_shape *shape = &b->plan->shape;
    const int64_t dimensions[4] = {shape->n, shape->out, shape->ho, shape->wo};
    bool is_y = step == last;
    return make_tensor(b, is_y ? ATEDM_CUDA_DNN_Y : ATEDM_CUDA_DNN_SUMS + step,
                       is_y ? b->dnn->act : ATEDM_F32, dimensions,
                       shape->ho * shape->wo * shape->out);
}

static cudnnBackendDescriptor_t make_convolution(builder *b, cudnnBackendDescriptor_t y)
{
    const atedm_cuda_dnn_shape *shape = &b->plan->shape;
    const int64_t x_dimensions[4] = {shape->n, shape->in, shape->h, shape->w};
    const int64_t w_dimensions[4] = {shape->out, shape->in, shape->kernel, shape->kernel};
    const int64_t two = 2, pad = (shape->kernel - 1) / 2, padding[2] = {pad, pad};
    const int64_t strides[2] = {shape->stride, shape->stride}, dilations[2] = {1, 1};
    const cudnnDataType_t f32 = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const float one = 1, zero = 0;
    cudnnBackendDescriptor_t x = make_tensor(b, ATEDM_CUDA_DNN_X, b->dnn->act, x_dimensions,
                                             shape->h * shape->w * shape->in);
    cudnnBackendDescriptor_t w =
        make_tensor(b, ATEDM_CUDA_DNN_WEIGHT, b->dnn->act, w_dimensions, shape->weight_stride);
    cudnnBackendDescriptor_t how = make(b, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    set(b, how, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &f32);
    set(b, how, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    set(b, how, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &two);
    set(b, how, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, dilations);
    set(b, how, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, strides);
    set(b, how, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, padding);
    set(b, how, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, padding);
    finalize(b, how);
    cudnnBackendDescriptor_t op = make(b, CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
    set_descriptor(b, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, how);
    set_descriptor(b, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, x);
    set_descriptor(b, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, w);
    set_descriptor(b, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, y);
    set(b, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, 1, &one);
    set(b, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, 1, &zero);
    finalize(b, op);
    return op;
}

// y = x + addend.
static cudnnBackendDescriptor_t make_sum(builder *b, cudnnBackendDescriptor_t x,
                                         cudnnBackendDescriptor_t addend,
                                         cudnnBackendDescriptor_t y)
{
    const cudnnPointwiseMode_t mode = CUDNN_POINTWISE_ADD;
    const cudnnDataType_t f32 = CUDNN_DATA_FLOAT;
    cudnnBackendDescriptor_t how = make(b, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    set(b, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    set(b, how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &f32);
    finalize(b, how);
    cudnnBackendDescriptor_t op = make(b, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    set_descriptor(b, op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
    set_descriptor(b, op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    set_descriptor(b, op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, addend);
    set_descriptor(b, op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    finalize(b, op);
    return op;
}

static cudnnBackendDescriptor_t make_graph(builder *b)
{
    const atedm_cuda_dnn_shape *shape = &b->plan->shape;
    const int64_t whole[4] = {shape->n, shape->out, shape->ho, shape->wo};
    const int64_t vector[4] = {1, shape->out, 1, 1};
    // In the order that engines are ready for; with the two exchanged, all have to be compiled.
    const struct {
        bool wanted;
        int64_t uid;
        const int64_t *dimensions;
        int64_t row;
    } terms[] = {
        {shape->addend, ATEDM_CUDA_DNN_ADDEND, whole, shape->ho * shape->wo * shape->out},
        {shape->bias, ATEDM_CUDA_DNN_BIAS, vector, shape->out},
    };
    cudnnBackendDescriptor_t ops[3];
    int last = shape->addend + shape->bias, n = 0;
    cudnnBackendDescriptor_t sums = make_result(b, 0, last);
    ops[n++] = make_convolution(b, sums);
    for (size_t i = 0; i < sizeof terms / sizeof *terms; i++) {
        if (!terms[i].wanted)
            continue;
        cudnnBackendDescriptor_t term =
            make_tensor(b, terms[i].uid, b->dnn->act, terms[i].dimensions, terms[i].row);
        cudnnBackendDescriptor_t y = make_result(b, n, last);
        ops[n++] = make_sum(b, sums, term, y);
        sums = y;
    }
    cudnnBackendDescriptor_t graph = make(b, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    set(b, graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &b->dnn->handle);
    set(b, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, n, ops);
    finalize(b, graph);
    return graph;
}

// ---- the engine

// Whether an engine with these notes gives the same results each time, from products of act summed
// in F32.
static bool is_right(const cudnnBackendNumericalNote_t *notes, int64_t n)
{
    static const cudnnBackendNumericalNote_t wrong[] = {
        CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS,
        CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION,
        CUDNN_NUMERICAL_NOTE_FFT,
        CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC,
        CUDNN_NUMERICAL_NOTE_WINOGRAD, // and its tiles: products of sums of act
        CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4,
        CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6,
        CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13,
    };
    for (int64_t i = 0; i < n; i++)
        for (size_t j = 0; j < sizeof wrong / sizeof *wrong; j++)
            if (notes[i] == wrong[j])
                return false;
    return true;
}

// Whether the engine's kernel is in the library. Others have to be compiled first, which takes
// seconds for each shape, in the middle of a request.
static bool is_ready(const cudnnBackendBehaviorNote_t *notes, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (notes[i] == CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION)
            return false;
    return true;
}

// Whether the configuration's engine is one that may be used, by its notes.
static bool will_do(builder *b, cudnnBackendDescriptor_t config)
{
    const atedm_cuda_dnn_library *library = b->dnn->library;
    cudnnBackendNumericalNote_t numerical[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    cudnnBackendBehaviorNote_t behavior[CUDNN_BEHAVIOR_NOTE_TYPE_COUNT];
    int64_t n = 0, n_numerical = 0, n_behavior = 0;
    cudnnBackendDescriptor_t engine = make(b, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    if (!b->status)
        b->status = library->get(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                 1, &n, (void *)&engine);
    if (!b->status)
        b->status =
            library->get(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                         CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &n_numerical, numerical);
    if (!b->status)
        b->status = library->get(engine, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE,
                                 CUDNN_BEHAVIOR_NOTE_TYPE_COUNT, &n_behavior, behavior);
    // A later version may know more notes than fit; those are not known to be harmless.
    return !b->status && n_numerical <= CUDNN_NUMERICAL_NOTE_TYPE_COUNT &&
           n_behavior <= CUDNN_BEHAVIOR_NOTE_TYPE_COUNT && is_right(numerical, n_numerical) &&
           is_ready(behavior, n_behavior);
}

// Adds a candidate to the plan, if the configuration may be used.
static void try_config(const builder *b, cudnnBackendDescriptor_t config)
{
    builder own = {b->dnn, b->plan, CUDNN_STATUS_SUCCESS}; // what fails here concerns only this one
    const atedm_cuda_dnn_library *library = b->dnn->library;
    int64_t n = 0, workspace = 0;
    if (!will_do(&own, config))
        return;
    cudnnBackendDescriptor_t plan = make(&own, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    set(&own, plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &b->dnn->handle);
    set_descriptor(&own, plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
    finalize(&own, plan); // where cuDNN says whether it can
    if (!own.status)
        own.status = library->get(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64,
                                  1, &n, &workspace);
    if (own.status || workspace > (int64_t)ATEDM_CUDA_DNN_WORKSPACE)
        return;
    b->plan->candidates[b->plan->n_candidates++] = plan;
}

// Adds candidates of what the heuristics propose in this mode.
static void propose(const builder *b, cudnnBackendDescriptor_t graph, cudnnBackendHeurMode_t mode)
{
    builder own = {b->dnn, b->plan, CUDNN_STATUS_SUCCESS};
    cudnnBackendDescriptor_t configs[MOST_CONFIGS];
    int64_t n = 0;
    cudnnBackendDescriptor_t heuristics = make(&own, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    set_descriptor(&own, heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
    set(&own, heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    finalize(&own, heuristics);
    for (int i = 0; i < MOST_CONFIGS; i++)
        configs[i] = make(&own, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    if (!own.status)
        own.status =
            b->dnn->library->get(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                 CUDNN_TYPE_BACKEND_DESCRIPTOR, MOST_CONFIGS, &n, (void *)configs);
    for (int64_t i = 0; !own.status && i < n && i < MOST_CONFIGS; i++)
        if (b->plan->n_candidates < ATEDM_CUDA_DNN_CANDIDATES)
            try_config(b, configs[i]);
}

void atedm_cuda_dnn_plan_destroy(const atedm_cuda_dnn *dnn, atedm_cuda_dnn_plan *plan)
{
    while (plan->n_made) // what refers to others first
        (void)dnn->library->unmake(plan->made[--plan->n_made]);
    free(plan);
}

atedm_cuda_dnn_plan *atedm_cuda_dnn_plan_create(const atedm_cuda_dnn *dnn,
                                                const atedm_cuda_dnn_shape *shape)
{
    atedm_cuda_dnn_plan *plan = calloc(1, sizeof *plan);
    if (!plan)
        return NULL;
    plan->shape = *shape;
    builder b = {dnn, plan, CUDNN_STATUS_SUCCESS};
    cudnnBackendDescriptor_t graph = make_graph(&b);
    if (!b.status)
        propose(&b, graph, CUDNN_HEUR_MODE_A);
    if (!b.status && !plan->n_candidates)
        propose(&b, graph, CUDNN_HEUR_MODE_FALLBACK);
    return plan;
}
