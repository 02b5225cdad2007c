// What the files of the cuDNN part share: dnn.c loads the library and makes the calls, dnn_plan.c
// makes the plans of a shape. The rest of the backend sees what cuda.h declares of it.
#ifndef ATEDM_KERNELS_CUDA_DNN_H
#define ATEDM_KERNELS_CUDA_DNN_H

#include "kernels/cuda/cuda.h"

#include <cudnn_graph.h>

// How one value a channel and sample is added to all of its pixels.
typedef enum atedm_cuda_dnn_fuse {
    ATEDM_CUDA_DNN_FUSE_READY,   // by cuDNN where it has a kernel for that, else repeated first
    ATEDM_CUDA_DNN_FUSE_CHANNEL, // by cuDNN, with a kernel that it compiles where it has none
    ATEDM_CUDA_DNN_FUSE_REPEAT,  // repeated first
} atedm_cuda_dnn_fuse;

// The library's functions that are called, and what the environment says of how.
typedef struct atedm_cuda_dnn_library {
    void *handle; // of dlopen
    bool required;
    atedm_cuda_dnn_fuse fuse;
    int64_t most_samples; // of a call
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

typedef enum atedm_cuda_dnn_addend {
    ATEDM_CUDA_DNN_NOTHING,
    ATEDM_CUDA_DNN_WHOLE,   // a value for every element
    ATEDM_CUDA_DNN_CHANNEL, // a value for every channel of a sample
} atedm_cuda_dnn_addend;

// A convolution, whatever the number of samples. Operands stand at multiples of
// ATEDM_CUDA_DNN_ALIGN bytes.
typedef struct atedm_cuda_dnn_shape {
    int64_t h, w, ho, wo, in, out, kernel, stride;
    int64_t weight_stride; // elements of a row of weights
    atedm_cuda_dnn_addend addend;
    bool bias;
} atedm_cuda_dnn_shape;
#define ATEDM_CUDA_DNN_ALIGN 16

// Operands by their unique ids; numbers from ATEDM_CUDA_DNN_SUMS on are of values on the way.
enum {
    ATEDM_CUDA_DNN_X = 1,  // act [n, h, w, in]
    ATEDM_CUDA_DNN_WEIGHT, // act [out, weight_stride]
    ATEDM_CUDA_DNN_ADDEND, // act [n, ho, wo, out], or [n, out] of channels
    ATEDM_CUDA_DNN_BIAS,   // act [out]
    ATEDM_CUDA_DNN_Y,      // act [n, ho, wo, out]
    ATEDM_CUDA_DNN_SUMS,
};

#define ATEDM_CUDA_DNN_DESCRIPTORS 256
// Scratch memory for any plan, as much as linear.c has: so it never grows once both have run.
#define ATEDM_CUDA_DNN_WORKSPACE ((size_t)32 << 20)

typedef struct atedm_cuda_dnn_plan {
    cudnnBackendDescriptor_t plan;                             // NULL: cuDNN does not take it
    cudnnBackendDescriptor_t made[ATEDM_CUDA_DNN_DESCRIPTORS]; // the plan's, and what it refers to
    int n_made;
    bool asked; // for the plan, whether or not there is one
} atedm_cuda_dnn_plan;

// What one kernel is known by: an engine and its settings.
typedef struct atedm_cuda_dnn_config {
    int64_t engine, n_knobs;
    struct {
        cudnnBackendKnobType_t type;
        int64_t value;
    } knobs[CUDNN_KNOB_TYPE_COUNTS];
} atedm_cuda_dnn_config;

// Plans of a shape: number i is for 2^i samples, with the kernel that was chosen for one.
#define ATEDM_CUDA_DNN_LEVELS 5
typedef struct atedm_cuda_dnn_plans {
    atedm_cuda_dnn_shape shape;
    atedm_cuda_dnn_config config; // of a kernel that gives a sample its bits in any batch ...
    bool has_batches;             // ... if it is one
    atedm_cuda_dnn_plan levels[ATEDM_CUDA_DNN_LEVELS];
    struct atedm_cuda_dnn_plans *next;
} atedm_cuda_dnn_plans;

// Of a stream.
typedef struct atedm_cuda_dnn {
    const atedm_cuda_dnn_library *library;
    cudnnHandle_t handle;
    atedm_dtype act;
    atedm_cuda_dnn_plans *plans; // by shape
} atedm_cuda_dnn;

// ---- dnn_plan.c

// The plans of a shape, of which that of one sample is made; NULL when memory is out.
atedm_cuda_dnn_plans *atedm_cuda_dnn_plans_create(const atedm_cuda_dnn *dnn,
                                                  const atedm_cuda_dnn_shape *shape);
void atedm_cuda_dnn_plans_destroy(const atedm_cuda_dnn *dnn, atedm_cuda_dnn_plans *plans);
// The plan for 2^level samples, made when it is first asked for; NULL where there is none.
const atedm_cuda_dnn_plan *atedm_cuda_dnn_plan_of(const atedm_cuda_dnn *dnn,
                                                  atedm_cuda_dnn_plans *plans, int level);

#endif
