// What the files of the emulation of compute capability 9.0 share: what a block has going on
// asynchronously. C++, only for tests/emulated.
#ifndef ATEDM_TESTS_EMULATED_HOPPER_HPP
#define ATEDM_TESTS_EMULATED_HOPPER_HPP

#include "tests/emulated/engine.hpp"
#include "tests/emulated/hopper_emulated.hpp"

#include <deque>
#include <vector>

namespace emulated
{

constexpr uint32_t SHARED_WINDOW = 1024; // where a block's shared memory starts in the window
constexpr int NAMED_BARRIERS = 16;
constexpr int MOST_WARPS = MOST_THREADS / 32;

// Within rows of 128 bytes, vectors of 16 are exchanged, by copies and for products alike: bits 4-6
// of an address are its bits 4-6 xor its bits 7-9 (PTX ISA, "Swizzling modes"; CUTLASS's Swizzle<3,
// 4, 3> of bytes, which cute/arch/copy_sm90_desc.hpp takes for CU_TENSOR_MAP_SWIZZLE_128B).
inline uint32_t swizzle_128(uint32_t address)
{
    return address ^ (address >> 7 & 7) << 4;
}

// What the emulated driver keeps in a CUtensorMap.
constexpr int MOST_RANK = 4;
struct tensor_map {
    uint64_t magic;
    const char *address;
    // Dimensions from the dense one on, behind the rank's last as if of size 1; bytes from one to
    // the next.
    uint64_t size[MOST_RANK], stride[MOST_RANK];
    uint32_t box[MOST_RANK];
    uint16_t rank, element_bytes;
    bool swizzled;
};
constexpr uint64_t TENSOR_MAP_MAGIC = 0x70616d20726f736e;
static_assert(sizeof(tensor_map) <= sizeof(CUtensorMap));

struct mbarrier {
    char *at;
    uint32_t count, pending; // arrivals of a phase; those that are still to come
    int64_t bytes;           // of copies, still to come
    uint32_t phase;          // the one that goes on
    bool fenced;
    char tsan;
};

struct tensor_copy {
    char *to;
    tensor_map map;
    coordinates from;
    mbarrier *barrier;
};

struct named_barrier {
    int threads = 0, arrived = 0; // threads 0: nobody is there
    char tsan = 0;
};

// Written by stores of `writer`, not yet fenced.
struct unfenced_write {
    const char *at;
    const fiber *writer;
};

// Read by loads of a thread since its last fence: all of first .. end - 1 counts.
struct unfenced_read {
    const char *first = nullptr, *end = nullptr; // NULL: nothing
};

// A product that a warp has begun: the 16 rows of the 64 that are its own.
struct warp_product {
    product_operands operands[32]; // of each lane
    uint32_t a[32][4];             // registers, as they were at the start
    bool is_read = false;          // operands in shared memory have been read: a_rows, b
    std::vector<float> b;          // [16, n]
    float a_rows[16][16];
    place at;
};

// Sums on their way: what lane l's registers at d[l] will be.
struct accumulator {
    float *d[32];
    int n;
    std::vector<float> rows; // [16, n]
};

struct warp_products {
    std::vector<warp_product> products;
    std::vector<size_t> groups; // number of products at the end of each committed group
    std::vector<accumulator> sums;
    size_t issued = 0; // by the warp, ever
    bool fenced = false;
    int registers = 0; // as set_registers has it; 0: as at the start
};

struct asynchronous {
    std::deque<mbarrier> mbarriers; // addresses of its elements stay
    std::vector<tensor_copy> copies;
    std::vector<unfenced_write> unfenced;
    unfenced_read unfenced_reads[MOST_THREADS];
    named_barrier named[NAMED_BARRIERS];
    warp_products products[MOST_WARPS];
    std::vector<uint64_t> issued[MOST_WARPS / 4]; // what a warpgroup's products are, in order
};

// While one lives, ThreadSanitizer looks away: the engine's own books are kept by whichever fiber
// runs, and not all of the C library is uninstrumented.
class unseen
{
  public:
    unseen()
    {
        TSAN(AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
             AnnotateIgnoreWritesBegin(__FILE__, __LINE__);)
    }
    ~unseen()
    {
        TSAN(AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
             AnnotateIgnoreReadsEnd(__FILE__, __LINE__);)
    }
    unseen(const unseen &) = delete;
    unseen &operator=(const unseen &) = delete;
};

// Ends the program on another device.
void need_hopper(const char *what, place at);
// The current fiber waits until somebody calls wake_all(key).
void wait_for(const void *key, const char *what, place at);
void wake_all(const void *key);
// Ends the program where a product would read what has been written without a fence.
void check_fenced(const char *first, size_t bytes, place at);
// Of wgmma.cpp, at the end of a block.
void check_products(const asynchronous &state, int n_warps);

} // namespace emulated

#endif
