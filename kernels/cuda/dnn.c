// Convolutions by cuDNN: the library, and the calls. Plans are made in dnn_plan.c and chosen in
// dnn_trial.c; convolutions that this part does not take are conv.cu's.
//
// A batch is computed in calls of 16, 8, 4, 2 and 1 samples, so that a shape has five plans at
// most. These are made and tried at the first call. Later calls allocate nothing and wait for
// nothing, so that they can be captured into a graph.
#include "kernels/cuda/dnn.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

// "own": conv.cu's kernels do all convolutions; "cudnn": cuDNN does those that it takes, and it is
// an error if it is not there; "auto", the default: cuDNN if it is there; "hopper": as auto, except
// for convolutions that hopper_conv.c takes.
#define CHOICE_ENVIRONMENT "ATEDM_CUDA_CONV"
// The library's file, in place of ATEDM_CUDNN_FILE, which the build defines.
#define LIBRARY_ENVIRONMENT "ATEDM_CUDNN"
// The major version of the headers; descriptors differ between major versions.
#define LIBRARY_MAJOR 9
// Channels are multiples of this, so that every pixel starts at a whole vector of 16 bytes.
#define CHANNEL_STEP 8
#define MOST_SAMPLES 16 // of a call
// Most bytes of x or y of a call: kernels may count them in 32 bits.
#define MOST_OPERAND_BYTES ((int64_t)1 << 30)

_Static_assert(CUDNN_MAJOR == LIBRARY_MAJOR, "the headers are of another version");

// ---- the library

// The major version in what cudnnGetVersion returns: major * 10000 + .. from 9 on, before that
// major * 1000 + ..
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
    if (!choice || strcmp(choice, "auto") == 0 || strcmp(choice, "hopper") == 0) {
        atedm_status status = open_library(false, &library, &ignored);
        if (status == ATEDM_ERR_NOMEM)
            return atedm_error_set(err, status, "%s", ignored.message);
    } else if (strcmp(choice, "cudnn") == 0) {
        atedm_status status = open_library(true, &library, err);
        if (status)
            return status;
    } else if (strcmp(choice, "own") != 0) {
        return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED,
                               "cuda: " CHOICE_ENVIRONMENT " is \"%s\": auto, hopper, cudnn or own",
                               choice);
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
    // Not for F32, which other results are compared with: tensor cores would round its inputs.
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
        atedm_cuda_dnn_plan *plan = dnn->plans;
        dnn->plans = plan->next;
        atedm_cuda_dnn_plan_destroy(dnn, plan);
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
    return a->n == b->n && a->h == b->h && a->w == b->w && a->in == b->in && a->out == b->out &&
           a->kernel == b->kernel && a->stride == b->stride &&
           a->weight_stride == b->weight_stride && a->bias == b->bias && a->addend == b->addend;
}

// The shape's plan, made when it is first asked for. `alone`: the plan for one sample of this
// shape; NULL: this is it. NULL during a capture, where no plan can be made, or after failing the
// stream.
static const atedm_cuda_dnn_plan *get_plan(atedm_stream *head, const atedm_cuda_dnn_shape *shape,
                                           const atedm_cuda_dnn_plan *alone)
{
    atedm_cuda_stream *s = atedm_cuda_stream_of(head);
    atedm_cuda_dnn *dnn = s->dnn;
    for (const atedm_cuda_dnn_plan *p = dnn->plans; p; p = p->next)
        if (same_shape(&p->shape, shape))
            return p;
    if (head->status || s->graphs.capturing) // a trial waits, which a capture cannot
        return NULL;
    atedm_cuda_dnn_plan *plan = atedm_cuda_dnn_plan_create(dnn, shape);
    if (!plan) {
        atedm_stream_fail(head, ATEDM_ERR_NOMEM, "no memory for a convolution's plan");
        return NULL;
    }
    plan->next = dnn->plans;
    dnn->plans = plan;
    atedm_cuda_dnn_choose(s, alone ? alone : plan, plan);
    return head->status ? NULL : plan;
}

// The plan for the largest number of samples, `most` at most, that has one. `shape` is that of one
// sample; NULL where cuDNN does not even take that.
static const atedm_cuda_dnn_plan *get_largest_plan(atedm_stream *head,
                                                   const atedm_cuda_dnn_shape *shape, int64_t most)
{
    const atedm_cuda_dnn_plan *alone = get_plan(head, shape, NULL);
    if (!alone || !alone->plan)
        return NULL;
    atedm_cuda_dnn_shape some = *shape;
    for (some.n = MOST_SAMPLES; some.n > 1; some.n /= 2) {
        const atedm_cuda_dnn_plan *plan = some.n <= most ? get_plan(head, &some, alone) : NULL;
        if (plan && plan->plan)
            return plan;
    }
    return alone;
}

cudnnStatus_t atedm_cuda_dnn_execute(const atedm_cuda_dnn *dnn, cudnnBackendDescriptor_t candidate,
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
        status = library->execute(dnn->handle, candidate, pack);
    if (pack)
        (void)library->unmake(pack);
    return status;
}

static const void *at(const void *p, int64_t sample, int64_t elements, atedm_dtype act)
{
    return p ? (const char *)p + (size_t)(sample * elements) * atedm_dtype_size(act) : NULL;
}

// The tensor that is added to the results of `n` samples from `first` on: the residual, or
// channel_add, a value for each channel of a sample. It is made in `scratch`, where that is not
// NULL: a residual that y replaces is copied, since cuDNN does not say that operands may also be
// results; a channel_add is repeated for every pixel, since cuDNN adds one vector only, the bias.
static const void *get_addend(atedm_stream *s, const atedm_conv_args *args,
                              const atedm_cuda_dnn_shape *shape, int64_t first, int64_t n,
                              char *scratch)
{
    int64_t pixels = shape->ho * shape->wo;
    size_t row = (size_t)shape->out * atedm_dtype_size(s->act), image = (size_t)pixels * row;
    const void *residual = at(args->residual, first, pixels * shape->out, s->act);
    for (int64_t i = 0; args->channel_add && i < n; i++)
        atedm_cuda_check(
            s,
            atedm_cuda_launch_repeat(at(args->channel_add, first + i, shape->out, s->act),
                                     scratch + (size_t)i * image, row, pixels,
                                     atedm_cuda_stream_of(s)->stream),
            "conv");
    if (scratch && !args->channel_add)
        atedm_cuda_copy(s, residual, scratch, (size_t)n * image);
    return scratch ? scratch : residual;
}

// The most samples of a call: so few that operands, and addends that are made in scratch memory
// (`copies`), stay within their limits, but one at least.
static int64_t most_samples(const atedm_cuda_dnn_shape *shape, int64_t element, bool copies)
{
    int64_t x = shape->h * shape->w * shape->in * element;
    int64_t y = shape->ho * shape->wo * shape->out * element;
    int64_t most = MOST_OPERAND_BYTES / (x > y ? x : y);
    if (copies && most > (int64_t)ATEDM_CUDA_SUMS_BYTES / y)
        most = (int64_t)ATEDM_CUDA_SUMS_BYTES / y;
    return most > 1 ? most : 1;
}

// False where cuDNN does not take the shape.
static bool convolve(atedm_stream *head, const atedm_conv_args *args,
                     const atedm_cuda_dnn_shape *shape)
{
    atedm_cuda_stream *s = atedm_cuda_stream_of(head);
    const atedm_cuda_weight *w = atedm_cuda_weight_of(args->weight);
    int64_t y_elements = shape->ho * shape->wo * shape->out, n;
    bool copies = args->channel_add || (args->residual && args->residual == args->y);
    int64_t most = most_samples(shape, (int64_t)atedm_dtype_size(head->act), copies);
    for (int64_t i = 0; i < args->n && !head->status; i += n) {
        n = args->n - i < most ? args->n - i : most;
        const atedm_cuda_dnn_plan *plan = get_largest_plan(head, shape, n);
        if (!plan)
            return head->status != ATEDM_OK;
        n = plan->shape.n;
        void *scratch = NULL, *workspace = atedm_cuda_scratch_get(s, ATEDM_CUDA_SCRATCH_WORKSPACE,
                                                                  1, ATEDM_CUDA_DNN_WORKSPACE);
        if (workspace && copies)
            scratch = atedm_cuda_scratch_get(s, ATEDM_CUDA_SCRATCH_SUMS, n * y_elements,
                                             atedm_dtype_size(head->act));
        if (!workspace || (copies && !scratch))
            return true;
        const void *const operands[ATEDM_CUDA_DNN_Y + 1] = {
            [ATEDM_CUDA_DNN_X] = at(args->x, i, shape->h * shape->w * shape->in, head->act),
            [ATEDM_CUDA_DNN_WEIGHT] = w->values,
            [ATEDM_CUDA_DNN_ADDEND] = get_addend(head, args, shape, i, n, scratch),
            [ATEDM_CUDA_DNN_BIAS] = w->act_bias,
            [ATEDM_CUDA_DNN_Y] = at(args->y, i, y_elements, head->act),
        };
        cudnnStatus_t status = atedm_cuda_dnn_execute(s->dnn, plan->plan, operands, workspace);
        if (status)
            atedm_stream_fail(head, ATEDM_ERR_DEVICE, "cuda: conv: cuDNN: %s",
                              s->dnn->library->error_string(status));
    }
    return true;
}

// Whether plans are made for such a call: the bias is exact in act, there is one addend at most,
// and channels and addresses are whole vectors (so every sample is as aligned as the first).
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
    const atedm_cuda_dnn_shape shape = {
        .n = 1,
        .h = args->h,
        .w = args->w,
        .ho = atedm_conv_out(args->h, w->head.stride),
        .wo = atedm_conv_out(args->w, w->head.stride),
        .in = w->head.in,
        .out = w->head.out,
        .kernel = w->head.kernel,
        .stride = w->head.stride,
        .weight_stride = w->row_elements,
        .bias = w->act_bias != NULL,
        .addend = args->channel_add || args->residual,
    };
    return convolve(s, args, &shape);
}
