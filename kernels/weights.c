// Weights: what kernels.h says about the host's tensors is checked here, before the backend turns
// them into its own layout.
#include "kernels/backend.h"

#include <inttypes.h>

static bool is_float(atedm_dtype dtype)
{
    return dtype == ATEDM_F32 || dtype == ATEDM_BF16 || dtype == ATEDM_F16;
}

// A float tensor of `ndim` dimensions, each within bounds, with data unless the device is dry.
static atedm_status check_tensor(const atedm_device *device, const char *what,
                                 const atedm_host_tensor *t, int ndim, atedm_error *err)
{
    if (t->ndim != ndim)
        return atedm_error_set(err, ATEDM_ERR_INVALID, "%s: %d dimensions, should be %d", what,
                               t->ndim, ndim);
    if (!is_float(t->dtype))
        return atedm_error_set(err, ATEDM_ERR_INVALID, "%s: dtype %s, should be f32, bf16 or f16",
                               what, atedm_dtype_name(t->dtype));
    if (!t->data && !atedm_device_is_dry(device))
        return atedm_error_set(err, ATEDM_ERR_INVALID, "%s: has no data", what);
    int64_t elements = 1;
    for (int i = 0; i < ndim; i++)
        if (t->shape[i] < 1 || t->shape[i] > ATEDM_MAX_WEIGHT_DIM ||
            __builtin_mul_overflow(elements, t->shape[i], &elements) ||
            elements > ATEDM_MAX_ELEMENTS)
            return atedm_error_set(err, ATEDM_ERR_LIMIT,
                                   "%s: dimension %d is %" PRId64
                                   ", which is below 1 or beyond the limits",
                                   what, i, t->shape[i]);
    return ATEDM_OK;
}

// A vector [count], as check_tensor has it.
static atedm_status check_vector(const atedm_device *device, const char *what,
                                 const atedm_host_tensor *t, int64_t count, atedm_error *err)
{
    atedm_status status = check_tensor(device, what, t, 1, err);
    if (!status && t->shape[0] != count)
        return atedm_error_set(err, ATEDM_ERR_INVALID,
                               "%s: %" PRId64 " elements, should be %" PRId64, what, t->shape[0],
                               count);
    return status;
}

static atedm_status check_act(const atedm_device *device, atedm_dtype act, atedm_error *err)
{
    if (device->backend->supports(device, act))
        return ATEDM_OK;
    return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED, "the %s backend cannot compute in %s here",
                           device->backend->name, atedm_dtype_name(act));
}

atedm_status atedm_linear_weight_create(atedm_device *device, atedm_dtype act,
                                        const atedm_host_tensor *parts,
                                        const atedm_host_tensor *biases, size_t n_parts,
                                        atedm_weight **ret_weight, atedm_error *err)
{
    atedm_weight head = {
        .device = device, .kind = ATEDM_WEIGHT_LINEAR, .act = act, .kernel = 1, .stride = 1};
    atedm_status status = check_act(device, act, err);
    if (!status && !n_parts)
        status = atedm_error_set(err, ATEDM_ERR_INVALID, "linear weight: no parts");
    for (size_t i = 0; !status && i < n_parts; i++) {
        status = check_tensor(device, "linear weight", &parts[i], 2, err);
        if (!status && parts[i].shape[1] != parts[0].shape[1])
            status =
                atedm_error_set(err, ATEDM_ERR_INVALID,
                                "linear weight: %" PRId64 " and %" PRId64 " inputs side by side",
                                parts[0].shape[1], parts[i].shape[1]);
        if (!status && biases)
            status = check_vector(device, "linear bias", &biases[i], parts[i].shape[0], err);
        if (!status && (head.out += parts[i].shape[0]) > ATEDM_MAX_WEIGHT_DIM)
            status = atedm_error_set(err, ATEDM_ERR_LIMIT, "linear weight: too many outputs");
    }
    if (status)
        return status;
    head.in = parts[0].shape[1];
    return device->backend->linear_weight_create(&head, parts, biases, n_parts, ret_weight, err);
}

atedm_status atedm_conv_weight_create(atedm_device *device, atedm_dtype act,
                                      const atedm_host_tensor *weight,
                                      const atedm_host_tensor *bias, int stride,
                                      atedm_weight **ret_weight, atedm_error *err)
{
    static const char what[] = "convolution weight";
    atedm_status status = check_act(device, act, err);
    if (!status)
        status = check_tensor(device, what, weight, 4, err);
    if (status)
        return status;
    const int64_t *shape = weight->shape;
    if (shape[2] != shape[3] || (shape[2] != 1 && shape[2] != 3))
        return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED,
                               "%s: kernel %" PRId64 " x %" PRId64 ", should be 1 x 1 or 3 x 3",
                               what, shape[2], shape[3]);
    if (stride != 1 && stride != 2)
        return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED, "%s: stride %d, should be 1 or 2", what,
                               stride);
    if (bias)
        status = check_vector(device, "convolution bias", bias, shape[0], err);
    if (status)
        return status;
    atedm_weight head = {.device = device,
                         .kind = ATEDM_WEIGHT_CONV,
                         .act = act,
                         .in = shape[1],
                         .out = shape[0],
                         .kernel = (int)shape[2],
                         .stride = stride};
    return device->backend->conv_weight_create(&head, weight, bias, ret_weight, err);
}

atedm_status atedm_norm_weight_create(atedm_device *device, const atedm_host_tensor *scale,
                                      const atedm_host_tensor *shift, atedm_weight **ret_weight,
                                      atedm_error *err)
{
    atedm_status status = check_tensor(device, "norm scale", scale, 1, err);
    if (!status)
        status = check_vector(device, "norm shift", shift, scale->shape[0], err);
    if (status)
        return status;
    atedm_weight head = {.device = device,
                         .kind = ATEDM_WEIGHT_NORM,
                         .act = ATEDM_F32,
                         .in = scale->shape[0],
                         .out = scale->shape[0]};
    return device->backend->norm_weight_create(&head, scale, shift, ret_weight, err);
}

atedm_status atedm_table_weight_create(atedm_device *device, atedm_dtype act,
                                       const atedm_host_tensor *table, atedm_weight **ret_weight,
                                       atedm_error *err)
{
    atedm_status status = check_act(device, act, err);
    if (!status)
        status = check_tensor(device, "embedding table", table, 2, err);
    if (status)
        return status;
    atedm_weight head = {.device = device,
                         .kind = ATEDM_WEIGHT_TABLE,
                         .act = act,
                         .in = table->shape[1],
                         .out = table->shape[0]};
    return device->backend->table_weight_create(&head, table, ret_weight, err);
}

void atedm_weight_destroy(atedm_weight *weight)
{
    if (weight)
        weight->device->backend->weight_destroy(weight);
}

int64_t atedm_weight_in(const atedm_weight *weight)
{
    return weight->in;
}

int64_t atedm_weight_out(const atedm_weight *weight)
{
    return weight->out;
}

size_t atedm_weight_bytes(const atedm_weight *weight)
{
    return weight->bytes;
}
