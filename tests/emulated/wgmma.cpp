// Products of a warpgroup (wgmma.mma_async, m64nNk16). C++.
//
// Each warp computes 16 of the 64 rows. Here it does so by itself, because the PTX ISA promises
// nothing that would keep the four warps together. Operands in shared memory are read either when
// the product begins or only when the warp waits for it (is_early()). Until the wait, sums read as
// NaN. So a kernel that reads sums too early, or overwrites operands too early, gives wrong
// results.
#include "tests/emulated/hopper.hpp"

#include <algorithm>

namespace emulated
{

constexpr int ROWS = 16, K = 16; // a warp's rows, and the inner dimension
constexpr int ROW_BYTES = 128;   // of a swizzled tile

static float value(element kind, uint16_t bits)
{
    return kind == element::BF16 ? __bfloat162float(__nv_bfloat16{bits})
                                 : __half2float(__half{bits});
}

// ---- matrices in shared memory

// A matrix descriptor. Fields as in the PTX ISA, "Matrix Descriptor Format", and in CUTLASS,
// cute/arch/mma_sm90_desc.hpp.
struct matrix {
    uint32_t start, leading, stride;
};

static matrix decode(uint64_t bits, bool is_n_major, place at)
{
    matrix m = {(uint32_t)(bits & 0x3fff) << 4, (uint32_t)(bits >> 16 & 0x3fff) << 4,
                (uint32_t)(bits >> 32 & 0x3fff) << 4};
    if (bits >> 62 != 1)
        fail("wgmma: swizzling mode %u; 1, 128 bytes, is all that is emulated (%s:%d)",
             (unsigned)(bits >> 62), at.file, at.line);
    if (bits & 0x3ff1c000c000c000)
        fail("wgmma: bits without a meaning in descriptor %016llx (%s:%d)",
             (unsigned long long)bits, at.file, at.line);
    // "Base offset" is 0 if the swizzling pattern starts at a multiple of 1024 bytes, as in all
    // matrices here. Along rows a matrix may start further on in the pattern, as CUTLASS's
    // DescriptorIterator does for the next 16 columns. Bits 7-9 of the address then stay 0.
    if ((bits >> 49 & 7) || (m.start & (is_n_major ? 0x3ff : 0x380)))
        fail("wgmma: the pattern of descriptor %016llx starts at no multiple of 1024 (%s:%d)",
             (unsigned long long)bits, at.file, at.line);
    return m;
}

// Where element (k, n) is. Canonical layouts of the PTX ISA ("Canonical Layouts", 128B swizzling, T
// = 8) and of CUTLASS (make_gmma_desc in cute/atom/mma_traits_sm90_gmma.hpp):
//   K-major   Swizzle<3,4,3> o ((8,m),(T,2k)):((8T,SBO),(1,T)): row n, 128 bytes each, holds k
//   MN-major  Swizzle<3,4,3> o ((T,8,m),(8,k)):((1,T,LBO),(8T,SBO)): row k holds 64 of n
// and the swizzle is of address bits, as copies have it.
static uint32_t place_of(const matrix &m, bool is_n_major, int k, int n)
{
    uint32_t offset = is_n_major ? (uint32_t)(n % 64 * 2 + n / 64 * (int)m.leading +
                                              k % 8 * ROW_BYTES + k / 8 * (int)m.stride)
                                 : (uint32_t)(n % 8 * ROW_BYTES + n / 8 * (int)m.stride + k * 2);
    return swizzle_128(m.start + offset);
}

// Calls use(k, n, element) for rows or columns first .. first + count - 1.
template <class F>
static void read_matrix(uint64_t bits, bool is_n_major, int first, int count, place at, F use)
{
    matrix m = decode(bits, is_n_major, at);
    for (int n = first; n < first + count; n++)
        for (int k = 0; k < K; k++) {
            uint32_t address = place_of(m, is_n_major, k, n);
            const char *p = running->shared + (int64_t)address - SHARED_WINDOW;
            uint16_t bits16;
            if (!in_shared_memory(p, 2))
                fail("wgmma: an operand lies outside shared memory (%s:%d)", at.file, at.line);
            if (address % 16 == 0) {
                check_fenced(p, 16, at);
                touch(p, false);
            }
            memcpy(&bits16, p, sizeof bits16);
            use(k, n, bits16);
        }
}

static void read_operands(const warp &w, warp_product &p)
{
    const product_operands &o = p.operands[0];
    {
        unseen books;
        p.b.resize((size_t)K * o.n);
    }
    read_matrix(o.b_matrix, o.b_is_n_major, 0, o.n, p.at, [&](int k, int n, uint16_t bits) {
        p.b[(size_t)k * o.n + n] = value(o.kind, bits);
    });
    int first = (int)w.index % 4 * ROWS;
    if (!o.a)
        read_matrix(o.a_matrix, false, first, ROWS, p.at, [&](int k, int n, uint16_t bits) {
            p.a_rows[n - first][k] = value(o.kind, bits);
        });
    p.is_read = true;
}

// ---- registers

// Fragments of the PTX ISA ("Register Fragments", Figures 148 and 149 for m64nNk16), of which a
// warp's rows are those of mma.m16n8k16; CUTLASS has them as CLayout_64xN and ALayout_64x16
// (cute/atom/mma_traits_sm90_gmma.hpp): strides 128, 1, 16 of threads (4, 8, 4), and 64, 8, 512 of
// values (2, 2, N / 8), in [64, N] by columns.
static void place_of_sum(int lane, int i, int *ret_row, int *ret_column)
{
    *ret_row = lane / 4 + (i >> 1 & 1) * 8;
    *ret_column = i / 4 * 8 + lane % 4 * 2 + (i & 1);
}

static void registers_to_rows(warp_product &p)
{
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < 4; i++)
            for (int half = 0; half < 2; half++)
                p.a_rows[lane / 4 + (i & 1) * 8][lane % 4 * 2 + (i >> 1) * 8 + half] =
                    value(p.operands[0].kind, (uint16_t)(p.a[lane][i] >> 16 * half));
}

// Takes the sums to which the product adds. New sums are taken out of the registers, which read as
// NaN from now on.
static void take_sums(warp_products &state, const warp_product &p)
{
    const product_operands &o = p.operands[0];
    for (const accumulator &sums : state.sums)
        if (sums.d[0] == o.d)
            return;
    unseen books;
    accumulator sums;
    sums.n = o.n;
    sums.rows.resize((size_t)ROWS * o.n);
    for (int lane = 0; lane < 32; lane++) {
        sums.d[lane] = p.operands[lane].d;
        for (int i = 0; i < o.n / 2; i++) {
            int row, column;
            place_of_sum(lane, i, &row, &column);
            sums.rows[(size_t)row * o.n + column] = sums.d[lane][i];
        }
        memset(sums.d[lane], 0xff, (size_t)o.n / 2 * sizeof(float));
    }
    state.sums.push_back(std::move(sums));
}

static void give_sums(const accumulator &sums, place at)
{
    unseen books;
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < sums.n / 2; i++) {
            int row, column;
            uint32_t bits;
            memcpy(&bits, &sums.d[lane][i], sizeof bits);
            if (bits != 0xffffffff)
                fail("wgmma: sums were written to before the wait (%s:%d)", at.file, at.line);
            place_of_sum(lane, i, &row, &column);
            sums.d[lane][i] = sums.rows[(size_t)row * sums.n + column];
        }
}

// ---- what a warp does together

static void compute(const warp &w, warp_products &state, warp_product &p)
{
    const product_operands &o = p.operands[0];
    if (!p.is_read)
        read_operands(w, p);
    unseen books;
    if (o.a) {
        for (int lane = 0; lane < 32; lane++)
            if (memcmp(p.a[lane], p.operands[lane].a, sizeof p.a[lane]) != 0)
                fail("wgmma: the first operand was written to before the wait (%s:%d)", p.at.file,
                     p.at.line);
        registers_to_rows(p);
    }
    auto sums = std::find_if(state.sums.begin(), state.sums.end(),
                             [&](const accumulator &a) { return a.d[0] == o.d; });
    for (int i = 0; i < ROWS; i++) {
        float *row = &sums->rows[(size_t)i * o.n];
        if (!o.add)
            std::fill(row, row + o.n, 0.0f);
        for (int k = 0; k < K; k++)
            for (int j = 0; j < o.n; j++)
                row[j] += p.a_rows[i][k] * p.b[(size_t)k * o.n + j];
    }
}

// All four warps of a warpgroup must start the same products: compares each with what the first
// warp did.
static void check_alike(const warp &w, warp_products &state, const warp_product &p)
{
    unseen books;
    const product_operands &o = p.operands[0];
    std::vector<uint64_t> &issued = running->async->issued[w.index / 4];
    uint64_t what = o.b_matrix ^ (uint64_t)o.n << 50 ^ (uint64_t)p.at.line << 40 ^ o.a_matrix << 8;
    if (state.issued == issued.size())
        issued.push_back(what);
    if (issued[state.issued++] != what)
        fail("wgmma: the warps of a warpgroup do different things (%s:%d)", p.at.file, p.at.line);
}

static void do_product(warp &w, uint32_t lanes)
{
    warp_products &state = running->async->products[w.index];
    warp_product p;
    const fiber &f = w.lane[__builtin_ctz(lanes)];
    p.at = f.at;
    if (lanes != ~0u)
        fail("wgmma: needs 32 live lanes, has %08x (%s:%d)", lanes, p.at.file, p.at.line);
    if (!state.fenced)
        fail("wgmma: no wgmma.fence before it (%s:%d)", p.at.file, p.at.line);
    for (int lane = 0; lane < 32; lane++) {
        unseen books;
        p.operands[lane] = *(const product_operands *)w.lane[lane].operands;
        const product_operands &o = p.operands[lane];
        if (o.b_matrix != p.operands[0].b_matrix || o.a_matrix != p.operands[0].a_matrix ||
            o.add != p.operands[0].add)
            fail("wgmma: lanes with different descriptors (%s:%d)", p.at.file, p.at.line);
        if (o.a)
            memcpy(p.a[lane], o.a, sizeof p.a[lane]);
    }
    check_alike(w, state, p);
    take_sums(state, p);
    if (is_early())
        read_operands(w, p);
    unseen books;
    state.products.push_back(std::move(p));
}

static void do_fence(warp &w, uint32_t)
{
    running->async->products[w.index].fenced = true;
}

static void do_commit(warp &w, uint32_t)
{
    unseen books;
    warp_products &state = running->async->products[w.index];
    state.groups.push_back(state.products.size());
}

struct wait_operands {
    uint32_t groups_left;
};

static void do_wait(warp &w, uint32_t lanes)
{
    warp_products &state = running->async->products[w.index];
    const fiber &f = w.lane[__builtin_ctz(lanes)];
    uint32_t left = ((const wait_operands *)f.operands)->groups_left;
    state.fenced = false;
    if (state.groups.size() <= left)
        return;
    size_t n_groups = state.groups.size() - left, n = state.groups[n_groups - 1];
    for (size_t i = 0; i < n; i++)
        compute(w, state, state.products[i]);
    do_sync(w, lanes); // after this, every lane knows that the warp has read its operands
    unseen books;
    state.products.erase(state.products.begin(), state.products.begin() + (long)n);
    state.groups.erase(state.groups.begin(), state.groups.begin() + (long)n_groups);
    for (size_t &end : state.groups)
        end -= n;
    for (size_t i = 0; i < state.sums.size();) {
        const accumulator &sums = state.sums[i];
        if (std::any_of(state.products.begin(), state.products.end(),
                        [&](const warp_product &p) { return p.operands[0].d == sums.d[0]; })) {
            i++;
            continue;
        }
        give_sums(sums, f.at);
        state.sums.erase(state.sums.begin() + (long)i);
    }
}

void product(const product_operands &operands, place at)
{
    need_hopper("wgmma", at);
    product_operands o = operands;
    collective(~0u, &o, do_product, "wgmma", at);
}

void product_fence(place at)
{
    need_hopper("wgmma.fence", at);
    collective(~0u, nullptr, do_fence, "wgmma.fence", at);
}

void product_commit(place at)
{
    collective(~0u, nullptr, do_commit, "wgmma.commit_group", at);
}

void product_wait(uint32_t groups_left, place at)
{
    wait_operands o = {groups_left};
    collective(~0u, &o, do_wait, "wgmma.wait_group", at);
}

void check_products(const asynchronous &state, int n_warps)
{
    for (int i = 0; i < n_warps; i++) {
        const warp_products &w = state.products[i];
        if (!w.products.empty())
            fail("the block ends with products in flight, begun at %s:%d", w.products[0].at.file,
                 w.products[0].at.line);
        if (w.issued != state.issued[i / 4].size())
            fail("wgmma: warp %d has begun %zu products, others of its warpgroup %zu", i, w.issued,
                 state.issued[i / 4].size());
    }
}

} // namespace emulated
