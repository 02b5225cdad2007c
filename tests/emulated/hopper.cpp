// Features of compute capability 9.0 besides products: barriers in shared memory (mbarrier), named
// barriers, copies by tensor maps, registers that move between warpgroups. C++.
//
// The emulation follows the PTX ISA (sections "mbarrier", "cp.async.bulk.tensor", "barrier",
// "setmaxnreg") wherever a kernel could see a difference. A copy lands as late as it may.
#include "tests/emulated/hopper.hpp"

#include <algorithm>

namespace emulated
{

constexpr uint64_t MBARRIER_MAGIC = 0x7265697272616221;
constexpr uint32_t MOST_ARRIVALS = (1u << 20) - 1;
constexpr int REGISTERS = 65536; // of a multiprocessor, and so of a block

void need_hopper(const char *what, place at)
{
    if (setting().sm != 90)
        fail("%s: only compute capability 9.0 has it, this is %d (%s:%d)", what, setting().sm,
             at.file, at.line);
}

uint32_t shared_address(const void *p)
{
    return SHARED_WINDOW + (uint32_t)((const char *)p - running->shared);
}

void begin_async(block &b)
{
    if (!b.async)
        b.async = new asynchronous;
    *b.async = asynchronous();
}

void end_async(const block &b)
{
    const asynchronous &state = *b.async;
    if (!state.copies.empty())
        fail("the block ends with copies by tensor maps in flight");
    for (int i = 1; i < NAMED_BARRIERS; i++)
        if (state.named[i].arrived)
            fail("the block ends with %d of %d threads at named barrier %d", state.named[i].arrived,
                 state.named[i].threads, i);
    int n_warps = b.n_threads / 32, registers = 0;
    int at_start = REGISTERS / b.n_threads / 8 * 8;
    for (int i = 0; i < n_warps; i++)
        registers += 32 * (state.products[i].registers ? state.products[i].registers : at_start);
    if (std::any_of(state.products, state.products + n_warps,
                    [](const warp_products &w) { return w.registers > 0; }) &&
        registers > REGISTERS)
        fail("setmaxnreg: %d registers in all, there are %d", registers, REGISTERS);
    check_products(state, n_warps);
}

void wait_for(const void *key, const char *what, place at)
{
    current->what = what;
    current->at = at;
    current->mask = 0;
    current->waits_for = key;
    current->now = state::WAITS_FOR_KEY;
    wait_here();
}

void wake_all(const void *key)
{
    for (int i = 0; i < running->n_threads; i++) {
        fiber &f = running->fibers[i];
        if (f.now == state::WAITS_FOR_KEY && f.waits_for == key)
            wake(f);
    }
}

// ---- barriers in shared memory

static mbarrier &find_mbarrier(const void *at_address, place at)
{
    for (mbarrier &b : running->async->mbarriers) {
        uint64_t bits;
        if (b.at != at_address)
            continue;
        memcpy(&bits, b.at, sizeof bits);
        if (bits != MBARRIER_MAGIC)
            fail("mbarrier: something has been written over it (%s:%d)", at.file, at.line);
        return b;
    }
    fail("mbarrier: it has not been initialised (%s:%d)", at.file, at.line);
}

void mbarrier_init(void *barrier, uint32_t arrivals, place at)
{
    unseen books;
    need_hopper("mbarrier", at);
    if ((uintptr_t)barrier % 8 || !in_shared_memory(barrier, 8))
        fail("mbarrier: %p is no place for one (%s:%d)", barrier, at.file, at.line);
    if (arrivals < 1 || arrivals > MOST_ARRIVALS)
        fail("mbarrier: a phase of %u arrivals (%s:%d)", arrivals, at.file, at.line);
    for (const mbarrier &b : running->async->mbarriers)
        if (b.at == barrier)
            fail("mbarrier: initialised twice (%s:%d)", at.file, at.line);
    memcpy(barrier, &MBARRIER_MAGIC, sizeof MBARRIER_MAGIC);
    running->async->mbarriers.push_back({(char *)barrier, arrivals, arrivals, 0, 0, false, 0});
}

void mbarrier_fence(place at)
{
    need_hopper("fence.mbarrier_init", at);
    for (mbarrier &b : running->async->mbarriers)
        b.fenced = true;
}

static void try_complete(mbarrier &b)
{
    if (b.pending || b.bytes)
        return;
    b.phase++;
    b.pending = b.count;
    wake_all(&b);
}

void mbarrier_arrive(void *barrier, uint32_t more_bytes, place at)
{
    mbarrier &b = find_mbarrier(barrier, at);
    if (!b.pending)
        fail("mbarrier: one arrival too many in a phase (%s:%d)", at.file, at.line);
    TSAN(__tsan_release(&b.tsan);)
    b.bytes += more_bytes;
    b.pending--;
    try_complete(b);
}

// ---- copies by tensor maps

static size_t box_bytes(const tensor_map &map)
{
    return (size_t)map.box[0] * map.box[1] * map.box[2] * map.box[3] * map.element_bytes;
}

// Element `i` of row `row` of the box; NULL if it is outside the tensor.
static const char *element_of(const tensor_copy &c, uint32_t row, uint32_t i)
{
    const uint32_t in_box[MOST_RANK] = {i, row % c.map.box[1], row / c.map.box[1] % c.map.box[2],
                                        row / c.map.box[1] / c.map.box[2]};
    const char *at = c.map.address;
    for (int d = 0; d < MOST_RANK; d++) {
        int64_t place = (int64_t)c.from.at[d] + in_box[d];
        if (place < 0 || place >= (int64_t)c.map.size[d])
            return nullptr;
        at += place * (int64_t)c.map.stride[d];
    }
    return at;
}

// Copies element by element; elements outside the tensor are zeros.
static void land(const tensor_copy &c)
{
    uint32_t to = shared_address(c.to), bytes = c.map.element_bytes;
    uint32_t row_bytes = c.map.box[0] * bytes, rows = (uint32_t)(box_bytes(c.map) / row_bytes);
    TSAN(__tsan_acquire(&c.barrier->tsan);
         for (size_t i = 0; i < box_bytes(c.map); i += 16) __tsan_write16(c.to + i);)
    unseen books;
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t i = 0; i < c.map.box[0]; i++) {
            const char *from = element_of(c, r, i);
            uint32_t address = to + r * row_bytes + i * bytes;
            char *target = running->shared +
                           ((c.map.swizzled ? swizzle_128(address) : address) - SHARED_WINDOW);
            if (from)
                memcpy(target, from, bytes);
            else
                memset(target, 0, bytes);
        }
    TSAN(__tsan_release(&c.barrier->tsan);)
    c.barrier->bytes -= (int64_t)box_bytes(c.map);
}

static bool land_copies_of(mbarrier &b)
{
    auto &copies = running->async->copies;
    bool any = false;
    for (size_t i = 0; i < copies.size();) {
        if (copies[i].barrier != &b) {
            i++;
            continue;
        }
        tensor_copy c = copies[i];
        {
            unseen books;
            copies.erase(copies.begin() + (long)i);
        }
        land(c);
        any = true;
    }
    if (any)
        try_complete(b);
    return any;
}

bool land_awaited(block &b)
{
    for (int i = 0; i < b.n_threads; i++) {
        const fiber &f = b.fibers[i];
        for (mbarrier &m : b.async->mbarriers)
            if (f.now == state::WAITS_FOR_KEY && f.waits_for == &m && land_copies_of(m))
                return true;
    }
    return false;
}

void mbarrier_wait(void *barrier, uint32_t parity, place at)
{
    mbarrier &b = find_mbarrier(barrier, at);
    if (parity > 1)
        fail("mbarrier: the parity is %u (%s:%d)", parity, at.file, at.line);
    // While the current phase has this parity, it is the phase that the caller waits for. Otherwise
    // that phase has ended.
    while ((b.phase & 1) == parity)
        if (!is_early() || !land_copies_of(b))
            wait_for(&b, "an mbarrier", at);
    TSAN(__tsan_acquire(&b.tsan);)
}

static void check_reads_fenced(const char *first, size_t bytes, place at)
{
    unseen books;
    for (int i = 0; i < running->n_threads; i++) {
        const unfenced_read &r = running->async->unfenced_reads[i];
        if (r.first < first + bytes && first < r.end)
            fail("cp.async.bulk.tensor: to where thread %d has read, and no fence.proxy.async "
                 "followed (%s:%d)",
                 i, at.file, at.line);
    }
}

void tensor_load(void *to, const CUtensorMap &map, coordinates from, int rank, void *barrier,
                 place at)
{
    need_hopper("cp.async.bulk.tensor", at);
    tensor_copy c = {(char *)to, {}, from, &find_mbarrier(barrier, at)};
    memcpy(&c.map, &map, sizeof c.map);
    if (c.map.magic != TENSOR_MAP_MAGIC)
        fail("cp.async.bulk.tensor: this is no tensor map (%s:%d)", at.file, at.line);
    if (c.map.rank != rank)
        fail("cp.async.bulk.tensor: %d coordinates, the map has %d dimensions (%s:%d)", rank,
             c.map.rank, at.file, at.line);
    if ((uintptr_t)to % 128 || !in_shared_memory(to, box_bytes(c.map)))
        fail("cp.async.bulk.tensor: the target is misaligned or outside shared memory (%s:%d)",
             at.file, at.line);
    if (!c.barrier->fenced)
        fail("cp.async.bulk.tensor: its mbarrier was initialised without a fence (%s:%d)", at.file,
             at.line);
    for (const tensor_copy &other : running->async->copies)
        if (c.to < other.to + box_bytes(other.map) && other.to < c.to + box_bytes(c.map))
            fail("cp.async.bulk.tensor: another copy is on its way to there (%s:%d)", at.file,
                 at.line);
    check_reads_fenced(c.to, box_bytes(c.map), at);
    TSAN(for (size_t i = 0; i < box_bytes(c.map); i += 16) __tsan_write16(c.to + i);
         __tsan_release(&c.barrier->tsan);)
    unseen books;
    memset(to, 0xff, box_bytes(c.map));
    running->async->copies.push_back(c);
}

// ---- stores that products read

void clear_16(void *to, place at)
{
    if ((uintptr_t)to % 16 || !in_shared_memory(to, 16))
        fail("%p is no place for 16 bytes (%s:%d)", to, at.file, at.line);
    TSAN(__tsan_write16(to);)
    unseen books;
    memset(to, 0, 16);
    running->async->unfenced.push_back({(const char *)to, current});
}

void read_copied(const void *from, size_t bytes)
{
    unseen books;
    unfenced_read &r = running->async->unfenced_reads[current - running->fibers];
    const char *first = (const char *)from;
    r.first = r.first ? std::min(r.first, first) : first;
    r.end = std::max(r.end, first + bytes);
}

void async_fence(place at)
{
    unseen books;
    need_hopper("fence.proxy.async", at);
    auto &unfenced = running->async->unfenced;
    running->async->unfenced_reads[current - running->fibers] = {};
    unfenced.erase(std::remove_if(unfenced.begin(), unfenced.end(),
                                  [](const unfenced_write &w) { return w.writer == current; }),
                   unfenced.end());
}

void check_fenced(const char *first, size_t bytes, place at)
{
    for (const unfenced_write &w : running->async->unfenced)
        if (w.at < first + bytes && first < w.at + 16)
            fail("wgmma: reads what a store wrote and no fence.proxy.async followed (%s:%d)",
                 at.file, at.line);
}

// ---- named barriers, registers

void named_barrier_arrive(int id, int threads, bool waits, place at)
{
    if (id < 1 || id >= NAMED_BARRIERS)
        fail("barrier %d: 0 is __syncthreads's, 15 the last (%s:%d)", id, at.file, at.line);
    if (threads < 32 || threads > MOST_THREADS || threads % 32)
        fail("barrier %d: of %d threads (%s:%d)", id, threads, at.file, at.line);
    named_barrier &b = running->async->named[id];
    if (b.arrived && b.threads != threads)
        fail("barrier %d: of %d threads here, of %d elsewhere (%s:%d)", id, threads, b.threads,
             at.file, at.line);
    TSAN(__tsan_release(&b.tsan);)
    b.threads = threads;
    if (++b.arrived == threads) {
        b.arrived = 0;
        wake_all(&b);
    } else if (waits) {
        wait_for(&b, "a named barrier", at);
    }
    if (waits) {
        TSAN(__tsan_acquire(&b.tsan);)
    }
}

void set_registers(int n, bool more, place at)
{
    need_hopper("setmaxnreg", at);
    int at_start = REGISTERS / running->n_threads / 8 * 8;
    warp_products &w = running->async->products[current->in->index];
    if (n < 24 || n > 256 || n % 8)
        fail("setmaxnreg: %d (%s:%d)", n, at.file, at.line);
    if (more ? n < at_start : n > at_start)
        fail("setmaxnreg.%s: %d, a thread has %d (%s:%d)", more ? "inc" : "dec", n, at_start,
             at.file, at.line);
    w.registers = n;
}

} // namespace emulated
