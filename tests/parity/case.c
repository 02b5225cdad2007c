// Building blocks of cases: random numbers, arrays, weights' host tensors.
#include "tests/parity/parity.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t parity_random(parity_rng *rng)
{
    uint64_t z = rng->state += 0x9e3779b97f4a7c15u; // SplitMix64 (Steele, Lea, Flood 2014)
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

int64_t parity_range(parity_rng *rng, int64_t low, int64_t high)
{
    return low + (int64_t)(parity_random(rng) % (uint64_t)(high - low + 1));
}

bool parity_chance(parity_rng *rng, int percent)
{
    return parity_range(rng, 0, 99) < percent;
}

double parity_uniform(parity_rng *rng)
{
    return (double)(parity_random(rng) >> 11) * 0x1p-53;
}

float parity_normal(parity_rng *rng)
{
    double radius = sqrt(-2 * log(1 - parity_uniform(rng)));
    return (float)(radius * cos(6.283185307179586 * parity_uniform(rng)));
}

void *parity_alloc(parity_case *c, size_t count, size_t size)
{
    void *memory = c->n_blocks < PARITY_MAX_BLOCKS ? calloc(count ? count : 1, size) : NULL;
    if (!memory) {
        fprintf(stderr, "parity: no memory for a case\n");
        exit(1);
    }
    c->blocks[c->n_blocks++] = memory;
    return memory;
}

void parity_case_finish(parity_case *c)
{
    for (size_t i = 0; i < c->n_blocks; i++)
        free(c->blocks[i]);
    c->n_blocks = 0;
}

parity_array *parity_add(parity_case *c, const char *name, parity_type type, parity_role role,
                         size_t count)
{
    parity_array *a = &c->arrays[c->n_arrays++];
    *a = (parity_array){.name = name, .type = type, .role = role, .count = count};
    // Sometimes not at the alignment that fast code prefers. Benchmarks have that alignment.
    if (c->bench == PARITY_RANDOM && parity_chance(&c->rng, 30))
        a->offset = (size_t)parity_range(&c->rng, 1, 7);
    if (role != PARITY_OUT && type == PARITY_I32)
        a->ints = parity_alloc(c, count, sizeof *a->ints);
    else if (role != PARITY_OUT)
        a->values = parity_alloc(c, count, sizeof *a->values);
    return a;
}

float parity_round(atedm_dtype dtype, float value)
{
    if (dtype == ATEDM_BF16)
        return atedm_bf16_to_f32(atedm_f32_to_bf16(value));
    return dtype == ATEDM_F16 ? atedm_f16_to_f32(atedm_f32_to_f16(value)) : value;
}

void parity_fill(parity_case *c, parity_array *a, float mean, float deviation)
{
    for (size_t i = 0; i < a->count; i++) {
        float value = mean + deviation * parity_normal(&c->rng);
        a->values[i] = a->type == PARITY_ACT ? parity_round(c->act, value) : value;
    }
}

void parity_add_strange(parity_case *c, parity_array *a, size_t first, size_t count)
{
    static const float strange[] = {0,       -0.0f,    INFINITY, -INFINITY, NAN,
                                    FLT_MAX, 65519.0f, 65520.0f, 3e-7f,     -1e-40f};
    for (size_t i = 0; i < sizeof strange / sizeof *strange; i++)
        if (parity_chance(&c->rng, 30))
            a->values[first + (size_t)parity_range(&c->rng, 0, (int64_t)count - 1)] =
                a->type == PARITY_ACT ? parity_round(c->act, strange[i]) : strange[i];
}

atedm_host_tensor parity_tensor(parity_case *c, int ndim, const int64_t *shape, float mean,
                                float deviation)
{
    static const atedm_dtype dtypes[] = {ATEDM_F32, ATEDM_BF16, ATEDM_F16};
    atedm_host_tensor t = {.dtype = dtypes[parity_range(&c->rng, 0, 2)], .ndim = ndim};
    for (int i = 0; i < ndim; i++)
        t.shape[i] = shape[i];
    size_t count = (size_t)atedm_host_tensor_count(&t), size = atedm_dtype_size(t.dtype);
    char *data = parity_alloc(c, count * size + 1, 1);
    data += parity_chance(&c->rng, 50); // files promise no alignment
    t.data = data;
    for (size_t i = 0; i < count; i++) {
        float value = parity_round(c->act, mean + deviation * parity_normal(&c->rng));
        // Values that the host's dtype cannot hold are rounded again; the result is exact in both
        // dtypes.
        _Alignas(float) char element[sizeof(float)];
        atedm_convert(&value, ATEDM_F32, element, t.dtype, 1);
        memcpy(data + i * size, element, size);
    }
    return t;
}

int64_t *parity_partition(parity_case *c, int64_t rows)
{
    int64_t least = c->bench >= 0 && rows > 1 ? 2 : 1;
    int64_t parts = parity_range(&c->rng, least, rows < 4 ? rows : 4);
    int64_t *bounds = parity_alloc(c, (size_t)parts + 1, sizeof *bounds);
    for (int64_t i = 1; i < parts; i++) // at least one row for each part
        bounds[i] = parity_range(&c->rng, bounds[i - 1] + 1, rows - (parts - i));
    bounds[parts] = rows;
    c->n_parts = (size_t)parts;
    return bounds;
}
