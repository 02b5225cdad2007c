// Weights of the reference backend: see ref.h.
#include "kernels/ref/ref.h"

#include <stdlib.h>

static ref_weight *make(const atedm_weight *head, size_t values, size_t bias, atedm_error *err)
{
    ref_weight *weight = calloc(1, sizeof *weight);
    if (weight) {
        weight->head = *head;
        weight->head.bytes = (values + bias) * sizeof(float);
        weight->values = malloc((values ? values : 1) * sizeof(float));
        weight->bias = bias ? malloc(bias * sizeof(float)) : NULL;
    }
    if (!weight || !weight->values || (bias && !weight->bias)) {
        if (weight)
            ref_weight_destroy(&weight->head);
        atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a weight");
        return NULL;
    }
    return weight;
}

// Copies a host tensor, whose data may be unaligned, to F32. Values are rounded to `act` on the
// way.
static void fill(float *to, const atedm_host_tensor *from, atedm_dtype act)
{
    size_t count = (size_t)atedm_host_tensor_count(from);
    for (size_t i = 0; i < count; i++) {
        _Alignas(float) char rounded[sizeof(float)];
        atedm_host_tensor_convert(from, i, 1, rounded, act);
        atedm_convert(rounded, act, &to[i], ATEDM_F32, 1);
    }
}

atedm_status ref_linear_weight_create(const atedm_weight *head, const atedm_host_tensor *parts,
                                      const atedm_host_tensor *biases, size_t n_parts,
                                      atedm_weight **ret_weight, atedm_error *err)
{
    ref_weight *weight =
        make(head, (size_t)head->out * (size_t)head->in, biases ? (size_t)head->out : 0, err);
    if (!weight)
        return ATEDM_ERR_NOMEM;
    size_t row = 0;
    for (size_t i = 0; i < n_parts; i++) {
        fill(weight->values + row * (size_t)head->in, &parts[i], head->act);
        if (biases)
            fill(weight->bias + row, &biases[i], ATEDM_F32);
        row += (size_t)parts[i].shape[0];
    }
    *ret_weight = &weight->head;
    return ATEDM_OK;
}

atedm_status ref_conv_weight_create(const atedm_weight *head, const atedm_host_tensor *tensor,
                                    const atedm_host_tensor *bias, atedm_weight **ret_weight,
                                    atedm_error *err)
{
    size_t taps = (size_t)(head->kernel * head->kernel);
    size_t in = (size_t)head->in, out = (size_t)head->out, count = in * out * taps;
    float *planar = malloc(count * sizeof *planar);
    ref_weight *weight = make(head, count, bias ? out : 0, err);
    if (!planar || !weight) {
        free(planar);
        if (weight)
            ref_weight_destroy(&weight->head);
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a convolution weight");
    }
    fill(planar, tensor, head->act);
    for (size_t o = 0; o < out; o++)
        for (size_t i = 0; i < in; i++)
            for (size_t t = 0; t < taps; t++)
                weight->values[(o * taps + t) * in + i] = planar[(o * in + i) * taps + t];
    if (bias)
        fill(weight->bias, bias, ATEDM_F32);
    free(planar);
    *ret_weight = &weight->head;
    return ATEDM_OK;
}

atedm_status ref_norm_weight_create(const atedm_weight *head, const atedm_host_tensor *scale,
                                    const atedm_host_tensor *shift, atedm_weight **ret_weight,
                                    atedm_error *err)
{
    ref_weight *weight = make(head, (size_t)head->in, (size_t)head->in, err);
    if (!weight)
        return ATEDM_ERR_NOMEM;
    fill(weight->values, scale, ATEDM_F32);
    fill(weight->bias, shift, ATEDM_F32);
    *ret_weight = &weight->head;
    return ATEDM_OK;
}

atedm_status ref_table_weight_create(const atedm_weight *head, const atedm_host_tensor *table,
                                     atedm_weight **ret_weight, atedm_error *err)
{
    ref_weight *weight = make(head, (size_t)head->in * (size_t)head->out, 0, err);
    if (!weight)
        return ATEDM_ERR_NOMEM;
    fill(weight->values, table, head->act);
    *ret_weight = &weight->head;
    return ATEDM_OK;
}

void ref_weight_destroy(atedm_weight *weight)
{
    ref_weight *w = (ref_weight *)weight;
    free(w->values);
    free(w->bias);
    free(w);
}
