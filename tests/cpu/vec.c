// Holds every table of inner loops (kernels/cpu/vec.h) that this machine can run against double
// arithmetic, not only the one that the backend would choose here. AMX's table runs on emulated
// tiles (amx_emulation.h), so that its tiling is tested wherever bf16 runs.
//
// usage: vec [ITERATIONS [SEED]]
#include "kernels/cpu/vec.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const atedm_vec atedm_vec_emulated_amx;

#define UNIT 5.97e-8 // unit roundoff of f32
#define BF16_UNIT 3.91e-3
#define SMALLEST 1.18e-38 // normal float; below it exponentials are 0

typedef struct check {
    const char *table;
    const atedm_vec_act *act;
    atedm_dtype dtype;
    uint64_t random;
    int failures;
} check;

// ---- values

static uint64_t draw(check *c) // SplitMix64
{
    uint64_t z = c->random += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static int64_t range(check *c, int64_t low, int64_t high)
{
    return low + (int64_t)(draw(c) % (uint64_t)(high - low + 1));
}

// About normally distributed.
static double normal(check *c)
{
    double sum = 0;
    for (int i = 0; i < 6; i++)
        sum += (double)(draw(c) >> 11) / 9007199254740992.0 - 0.5;
    return sum * 1.41421356;
}

static double get(const check *c, const void *x, int64_t i)
{
    return c->dtype == ATEDM_BF16 ? (double)atedm_bf16_to_f32(((const uint16_t *)x)[i])
                                  : (double)((const float *)x)[i];
}

static void put(const check *c, void *x, int64_t i, double value)
{
    if (c->dtype == ATEDM_BF16)
        ((uint16_t *)x)[i] = atedm_f32_to_bf16((float)value);
    else
        ((float *)x)[i] = (float)value;
}

// Memory of exactly that size, so that the address sanitizer sees what goes past it.
static void *allocate(size_t bytes)
{
    void *memory = NULL;
    if (posix_memalign(&memory, 64, bytes ? bytes : 1)) {
        fprintf(stderr, "vec: no memory for %zu bytes\n", bytes);
        exit(1);
    }
    memset(memory, 0xff, bytes); // NaN, where it is not written
    return memory;
}

static void *random_act(check *c, int64_t n, double deviation)
{
    void *x = allocate((size_t)n * atedm_dtype_size(c->dtype));
    for (int64_t i = 0; i < n; i++)
        put(c, x, i, deviation * normal(c));
    return x;
}

static float *random_floats(check *c, int64_t n)
{
    float *x = allocate((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)normal(c);
    return x;
}

// ---- comparison

// A result in F32: within `bound`.
static void expect_float(check *c, const char *what, double got, double expected, double bound)
{
    if (!(fabs(got - expected) <= bound) && c->failures++ < 10)
        printf("%s %s: %s is %.9g, not %.9g (within %.2g)\n", c->table, atedm_dtype_name(c->dtype),
               what, got, expected, bound);
}

// A result in act: its rounding is allowed on top.
static void expect(check *c, const char *what, double got, double expected, double bound)
{
    double rounding = c->dtype == ATEDM_BF16 ? BF16_UNIT * (fabs(expected) + bound) : 0;
    expect_float(c, what, got, expected, bound + rounding + 2 * SMALLEST);
}

// ---- element-wise functions and norms

static double gelu(double x)
{
    return x * 0.5 * erfc(-x * 0.70710678118654752440);
}

static double activated(atedm_activation activation, double x)
{
    switch (activation) {
    case ATEDM_ACT_SILU:
        return x / (1 + exp(-x));
    case ATEDM_ACT_GELU:
        return gelu(x);
    case ATEDM_ACT_QUICK_GELU:
        return x / (1 + exp(-1.702 * x));
    case ATEDM_ACT_NONE:
        break;
    }
    return x;
}

// How much a relative error of x is multiplied by these functions, at most.
static double condition(double x)
{
    return 2 + 2 * fabs(x) + x * x;
}

static void check_activations(check *c)
{
    int64_t n = range(c, 1, 200);
    void *x = random_act(c, n, range(c, 0, 3) ? 3 : 30), *y = random_act(c, n, 1);
    for (int a = ATEDM_ACT_NONE; a <= ATEDM_ACT_QUICK_GELU; a++) {
        c->act->activate((atedm_activation)a, x, y, n);
        for (int64_t i = 0; i < n; i++) {
            double v = get(c, x, i), expected = activated((atedm_activation)a, v);
            expect(c, "activate", get(c, y, i), expected,
                   4 * UNIT * condition(v) * fabs(expected) + SMALLEST * fabs(v));
        }
    }
    if (n > 1) {
        int64_t f = n / 2;
        c->act->geglu(x, y, f);
        for (int64_t i = 0; i < f; i++) {
            double gate = get(c, x, f + i), expected = get(c, x, i) * gelu(gate);
            expect(c, "geglu", get(c, y, i), expected,
                   4 * UNIT * condition(gate) * fabs(expected) + 1e-36);
        }
    }
    c->act->add(x, x, y, n);
    for (int64_t i = 0; i < n; i++)
        expect(c, "add", get(c, y, i), 2 * get(c, x, i), UNIT * fabs(2 * get(c, x, i)));
    free(x);
    free(y);
}

static void check_conversions(check *c)
{
    int64_t n = range(c, 1, 100);
    float *floats = random_floats(c, n), *back = random_floats(c, n);
    void *y = random_act(c, n, 1);
    c->act->from_f32(floats, y, n);
    c->act->to_f32(y, back, n);
    for (int64_t i = 0; i < n; i++) {
        double rounded = c->dtype == ATEDM_BF16
                             ? (double)atedm_bf16_to_f32(atedm_f32_to_bf16(floats[i]))
                             : (double)floats[i];
        expect_float(c, "from_f32", get(c, y, i), rounded, 0);
        expect_float(c, "to_f32", (double)back[i], rounded, 0);
    }
    free(floats);
    free(back);
    free(y);
}

static void check_layer_norm(check *c)
{
    int64_t n = range(c, 1, 300);
    void *x = random_act(c, n, 2), *y = random_act(c, n, 1);
    float *scale = random_floats(c, n), *shift = random_floats(c, n);
    double mean = 0, squares = 0;
    for (int64_t i = 0; i < n; i++)
        mean += get(c, x, i) / (double)n;
    for (int64_t i = 0; i < n; i++)
        squares += (get(c, x, i) - mean) * (get(c, x, i) - mean);
    c->act->layer_norm(x, y, scale, shift, n, 1e-5f);
    for (int64_t i = 0; i < n; i++) {
        double normed = (get(c, x, i) - mean) / sqrt(squares / (double)n + 1e-5);
        double size = (fabs(normed) + 1) * fabs((double)scale[i]) + fabs((double)shift[i]);
        expect(c, "layer_norm", get(c, y, i), normed * (double)scale[i] + (double)shift[i],
               200 * UNIT * size);
    }
    free(x);
    free(y);
    free(scale);
    free(shift);
}

static void check_columns(check *c)
{
    int64_t n = range(c, 1, 100), rows = range(c, 1, 100);
    void *x = random_act(c, rows * n, 2), *y = random_act(c, rows * n, 1);
    float *center = random_floats(c, n), *factor = random_floats(c, n);
    double *sums = calloc((size_t)n, sizeof *sums), *squares = calloc((size_t)n, sizeof *squares);
    if (!sums || !squares)
        exit(1);
    bool silu = range(c, 0, 1);
    c->act->column_sums(x, rows, n, NULL, sums);
    c->act->column_sums(x, rows, n, center, squares);
    c->act->normalize(x, y, rows, n, center, factor, center, silu);
    for (int64_t j = 0; j < n; j++) {
        double sum = 0, magnitude = 0, square = 0;
        for (int64_t r = 0; r < rows; r++) {
            double v = get(c, x, r * n + j), m = (double)center[j];
            double expected = (v - m) * (double)factor[j] + m;
            double size = (fabs(v) + fabs(m)) * fabs((double)factor[j]) + fabs(m);
            sum += v;
            magnitude += fabs(v);
            square += (v - m) * (v - m);
            expect(c, "normalize", get(c, y, r * n + j),
                   silu ? activated(ATEDM_ACT_SILU, expected) : expected, 8 * UNIT * size);
        }
        expect_float(c, "column_sums", sums[j], sum, 40 * UNIT * magnitude);
        expect_float(c, "column_sums around", squares[j], square, 40 * UNIT * (square + 1));
    }
    free(x);
    free(y);
    free(center);
    free(factor);
    free(sums);
    free(squares);
}

// ---- attention

typedef struct attention_case {
    int64_t dim, n, stride, rows, first, o_stride;
    bool causal;
    void *q, *k, *v, *o;
    float *lse;
    double *logits; // [n]
    void *keys, *values, *work;
    atedm_vec_head head;
} attention_case;

static void attention_init(check *c, attention_case *t)
{
    static const int64_t dims[] = {64, 64, 64, 1, 2, 8, 16, 17, 32, 33, 40, 80, 100, 160, 512};
    t->dim = dims[range(c, 0, (int64_t)(sizeof dims / sizeof *dims) - 1)];
    t->n = range(c, 0, 2) ? range(c, 1, 100) : range(c, 100, 700);
    t->stride = t->dim + range(c, 0, 5);
    t->o_stride = t->dim + range(c, 0, 3);
    t->causal = range(c, 0, 3) == 0;
    t->first = t->causal ? range(c, 0, t->n - 1) : range(c, 0, 50);
    t->rows = range(c, 1, ATEDM_VEC_QUERY_ROWS);
    if (t->causal && t->first + t->rows > t->n)
        t->rows = t->n - t->first;
    t->q = random_act(c, t->rows * t->stride, 1.5);
    t->k = random_act(c, t->n * t->stride, 1.5);
    t->v = random_act(c, t->n * t->stride, 1);
    t->o = allocate((size_t)(t->rows * t->o_stride) * atedm_dtype_size(c->dtype));
    t->lse = random_floats(c, t->rows);
    t->logits = allocate((size_t)t->n * sizeof *t->logits);
    t->keys = allocate(c->act->keys_bytes(t->n, t->dim));
    t->values = allocate(c->act->values_bytes(t->n, t->dim));
    t->work = allocate(c->act->work_bytes(t->dim));
    t->head = (atedm_vec_head){.keys = t->keys,
                               .values = t->values,
                               .n = t->n,
                               .dim = t->dim,
                               .scale = 1 / sqrtf((float)t->dim),
                               .causal = t->causal};
    c->act->pack_keys(t->k, t->stride, t->n, t->dim, t->keys);
    c->act->pack_values(t->v, t->stride, t->n, t->dim, t->values);
}

static void attention_finish(attention_case *t)
{
    free(t->q);
    free(t->k);
    free(t->v);
    free(t->o);
    free(t->lse);
    free(t->logits);
    free(t->keys);
    free(t->values);
    free(t->work);
}

// Scaled logits of row r against all keys; returns the bound of their errors.
static double row_logits(const check *c, const attention_case *t, int64_t r)
{
    double largest = 0;
    for (int64_t j = 0; j < t->n; j++) {
        double dot = 0, magnitude = 0;
        for (int64_t d = 0; d < t->dim; d++) {
            double product = get(c, t->q, r * t->stride + d) * get(c, t->k, j * t->stride + d);
            dot += product;
            magnitude += fabs(product);
        }
        t->logits[j] = dot / sqrt((double)t->dim);
        magnitude = magnitude / sqrt((double)t->dim) + fabs(t->logits[j]);
        largest = magnitude > largest ? magnitude : largest;
    }
    return 8 * UNIT * (largest + 4);
}

static void check_map(check *c, const attention_case *t)
{
    int64_t stride = t->n + range(c, 0, 3);
    bool add = range(c, 0, 1);
    float *map = random_floats(c, t->rows * stride);
    float *before = allocate((size_t)(t->rows * stride) * sizeof *before);
    memcpy(before, map, (size_t)(t->rows * stride) * sizeof *before);
    c->act->map(&t->head, t->q, t->stride, t->rows, t->lse, map, stride, add, t->work);
    for (int64_t r = 0; r < t->rows; r++) {
        double bound = row_logits(c, t, r);
        for (int64_t j = 0; j < stride; j++) {
            double old = (double)before[r * stride + j];
            double a = j < t->n ? exp(t->logits[j] - (double)t->lse[r]) : 0;
            if (j < t->n)
                expect_float(c, "map", (double)map[r * stride + j], add ? old + a : a,
                             bound * a + 2 * UNIT * (add ? fabs(old) + a : a) + 2 * SMALLEST);
            else
                expect_float(c, "map past its end", (double)map[r * stride + j], old, 0);
        }
    }
    free(map);
    free(before);
}

// Elements of a map for G-WPR, as sums show them, and the sums.
static void check_packed_map(check *c, const attention_case *t)
{
    const int64_t step = ATEDM_VEC_MAP_COLUMNS;
    int64_t width = (t->n + step - 1) / step * step, stride = width + range(c, 0, 2) * step;
    char *map = allocate((size_t)(t->rows * stride) * c->act->map_size);
    float *row = allocate((size_t)width * sizeof *row),
          *sums = allocate((size_t)width * sizeof *sums);
    float *weights = random_floats(c, t->rows), *other = random_floats(c, width);
    float *row_sums = random_floats(c, t->rows);
    double *expected = allocate((size_t)(2 * width) * sizeof *expected);
    double *magnitude = expected + width;
    memset(expected, 0, (size_t)(2 * width) * sizeof *expected);
    double rounding = c->dtype == ATEDM_BF16 ? 0x1p-11 : 0; // f16's
    double least = c->dtype == ATEDM_BF16 ? 0x1p-40 : 2 * SMALLEST;
    c->act->packed_map(&t->head, t->q, t->stride, t->rows, t->lse, map, stride, row_sums, t->work);
    for (int64_t r = 0; r < t->rows; r++) {
        const char *at = map + (size_t)(r * stride) * c->act->map_size;
        double bound = row_logits(c, t, r), sum = 0, dot = 0, size = 0;
        c->act->weighted_rows(at, stride, &(float){1}, 1, t->n, row);
        for (int64_t j = 0; j < width; j++) {
            double a = j < t->n ? exp(t->logits[j] - (double)t->lse[r]) : 0;
            expect_float(c, "packed_map", (double)row[j], a,
                         (bound + 2 * UNIT + rounding) * a + (j < t->n ? least : 0));
            double term = (double)row[j] * (double)weights[r];
            expected[j] += term;
            magnitude[j] += fabs(term);
            sum += (double)row[j];
            dot += (double)row[j] * (double)other[j];
            size += fabs((double)row[j] * (double)other[j]);
        }
        expect_float(c, "sum of a map's row", (double)row_sums[r], sum, 80 * UNIT * sum);
        expect_float(c, "dot", (double)c->act->dot(at, other, t->n), dot,
                     80 * UNIT * size + 2 * SMALLEST);
    }
    c->act->weighted_rows(map, stride, weights, t->rows, t->n, sums);
    for (int64_t j = 0; j < width; j++)
        expect_float(c, "weighted_rows", (double)sums[j], expected[j],
                     80 * UNIT * magnitude[j] + 2 * SMALLEST);
    free(map);
    free(row);
    free(sums);
    free(weights);
    free(other);
    free(row_sums);
    free(expected);
}

static void check_row(check *c, const attention_case *t, int64_t r)
{
    double bound = row_logits(c, t, r), largest = -INFINITY, sum = 0;
    int64_t seen = t->causal ? t->first + r + 1 : t->n;
    for (int64_t j = 0; j < seen; j++)
        largest = t->logits[j] > largest ? t->logits[j] : largest;
    for (int64_t j = 0; j < seen; j++)
        sum += exp(t->logits[j] - largest);
    double lse = largest + log(sum);
    expect_float(c, "lse", (double)t->lse[r], lse, bound + 2 * UNIT * fabs(lse));
    // The exponentials of bf16 are rounded to bf16 before they meet the values.
    double rounding = c->dtype == ATEDM_BF16 ? BF16_UNIT : 0;
    for (int64_t d = 0; d < t->dim; d++) {
        double o = 0, magnitude = 0;
        for (int64_t j = 0; j < seen; j++) {
            double term = exp(t->logits[j] - lse) * get(c, t->v, j * t->stride + d);
            o += term;
            magnitude += fabs(term);
        }
        expect(c, "attention", get(c, t->o, r * t->o_stride + d), o,
               (2 * bound + rounding) * magnitude);
    }
}

static void check_attention(check *c)
{
    attention_case t;
    attention_init(c, &t);
    c->act->attention(&t.head, t.q, t.stride, t.first, t.rows, t.o, t.o_stride, t.lse, t.work);
    for (int64_t r = 0; r < t.rows; r++)
        check_row(c, &t, r);
    check_map(c, &t);
    if (!t.causal) // whose lse is not of all keys: elements above 1
        check_packed_map(c, &t);
    attention_finish(&t);
}

static int check_table(const atedm_vec *table, atedm_dtype dtype, int iterations, uint64_t seed)
{
    check c = {.table = table->name,
               .act = dtype == ATEDM_BF16 ? table->bf16 : table->f32,
               .dtype = dtype,
               .random = seed};
    if (!c.act)
        return 0;
    for (int i = 0; i < iterations; i++) {
        check_activations(&c);
        check_conversions(&c);
        check_layer_norm(&c);
        check_columns(&c);
        check_attention(&c);
    }
    printf("%s %s: %d failures in %d iterations from seed %llu\n", c.table, atedm_dtype_name(dtype),
           c.failures, iterations, (unsigned long long)seed);
    return c.failures;
}

int main(int argc, char **argv)
{
    int iterations = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 60, failures = 0;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    const atedm_vec *tables[5] = {&atedm_vec_portable};
    size_t n = 1;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        tables[n++] = &atedm_vec_avx2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
        tables[n++] = &atedm_vec_avx512;
        if (__builtin_cpu_supports("avx512bf16")) {
            tables[n++] = &atedm_vec_avx512_bf16;
            tables[n++] = &atedm_vec_emulated_amx;
        }
    }
#endif
    for (size_t i = 0; i < n; i++) {
        failures += check_table(tables[i], ATEDM_F32, iterations, seed);
        failures += check_table(tables[i], ATEDM_BF16, iterations, seed);
    }
    printf("machine's own table: %s\n", atedm_vec_choose()->name);
    return failures ? 1 : 0;
}
