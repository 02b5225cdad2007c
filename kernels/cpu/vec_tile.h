// Attention in tiles, for one dtype: a template that vec.c includes once per dtype, with what
// vec_act.h takes and
//   KP                  elements of the inner dimension that stand side by side in a panel, as one
//                       multiply-add takes them: 1 of f32, 2 of bf16
//   K_STEP, ROW_STEP    FN(panel_product) takes multiples of K_STEP of the inner dimension and of
//                       ROW_STEP rows
//   FN(panel_product)   c [rows, columns] = or += a [rows, steps * KP] b, b a packed panel
//   FN(begin), FN(end)  called before the first and after the last of them: AMX's tiles
//   FN(map_element), MAP_SCALE, FN(map_load), FN(map_store)  the elements of maps for G-WPR: their
//                       type, what values are multiplied by in it, and vectors of them
//
// The second factor of a product is packed in panels of up to PANEL columns: [k / KP][columns][KP],
// the inner dimension k filled up with zeros to a multiple of K_STEP, the columns to one of VL.
// Keys are the columns of panels with the head dimension as k; a head's dimensions are the columns
// with the keys as k for values.
//
// The softmax is the online one (Milakov & Gimelshein 2018; Dao et al. 2022, FlashAttention).

// The number of columns of the next panel when `left` columns remain.
static int64_t FN(panel_columns)(int64_t left)
{
    return left < PANEL ? round_up(left, VL) : PANEL;
}

static size_t FN(keys_bytes)(int64_t n, int64_t dim)
{
    return (size_t)round_up(n, VL) * (size_t)round_up(dim, K_STEP) * sizeof(T);
}

static size_t FN(values_bytes)(int64_t n, int64_t dim)
{
    return (size_t)round_up(n, K_STEP) * (size_t)round_up(dim, VL) * sizeof(T);
}

static void FN(pack_keys)(const void *k, int64_t stride, int64_t n, int64_t dim, void *packed)
{
    T *to = packed;
    for (int64_t j0 = 0; j0 < n; j0 += PANEL) {
        int64_t columns = FN(panel_columns)(n - j0), width = n - j0 < columns ? n - j0 : columns;
        const T *rows = (const T *)k + j0 * stride;
        for (int64_t d = 0; d < round_up(dim, K_STEP); d += KP, to += columns * KP) {
            int64_t group = dim - d < KP ? dim - d : KP;
            if (group < KP || width < columns)
                memset(to, 0, (size_t)(columns * KP) * sizeof(T));
            if (group == KP) // a constant size, which compiles to one move
                for (int64_t j = 0; j < width; j++)
                    memcpy(to + j * KP, rows + j * stride + d, KP * sizeof(T));
            else if (group > 0)
                for (int64_t j = 0; j < width; j++)
                    to[j * KP] = rows[j * stride + d];
        }
    }
}

static void FN(pack_values)(const void *v, int64_t stride, int64_t n, int64_t dim, void *packed)
{
    T *to = packed;
    for (int64_t d0 = 0; d0 < dim; d0 += PANEL) {
        int64_t columns = FN(panel_columns)(dim - d0);
        int64_t width = dim - d0 < columns ? dim - d0 : columns;
        for (int64_t j = 0; j < round_up(n, K_STEP); j += KP, to += columns * KP) {
            int64_t group = n - j < KP ? n - j : KP;
            if (group < KP || width < columns)
                memset(to, 0, (size_t)(columns * KP) * sizeof(T));
            for (int64_t g = 0; g < group; g++) {
                const T *row = (const T *)v + (j + g) * stride + d0;
                for (int64_t d = 0; d < width; d++)
                    to[d * KP + g] = row[d];
            }
        }
    }
}

// Working memory of one task.
typedef struct FN(work) {
    T *q;        // [ATEDM_VEC_QUERY_ROWS, dim up to a multiple of K_STEP]
    float *s;    // [ATEDM_VEC_QUERY_ROWS, KEY_TILE] logits of a tile
    T *p;        // the same: their exponentials
    float *o;    // [ATEDM_VEC_QUERY_ROWS, dim up to a multiple of VL]
    float *most; // [ATEDM_VEC_QUERY_ROWS] largest logit so far, for powers of 2
    float *sum;  // [ATEDM_VEC_QUERY_ROWS] of the exponentials so far
} FN(work);

// The bytes of each of these, in order. All are multiples of 64, to which memory is aligned.
static size_t FN(q_bytes)(int64_t dim)
{
    return ATEDM_VEC_QUERY_ROWS * (size_t)round_up(dim, 64) * sizeof(T);
}

static size_t FN(o_bytes)(int64_t dim)
{
    return ATEDM_VEC_QUERY_ROWS * (size_t)round_up(dim, 64) * sizeof(float);
}

#define S_BYTES ((size_t)ATEDM_VEC_QUERY_ROWS * KEY_TILE * sizeof(float))
#define P_BYTES ((size_t)ATEDM_VEC_QUERY_ROWS * KEY_TILE * sizeof(T))
#define ROW_BYTES ((size_t)ATEDM_VEC_QUERY_ROWS * sizeof(float))

static FN(work) FN(divide_work)(void *memory, int64_t dim)
{
    char *s = (char *)memory + FN(q_bytes)(dim), *p = s + S_BYTES, *o = p + P_BYTES;
    char *most = o + FN(o_bytes)(dim), *sum = most + ROW_BYTES;
    return (FN(work)){
        .q = memory,
        .s = (float *)(void *)s,
        .p = (T *)(void *)p,
        .o = (float *)(void *)o,
        .most = (float *)(void *)most,
        .sum = (float *)(void *)sum,
    };
}

static size_t FN(work_bytes)(int64_t dim)
{
    return FN(q_bytes)(dim) + S_BYTES + P_BYTES + FN(o_bytes)(dim) + 2 * ROW_BYTES;
}
#undef S_BYTES
#undef P_BYTES
#undef ROW_BYTES

// Copies rows of q densely, padded with zeros: [rows up to a multiple of ROW_STEP, dim up to one of
// K_STEP].
static void FN(copy_queries)(const T *q, int64_t stride, int64_t rows, int64_t dim, T *to)
{
    int64_t width = round_up(dim, K_STEP);
    memset(to, 0, (size_t)(round_up(rows, ROW_STEP) * width) * sizeof(T));
    for (int64_t r = 0; r < rows; r++)
        memcpy(to + r * width, q + r * stride, (size_t)dim * sizeof(T));
}

// Turns one row's tile of products s[0 .. n) into exponentials p[0 .. n up to a multiple of VL and
// K_STEP), in powers of 2: `scale` has the factor log2(e). Elements from `valid` on become zeros.
// Returns the factor by which earlier sums of the row must be multiplied.
static float FN(soften)(float *s, T *p, int64_t n, int64_t valid, float scale, float *most,
                        float *sum)
{
    int64_t end = round_up(n, K_STEP > VL ? K_STEP : VL);
    for (int64_t j = valid > 0 ? valid : 0; j < end; j++)
        s[j] = -INFINITY;
    vf largest = vf_load(s);
    for (int64_t j = VL; j < end; j += VL)
        largest = vf_max(largest, vf_load(s + j));
    float now = vf_largest(largest) * scale;
    now = now > *most ? now : *most;
    vf total = {0};
    for (int64_t j = 0; j < end; j += VL) {
        vf e = vf_exp2(vf_load(s + j) * scale - now);
        total += e;
        FN(store)(p + j, e);
    }
    float factor = now == *most ? 1.0f : exp2f(*most - now);
    *sum = *sum * factor + vf_sum(total);
    *most = now;
    return factor;
}

// Computes the products of all rows with keys k0 .. k0 + n - 1.
static void FN(logits)(const atedm_vec_head *head, const FN(work) * w, int64_t rows, int64_t k0,
                       int64_t n)
{
    int64_t width = round_up(head->dim, K_STEP);
    for (int64_t j = 0; j < n; j += PANEL) {
        const T *panel = (const T *)head->keys + (k0 + j) * width;
        int64_t columns = FN(panel_columns)(head->n - k0 - j);
        FN(panel_product)
        (w->q, width, panel, width / KP, columns, rows, w->s + j, KEY_TILE, false);
    }
}

// s [n] += bias / scale, so that the scaled logits get the bias.
static void FN(add_bias)(float *s, const float *bias, float scale, int64_t n)
{
    int64_t j = 0;
    for (; j + VL <= n; j += VL)
        vf_store(s + j, vf_load(s + j) + vf_load(bias + j) / scale);
    if (j < n)
        f32_store_part(s + j, f32_load_part(s + j, n - j) + f32_load_part(bias + j, n - j) / scale,
                       n - j);
}

// o += p v for keys k0 .. k0 + n - 1.
static void FN(add_values)(const atedm_vec_head *head, const FN(work) * w, int64_t rows, int64_t k0,
                           int64_t n)
{
    int64_t o_stride = round_up(head->dim, VL), keys = round_up(head->n, K_STEP);
    const T *panel = head->values;
    for (int64_t d = 0; d < o_stride; d += PANEL) {
        int64_t columns = FN(panel_columns)(o_stride - d);
        FN(panel_product)
        (w->p, KEY_TILE, panel + k0 * columns, round_up(n, K_STEP) / KP, columns, rows, w->o + d,
         o_stride, true);
        panel += keys * columns;
    }
}

static void FN(attention)(const atedm_vec_head *head, const void *q, int64_t q_stride,
                          int64_t first, int64_t rows, void *o, int64_t o_stride, float *lse,
                          void *work)
{
    FN(work) w = FN(divide_work)(work, head->dim);
    int64_t all_rows = round_up(rows, ROW_STEP), width = round_up(head->dim, VL);
    FN(begin)();
    FN(copy_queries)(q, q_stride, rows, head->dim, w.q);
    memset(w.o, 0, (size_t)(all_rows * width) * sizeof *w.o);
    for (int64_t r = 0; r < all_rows; r++) {
        w.most[r] = -INFINITY;
        w.sum[r] = 0;
    }
    int64_t n = head->causal && first + rows < head->n ? first + rows : head->n;
    float scale = head->scale * LOG2_E;
    for (int64_t k0 = 0; k0 < n; k0 += KEY_TILE) {
        int64_t tile = n - k0 < KEY_TILE ? n - k0 : KEY_TILE;
        FN(logits)(head, &w, all_rows, k0, tile);
        for (int64_t r = 0; r < all_rows; r++) {
            int64_t seen = head->causal ? first + r + 1 - k0 : tile;
            if (head->bias)
                FN(add_bias)(w.s + r * KEY_TILE, head->bias + k0, head->scale, tile);
            float factor = FN(soften)(w.s + r * KEY_TILE, w.p + r * KEY_TILE, tile,
                                      seen < tile ? seen : tile, scale, &w.most[r], &w.sum[r]);
            if (factor != 1)
                for (int64_t d = 0; d < width; d += VL)
                    vf_store(w.o + r * width + d, vf_load(w.o + r * width + d) * factor);
        }
        FN(add_values)(head, &w, all_rows, k0, tile);
    }
    FN(end)();
    for (int64_t r = 0; r < rows; r++) {
        T *to = (T *)o + r * o_stride;
        float factor = 1 / w.sum[r];
        for (int64_t d = 0; d < width; d += VL) {
            vf v = vf_load(w.o + r * width + d) * factor;
            if (d + VL <= head->dim)
                FN(store)(to + d, v);
            else
                FN(store_part)(to + d, v, head->dim - d);
        }
        if (lse)
            lse[r] = (float)((double)w.most[r] * LN_2 + log((double)w.sum[r]));
    }
}

// Computes one row of a map from its products s[0 .. n).
static void FN(map_row)(const float *s, int64_t n, float scale, const float *least, bool add,
                        float *to)
{
    for (int64_t j = 0; j < n; j += VL) {
        vf e = vf_load(s + j) * scale;
        if (least)
            e = vf_exp2(e - *least);
        int64_t width = n - j < VL ? n - j : VL;
        if (add)
            e += width == VL ? vf_load(to + j) : f32_load_part(to + j, width);
        if (width == VL)
            vf_store(to + j, e);
        else
            f32_store_part(to + j, e, width);
    }
}

// Prepares queries and, if given, the rows' log-sum-exp for powers of 2.
static FN(work) FN(prepare_map)(const void *q, int64_t q_stride, int64_t rows, int64_t dim,
                                const float *lse, void *work)
{
    FN(work) w = FN(divide_work)(work, dim);
    FN(copy_queries)(q, q_stride, rows, dim, w.q);
    for (int64_t r = 0; lse && r < rows; r++)
        w.most[r] = (float)((double)lse[r] / LN_2);
    return w;
}

static void FN(map)(const atedm_vec_head *head, const void *q, int64_t q_stride, int64_t rows,
                    const float *lse, float *map, int64_t map_stride, bool add, void *work)
{
    FN(work) w = FN(prepare_map)(q, q_stride, rows, head->dim, lse, work);
    float scale = lse ? head->scale * LOG2_E : head->scale;
    FN(begin)();
    for (int64_t k0 = 0; k0 < head->n; k0 += KEY_TILE) {
        int64_t tile = head->n - k0 < KEY_TILE ? head->n - k0 : KEY_TILE;
        FN(logits)(head, &w, round_up(rows, ROW_STEP), k0, tile);
        for (int64_t r = 0; r < rows; r++)
            FN(map_row)
        (w.s + r * KEY_TILE, tile, scale, lse ? &w.most[r] : NULL, add, map + r * map_stride + k0);
    }
    FN(end)();
}

// ---- maps for G-WPR: elements are multiplied by MAP_SCALE

// Writes zeros from n up to a multiple of ATEDM_VEC_MAP_COLUMNS. Returns the sum of the elements as
// stored.
static float FN(packed_map_row)(float *s, int64_t n, float scale, float least, FN(map_element) * to)
{
    int64_t end = round_up(n, ATEDM_VEC_MAP_COLUMNS);
    for (int64_t j = n; j < end; j++)
        s[j] = -INFINITY;
    vf sum = {0};
    for (int64_t j = 0; j < end; j += VL) {
        FN(map_store)(to + j, vf_exp2(vf_load(s + j) * scale - least) * MAP_SCALE);
        sum += FN(map_load)(to + j);
    }
    return vf_sum(sum) / MAP_SCALE;
}

static void FN(packed_map)(const atedm_vec_head *head, const void *q, int64_t q_stride,
                           int64_t rows, const float *lse, void *map, int64_t map_stride,
                           float *sums, void *work)
{
    FN(work) w = FN(prepare_map)(q, q_stride, rows, head->dim, lse, work);
    float scale = head->scale * LOG2_E;
    memset(sums, 0, (size_t)rows * sizeof *sums);
    FN(begin)();
    for (int64_t k0 = 0; k0 < head->n; k0 += KEY_TILE) {
        int64_t tile = head->n - k0 < KEY_TILE ? head->n - k0 : KEY_TILE;
        FN(logits)(head, &w, round_up(rows, ROW_STEP), k0, tile);
        for (int64_t r = 0; r < rows; r++)
            sums[r] += FN(packed_map_row)(w.s + r * KEY_TILE, tile, scale, w.most[r],
                                          (FN(map_element) *)map + r * map_stride + k0);
    }
    FN(end)();
}

// The map is larger than caches, so it is read row by row, four rows at a time.
static void FN(weighted_rows)(const void *map, int64_t stride, const float *weights, int64_t rows,
                              int64_t n, float *sums)
{
    int64_t end = round_up(n, ATEDM_VEC_MAP_COLUMNS);
    memset(sums, 0, (size_t)end * sizeof *sums);
    for (int64_t r = 0; r < rows; r += 4) {
        float w[4] = {0};
        for (int64_t i = 0; i < 4 && r + i < rows; i++)
            w[i] = weights[r + i] / MAP_SCALE;
        // Rows after the end have weight 0, so any row may replace them.
        const FN(map_element) *first = (const FN(map_element) *)map + r * stride;
        const FN(map_element) *second = first + (r + 1 < rows ? stride : 0);
        const FN(map_element) *third = first + (r + 2 < rows ? 2 * stride : 0);
        const FN(map_element) *fourth = first + (r + 3 < rows ? 3 * stride : 0);
        for (int64_t j = 0; j < end; j += VL) {
            vf sum = vf_load(sums + j) + FN(map_load)(first + j) * w[0];
            sum += FN(map_load)(second + j) * w[1];
            sum += FN(map_load)(third + j) * w[2];
            sum += FN(map_load)(fourth + j) * w[3];
            vf_store(sums + j, sum);
        }
    }
}

static float FN(dot)(const void *map_row, const float *b, int64_t n)
{
    const FN(map_element) *row = map_row;
    vf sum = {0};
    for (int64_t j = 0; j < round_up(n, ATEDM_VEC_MAP_COLUMNS); j += VL)
        sum += FN(map_load)(row + j) * vf_load(b + j);
    return vf_sum(sum) / MAP_SCALE;
}
