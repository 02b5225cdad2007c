// The inner loops of the cpu backend: one thread's work on a few rows, as a table of functions for
// each instruction set. vec.c is compiled once for each. The best table for the machine is chosen
// at run time. The caller divides work among threads and provides all memory.
//
// Pointers to activations ("act") are void, because a table belongs to one dtype. Unless stated
// otherwise, tensors are dense, and outputs may be the inputs.
#ifndef ATEDM_KERNELS_CPU_VEC_H
#define ATEDM_KERNELS_CPU_VEC_H

#include "kernels/kernels.h"

// The most query rows of one attention task, in vec_act.attention and .map.
#define ATEDM_VEC_QUERY_ROWS 96

// Columns of maps for G-WPR are padded to a multiple of this.
#define ATEDM_VEC_MAP_COLUMNS 16

// Keys of one head, packed by pack_keys, and its values, packed by pack_values.
typedef struct atedm_vec_head {
    const void *keys, *values;
    int64_t n;         // keys
    int64_t dim;       // head dimension
    float scale;       // of the logits
    const float *bias; // [n], added to the scaled logits, or NULL; attention only
    bool causal;       // query row r sees keys 0..r
} atedm_vec_head;

typedef struct atedm_vec_act {
    void (*to_f32)(const void *x, float *y, int64_t n);
    void (*from_f32)(const float *x, void *y, int64_t n);
    void (*add)(const void *a, const void *b, void *y, int64_t n);
    // y += factor * x
    void (*accumulate)(const void *x, float factor, void *y, int64_t n);
    void (*activate)(atedm_activation activation, const void *x, void *y, int64_t n);
    // y[j] = x[j] * gelu(x[f + j]), j < f.
    void (*geglu)(const void *x, void *y, int64_t f);
    // One row: y = (x - mean) / sqrt(variance + epsilon) * scale + shift.
    void (*layer_norm)(const void *x, void *y, const float *scale, const float *shift, int64_t c,
                       float epsilon);
    // sums[j] += sum over rows of x[r, j] (center NULL) or of (x[r, j] - center[j])^2.
    void (*column_sums)(const void *x, int64_t rows, int64_t c, const float *center, double *sums);
    // y[r, j] = (x[r, j] - center[j]) * factor[j] + shift[j], then SiLU if asked.
    void (*normalize)(const void *x, void *y, int64_t rows, int64_t c, const float *center,
                      const float *factor, const float *shift, bool silu);

    // Packed copies of n keys or values of dimension dim; rows `stride` elements apart.
    size_t (*keys_bytes)(int64_t n, int64_t dim);
    size_t (*values_bytes)(int64_t n, int64_t dim);
    void (*pack_keys)(const void *k, int64_t stride, int64_t n, int64_t dim, void *packed);
    void (*pack_values)(const void *v, int64_t stride, int64_t n, int64_t dim, void *packed);

    // Working memory that attention and map need, aligned to 64 bytes.
    size_t (*work_bytes)(int64_t dim);
    // o = softmax(scale q k^T) v for rows first .. first + rows - 1 (rows <= ATEDM_VEC_QUERY_ROWS)
    // of a span's queries, against all keys. q points at row `first`, and o and lse (which may be
    // NULL) at its results. `first` matters only if causal. q and o must not overlap.
    void (*attention)(const atedm_vec_head *head, const void *q, int64_t q_stride, int64_t first,
                      int64_t rows, void *o, int64_t o_stride, float *lse, void *work);
    // Rows of the attention map: map[r, j] = exp(scale q_r k_j - lse[r]), j < n, or the logit scale
    // q_r k_j itself if lse is NULL. With `add`, it adds this to the map's content.
    void (*map)(const atedm_vec_head *head, const void *q, int64_t q_stride, int64_t rows,
                const float *lse, float *map, int64_t map_stride, bool add, void *work);
    // The same for G-WPR, which reads a map many times. Elements have map_size bytes and the
    // precision that scores of act need; only the two functions below know their type. Columns are
    // padded with zeros to a multiple of ATEDM_VEC_MAP_COLUMNS, and map_stride is such a multiple.
    // row_sums: the sum of each row's elements after rounding.
    size_t map_size;
    void (*packed_map)(const atedm_vec_head *head, const void *q, int64_t q_stride, int64_t rows,
                       const float *lse, void *map, int64_t map_stride, float *row_sums,
                       void *work);
    // sums[j] = sum over rows of weights[r] * map[r, j], for j < n and the padding.
    void (*weighted_rows)(const void *map, int64_t map_stride, const float *weights, int64_t rows,
                          int64_t n, float *sums);
    // The sum of row[j] * b[j] over j < n and the padding, for a row of a map.
    float (*dot)(const void *row, const float *b, int64_t n);
} atedm_vec_act;

typedef struct atedm_vec {
    const char *name;
    const atedm_vec_act *f32;
    const atedm_vec_act *bf16; // NULL if the instruction set lacks it
} atedm_vec;

// The best table for this machine.
const atedm_vec *atedm_vec_choose(void);

extern const atedm_vec atedm_vec_portable;
extern const atedm_vec atedm_vec_avx2;
extern const atedm_vec atedm_vec_avx512;
extern const atedm_vec atedm_vec_avx512_bf16;
extern const atedm_vec atedm_vec_avx512_amx;

#endif
