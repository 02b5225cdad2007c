// Random weights in memory: see bench_weights.h.
#include "cli/bench_weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// Values are drawn once and repeated. That is random enough for timing, and gives billions of
// values in seconds. The number is prime, so that rows of a matrix do not repeat early.
#define PATTERN 65521

typedef struct random_weights {
    atedm_weights base; // first: it is an atedm_weights
    atedm_dtype dtype;
    float pattern[PATTERN]; // uniform in -1..1
    float scaled[PATTERN];  // `pattern`, scaled for one parameter
} random_weights;

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

// Fills scaled[] for a parameter.
static void scale_pattern(random_weights *r, const char *name, int ndim, const int64_t *shape)
{
    double fan_in = 1;
    for (int i = 1; i < ndim; i++)
        fan_in *= (double)shape[i];
    float factor = ndim > 1 ? (float)sqrt(3 / fan_in) : 0;
    float constant = ndim == 1 && ends_with(name, ".weight") ? 1 : 0;
    for (size_t i = 0; i < PATTERN; i++)
        r->scaled[i] = factor * r->pattern[i] + constant;
}

static atedm_status get(atedm_weights *weights, const char *name, int ndim, const int64_t *shape,
                        bool optional, atedm_host_tensor *ret_tensor, atedm_error *err)
{
    (void)optional; // every optional parameter exists too
    random_weights *r = (random_weights *)weights;
    atedm_host_tensor tensor = {.dtype = r->dtype, .ndim = ndim};
    for (int i = 0; i < ndim; i++)
        tensor.shape[i] = shape[i];
    size_t count = (size_t)atedm_host_tensor_count(&tensor), size = atedm_dtype_size(r->dtype);
    char *data = calloc(count ? count : 1, size);
    if (!data)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for \"%.100s\"", name);
    scale_pattern(r, name, ndim, shape);
    size_t first = count < PATTERN ? count : PATTERN;
    atedm_convert(r->scaled, ATEDM_F32, data, r->dtype, first);
    for (size_t done = first; done < count;) {
        size_t more = count - done < done ? count - done : done;
        memcpy(data + done * size, data, more * size);
        done += more;
    }
    tensor.data = data;
    *ret_tensor = tensor;
    return ATEDM_OK;
}

static void done(atedm_weights *weights, const atedm_host_tensor *tensor)
{
    (void)weights;
    free((void *)tensor->data);
}

atedm_status atedm_random_weights_create(atedm_dtype dtype, atedm_weights **ret_weights)
{
    random_weights *r = malloc(sizeof *r);
    if (!r)
        return ATEDM_ERR_NOMEM;
    r->base = (atedm_weights){.get = get, .done = done};
    r->dtype = dtype;
    uint64_t state = 0x9e3779b97f4a7c15u;
    for (size_t i = 0; i < PATTERN; i++) {
        // xorshift64* (Vigna 2016); the high half has the better bits.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        uint32_t bits = (uint32_t)((state * 0x2545f4914f6cdd1du) >> 32);
        r->pattern[i] = (float)bits * 0x1p-31f - 1;
    }
    *ret_weights = &r->base;
    return ATEDM_OK;
}

void atedm_random_weights_destroy(atedm_weights *weights)
{
    free(weights);
}
