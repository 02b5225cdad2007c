// AMX's tile instructions in C, as far as kernels/cpu/vec_amx.h uses them: so that its tiling is
// tested on machines without them. Put before vec.c by -include. Semantics from Intel's Software
// Developer's Manual, volume 2 (TDPBF16PS: denormals count as zeros; that is left out here).
#ifndef ATEDM_TESTS_CPU_AMX_EMULATION_H
#define ATEDM_TESTS_CPU_AMX_EMULATION_H

#include "core/base/tensor.h"

#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct emulated_tiles {
    int configured;
    unsigned char rows[8];
    unsigned short row_bytes[8];
    unsigned char data[8][16][64];
} emulated_tiles;

static _Thread_local emulated_tiles emulated;

// What the processor answers with a fault.
static void emulated_require(int good, const char *what)
{
    if (!good) {
        fprintf(stderr, "AMX emulation: %s\n", what);
        abort();
    }
}

static void emulated_loadconfig(const void *config)
{
    const unsigned char *bytes = config;
    emulated_require(bytes[0] == 1 && bytes[1] == 0, "palette or start row");
    for (int i = 2; i < 16; i++)
        emulated_require(bytes[i] == 0, "reserved bytes");
    memset(&emulated, 0, sizeof emulated);
    for (int t = 0; t < 8; t++) {
        memcpy(&emulated.row_bytes[t], bytes + 16 + 2 * t, 2);
        emulated.rows[t] = bytes[48 + t];
        emulated_require(emulated.row_bytes[t] <= 64 && emulated.rows[t] <= 16, "tile size");
    }
    emulated.configured = 1;
}

static void emulated_release(void)
{
    emulated.configured = 0;
}

static void emulated_zero(int t)
{
    emulated_require(emulated.configured, "tile used without configuration");
    memset(emulated.data[t], 0, sizeof emulated.data[t]);
}

static void emulated_load(int t, const void *from, long stride)
{
    emulated_zero(t);
    for (int r = 0; r < emulated.rows[t]; r++)
        memcpy(emulated.data[t][r], (const char *)from + r * stride, emulated.row_bytes[t]);
}

static void emulated_store(int t, void *to, long stride)
{
    emulated_require(emulated.configured, "tile used without configuration");
    for (int r = 0; r < emulated.rows[t]; r++)
        memcpy((char *)to + r * stride, emulated.data[t][r], emulated.row_bytes[t]);
}

static float emulated_element(int t, int row, int pair, int half)
{
    unsigned short bits;
    memcpy(&bits, &emulated.data[t][row][4 * pair + 2 * half], sizeof bits);
    return atedm_bf16_to_f32(bits);
}

static void emulated_dpbf16ps(int sums, int a, int b)
{
    emulated_require(emulated.configured && emulated.rows[sums] == emulated.rows[a] &&
                         emulated.row_bytes[sums] == emulated.row_bytes[b] &&
                         emulated.row_bytes[a] == 4 * emulated.rows[b],
                     "shapes of a product");
    for (int m = 0; m < emulated.rows[a]; m++)
        for (int n = 0; n < emulated.row_bytes[b] / 4; n++) {
            float sum;
            memcpy(&sum, &emulated.data[sums][m][4 * n], sizeof sum);
            for (int k = 0; k < emulated.rows[b]; k++)
                for (int half = 0; half < 2; half++)
                    sum += emulated_element(a, m, k, half) * emulated_element(b, k, n, half);
            memcpy(&emulated.data[sums][m][4 * n], &sum, sizeof sum);
        }
}

#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig emulated_loadconfig
#define _tile_release emulated_release
#define _tile_zero emulated_zero
#define _tile_loadd emulated_load
#define _tile_stored emulated_store
#define _tile_dpbf16ps emulated_dpbf16ps
#define __AMX_BF16__ 1

#endif
