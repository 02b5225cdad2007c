// oneDNN primitives for the linear layers and convolutions of a stream. They are made on first use,
// kept in caches of fixed size, and run on the caller's pointers.
#ifndef ATEDM_KERNELS_CPU_PRIMITIVE_H
#define ATEDM_KERNELS_CPU_PRIMITIVE_H

#include "kernels/cpu/cpu.h"

// How a residual is added: by a post-op that reads it, or by one that adds to the content of y.
typedef enum atedm_cpu_residual {
    ATEDM_RESIDUAL_NONE,
    ATEDM_RESIDUAL_OTHER, // its own buffer
    ATEDM_RESIDUAL_Y,     // y itself
} atedm_cpu_residual;

// The key of a primitive. Equal keys have equal weight layouts, because the layout depends only on
// these fields of the weight.
typedef struct atedm_cpu_key {
    atedm_weight_kind kind;
    atedm_dtype act;
    int64_t in, out;
    int kernel, stride;
    int64_t h, w; // convolution: input size of one sample; linear: rows, 1
    bool as_conv; // linear: run as a 1x1 convolution (atedm_cpu_device.linear_as_conv)
    atedm_activation activation;
    atedm_cpu_residual residual;
} atedm_cpu_key;

// Tensors that a primitive runs on.
typedef struct atedm_cpu_run {
    const atedm_cpu_weight *weight;
    const float *bias; // [out]
    const void *x, *residual;
    void *y;
} atedm_cpu_run;

// Creates `n` lanes, one for each thread that may run primitives at the same time. NULL if memory
// is exhausted.
atedm_cpu_lane *atedm_cpu_lanes_create(dnnl_engine_t engine, int n);
void atedm_cpu_lanes_destroy(atedm_cpu_lane *lanes, int n);

// Runs the primitive of `key` on each of `n` independent tensors. Failures go to the stream. Each
// thread runs whole tensors without waiting for others. If the number of tensors is not a multiple
// of the threads, all threads share the remaining ones.
void atedm_cpu_run_primitives(atedm_cpu_stream *s, const atedm_cpu_key *key,
                              const atedm_cpu_run *runs, int64_t n);

// Creates a primitive descriptor for `key`; `weights` is the packed layout or NULL to let oneDNN
// choose it.
dnnl_status_t atedm_cpu_primitive_describe(dnnl_engine_t engine, const atedm_cpu_key *key,
                                           const dnnl_memory_desc_t *weights,
                                           dnnl_primitive_desc_t *ret_desc);

#endif
