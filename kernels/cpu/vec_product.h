// The product of rows with a packed panel on vector registers, for one dtype: a template that vec.c
// includes once per dtype, with T, FN, KP and, for VL lanes,
//   FN(operand)       VL groups of KP elements
//   FN(group)         an operand from VL * KP elements
//   FN(broadcast)     an operand with the KP elements given in every lane
//   FN(multiply_add)  sum + the dot product of each lane's groups.

// c[MR][vectors * VL] = or += a[MR][steps * KP] b, b a packed panel.
ALWAYS_INLINE void FN(product)(const T *a, int64_t lda, const T *b, int64_t steps, int vectors,
                               float *c, int64_t ldc, bool add)
{
    vf sums[MR][NV];
#pragma GCC unroll 8
    for (int i = 0; i < MR; i++)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++)
            sums[i][j] = add ? vf_load(c + i * ldc + j * VL) : (vf){0};
    int64_t s = 0;
    do { // at least one step, so that GCC keeps the sums in registers around the loop
        FN(operand) column[NV];
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++)
            column[j] = FN(group)(b + j * VL * KP);
        b += vectors * VL * KP;
#pragma GCC unroll 8
        for (int i = 0; i < MR; i++) {
            FN(operand) row = FN(broadcast)(a + i * lda + s * KP);
#pragma GCC unroll 4
            for (int j = 0; j < vectors; j++)
                sums[i][j] = FN(multiply_add)(sums[i][j], row, column[j]);
        }
    } while (++s < steps);
#pragma GCC unroll 8
    for (int i = 0; i < MR; i++)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++)
            vf_store(c + i * ldc + j * VL, sums[i][j]);
}

// The same for `rows` rows, a multiple of MR, and a panel of `columns` columns, a multiple of VL.
static void FN(panel_product)(const T *a, int64_t lda, const T *b, int64_t steps, int64_t columns,
                              int64_t rows, float *c, int64_t ldc, bool add)
{
    for (int64_t r = 0; r < rows; r += MR) {
        const T *row = a + r * lda;
        float *to = c + r * ldc;
        switch (columns / VL) {
        case 1:
            FN(product)(row, lda, b, steps, 1, to, ldc, add);
            break;
        case 2:
            FN(product)(row, lda, b, steps, 2, to, ldc, add);
            break;
#if NV > 2
        case 3:
            FN(product)(row, lda, b, steps, 3, to, ldc, add);
            break;
        default:
            FN(product)(row, lda, b, steps, 4, to, ldc, add);
            break;
#endif
        }
    }
}
