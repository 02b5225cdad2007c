// Fake device and pinned memory: see memory.hpp. C++.
#include "tests/emulated/memory.hpp"

#include "tests/emulated/engine.hpp"

#include <algorithm>
#include <cstdio>
#include <map>
#include <sys/mman.h>

namespace emulated
{

std::recursive_mutex lock;

constexpr size_t DEVICE_ALIGN = 256, PINNED_ALIGN = 64;

struct allocation {
    size_t bytes;
    char *map;
    size_t map_bytes; // guard pages included
    memory_kind kind;
    int device;
    bool open; // accessible to host code, if device memory is protected
};
static std::map<uintptr_t, allocation> allocations; // guarded by lock
static size_t used[MOST_DEVICES];
static int unlocks, unlocked_device;

// The number of calls that allocate or free, for tests: on a real device each makes the host or the
// device wait.
extern "C" {
__attribute__((visibility("default"))) extern long atedm_emulated_allocations;
long atedm_emulated_allocations;
}

static void set_access(const allocation &a, int access)
{
    mprotect(a.map + PAGE, a.map_bytes - 2 * PAGE, access);
}

// Opens one allocation, at its first access: most work touches few of some hundred allocations.
bool open_at(const void *p)
{
    if (!unlocks)
        return false;
    for (auto &[base, a] : allocations) {
        const char *first = a.map + PAGE, *last = a.map + a.map_bytes - PAGE;
        if ((const char *)p < first || (const char *)p >= last || a.kind != memory_kind::DEVICE ||
            (unlocked_device != ANY_DEVICE && a.device != unlocked_device))
            continue;
        set_access(a, PROT_READ | PROT_WRITE);
        a.open = true;
        return true;
    }
    return false;
}

static void close_all()
{
    for (auto &[base, a] : allocations)
        if (a.open) {
            set_access(a, PROT_NONE);
            a.open = false;
        }
}

// Sets access to the memory of all other devices.
static void set_others(int device, int access)
{
    size_t others = 0;
    for (int i = 0; i < MOST_DEVICES; i++)
        others += i == device ? 0 : used[i];
    if (device == ANY_DEVICE || !others)
        return;
    for (auto &[base, a] : allocations)
        if (a.kind == memory_kind::DEVICE && a.device != device)
            set_access(a, access);
}

unlock::unlock(int which) : device(which)
{
    if (unlocks++)
        return;
    unlocked_device = device;
    if (setting().protect)
        catch_faults();
    else
        set_others(device, PROT_NONE);
}

unlock::~unlock()
{
    if (--unlocks)
        return;
    if (setting().protect)
        close_all();
    else
        set_others(device, PROT_READ | PROT_WRITE);
}

cudaError_t charge(int device, long bytes)
{
    std::lock_guard<std::recursive_mutex> guard(lock);
    if (bytes > (long)(setting().memory - used[device]))
        return cudaErrorMemoryAllocation;
    used[device] += (size_t)bytes;
    return cudaSuccess;
}

cudaError_t allocate(void **p, size_t bytes, memory_kind kind, int device)
{
    unlock opened(ANY_DEVICE);
    atedm_emulated_allocations++;
    bool on_device = kind == memory_kind::DEVICE;
    size_t total = setting().memory;
    if (on_device && (bytes > total || used[device] + bytes > total))
        return cudaErrorMemoryAllocation;
    size_t align = on_device ? DEVICE_ALIGN : PINNED_ALIGN;
    size_t body = (std::max<size_t>(bytes, 1) + PAGE - 1) & ~(PAGE - 1);
    void *map = mmap(nullptr, body + 2 * PAGE, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        return cudaErrorMemoryAllocation;
    char *m = (char *)map;
    mprotect(m, PAGE, PROT_NONE);
    mprotect(m + PAGE + body, PAGE, PROT_NONE);
    memset(m + PAGE, 0xff, body);
    // As close to the following guard page as the alignment allows.
    uintptr_t base = ((uintptr_t)m + PAGE + body - std::max<size_t>(bytes, 1)) & ~(align - 1);
    allocations[base] = {bytes, m, body + 2 * PAGE, kind, device, on_device && setting().protect};
    used[device] += on_device ? bytes : 0;
    *p = (void *)base;
    return cudaSuccess;
}

cudaError_t release(void *p)
{
    if (!p)
        return cudaSuccess;
    unlock opened(ANY_DEVICE);
    atedm_emulated_allocations++;
    auto it = allocations.find((uintptr_t)p);
    if (it == allocations.end())
        return cudaErrorInvalidValue;
    allocation a = it->second;
    const char *end = a.map + a.map_bytes - PAGE;
    for (const char *c = (char *)p + a.bytes; c < end; c++)
        if (*c != (char)0xff)
            fail("a write at +%zu, past the end of %zu bytes of memory", (size_t)(c - (char *)p),
                 a.bytes);
    used[a.device] -= a.kind == memory_kind::DEVICE ? a.bytes : 0;
    munmap(a.map, a.map_bytes);
    allocations.erase(it);
    return cudaSuccess;
}

static const allocation *find(const void *p, uintptr_t *ret_base)
{
    auto it = allocations.upper_bound((uintptr_t)p);
    if (it == allocations.begin())
        return nullptr;
    --it;
    *ret_base = it->first;
    return (uintptr_t)p <= it->first + it->second.bytes ? &it->second : nullptr;
}

bool is_device(const void *p, size_t bytes)
{
    std::lock_guard<std::recursive_mutex> guard(lock);
    uintptr_t base;
    const allocation *a = find(p, &base);
    return a && a->kind == memory_kind::DEVICE && (uintptr_t)p + bytes <= base + a->bytes;
}

void check_pinned(const void *p, size_t bytes)
{
    std::lock_guard<std::recursive_mutex> guard(lock);
    uintptr_t base;
    const allocation *a = find(p, &base);
    if (!a || a->kind != memory_kind::PINNED || (uintptr_t)p + bytes > base + a->bytes)
        fail("an asynchronous copy of %zu bytes of pageable memory, for which the host waits",
             bytes);
}

int device_of(const void *p)
{
    std::lock_guard<std::recursive_mutex> guard(lock);
    uintptr_t base;
    return find(p, &base)->device;
}

void memory_info(int device, size_t *ret_free, size_t *ret_total)
{
    std::lock_guard<std::recursive_mutex> guard(lock);
    *ret_free = setting().memory - used[device];
    *ret_total = setting().memory;
}

void check_pointer(const void *p, const char *kernel, int argument, cudaStream_t stream)
{
    if (!p)
        return;
    if (!is_device(p, 0))
        fail("%s: argument %d, %p, is not device memory: %s", kernel, argument, p, describe(p));
    if (device_of(p) != device_of(stream))
        fail("%s: argument %d is memory of device %d, on a stream of device %d", kernel, argument,
             device_of(p), device_of(stream));
}

const char *describe(const void *p) // for the fault handler too: takes no lock
{
    static char text[160];
    for (auto &[base, a] : allocations) {
        uintptr_t first = (uintptr_t)a.map, last = first + a.map_bytes;
        if ((uintptr_t)p < first || (uintptr_t)p >= last)
            continue;
        snprintf(text, sizeof text, "offset %+ld in %zu bytes of %s memory, device %d",
                 (long)((uintptr_t)p - base), a.bytes,
                 a.kind == memory_kind::DEVICE ? "device" : "pinned", a.device);
        return text;
    }
    return "not near any allocation";
}

} // namespace emulated
