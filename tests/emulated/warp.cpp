// Operations that the lanes of a warp do together: shuffles, votes, ldmatrix and mma, with the
// fragment layouts of the PTX ISA ("Warp-level matrix fragments", mma.m16n8k16; ldmatrix.m8n8.x4).
// The last lane to arrive executes them for all. C++.
#include "tests/emulated/engine.hpp"

#include <algorithm>

namespace emulated
{

template <class F> static void for_lanes(uint32_t lanes, F f)
{
    for (uint32_t m = lanes; m; m &= m - 1)
        f((uint32_t)__builtin_ctz(m));
}

void do_shuffle(warp &w, uint32_t lanes)
{
    for_lanes(lanes, [&](uint32_t l) {
        auto *o = (shuffle_operands *)w.lane[l].operands;
        if (!(lanes >> o->from & 1))
            fail("%s: lane %u reads lane %u, which is outside the mask or has ended (%s:%d)",
                 w.lane[l].what, l, o->from, w.lane[l].at.file, w.lane[l].at.line);
        o->out = ((shuffle_operands *)w.lane[o->from].operands)->in;
    });
}

void do_ballot(warp &w, uint32_t lanes)
{
    uint32_t result = 0;
    for_lanes(lanes, [&](uint32_t l) { result |= ((vote_operands *)w.lane[l].operands)->in << l; });
    for_lanes(lanes, [&](uint32_t l) { ((vote_operands *)w.lane[l].operands)->out = result; });
}

void do_sync(warp &w, uint32_t lanes)
{
    (void)w;
    (void)lanes;
    TSAN(for_lanes(lanes,
                   [&](uint32_t l) {
                       __tsan_switch_to_fiber(w.lane[l].tsan, 1);
                       __tsan_release(&running->tsan_warp[w.index]);
                   });
         for_lanes(lanes,
                   [&](uint32_t l) {
                       __tsan_switch_to_fiber(w.lane[l].tsan, 1);
                       __tsan_acquire(&running->tsan_warp[w.index]);
                   });
         __tsan_switch_to_fiber(current->tsan, 1);)
}

void touch(const void *p, bool write)
{
    (void)p;
    (void)write;
    TSAN(write ? __tsan_write16((void *)p) : __tsan_read16((void *)p);)
}

static void need_whole_warp(const warp &w, uint32_t lanes)
{
    const fiber &f = w.lane[__builtin_ctz(lanes)];
    if (lanes != ~0u)
        fail("%s: needs 32 live lanes, has %08x (%s:%d)", f.what, lanes, f.at.file, f.at.line);
}

// Lane l gives the address of row l % 8 of matrix l / 8.
static void load_matrices(warp &w, uint32_t lanes, uint16_t (&matrix)[4][8][8])
{
    need_whole_warp(w, lanes);
    for (int l = 0; l < 32; l++) {
        const fiber &f = w.lane[l];
        const void *row = ((ldmatrix_operands *)f.operands)->row;
        if ((uintptr_t)row & 15)
            fail("ldmatrix: the row of lane %d at %p is not aligned (%s:%d)", l, row, f.at.file,
                 f.at.line);
        if (!in_shared_memory(row, 16))
            fail("ldmatrix: the row of lane %d at %p is outside shared memory (%s:%d)", l, row,
                 f.at.file, f.at.line);
        memcpy(matrix[l / 8][l % 8], row, 16);
    }
}

void do_ldmatrix(warp &w, uint32_t lanes)
{
    uint16_t matrix[4][8][8];
    load_matrices(w, lanes, matrix);
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < 4; i++)
            memcpy(&((ldmatrix_operands *)w.lane[l].operands)->r[i],
                   &matrix[i][l >> 2][2 * (l & 3)], 4);
}

void do_ldmatrix_transposed(warp &w, uint32_t lanes)
{
    uint16_t matrix[4][8][8];
    load_matrices(w, lanes, matrix);
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < 4; i++)
            ((ldmatrix_operands *)w.lane[l].operands)->r[i] =
                matrix[i][2 * (l & 3)][l >> 2] | (uint32_t)matrix[i][2 * (l & 3) + 1][l >> 2] << 16;
}

struct from_bf16 {
    static float value(uint32_t bits)
    {
        return __bfloat162float(__nv_bfloat16{(uint16_t)bits});
    }
};
struct from_f16 {
    static float value(uint32_t bits)
    {
        return __half2float(__half{(uint16_t)bits});
    }
};

// d [16, 8] = a [16, 16] b [16, 8] + c, sums in f32. Much of what tests take is here, so a row's
// sums stay in registers.
typedef float four __attribute__((vector_size(16)));
template <class FROM> static void do_mma(warp &w, uint32_t lanes)
{
    need_whole_warp(w, lanes);
    float a[16][16];
    four b[16][2], d[16][2];
    for (int l = 0; l < 32; l++) {
        const mma_operands &o = *(mma_operands *)w.lane[l].operands;
        int g = l >> 2, t = 2 * (l & 3);
        for (int i = 0; i < 4; i++)
            for (int half = 0; half < 2; half++)
                a[g + (i & 1) * 8][t + (i >> 1) * 8 + half] =
                    FROM::value(o.a[i] >> (16 * half) & 0xffff);
        for (int i = 0; i < 2; i++)
            for (int half = 0; half < 2; half++)
                b[t + i * 8 + half][g >> 2][g & 3] = FROM::value(o.b[i] >> (16 * half) & 0xffff);
        for (int i = 0; i < 4; i++)
            d[g + (i >> 1) * 8][t >> 2][(t & 2) + (i & 1)] = o.c[i];
    }
    for (int i = 0; i < 16; i++) {
        four low = d[i][0], high = d[i][1];
        for (int k = 0; k < 16; k++) {
            low += a[i][k] * b[k][0];
            high += a[i][k] * b[k][1];
        }
        d[i][0] = low;
        d[i][1] = high;
    }
    for (int l = 0; l < 32; l++) {
        const mma_operands &o = *(mma_operands *)w.lane[l].operands;
        int g = l >> 2, t = 2 * (l & 3);
        for (int i = 0; i < 4; i++)
            o.d[i] = d[g + (i >> 1) * 8][t >> 2][(t & 2) + (i & 1)];
    }
}

void do_mma_bf16(warp &w, uint32_t lanes)
{
    do_mma<from_bf16>(w, lanes);
}

void do_mma_f16(warp &w, uint32_t lanes)
{
    do_mma<from_f16>(w, lanes);
}

} // namespace emulated
