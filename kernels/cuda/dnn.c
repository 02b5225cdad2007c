// Convolutions by cuDNN: the library, and the calls. Plans are made in dnn_plan.c; what this part
// does not take is left to conv.cu.
//
// A batch is cut into calls of 16, 8, 4, 2 and 1 samples, as far as the shape has plans that keep a
// sample's bits whatever is beside it; each is made at its first use, so that a shape has five at
// most. Later calls allocate nothing and wait for nothing, so that they can be captured into a
// graph.
#include "kernels/cuda/dnn.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

// Which convolutions: "own" kernels; "cudnn", which has to be there; "auto", the default: cuDNN
// where it is there. Of these, cuDNN has the shapes that it takes.
#define CHOICE_ENVIRONMENT "ATEDM_CUDA_CONV"
// The library's file, where it is not ATEDM_CUDNN_FILE, which the build says.
#define LIBRARY_ENVIRONMENT "ATEDM_CUDNN"
// One value a channel and sample, added to all of its pixels: "repeat" writes it out for every
// pixel, which cuDNN then adds; "channel" has cuDNN take it as it is, with a kernel that it
// compiles at the shape's first use if need be, to measure that; "auto", the default: as it is
// where a kernel is ready for that.
#define FUSE_ENVIRONMENT "ATEDM_CUDA_CONV_FUSE"
// The most samples of a call, 16 where it does not say; 1: each sample is a call of its own.
#define BATCH_ENVIRONMENT "ATEDM_CUDA_CONV_BATCH"
#define MOST_SAMPLES ((int64_t)1 << (ATEDM_CUDA_DNN_LEVELS - 1))
// Bytes of an operand of more than one sample: what a kernel that counts in 32 bits gets right.
#define MOST_OPERAND ((size_t)INT32_MAX)
// What a call may have written to scratch before it: that is read again while the L2 cache has it,
// and is within what the stream has anyway.
#define MOST_COPIED (ATEDM_CUDA_SUMS_BYTES / 4)
// The major version that the headers are of; descriptors differ between these.
#define LIBRARY_MAJOR 9
// Channels of a pixel start at whole vectors.
#define CHANNEL_STEP 8

_Static_assert(CUDNN_MAJOR == LIBRARY_MAJOR, "the headers are of another version");

// ---- the library

// The major version in what cudnnGetVersion returns: 9 has 10000 in each, those before 1000.
static size_t major_of(size_t version)
{
    return version >= 10000 ? version / 10000 : version / 1000;
}

static atedm_status find_functions(atedm_cuda_dnn_library *library, atedm_error *err)
{
    const struct {
        const char *name;
        void *function; // pointer to it
    } wanted[] = {
        {"cudnnGetVersion", &library->version},
        {"cudnnGetErrorString", &library->error_string},
        {"cudnnCreate", &library->create},
        {"cudnnDestroy", &library->destroy},
        {"cudnnSetStream", &library->set_stream},
        {"cudnnBackendCreateDescriptor", &library->make},
        {"cudnnBackendDestroyDescriptor", &library->unmake},
        {"cudnnBackendSetAttribute", &library->set},
        {"cudnnBackendGetAttribute", &library->get},
        {"cudnnBackendFinalize", &library->finalize},
        {"cudnnBackendExecute", &library->execute},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        // POSIX has it that a function's address fits into a void pointer; C has no cast for it.
        void *symbol = dlsym(library->handle, wanted[i].name);
        if (!symbol)
            return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED, "cuda: the cuDNN found has no %s",
                                   wanted[i].name);
        memcpy(wanted[i].function, &symbol, sizeof symbol);
    }
    size_t version = library->version();
    if (major_of(version) != LIBRARY_MAJOR)
        return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED,
                               "cuda: the cuDNN found is of version %zu (%zu), not %d", version,
                               major_of(version), LIBRARY_MAJOR);
    return ATEDM_OK;
}

static atedm_status read_environment(atedm_cuda_dnn_library *library, atedm_error *err)
{
    static const char *const names[] = {[ATEDM_CUDA_DNN_FUSE_READY] = "auto",
                                        [ATEDM_CUDA_DNN_FUSE_CHANNEL] = "channel",
                                        [ATEDM_CUDA_DNN_FUSE_REPEAT] = "repeat"};
    const char *fuse = getenv(FUSE_ENVIRONMENT), *batch = getenv(BATCH_ENVIRONMENT);
    size_t i = 0, n = sizeof names / sizeof *names;
    while (fuse && i < n && strcmp(fuse, names[i]) != 0)
        i++;
    if (i == n)
        return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED,
                               "cuda: " FUSE_ENVIRONMENT " is \"%s\": auto, channel or repeat",
                               fuse);
    library->fuse = (atedm_cuda_dnn_fuse)i;
    char *end = NULL;
    library->most_samples = batch ? strtol(batch, &end, 10) : MOST_SAMPLES;
    if (batch &&
        (end == batch || *end || library->most_samples < 1 || library->most_samples > MOST_SAMPLES))
        return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED,
                               "cuda: " BATCH_ENVIRONMENT " is \"%s\": a number from 1 to %d",
                               batch, (int)MOST_SAMPLES);
    return ATEDM_OK;
}

static atedm_status open_library(bool required, atedm_cuda_dnn_library **ret_library,
                                 atedm_error *err)
{
    const char *named = getenv(LIBRARY_ENVIRONMENT);
    atedm_cuda_dnn_library *library = calloc(1, sizeof *library);
    if (!library)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for cuDNN's functions");
    library->required = required;
    // Never unmapped: it has threads and callbacks of its own.
    library->handle =
        dlopen(named ? named : ATEDM_CUDNN_FILE, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    atedm_status status = library->handle
                              ? find_functions(library, err)
                              : atedm_error_set(err, ATEDM_ERR_UNSUPPORTED,
                                                "cuda: cuDNN does not load: %s", dlerror());
    if (status) {
        atedm_cuda_dnn_unload(library);
        return status;
    }
    *ret_library = library;
    return ATEDM_OK;
}

atedm_status atedm_cuda_dnn_load(atedm_cuda_dnn_library **ret_library, atedm_error *err)
{
    const char *choice = getenv(CHOICE_ENVIRONMENT);
    atedm_error ignored;
    atedm_cuda_dnn_library *library = NULL;
    if (!choice || strcmp(choice, "auto") == 0) {
        atedm_status status = open_library(false, &library, &ignored);
        if (status == ATEDM_ERR_NOMEM)
            return atedm_error_set(err, status, "%s", ignored.message);
    } else if (strcmp(choice, "cudnn") == 0) {
        atedm_status status = open_library(true, &library, err);
        if (status)
            return status;
    } else if (strcmp(choice, "own") != 0) {
        return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED,
                               "cuda: " CHOICE_ENVIRONMENT " is \"%s\": auto, cudnn or own",
                               choice);
    }
    atedm_status status = library ? read_environment(library, err) : ATEDM_OK;
    if (status) {
        atedm_cuda_dnn_unload(library);
        return status;
    }
    *ret_library = library;
    return ATEDM_OK;
}

void atedm_cuda_dnn_unload(atedm_cuda_dnn_library *library)
{
    if (library && library->handle)
        (void)dlclose(library->handle);
    free(library);
}

// ---- a stream's part

atedm_status atedm_cuda_dnn_create(const atedm_cuda_dnn_library *library, cudaStream_t stream,
                                   atedm_dtype act, atedm_cuda_dnn **ret_dnn, atedm_error *err)
{
    // F32 is what results are compared with: no tensor cores, which would round its inputs.
    if (!library || act == ATEDM_F32) {
        *ret_dnn = NULL;
        return ATEDM_OK;
    }
    atedm_cuda_dnn *dnn = calloc(1, sizeof *dnn);
    if (!dnn)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for cuDNN's plans");
    dnn->library = library;
    dnn->act = act;
    cudnnStatus_t error = library->create(&dnn->handle);
    if (!error)
        error = library->set_stream(dnn->handle, stream);
    if (error) {
        atedm_cuda_dnn_destroy(dnn);
        if (library->required)
            return atedm_error_set(err, ATEDM_ERR_DEVICE, "cuda: cuDNN does not start: %s",
                                   library->error_string(error));
        dnn = NULL;
    }
    *ret_dnn = dnn;
    return ATEDM_OK;
}

void atedm_cuda_dnn_destroy(atedm_cuda_dnn *dnn)
{
    if (!dnn)
        return;
    while (dnn->plans) {
        atedm_cuda_dnn_plans *plans = dnn->plans;
        dnn->plans = plans->next;
        atedm_cuda_dnn_plans_destroy(dnn, plans);
    }
    if (dnn->handle)
        (void)dnn->library->destroy(dnn->handle);
    free(dnn);
}

bool atedm_cuda_dnn_move(atedm_cuda_dnn *dnn, cudaStream_t stream)
{
    return !dnn || !dnn->library->set_stream(dnn->handle, stream);
}

// ---- convolutions

static bool same_shape(const atedm_cuda_dnn_shape *a, const atedm_cuda_dnn_shape *b)
{
    return a->h == b->h && a->w == b->w && a->in == b->in && a->out == b->out &&
           a->kernel == b->kernel && a->stride == b->stride &&
           a->weight_stride == b->weight_stride && a->bias == b->bias && a->addend == b->addend;
}

// The shape's plans, made at its first use; NULL after failing the stream.
static atedm_cuda_dnn_plans *get_plans(atedm_stream *s, const atedm_cuda_dnn_shape *shape)
{
    atedm_cuda_dnn *dnn = atedm_cuda_stream_of(s)->dnn;
    for (atedm_cuda_dnn_plans *p = dnn->plans; p; p = p->next)
        if (same_shape(&p->shape, shape))
            return p;
    atedm_cuda_dnn_plans *plans = atedm_cuda_dnn_plans_create(dnn, shape);
    if (!plans) {
        atedm_stream_fail(s, ATEDM_ERR_NOMEM, "no memory for a convolution's plan");
        return NULL;
    }
    plans->next = dnn->plans;
    dnn->plans = plans;
    return plans;
}

// The plan for `most` samples, or for as many of them as there is one for; there is one for one.
static const atedm_cuda_dnn_plan *get_plan(const atedm_cuda_dnn *dnn, atedm_cuda_dnn_plans *plans,
                                           int64_t most, int64_t *ret_samples)
{
    for (int level = ATEDM_CUDA_DNN_LEVELS - 1; level > 0; level--) {
        *ret_samples = (int64_t)1 << level;
        const atedm_cuda_dnn_plan *plan =
            *ret_samples <= most ? atedm_cuda_dnn_plan_of(dnn, plans, level) : NULL;
        if (plan)
            return plan;
    }
    *ret_samples = 1;
    return atedm_cuda_dnn_plan_of(dnn, plans, 0);
}

// Enqueues a plan; `operands` by unique id from 1 on, NULL where there is none.
static cudnnStatus_t execute(const atedm_cuda_dnn *dnn, const atedm_cuda_dnn_plan *plan,
                             const void *const *operands, void *workspace)
{
    const atedm_cuda_dnn_library *library = dnn->library;
    const void *pointers[ATEDM_CUDA_DNN_Y];
    int64_t ids[ATEDM_CUDA_DNN_Y], n = 0;
    for (int64_t id = ATEDM_CUDA_DNN_X; id <= ATEDM_CUDA_DNN_Y; id++)
        if (operands[id]) {
            pointers[n] = operands[id];
            ids[n++] = id;
        }
    cudnnBackendDescriptor_t pack = NULL;
    cudnnStatus_t status = library->make(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack);
    if (!status)
        status = library->set(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, n, ids);
    if (!status)
        status = library->set(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, n,
                              (const void *)pointers);
    if (!status)
        status = library->set(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1,
                              (const void *)&workspace);
    if (!status)
        status = library->finalize(pack);
    if (!status)
        status = library->execute(dnn->handle, plan->plan, pack);
    if (pack)
        (void)library->unmake(pack);
    return status;
}

static const void *at(const void *p, int64_t sample, int64_t elements, atedm_dtype act)
{
    return p ? (const char *)p + (size_t)(sample * elements) * atedm_dtype_size(act) : NULL;
}

// What is added to each of `n` samples from `first` on. A residual that y replaces is copied to
// `scratch`: cuDNN says nothing of operands that are also results. So are values of channels, once
// for each pixel, where the plan does not take them as they are.
static const void *get_addend(atedm_stream *s, const atedm_conv_args *args,
                              const atedm_cuda_dnn_shape *shape, int64_t first, int64_t n,
                              void *scratch)
{
    int64_t pixels = shape->ho * shape->wo;
    size_t row = (size_t)shape->out * atedm_dtype_size(s->act);
    const void *residual = at(args->residual, first, pixels * shape->out, s->act);
    if (shape->addend == ATEDM_CUDA_DNN_CHANNEL)
        return at(args->channel_add, first, shape->out, s->act);
    if (!scratch)
        return residual;
    if (args->residual)
        atedm_cuda_copy(s, residual, scratch, (size_t)(n * pixels) * row);
    for (int64_t i = 0; args->channel_add && i < n; i++)
        atedm_cuda_check(
            s,
            atedm_cuda_launch_repeat(at(args->channel_add, first + i, shape->out, s->act),
                                     (char *)scratch + (size_t)(i * pixels) * row, row, pixels,
                                     atedm_cuda_stream_of(s)->stream),
            "conv");
    return scratch;
}

// The most samples of a call: at least one, and no more than memory is to be used for.
static int64_t most_samples(const atedm_cuda_dnn *dnn, const atedm_cuda_dnn_shape *shape,
                            bool copies)
{
    size_t element = atedm_dtype_size(dnn->act);
    size_t x = (size_t)(shape->h * shape->w * shape->in) * element;
    size_t y = (size_t)(shape->ho * shape->wo * shape->out) * element;
    size_t most = (size_t)dnn->library->most_samples, fit = MOST_OPERAND / (x > y ? x : y);
    if (copies && fit > MOST_COPIED / y)
        fit = MOST_COPIED / y;
    if (most > fit)
        most = fit;
    return most > 1 ? (int64_t)most : 1;
}

static void convolve(atedm_stream *head, const atedm_conv_args *args, atedm_cuda_dnn_plans *plans)
{
    atedm_cuda_stream *s = atedm_cuda_stream_of(head);
    const atedm_cuda_weight *w = atedm_cuda_weight_of(args->weight);
    const atedm_cuda_dnn_shape *shape = &plans->shape;
    int64_t y_elements = shape->ho * shape->wo * shape->out, n;
    bool copies =
        shape->addend == ATEDM_CUDA_DNN_WHOLE && (args->channel_add || args->residual == args->y);
    int64_t most = most_samples(s->dnn, shape, copies);
    if (most > args->n)
        most = args->n;
    void *scratch = NULL, *workspace = atedm_cuda_scratch_get(s, ATEDM_CUDA_SCRATCH_WORKSPACE, 1,
                                                              ATEDM_CUDA_DNN_WORKSPACE);
    if (workspace && copies)
        scratch = atedm_cuda_scratch_get(s, ATEDM_CUDA_SCRATCH_SUMS, most * y_elements,
                                         atedm_dtype_size(head->act));
    for (int64_t i = 0; i < args->n && !head->status; i += n) {
        const atedm_cuda_dnn_plan *plan =
            get_plan(s->dnn, plans, most < args->n - i ? most : args->n - i, &n);
        const void *const operands[ATEDM_CUDA_DNN_Y + 1] = {
            [ATEDM_CUDA_DNN_X] = at(args->x, i, shape->h * shape->w * shape->in, head->act),
            [ATEDM_CUDA_DNN_WEIGHT] = w->values,
            [ATEDM_CUDA_DNN_ADDEND] = get_addend(head, args, shape, i, n, scratch),
            [ATEDM_CUDA_DNN_BIAS] = w->act_bias,
            [ATEDM_CUDA_DNN_Y] = at(args->y, i, y_elements, head->act),
        };
        cudnnStatus_t status = execute(s->dnn, plan, operands, workspace);
        if (status)
            atedm_stream_fail(head, ATEDM_ERR_DEVICE, "cuda: conv: cuDNN: %s",
                              s->dnn->library->error_string(status));
    }
}

// What no plan is made for: other types of bias, two addends, odd channels and addresses. Whole
// vectors of channels keep every sample as aligned as the first.
static bool is_for_dnn(const atedm_cuda_weight *w, const atedm_conv_args *args)
{
    const void *operands[] = {args->x, args->channel_add, args->residual, args->y};
    bool good = !w->bias == !w->act_bias && !(args->channel_add && args->residual) &&
                w->head.in % CHANNEL_STEP == 0 && w->head.out % CHANNEL_STEP == 0;
    for (size_t i = 0; i < sizeof operands / sizeof *operands; i++)
        good = good && (uintptr_t)operands[i] % ATEDM_CUDA_DNN_ALIGN == 0;
    return good;
}

bool atedm_cuda_dnn_conv(atedm_stream *s, const atedm_conv_args *args)
{
    const atedm_cuda_weight *w = atedm_cuda_weight_of(args->weight);
    if (!atedm_cuda_stream_of(s)->dnn || !is_for_dnn(w, args))
        return false;
    bool fuses = atedm_cuda_stream_of(s)->dnn->library->fuse != ATEDM_CUDA_DNN_FUSE_REPEAT;
    atedm_cuda_dnn_shape shape = {
        .h = args->h,
        .w = args->w,
        .ho = (args->h + w->head.stride - 1) / w->head.stride,
        .wo = (args->w + w->head.stride - 1) / w->head.stride,
        .in = w->head.in,
        .out = w->head.out,
        .kernel = w->head.kernel,
        .stride = w->head.stride,
        .weight_stride = w->row_elements,
        .bias = w->act_bias != NULL,
        .addend = args->channel_add && fuses            ? ATEDM_CUDA_DNN_CHANNEL
                  : args->channel_add || args->residual ? ATEDM_CUDA_DNN_WHOLE
                                                        : ATEDM_CUDA_DNN_NOTHING,
    };
    atedm_cuda_dnn_plans *plans = get_plans(s, &shape);
    if (plans && !plans->levels[0].plan && shape.addend == ATEDM_CUDA_DNN_CHANNEL) {
        shape.addend = ATEDM_CUDA_DNN_WHOLE;
        plans = get_plans(s, &shape);
    }
    if (plans && !plans->levels[0].plan)
        return false;
    if (plans)
        convolve(s, args, plans);
    return true;
}
