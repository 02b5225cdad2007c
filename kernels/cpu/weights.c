// Weights of the cpu backend: converted to the stream's dtype and packed for oneDNN, once.
#include "kernels/cpu/primitive.h"

#include "core/base/memory.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

// The input size for which oneDNN chooses the packed layout: rows of a linear layer, edge of a
// convolution's feature map. Other sizes use the same layout.
#define LAYOUT_ROWS 1024
#define LAYOUT_EDGE 64

#define CONVERT_PIECE ((size_t)4096) // elements that a thread converts at a time

static void convert(const atedm_host_tensor *from, void *to, atedm_dtype dtype)
{
    size_t count = (size_t)atedm_host_tensor_count(from), size = atedm_dtype_size(dtype);
    int64_t pieces = (int64_t)((count + CONVERT_PIECE - 1) / CONVERT_PIECE);
#pragma omp parallel for schedule(static) num_threads(atedm_cpu_threads((int64_t)count))
    for (int64_t i = 0; i < pieces; i++) {
        size_t first = (size_t)i * CONVERT_PIECE;
        size_t n = count - first < CONVERT_PIECE ? count - first : CONVERT_PIECE;
        atedm_host_tensor_convert(from, first, n, (char *)to + first * size, dtype);
    }
}

static void packed_destroy(atedm_cpu_packed *packed)
{
    if (packed->memory)
        dnnl_memory_destroy(packed->memory);
    free(packed->data);
    free(packed);
}

void atedm_cpu_weight_destroy(atedm_weight *head)
{
    if (!head)
        return;
    atedm_cpu_weight *weight = (atedm_cpu_weight *)head;
    while (weight->others->first) {
        atedm_cpu_packed *packed = weight->others->first;
        weight->others->first = packed->next;
        packed_destroy(packed);
    }
    pthread_mutex_destroy(&weight->others->mutex);
    free(weight->others);
    if (weight->memory)
        dnnl_memory_destroy(weight->memory);
    free(weight->data);
    free(weight->bias);
    free(weight);
}

// A weight without data, or NULL if memory is exhausted.
static atedm_cpu_weight *weight_new(const atedm_weight *head)
{
    atedm_cpu_weight *weight = calloc(1, sizeof *weight);
    atedm_cpu_others *others = calloc(1, sizeof *others);
    if (!weight || !others) {
        free(weight);
        free(others);
        return NULL;
    }
    pthread_mutex_init(&others->mutex, NULL);
    weight->head = *head;
    weight->others = others;
    return weight;
}

// Concatenates the vectors as F32 [n], with zeros for missing ones. NULL if memory is exhausted.
static float *make_vector(const atedm_host_tensor *parts, size_t n_parts, int64_t n)
{
    float *vector = atedm_cpu_alloc(atedm_cpu_bytes(n, 1, sizeof *vector));
    if (!vector)
        return NULL;
    if (!parts)
        memset(vector, 0, (size_t)n * sizeof *vector);
    float *to = vector;
    for (size_t i = 0; parts && i < n_parts; i++) {
        convert(&parts[i], to, ATEDM_F32);
        to += parts[i].shape[0];
    }
    return vector;
}

// The layout that oneDNN prefers for the weight.
static dnnl_status_t choose_layout(const atedm_cpu_device *device, atedm_cpu_weight *weight)
{
    bool conv = weight->head.kind == ATEDM_WEIGHT_CONV;
    const atedm_cpu_key key = {
        .kind = weight->head.kind,
        .act = weight->head.act,
        .in = weight->head.in,
        .out = weight->head.out,
        .kernel = weight->head.kernel,
        .stride = weight->head.stride,
        .h = conv ? LAYOUT_EDGE : LAYOUT_ROWS,
        .w = conv ? LAYOUT_EDGE : 1,
        .as_conv = !conv && device->linear_as_conv,
    };
    dnnl_primitive_desc_t desc;
    dnnl_status_t status = atedm_cpu_primitive_describe(device->engine, &key, NULL, &desc);
    if (status)
        return status;
    weight->layout = *dnnl_primitive_desc_query_md(desc, dnnl_query_weights_md, 0);
    dnnl_primitive_desc_destroy(desc);
    return dnnl_success;
}

static dnnl_status_t reorder(dnnl_engine_t engine, dnnl_memory_t from, dnnl_memory_t to)
{
    const dnnl_memory_desc_t *from_layout, *to_layout;
    dnnl_stream_t stream = NULL;
    dnnl_primitive_desc_t desc = NULL;
    dnnl_primitive_t primitive = NULL;
    dnnl_memory_get_memory_desc(from, &from_layout);
    dnnl_memory_get_memory_desc(to, &to_layout);
    int all = omp_get_max_threads();
    omp_set_num_threads(atedm_cpu_threads((int64_t)dnnl_memory_desc_get_size(to_layout)));
    dnnl_status_t status = dnnl_stream_create(&stream, engine, dnnl_stream_default_flags);
    if (!status)
        status =
            dnnl_reorder_primitive_desc_create(&desc, from_layout, engine, to_layout, engine, NULL);
    if (!status)
        status = dnnl_primitive_create(&primitive, desc);
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
    if (!status)
        status = dnnl_primitive_execute(primitive, stream, 2, args);
    if (!status)
        status = dnnl_stream_wait(stream);
    omp_set_num_threads(all);
    if (primitive)
        dnnl_primitive_destroy(primitive);
    if (desc)
        dnnl_primitive_desc_destroy(desc);
    if (stream)
        dnnl_stream_destroy(stream);
    return status;
}

// Packs weight->data from `plain`, the same tensor in the layout `plain_desc`.
static dnnl_status_t pack(dnnl_engine_t engine, atedm_cpu_weight *weight, void *plain,
                          const dnnl_memory_desc_t *plain_desc)
{
    dnnl_memory_t from = NULL;
    dnnl_status_t status = dnnl_memory_create(&from, plain_desc, engine, plain);
    if (!status)
        status = dnnl_memory_create(&weight->memory, &weight->layout, engine, weight->data);
    if (!status)
        status = reorder(engine, from, weight->memory);
    if (from)
        dnnl_memory_destroy(from);
    return status;
}

static atedm_cpu_packed *packed_create(const atedm_cpu_weight *weight,
                                       const dnnl_memory_desc_t *layout)
{
    const atedm_cpu_device *device = (const atedm_cpu_device *)weight->head.device;
    atedm_cpu_packed *packed = calloc(1, sizeof *packed);
    if (!packed)
        return NULL;
    packed->layout = *layout;
    packed->data = atedm_cpu_alloc(dnnl_memory_desc_get_size(layout));
    if (packed->data &&
        !dnnl_memory_create(&packed->memory, layout, device->engine, packed->data) &&
        !reorder(device->engine, weight->memory, packed->memory))
        return packed;
    packed_destroy(packed);
    return NULL;
}

dnnl_memory_t atedm_cpu_weight_memory(const atedm_cpu_weight *weight,
                                      const dnnl_memory_desc_t *layout)
{
    if (dnnl_memory_desc_equal(layout, &weight->layout))
        return weight->memory;
    atedm_cpu_others *others = weight->others;
    pthread_mutex_lock(&others->mutex);
    atedm_cpu_packed *packed = others->first;
    while (packed && !dnnl_memory_desc_equal(layout, &packed->layout))
        packed = packed->next;
    if (!packed) {
        packed = packed_create(weight, layout);
        if (packed) {
            packed->next = others->first;
            others->first = packed;
        }
    }
    pthread_mutex_unlock(&others->mutex);
    return packed ? packed->memory : NULL;
}

// Fills `weight` from dense matrices [out, in * kernel^2], stacked along out. `plain_desc`
// describes the stack.
static atedm_status fill(atedm_cpu_weight *weight, const atedm_host_tensor *parts, size_t n_parts,
                         const dnnl_memory_desc_t *plain_desc, atedm_error *err)
{
    const atedm_cpu_device *device = (const atedm_cpu_device *)weight->head.device;
    size_t element = atedm_dtype_size(weight->head.act);
    int64_t area = (int64_t)weight->head.kernel * weight->head.kernel;
    dnnl_status_t status = choose_layout(device, weight);
    size_t bytes = status ? 0 : dnnl_memory_desc_get_size(&weight->layout);
    char *plain =
        atedm_cpu_alloc(atedm_cpu_bytes(weight->head.in * area, weight->head.out, element));
    weight->data = atedm_cpu_alloc(bytes);
    if (!status && (!plain || !weight->data))
        status = dnnl_out_of_memory;
    if (!status) {
        char *to = plain;
        for (size_t i = 0; i < n_parts; i++) {
            convert(&parts[i], to, weight->head.act);
            to += (size_t)atedm_host_tensor_count(&parts[i]) * element;
        }
        status = pack(device->engine, weight, plain, plain_desc);
    }
    free(plain);
    weight->head.bytes = bytes + (size_t)weight->head.out * sizeof *weight->bias;
    if (status == dnnl_out_of_memory)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a weight of %zu bytes", bytes);
    if (status)
        return atedm_error_set(
            err, ATEDM_ERR_DEVICE,
            "oneDNN: status %d on packing a weight of %lld inputs and %lld outputs", (int)status,
            (long long)weight->head.in, (long long)weight->head.out);
    return ATEDM_OK;
}

static atedm_status dense_weight(const atedm_weight *head, const atedm_host_tensor *parts,
                                 const atedm_host_tensor *biases, size_t n_parts,
                                 const dnnl_memory_desc_t *plain_desc, atedm_weight **ret_weight,
                                 atedm_error *err)
{
    atedm_cpu_weight *weight = weight_new(head);
    if (weight)
        weight->bias = make_vector(biases, n_parts, head->out);
    atedm_status status = weight && weight->bias ? fill(weight, parts, n_parts, plain_desc, err)
                                                 : atedm_error_set(err, ATEDM_ERR_NOMEM,
                                                                   "no memory for a weight's bias");
    if (status)
        atedm_cpu_weight_destroy(weight ? &weight->head : NULL);
    else
        *ret_weight = &weight->head;
    return status;
}

atedm_status atedm_cpu_linear_weight_create(const atedm_weight *head,
                                            const atedm_host_tensor *parts,
                                            const atedm_host_tensor *biases, size_t n_parts,
                                            atedm_weight **ret_weight, atedm_error *err)
{
    const atedm_cpu_device *device = (const atedm_cpu_device *)head->device;
    dnnl_data_type_t type = atedm_cpu_dnnl_type(head->act);
    dnnl_memory_desc_t plain; // the parts are the rows of [out, in]
    if (device->linear_as_conv)
        dnnl_memory_desc_init_by_tag(&plain, 4, (dnnl_dims_t){head->out, head->in, 1, 1}, type,
                                     dnnl_oihw);
    else
        dnnl_memory_desc_init_by_tag(&plain, 2, (dnnl_dims_t){head->in, head->out}, type, dnnl_ba);
    return dense_weight(head, parts, biases, n_parts, &plain, ret_weight, err);
}

atedm_status atedm_cpu_conv_weight_create(const atedm_weight *head, const atedm_host_tensor *weight,
                                          const atedm_host_tensor *bias, atedm_weight **ret_weight,
                                          atedm_error *err)
{
    dnnl_memory_desc_t plain;
    dnnl_memory_desc_init_by_tag(&plain, 4,
                                 (dnnl_dims_t){head->out, head->in, head->kernel, head->kernel},
                                 atedm_cpu_dnnl_type(head->act), dnnl_oihw);
    return dense_weight(head, weight, bias, 1, &plain, ret_weight, err);
}

atedm_status atedm_cpu_norm_weight_create(const atedm_weight *head, const atedm_host_tensor *scale,
                                          const atedm_host_tensor *shift, atedm_weight **ret_weight,
                                          atedm_error *err)
{
    atedm_cpu_weight *weight = weight_new(head);
    if (weight) {
        weight->data = make_vector(scale, 1, head->in);
        weight->bias = make_vector(shift, 1, head->in);
        weight->head.bytes = 2 * (size_t)head->in * sizeof(float);
    }
    if (!weight || !weight->data || !weight->bias) {
        atedm_cpu_weight_destroy(weight ? &weight->head : NULL);
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a norm's scale and shift");
    }
    *ret_weight = &weight->head;
    return ATEDM_OK;
}

atedm_status atedm_cpu_table_weight_create(const atedm_weight *head, const atedm_host_tensor *table,
                                           atedm_weight **ret_weight, atedm_error *err)
{
    atedm_cpu_weight *weight = weight_new(head);
    if (weight) {
        weight->head.bytes = atedm_cpu_bytes(head->in, head->out, atedm_dtype_size(head->act));
        weight->data = atedm_cpu_alloc(weight->head.bytes);
    }
    if (!weight || !weight->data) {
        atedm_cpu_weight_destroy(weight ? &weight->head : NULL);
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for an embedding table");
    }
    convert(table, weight->data, head->act);
    *ret_weight = &weight->head;
    return ATEDM_OK;
}
