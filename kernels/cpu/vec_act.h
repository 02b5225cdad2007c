// Loops over activations of one dtype: a template that vec.c includes once per dtype, with
//   T        the element type (float, or uint16_t for bf16)
//   FN(x)    x with the dtype's suffix
//   FN(load), FN(store)  a vector from and to VL elements.

// The first n < VL elements, zeros after them.
ALWAYS_INLINE vf FN(load_part)(const T *x, int64_t n)
{
    T lanes[VL] = {0};
    memcpy(lanes, x, (size_t)n * sizeof *x);
    return FN(load)(lanes);
}

ALWAYS_INLINE void FN(store_part)(T *x, vf v, int64_t n)
{
    T lanes[VL];
    FN(store)(lanes, v);
    memcpy(x, lanes, (size_t)n * sizeof *x);
}

static void FN(to_f32)(const void *x, float *y, int64_t n)
{
    const T *from = x;
    int64_t i = 0;
    for (; i + VL <= n; i += VL)
        vf_store(y + i, FN(load)(from + i));
    if (i < n)
        f32_store_part(y + i, FN(load_part)(from + i, n - i), n - i);
}

static void FN(from_f32)(const float *x, void *y, int64_t n)
{
    T *to = y;
    int64_t i = 0;
    for (; i + VL <= n; i += VL)
        FN(store)(to + i, vf_load(x + i));
    if (i < n)
        FN(store_part)(to + i, f32_load_part(x + i, n - i), n - i);
}

static void FN(add)(const void *a, const void *b, void *y, int64_t n)
{
    const T *left = a, *right = b;
    T *to = y;
    int64_t i = 0;
    for (; i + VL <= n; i += VL)
        FN(store)(to + i, FN(load)(left + i) + FN(load)(right + i));
    if (i < n) {
        vf v = FN(load_part)(left + i, n - i) + FN(load_part)(right + i, n - i);
        FN(store_part)(to + i, v, n - i);
    }
}

static void FN(accumulate)(const void *x, float factor, void *y, int64_t n)
{
    const T *from = x;
    T *to = y;
    int64_t i = 0;
    for (; i + VL <= n; i += VL)
        FN(store)(to + i, FN(load)(to + i) + factor * FN(load)(from + i));
    if (i < n) {
        vf v = FN(load_part)(to + i, n - i) + factor * FN(load_part)(from + i, n - i);
        FN(store_part)(to + i, v, n - i);
    }
}

ALWAYS_INLINE vf FN(activation)(atedm_activation activation, vf v)
{
    switch (activation) {
    case ATEDM_ACT_SILU:
        return vf_silu(v);
    case ATEDM_ACT_GELU:
        return vf_gelu(v);
    case ATEDM_ACT_QUICK_GELU:
        return vf_quick_gelu(v);
    case ATEDM_ACT_NONE:
        break;
    }
    return v;
}

ALWAYS_INLINE void FN(activate_loop)(atedm_activation activation, const T *x, T *y, int64_t n)
{
    int64_t i = 0;
    for (; i + VL <= n; i += VL)
        FN(store)(y + i, FN(activation)(activation, FN(load)(x + i)));
    if (i < n)
        FN(store_part)(y + i, FN(activation)(activation, FN(load_part)(x + i, n - i)), n - i);
}

static void FN(activate)(atedm_activation activation, const void *x, void *y, int64_t n)
{
    switch (activation) { // a separate loop for each, without a switch in it
    case ATEDM_ACT_SILU:
        FN(activate_loop)(ATEDM_ACT_SILU, x, y, n);
        break;
    case ATEDM_ACT_GELU:
        FN(activate_loop)(ATEDM_ACT_GELU, x, y, n);
        break;
    case ATEDM_ACT_QUICK_GELU:
        FN(activate_loop)(ATEDM_ACT_QUICK_GELU, x, y, n);
        break;
    case ATEDM_ACT_NONE:
        FN(activate_loop)(ATEDM_ACT_NONE, x, y, n);
        break;
    }
}

static void FN(geglu)(const void *x, void *y, int64_t f)
{
    const T *value = x, *gate = value + f;
    T *to = y;
    int64_t i = 0;
    for (; i + VL <= f; i += VL)
        FN(store)(to + i, FN(load)(value + i) * vf_gelu(FN(load)(gate + i)));
    if (i < f) {
        vf v = FN(load_part)(value + i, f - i) * vf_gelu(FN(load_part)(gate + i, f - i));
        FN(store_part)(to + i, v, f - i);
    }
}

// Sums over the row of x - center and of its square.
ALWAYS_INLINE void FN(row_sums)(const T *x, int64_t c, float center, float *sum, float *squares)
{
    vf sums[2] = {0}, products[2] = {0};
    int64_t i = 0;
    for (; i + 2 * VL <= c; i += 2 * VL) {
        vf a = FN(load)(x + i) - center, b = FN(load)(x + i + VL) - center;
        sums[0] += a;
        sums[1] += b;
        products[0] += a * a;
        products[1] += b * b;
    }
    *sum = vf_sum(sums[0] + sums[1]);
    *squares = vf_sum(products[0] + products[1]);
    for (; i < c; i++) {
        float v = FN(load_one)(x + i) - center;
        *sum += v;
        *squares += v * v;
    }
}

static void FN(layer_norm)(const void *x, void *y, const float *scale, const float *shift,
                           int64_t c, float epsilon)
{
    const T *from = x;
    T *to = y;
    float sum, squares;
    FN(row_sums)(from, c, 0, &sum, &squares);
    float mean = sum / (float)c;
    FN(row_sums)(from, c, mean, &sum, &squares);
    float rest = sum / (float)c; // the mean's rounding error, which matters if the mean is large
    float factor = 1 / sqrtf(squares / (float)c - rest * rest + epsilon);
    int64_t i = 0;
    for (; i + VL <= c; i += VL) {
        vf v = (FN(load)(from + i) - mean - rest) * factor;
        FN(store)(to + i, v * vf_load(scale + i) + vf_load(shift + i));
    }
    if (i < c) {
        vf v = (FN(load_part)(from + i, c - i) - mean - rest) * factor;
        v = v * f32_load_part(scale + i, c - i) + f32_load_part(shift + i, c - i);
        FN(store_part)(to + i, v, c - i);
    }
}

// Rows that column_sums adds in F32 before it continues in double.
#define FLOAT_ROWS 32

// Plain sums are sums of differences from the first row, so that large means lose no digits.
ALWAYS_INLINE void FN(column_block)(const T *x, int64_t rows, int64_t c, int64_t width,
                                    const float *center, double *sums)
{
    vf middle, sum = {0};
    if (center)
        middle = width == VL ? vf_load(center) : f32_load_part(center, width);
    else
        middle = width == VL ? FN(load)(x) : FN(load_part)(x, width);
    for (int64_t r = 0; r < rows; r++) {
        vf v = width == VL ? FN(load)(x + r * c) : FN(load_part)(x + r * c, width);
        v -= middle;
        sum += center ? v * v : v;
    }
    float lanes[VL], middles[VL];
    vf_store(lanes, sum);
    vf_store(middles, middle);
    for (int64_t j = 0; j < width; j++)
        sums[j] += (double)lanes[j] + (center ? 0 : (double)rows * (double)middles[j]);
}

static void FN(column_sums)(const void *x, int64_t rows, int64_t c, const float *center,
                            double *sums)
{
    const T *from = x;
    for (int64_t r = 0; r < rows; r += FLOAT_ROWS) {
        int64_t n = rows - r < FLOAT_ROWS ? rows - r : FLOAT_ROWS;
        const T *block = from + r * c;
        int64_t j = 0;
        for (; j + VL <= c; j += VL)
            FN(column_block)(block + j, n, c, VL, center ? center + j : NULL, sums + j);
        if (j < c)
            FN(column_block)(block + j, n, c, c - j, center ? center + j : NULL, sums + j);
    }
}

ALWAYS_INLINE void FN(normalize_rows)(const T *x, T *y, int64_t rows, int64_t c,
                                      const float *center, const float *factor, const float *shift,
                                      bool silu)
{
    for (int64_t r = 0; r < rows; r++) {
        const T *from = x + r * c;
        T *to = y + r * c;
        int64_t j = 0;
        for (; j + VL <= c; j += VL) {
            vf v = (FN(load)(from + j) - vf_load(center + j)) * vf_load(factor + j);
            v += vf_load(shift + j);
            FN(store)(to + j, silu ? vf_silu(v) : v);
        }
        if (j < c) {
            int64_t n = c - j;
            vf v = FN(load_part)(from + j, n) - f32_load_part(center + j, n);
            v = v * f32_load_part(factor + j, n) + f32_load_part(shift + j, n);
            FN(store_part)(to + j, silu ? vf_silu(v) : v, n);
        }
    }
}

static void FN(normalize)(const void *x, void *y, int64_t rows, int64_t c, const float *center,
                          const float *factor, const float *shift, bool silu)
{
    if (silu)
        FN(normalize_rows)(x, y, rows, c, center, factor, shift, true);
    else
        FN(normalize_rows)(x, y, rows, c, center, factor, shift, false);
}
