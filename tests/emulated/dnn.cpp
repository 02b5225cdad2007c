// A fake cuDNN 9, as a library of its own, with the calls of its graph API that kernels/cuda makes.
// C++.
//
// It checks attributes as strictly as the real one documents them, and ends the program when a
// caller is wrong. It also proposes engines that a careful caller must reject. dnn_graph.cpp checks
// and computes operations.
//
// ATEDM_EMULATED_DNN_VERSION=N: the result of cudnnGetVersion.
// ATEDM_EMULATED_DNN_FAILS=create|execute: this call fails.
#include "tests/emulated/dnn.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <set>

using namespace dnn;

struct cudnnContext {
    cudaStream_t stream = nullptr;
};

// Streams and memory belong to the emulated backend, which is loaded already.
using enqueue_fn = cudaError_t (*)(cudaStream_t, void (*)(void *), void *, void (*)(void *));
using is_device_fn = int (*)(const void *, size_t);

static void *backend_symbol(const char *name)
{
    void *backend = dlopen(getenv("ATEDM_CUDA_BACKEND"), RTLD_NOW | RTLD_NOLOAD);
    void *symbol = backend ? dlsym(backend, name) : nullptr;
    if (!symbol)
        misuse("the emulated backend is not loaded, or has no %s", name);
    return symbol;
}

static std::set<descriptor *> alive;
static int handles, questions, runs, plans;

static bool fails(const char *what)
{
    const char *text = getenv("ATEDM_EMULATED_DNN_FAILS");
    return text && strcmp(text, what) == 0;
}

// ---- attributes

struct rule {
    cudnnBackendDescriptorType_t of;
    cudnnBackendAttributeName_t name;
    cudnnBackendAttributeType_t type;
    int64_t least, most; // elements
};
static const rule rules[] = {
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, 1},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, 4},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, 4},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, 1},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, 1},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, 1},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE,
     1, 1},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_CONV_MODE,
     CUDNN_TYPE_CONVOLUTION_MODE, 1, 1},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1,
     1},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2,
     2},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64,
     2, 2},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2,
     2},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64,
     2, 2},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 1},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 1},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 1},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 1},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, 1, 1},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, 1, 1},
    {CUDNN_BACKEND_POINTWISE_DESCRIPTOR, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1,
     1},
    {CUDNN_BACKEND_POINTWISE_DESCRIPTOR, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1,
     1},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 1},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_XDESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 1},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_BDESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 1},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_YDESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 1},
    {CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE,
     1, 1},
    {CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, CUDNN_ATTR_OPERATIONGRAPH_OPS,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 8},
    {CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 1},
    {CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, 1},
    {CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE,
     1, 1},
    {CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 1},
    {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 1,
     16},
    {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS,
     CUDNN_TYPE_VOID_PTR, 1, 16},
    {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR,
     1, 1},
};

static size_t element_size(cudnnBackendAttributeType_t type)
{
    switch (type) {
    case CUDNN_TYPE_BOOLEAN:
        return sizeof(bool);
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR:
        return 8;
    default:
        return 4;
    }
}

static descriptor *known(const void *p)
{
    auto *d = (descriptor *)const_cast<void *>(p);
    if (!alive.count(d))
        misuse("%p is no descriptor", p);
    return d;
}

static const descriptor *finalized(const void *p, cudnnBackendDescriptorType_t type)
{
    const descriptor *d = known(p);
    if (d->type != type || !d->finalized)
        misuse("a finalized descriptor of type %d is wanted, not one of type %d", type, d->type);
    return d;
}

// ---- heuristics

// Whether there is a ready kernel. The real one has kernels that add first a tensor as large as y,
// then a vector of channels, both of x's type.
static bool is_ready(const std::vector<operation> &operations)
{
    size_t n = operations.size();
    for (size_t i = 1; i < n; i++) {
        const tensor &term = operations[i].w, &y = operations[i].y;
        bool is_vector = term.dimensions[2] * term.dimensions[3] == 1;
        bool is_whole =
            term.dimensions[2] == y.dimensions[2] && term.dimensions[3] == y.dimensions[3];
        if (term.type != operations[0].x.type || !(i == n - 1 ? is_vector : is_whole))
            return false;
    }
    return n <= 3;
}

static std::vector<engine> proposals(const descriptor &heuristics)
{
    std::vector<operation> operations = check_graph(*heuristics.graph);
    const tensor &x = operations[0].x, &w = operations[0].w;
    // Like the real one, it refuses some shapes, and has only slow engines for others.
    if (w.strides[0] != w.dimensions[1] * w.dimensions[2] * w.dimensions[3])
        return {};
    if (!is_ready(operations))
        return {COMPILES};
    if (*heuristics.values<cudnnBackendHeurMode_t>(CUDNN_ATTR_ENGINEHEUR_MODE) ==
        CUDNN_HEUR_MODE_FALLBACK)
        return {x.dimensions[0] == 1 ? RIGHT : OF_LARGER_BATCHES};
    if (w.dimensions[0] % 16)
        return {};
    return {DIFFERS_EACH_TIME,
            SUMS_IN_16_BITS,
            WINOGRAD,
            COMPILES,
            REFUSES_WHEN_PLANNED,
            WANTS_TOO_MUCH,
            x.dimensions[0] == 1 ? RIGHT : OF_LARGER_BATCHES,
            RIGHT};
}

static std::vector<cudnnBackendNumericalNote_t> notes_of(engine e)
{
    switch (e) {
    case DIFFERS_EACH_TIME:
        return {CUDNN_NUMERICAL_NOTE_TENSOR_CORE, CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC};
    case SUMS_IN_16_BITS:
        return {CUDNN_NUMERICAL_NOTE_TENSOR_CORE, CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION};
    case WINOGRAD:
        return {CUDNN_NUMERICAL_NOTE_WINOGRAD, CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4};
    default:
        return {CUDNN_NUMERICAL_NOTE_TENSOR_CORE};
    }
}

// What finalizing does besides checking that all attributes are set.
static cudnnStatus_t finish(descriptor *d)
{
    switch (d->type) {
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
    case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR:
        check(operation(*d));
        return CUDNN_STATUS_SUCCESS;
    case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR:
        (void)check_graph(*d);
        return CUDNN_STATUS_SUCCESS;
    case CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR:
        questions++;
        d->graph = d->part(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
        return proposals(*d).empty() ? CUDNN_STATUS_NOT_SUPPORTED : CUDNN_STATUS_SUCCESS;
    case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR:
        plans++;
        d->chosen = d->part(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG)->chosen;
        d->graph = d->part(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG)->graph;
        if (d->chosen == COMPILES)
            misuse("a plan that waits for a compiler");
        return d->chosen == REFUSES_WHEN_PLANNED ? CUDNN_STATUS_NOT_SUPPORTED
                                                 : CUDNN_STATUS_SUCCESS;
    case CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR:
        if (d->attributes.at(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS).count !=
            d->attributes.at(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS).count)
            misuse("not as many pointers as unique ids");
        return CUDNN_STATUS_SUCCESS;
    default:
        return CUDNN_STATUS_SUCCESS;
    }
}

// Takes the operands of a variant pack. They must be exactly the graph's, in device memory, and
// aligned as the graph states.
static void take_operands(const descriptor &pack, run *r)
{
    auto *is_device = (is_device_fn)backend_symbol("atedm_emulated_is_device");
    auto *ids = pack.values<int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    auto *pointers = pack.values<void *>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
    for (int64_t i = 0; i < pack.attributes.at(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS).count; i++)
        if (!r->operands.emplace(ids[i], pointers[i]).second)
            misuse("unique id %lld comes twice", (long long)ids[i]);
    std::map<int64_t, tensor> wanted;
    for (const operation &o : r->operations)
        for (const tensor *t : {&o.x, &o.w, &o.y})
            if (!t->is_virtual)
                wanted.emplace(t->uid, *t);
    if (wanted.size() != r->operands.size())
        misuse("%zu operands for %zu tensors", r->operands.size(), wanted.size());
    const tensor &y = r->operations.back().y;
    for (auto &[uid, t] : wanted) {
        auto it = r->operands.find(uid);
        if (it == r->operands.end())
            misuse("no operand with the unique id %lld", (long long)uid);
        char *p = (char *)it->second, *result = (char *)r->operands[y.uid];
        size_t bytes = (size_t)t.extent() * t.element();
        if (!is_device(p, bytes) || (uintptr_t)p % (uintptr_t)t.align)
            misuse("operand %lld at %p: not %zu bytes of device memory, or not aligned to %lld",
                   (long long)uid, (void *)p, bytes, (long long)t.align);
        if (uid != y.uid && p < result + (size_t)y.extent() * y.element() && result < p + bytes)
            misuse("operand %lld is also a result", (long long)uid);
    }
    r->workspace = *pack.values<void *>(CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
    if (!is_device(r->workspace, (size_t)workspace_of(r->chosen)))
        misuse("the workspace is too small");
}

extern "C" {

// For tests: the numbers of questions to heuristics, of executions, and of plans requested.
int atedm_emulated_dnn_questions(void)
{
    return questions;
}
int atedm_emulated_dnn_runs(void)
{
    return runs;
}
int atedm_emulated_dnn_plans(void)
{
    return plans;
}

size_t cudnnGetVersion(void)
{
    const char *text = getenv("ATEDM_EMULATED_DNN_VERSION");
    return text ? (size_t)strtol(text, nullptr, 10) : 91900;
}

const char *cudnnGetErrorString(cudnnStatus_t status)
{
    return status == CUDNN_STATUS_SUCCESS            ? "CUDNN_STATUS_SUCCESS"
           : status == CUDNN_STATUS_NOT_INITIALIZED  ? "CUDNN_STATUS_NOT_INITIALIZED"
           : status == CUDNN_STATUS_NOT_SUPPORTED    ? "CUDNN_STATUS_NOT_SUPPORTED"
           : status == CUDNN_STATUS_EXECUTION_FAILED ? "CUDNN_STATUS_EXECUTION_FAILED"
                                                     : "CUDNN_STATUS";
}

cudnnStatus_t cudnnCreate(cudnnHandle_t *ret_handle)
{
    if (fails("create"))
        return CUDNN_STATUS_NOT_INITIALIZED;
    *ret_handle = new cudnnContext;
    handles++;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnDestroy(cudnnHandle_t handle)
{
    delete handle;
    if (--handles == 0 && !alive.empty())
        misuse("%zu descriptors are left", alive.size());
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream)
{
    handle->stream = stream;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                           cudnnBackendDescriptor_t *ret_made)
{
    auto *d = new descriptor;
    d->type = type;
    alive.insert(d);
    *ret_made = d;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t p)
{
    descriptor *d = known(p);
    alive.erase(d);
    delete d;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t p, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count,
                                       const void *values)
{
    descriptor *d = known(p);
    if (d->finalized)
        misuse("attribute %d is set after the descriptor was finalized", name);
    for (const rule &r : rules) {
        if (r.of != d->type || r.name != name)
            continue;
        if (r.type != type || count < r.least || count > r.most || !values)
            misuse("attribute %d: type %d with %lld elements", name, type, (long long)count);
        auto *bytes = (const char *)values;
        for (int64_t i = 0; type == CUDNN_TYPE_BACKEND_DESCRIPTOR && i < count; i++)
            if (descriptor *part = known(((void *const *)values)[i]);
                !part->finalized && part->type != CUDNN_BACKEND_ENGINECFG_DESCRIPTOR)
                misuse("attribute %d: the descriptor is not finalized", name);
        d->attributes[name] = {count, {bytes, bytes + (size_t)count * element_size(type)}};
        return CUDNN_STATUS_SUCCESS;
    }
    misuse("descriptors of type %d have no attribute %d", d->type, name);
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t p)
{
    descriptor *d = known(p);
    for (const rule &r : rules)
        if (r.of == d->type && !d->attributes.count(r.name))
            misuse("descriptor of type %d: no attribute %d", d->type, r.name);
    cudnnStatus_t status = finish(d);
    d->finalized = !status;
    return status;
}

cudnnStatus_t cudnnBackendGetAttribute(const cudnnBackendDescriptor_t p,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t most,
                                       int64_t *ret_count, void *ret_values)
{
    const descriptor *d = known(p);
    if (name == CUDNN_ATTR_ENGINEHEUR_RESULTS && type == CUDNN_TYPE_BACKEND_DESCRIPTOR) {
        std::vector<engine> list = proposals(*finalized(p, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR));
        *ret_count = (int64_t)list.size();
        for (int64_t i = 0; i < *ret_count && i < most; i++) {
            descriptor *config = known(((void **)ret_values)[i]);
            if (config->type != CUDNN_BACKEND_ENGINECFG_DESCRIPTOR)
                misuse("results go into configurations");
            config->chosen = list[(size_t)i];
            config->graph = d->graph;
        }
    } else if (name == CUDNN_ATTR_ENGINECFG_ENGINE && type == CUDNN_TYPE_BACKEND_DESCRIPTOR) {
        descriptor *of = known(*(void **)ret_values);
        if (d->type != CUDNN_BACKEND_ENGINECFG_DESCRIPTOR || d->chosen == NO_ENGINE ||
            of->type != CUDNN_BACKEND_ENGINE_DESCRIPTOR)
            misuse("the engine of a configuration goes into an engine");
        of->chosen = d->chosen;
        *ret_count = 1;
    } else if (name == CUDNN_ATTR_ENGINE_NUMERICAL_NOTE && type == CUDNN_TYPE_NUMERICAL_NOTE) {
        if (d->type != CUDNN_BACKEND_ENGINE_DESCRIPTOR || d->chosen == NO_ENGINE)
            misuse("notes are an engine's");
        std::vector<cudnnBackendNumericalNote_t> list = notes_of(d->chosen);
        *ret_count = (int64_t)list.size();
        for (int64_t i = 0; i < *ret_count && i < most; i++)
            ((cudnnBackendNumericalNote_t *)ret_values)[i] = list[(size_t)i];
    } else if (name == CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE && type == CUDNN_TYPE_BEHAVIOR_NOTE) {
        if (d->type != CUDNN_BACKEND_ENGINE_DESCRIPTOR || d->chosen == NO_ENGINE)
            misuse("notes are an engine's");
        *ret_count = d->chosen == COMPILES;
        if (*ret_count && most > 0)
            *(cudnnBackendBehaviorNote_t *)ret_values = CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION;
    } else if (name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE && type == CUDNN_TYPE_INT64) {
        *(int64_t *)ret_values =
            workspace_of(finalized(p, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)->chosen);
        *ret_count = 1;
    } else {
        misuse("attribute %d of type %d is asked for", name, type);
    }
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                                  cudnnBackendDescriptor_t pack)
{
    const descriptor *p = finalized(plan, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    if (*p->values<cudnnHandle_t>(CUDNN_ATTR_EXECUTION_PLAN_HANDLE) != handle)
        misuse("a plan of another handle");
    if (fails("execute"))
        return CUDNN_STATUS_EXECUTION_FAILED;
    auto *r = new run{check_graph(*p->graph), {}, nullptr, p->chosen, runs++};
    take_operands(*finalized(pack, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR), r);
    auto *enqueue = (enqueue_fn)backend_symbol("atedm_emulated_enqueue");
    cudaError_t error = enqueue(
        handle->stream, [](void *self) { ((run *)self)->compute(); }, r,
        [](void *self) { delete (run *)self; });
    return error ? CUDNN_STATUS_EXECUTION_FAILED : CUDNN_STATUS_SUCCESS;
}

} // extern "C"
