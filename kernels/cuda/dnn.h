// What the files of the cuDNN part share: dnn.c loads the library and makes the calls, dnn_plan.c
// makes the plan of a shape. The rest of the backend sees what cuda.h declares of it.
#ifndef ATEDM_KERNELS_CUDA_DNN_H
#define ATEDM_KERNELS_CUDA_DNN_H

#include "kernels/cuda/cuda.h"

#include <cudnn_graph.h>

// The library's functions that are called.
typedef struct atedm_cuda_dnn_library {
    void *handle; // of dlopen
    bool required;
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

// A convolution as it is planned. Operands stand at multiples of ATEDM_CUDA_DNN_ALIGN bytes.
typedef struct atedm_cuda_dnn_shape {
    int64_t n, h, w, ho, wo, in, out, kernel, stride;
    int64_t weight_stride; // elements of a row of weights
    bool bias, addend;     // which are added
} atedm_cuda_dnn_shape;
#define ATEDM_CUDA_DNN_ALIGN 16

// Operands by their unique ids; numbers from ATEDM_CUDA_DNN_SUMS on are of values on the way.
enum {
    ATEDM_CUDA_DNN_X = 1,  // act [n, h, w, in]
    ATEDM_CUDA_DNN_WEIGHT, // act [out, weight_stride]
    ATEDM_CUDA_DNN_ADDEND, // act [n, ho, wo, out]
    ATEDM_CUDA_DNN_BIAS,   // act [out]
    ATEDM_CUDA_DNN_Y,      // act [n, ho, wo, out]
    ATEDM_CUDA_DNN_SUMS,
};

#define ATEDM_CUDA_DNN_DESCRIPTORS 192
#define ATEDM_CUDA_DNN_CANDIDATES 8
// Scratch memory for any plan, as much as linear.c has: so it never grows once both have run.
#define ATEDM_CUDA_DNN_WORKSPACE ((size_t)32 << 20)

typedef struct atedm_cuda_dnn_plan {
    atedm_cuda_dnn_shape shape;
    cudnnBackendDescriptor_t plan; // NULL: the shape is not for cuDNN
    // What will do, in the order of cuDNN's heuristics.
    cudnnBackendDescriptor_t candidates[ATEDM_CUDA_DNN_CANDIDATES];
    int n_candidates;
    cudnnBackendDescriptor_t made[ATEDM_CUDA_DNN_DESCRIPTORS]; // the plan's, and what it refers to
    int n_made;
    struct atedm_cuda_dnn_plan *next;
} atedm_cuda_dnn_plan;

// Of a stream.
typedef struct atedm_cuda_dnn {
    const atedm_cuda_dnn_library *library;
    cudnnHandle_t handle;
    atedm_dtype act;
    atedm_cuda_dnn_plan *plans; // by shape
} atedm_cuda_dnn;

// Enqueues one of a plan's candidates; `operands` by unique id from 1 on, NULL where there is none.
ATEDM_MUST_CHECK cudnnStatus_t atedm_cuda_dnn_execute(const atedm_cuda_dnn *dnn,
                                                      cudnnBackendDescriptor_t candidate,
                                                      const void *const *operands, void *workspace);

// ---- dnn_plan.c

// A plan for a shape, of which candidates are known; NULL when memory is out.
atedm_cuda_dnn_plan *atedm_cuda_dnn_plan_create(const atedm_cuda_dnn *dnn,
                                                const atedm_cuda_dnn_shape *shape);
void atedm_cuda_dnn_plan_destroy(const atedm_cuda_dnn *dnn, atedm_cuda_dnn_plan *plan);

// ---- dnn_trial.c

// Chooses the fastest of the candidates that give each sample the bits that `alone`'s first one
// does, where `alone` is the plan for one sample. Where none does, or there is no trial, one sample
// gets that one and larger batches have no plan. Waits for the device. May fail the stream.
void atedm_cuda_dnn_choose(atedm_cuda_stream *s, const atedm_cuda_dnn_plan *alone,
                           atedm_cuda_dnn_plan *plan);

#endif
