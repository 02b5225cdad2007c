// The product of rows with a packed panel on AMX tiles, for bf16: a template that replaces
// vec_product.h, which computes it in vector registers. A tile holds 16 rows of 64 bytes: 16 x 16
// sums, 16 x 32 elements of the first factor, or 16 pairs of rows x 16 columns of the second, in
// the order in which panels are packed. A block of 32 x 32 sums keeps all eight tiles busy.
//
// GCC 12's tile intrinsics do not tell the compiler which memory they access. So no other memory
// access may stand between the two barriers of the product.

#define K_STEP 32
#define ROW_STEP 16

#define MEMORY_BARRIER() __asm__ volatile("" ::: "memory")

// Palette 1, eight tiles of 16 rows of 64 bytes.
typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

static const tile_config whole_tiles = {
    .palette = 1,
    .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
    .rows = {16, 16, 16, 16, 16, 16, 16, 16},
};

// oneDNN configures the tiles for itself, and leaves them released.
ALWAYS_INLINE void bf16_begin(void)
{
    _tile_loadconfig(&whole_tiles);
}

ALWAYS_INLINE void bf16_end(void)
{
    _tile_release();
}

// Computes the sums of 16 or 32 (`low`) rows and 16 or 32 (`right`) columns of a panel of
// `columns`.
ALWAYS_INLINE void tile_block(const uint16_t *a, int64_t lda, const uint16_t *b, int64_t columns,
                              int64_t steps, float *c, int64_t ldc, bool low, bool right, bool add)
{
    const int64_t a_bytes = lda * 2, b_bytes = columns * 4, c_bytes = ldc * 4;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    if (add) {
        _tile_loadd(0, c, c_bytes);
        if (right)
            _tile_loadd(1, c + 16, c_bytes);
        if (low)
            _tile_loadd(2, c + 16 * ldc, c_bytes);
        if (low && right)
            _tile_loadd(3, c + 16 * ldc + 16, c_bytes);
    }
    for (int64_t s = 0; s < steps; s += 16, a += K_STEP, b += 16 * columns * KP) {
        _tile_loadd(4, a, a_bytes);
        _tile_loadd(6, b, b_bytes);
        _tile_dpbf16ps(0, 4, 6);
        if (right) {
            _tile_loadd(7, b + 16 * KP, b_bytes);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (low) {
            _tile_loadd(5, a + 16 * lda, a_bytes);
            _tile_dpbf16ps(2, 5, 6);
        }
        if (low && right)
            _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, c_bytes);
    if (right)
        _tile_stored(1, c + 16, c_bytes);
    if (low)
        _tile_stored(2, c + 16 * ldc, c_bytes);
    if (low && right)
        _tile_stored(3, c + 16 * ldc + 16, c_bytes);
}

static __attribute__((noinline)) void bf16_panel_product(const uint16_t *a, int64_t lda,
                                                         const uint16_t *b, int64_t steps,
                                                         int64_t columns, int64_t rows, float *c,
                                                         int64_t ldc, bool add)
{
    MEMORY_BARRIER();
    for (int64_t r = 0; r < rows; r += 32)
        for (int64_t j = 0; j < columns; j += 32) {
            bool low = rows - r > 16, right = columns - j > 16;
            const uint16_t *rows_of_a = a + r * lda, *columns_of_b = b + j * KP;
            float *to = c + r * ldc + j;
            if (low && right) // most blocks: without a condition in them
                tile_block(rows_of_a, lda, columns_of_b, columns, steps, to, ldc, true, true, add);
            else
                tile_block(rows_of_a, lda, columns_of_b, columns, steps, to, ldc, low, right, add);
        }
    MEMORY_BARRIER();
}
