// What the files of the cuDNN part share: dnn.c loads the library and makes the calls, dnn_plan.c
// asks for candidates for a shape, dnn_trial.c chooses one. The rest of the backend sees what
// cuda.h declares of it.
#ifndef ATEDM_KERNELS_CUDA_DNN_H
#define ATEDM_KERNELS_CUDA_DNN_H

#include "kernels/cuda/cuda.h"

#include <cudnn_graph.h>

// The library, with its functions that are called.
typedef struct atedm_cuda_dnn_library {
    void *handle;  // of dlopen
    bool required; // ATEDM_CUDA_CONV=cudnn: that cuDNN does not start is an error
    size_t (*version)(void);
    const char *(*error_string)(cudnnStatus_t status);
    cudnnStatus_t (*create)(cudnnHandle_t *ret_handle);
    cudnnStatus_t (*destroy)(cudnnHandle_t handle);
    cudnnStatus_t (*set_stream)(cudnnHandle_t handle, cudaStream_t stream);
    cudnnStatus_t (*make)(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *ret_made);
    cudnnStatus_t (*unmake)(cudnnBackendDescriptor_t made);
    cudnnStatus_t (*set)(cudnnBackendDescriptor_t of, cudnnBackendAttributeName_t name,
                         cudnnBackendAttributeType_t type, int64_t count, const void *values);
    cudnnStatus_t (*get)(cudnnBackendDescriptor_t of, cudnnBackendAttributeName_t name,
                         cudnnBackendAttributeType_t type, int64_t most, int64_t *ret_count,
                         void *ret_values);
    cudnnStatus_t (*finalize)(cudnnBackendDescriptor_t of);
    cudnnStatus_t (*execute)(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                             cudnnBackendDescriptor_t pack);
} atedm_cuda_dnn_library;

// What a plan is for: names as in kernels.h, atedm_conv_args.
typedef struct atedm_cuda_dnn_shape {
    int64_t n, h, w, ho, wo, in, out, kernel, stride;
    int64_t weight_stride; // elements from one row of weights to the next
    bool bias;             // one is added
    bool addend;           // a residual, or a channel_add repeated to its size, is added
} atedm_cuda_dnn_shape;
#define ATEDM_CUDA_DNN_ALIGN 16 // bytes that all operands are aligned to

// cuDNN's unique ids of the operands; from ATEDM_CUDA_DNN_SUMS on those of intermediate values.
enum {
    ATEDM_CUDA_DNN_X = 1,  // act [n, h, w, in]
    ATEDM_CUDA_DNN_WEIGHT, // act [out, weight_stride]
    ATEDM_CUDA_DNN_ADDEND, // act [n, ho, wo, out]
    ATEDM_CUDA_DNN_BIAS,   // act [out]
    ATEDM_CUDA_DNN_Y,      // act [n, ho, wo, out]
    ATEDM_CUDA_DNN_SUMS,
};

#define ATEDM_CUDA_DNN_DESCRIPTORS 192 // of a plan, at most
#define ATEDM_CUDA_DNN_CANDIDATES 8    // of a plan, at most
// Most workspace of a plan: that of linear layers (ATEDM_CUDA_WORKSPACE_BYTES), so that the
// stream's scratch memory never grows for it.
#define ATEDM_CUDA_DNN_WORKSPACE ((size_t)32 << 20)

typedef struct atedm_cuda_dnn_plan {
    atedm_cuda_dnn_shape shape;
    cudnnBackendDescriptor_t plan; // the candidate that was chosen; NULL: cuDNN does not take it
    // cuDNN's execution plans that may be chosen, in the order of its heuristics.
    cudnnBackendDescriptor_t candidates[ATEDM_CUDA_DNN_CANDIDATES];
    int n_candidates;
    // All descriptors of this plan, to be destroyed with it, in the order in which they were made.
    cudnnBackendDescriptor_t made[ATEDM_CUDA_DNN_DESCRIPTORS];
    int n_made;
    struct atedm_cuda_dnn_plan *next;
} atedm_cuda_dnn_plan;

// A stream's part.
typedef struct atedm_cuda_dnn {
    const atedm_cuda_dnn_library *library;
    cudnnHandle_t handle;
    atedm_dtype act;
    atedm_cuda_dnn_plan *plans; // a list, of the shapes that came so far
} atedm_cuda_dnn;

// Enqueues one of a plan's candidates. operands: [device], by unique id; NULL where the plan has
// none. workspace: [device] ATEDM_CUDA_DNN_WORKSPACE bytes.
ATEDM_MUST_CHECK cudnnStatus_t atedm_cuda_dnn_execute(const atedm_cuda_dnn *dnn,
                                                      cudnnBackendDescriptor_t candidate,
                                                      const void *const *operands, void *workspace);

// ---- dnn_plan.c

// A plan for a shape, with its candidates; none is chosen yet. NULL when memory is out.
atedm_cuda_dnn_plan *atedm_cuda_dnn_plan_create(const atedm_cuda_dnn *dnn,
                                                const atedm_cuda_dnn_shape *shape);
void atedm_cuda_dnn_plan_destroy(const atedm_cuda_dnn *dnn, atedm_cuda_dnn_plan *plan);

// ---- dnn_trial.c

// Chooses plan->plan: of its candidates the fastest that gives each sample the bits of the first
// candidate of `alone`, the plan for one sample, which may be `plan` itself. Where none does, or
// nothing can be tried, a plan for one sample gets its first candidate and one for more samples
// gets none. Waits for the device. May fail the stream.
void atedm_cuda_dnn_choose(atedm_cuda_stream *s, const atedm_cuda_dnn_plan *alone,
                           atedm_cuda_dnn_plan *plan);

#endif
