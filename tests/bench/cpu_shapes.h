// The operations of one SDXL UNet evaluation (or VAE decode), as shapes with the number of times
// that each runs. What cpu_shapes.c times.
#ifndef ATEDM_TESTS_BENCH_CPU_SHAPES_H
#define ATEDM_TESTS_BENCH_CPU_SHAPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum bench_kind {
    BENCH_LINEAR,     // rows, in -> out
    BENCH_CONV,       // side x side, in -> out
    BENCH_ATTENTION,  // rows queries, in = keys, out = heads
    BENCH_GROUP_NORM, // rows, in
    BENCH_LAYER_NORM, // rows, in
    BENCH_GEGLU,      // rows, in -> in / 2
    BENCH_CONCAT,     // rows, in + out
    BENCH_UPSAMPLE,   // side x side after it, in
    BENCH_ADD,        // rows, in
    BENCH_KINDS,
} bench_kind;

typedef struct bench_shape {
    bench_kind kind;
    int64_t rows; // side^2 for feature maps
    int64_t in, out;
    int64_t head_dim;    // attention
    int kernel, stride;  // convolutions
    bool residual, silu; // linear, convolution; group norm
    int count;
} bench_shape;

#define BENCH_MAX_SHAPES 96

typedef struct bench_shapes {
    bench_shape list[BENCH_MAX_SHAPES];
    size_t n;
} bench_shapes;

// One sample; `latent` is the side of the square latent, 77 text tokens.
void bench_shapes_unet(bench_shapes *shapes, int64_t latent);
void bench_shapes_vae(bench_shapes *shapes, int64_t latent);

double bench_shape_macs(const bench_shape *shape); // of one run; 0 for what is not counted
const char *bench_kind_name(bench_kind kind);

#endif
