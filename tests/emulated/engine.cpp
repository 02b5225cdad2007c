// The engine: fibers, the scheduler, barriers, shared memory, asynchronous copies. C++.
// Faults in a kernel (a bad access, a deadlock, a copy without a wait) end the program with a
// message that names kernel, block and thread.
#include "tests/emulated/engine.hpp"
#include "tests/emulated/memory.hpp"

#include <algorithm>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <sys/mman.h>
#include <thread>
#include <unistd.h>

__thread uint3 threadIdx, blockIdx;
__thread dim3_pod blockDim, gridDim;

namespace emulated
{

__thread fiber *current;
__thread block *running;

settings::settings()
{
    if (const char *text = getenv("ATEDM_EMULATED_SCHEDULE")) {
        if (!strcmp(text, "reverse"))
            schedule = REVERSE;
        if (!strncmp(text, "random:", 7)) {
            schedule = RANDOM;
            seed = strtoull(text + 7, nullptr, 10);
        }
    }
    auto number = [](const char *name, int otherwise) {
        const char *text = getenv(name);
        return text ? (int)strtol(text, nullptr, 10) : otherwise;
    };
    workers = number("ATEDM_EMULATED_WORKERS", 0);
    late = number("ATEDM_EMULATED_LATE", 0) != 0;
    protect = number("ATEDM_EMULATED_PROTECT", 0) != 0;
    sm = number("ATEDM_EMULATED_SM", sm);
    devices = std::min(number("ATEDM_EMULATED_DEVICES", devices), MOST_DEVICES);
    multiprocessors = number("ATEDM_EMULATED_MULTIPROCESSORS", multiprocessors);
    most_cluster = std::min(number("ATEDM_EMULATED_MOST_CLUSTER", most_cluster), most_cluster);
    fail_after = number("ATEDM_EMULATED_FAIL_AFTER", fail_after);
    blas_ms = number("ATEDM_EMULATED_BLAS_MS", blas_ms);
    blas_bias_first = number("ATEDM_EMULATED_BLAS_BIAS_FIRST", 0) != 0;
    if (const char *text = getenv("ATEDM_EMULATED_MEMORY"))
        memory = strtoull(text, nullptr, 10);
    if (workers <= 0)
        workers = (int)std::max(1u, std::thread::hardware_concurrency());
}

const settings &setting()
{
    static const settings s;
    return s;
}

// ---- switching stacks

extern "C" void atedm_emulated_switch(void **save, void *to);
// System V: the callee keeps these registers. MXCSR and the x87 control word never differ.
asm(".text\n.p2align 4\n.globl atedm_emulated_switch\n.hidden atedm_emulated_switch\n"
    ".type atedm_emulated_switch,@function\natedm_emulated_switch:\n"
    " push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
    " mov %rsp,(%rdi)\n mov %rsi,%rsp\n"
    " pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n"
    ".size atedm_emulated_switch,.-atedm_emulated_switch\n");

static void *first_stack(char *top, void (*entry)())
{
    void **s = (void **)((uintptr_t)top & ~(uintptr_t)15);
    *--s = nullptr; // aligns the stack as at a function's entry
    *--s = (void *)entry;
    for (int i = 0; i < 6; i++)
        *--s = nullptr;
    return s;
}

static void switch_to(fiber *next)
{
    fiber *me = current;
    if (next == me)
        return;
    current = next;
    if (next != &running->scheduler)
        threadIdx = next->index;
    TSAN(__tsan_switch_to_fiber(next->tsan, 1);)
    atedm_emulated_switch(&me->stack_pointer, next->stack_pointer);
}

// ---- the scheduler

static uint64_t next_random()
{
    uint64_t &x = running->rng; // Marsaglia's xorshift64
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return x;
}

bool is_early()
{
    return running->schedule == settings::REVERSE ||
           (running->schedule == settings::RANDOM && (next_random() >> 40 & 1));
}

// A random set bit, all equally likely. Most of a random schedule's cost is here, so there are no
// divisions and no loops of unknown length. Counts of 2, 4, 8 and 16 bits lead to the n-th set bit.
[[gnu::noinline]] static uint32_t random_bit(uint32_t bits)
{
    uint64_t x = next_random();
    uint32_t pairs = bits - (bits >> 1 & 0x55555555);
    uint32_t fours = (pairs & 0x33333333) + (pairs >> 2 & 0x33333333);
    uint32_t eights = (fours + (fours >> 4)) & 0x0f0f0f0f;
    uint32_t halves = (eights + (eights >> 8)) & 0x00ff00ff;
    uint32_t all = (halves + (halves >> 16)) & 63;
    uint32_t n = (uint32_t)((x >> 32) * all >> 32), at = 0;
    auto step = [&](uint32_t counts, uint32_t field, uint32_t width) {
        uint32_t here = counts >> at & field;
        uint32_t beyond = 0u - (uint32_t)(n >= here);
        n -= here & beyond;
        at += width & beyond;
    };
    step(halves, 0xff, 16);
    step(eights, 0xff, 8);
    step(fours, 0xf, 4);
    step(pairs, 3, 2);
    step(bits, 1, 1);
    return at;
}

static inline uint32_t pick_bit(uint32_t bits)
{
    if (running->schedule == settings::FORWARD)
        return (uint32_t)__builtin_ctz(bits);
    if (running->schedule == settings::REVERSE)
        return 31u - (uint32_t)__builtin_clz(bits);
    return random_bit(bits);
}

static void enter(block &b)
{
    running = &b;
    blockIdx = b.index;
}

as_block::as_block(block *b) : before(running)
{
    enter(*b);
}

as_block::~as_block()
{
    enter(*before);
}

// Switches to another block of the cluster if this one has no runnable thread, and at random if the
// schedule is random.
static void move_on()
{
    uint32_t ready = 0;
    for (int i = 0; i < running->in->n; i++)
        ready |= (uint32_t)(running->in->blocks[i]->ready_warps != 0) << i;
    if (ready)
        enter(*running->in->blocks[pick_bit(ready)]);
}

static fiber *pick()
{
    if (running->in->n > 1 && (!running->ready_warps || running->schedule == settings::RANDOM))
        move_on();
    if (!running->ready_warps)
        return nullptr;
    const warp &w = running->warps[pick_bit(running->ready_warps)];
    return &w.lane[pick_bit(w.ready)];
}

static void set_ready(warp &w, uint32_t lanes)
{
    w.ready |= lanes;
    w.of->ready_warps |= 1u << w.index;
}

static void clear_ready(fiber *f)
{
    warp &w = *f->in;
    w.ready &= ~(1u << f->lane);
    if (!w.ready)
        running->ready_warps &= ~(1u << w.index);
}

static const char *kernel_name()
{
    return running && running->launch ? running->launch->name : "?";
}

static bool waits_alike(const fiber &a, const fiber &b)
{
    return b.now != state::DONE && a.at.line == b.at.line && a.mask == b.mask &&
           !strcmp(a.what, b.what);
}

static void tell_who_waits(const block &b)
{
    for (int i = 0; i < b.n_threads; i++) {
        const fiber &a = b.fibers[i];
        int alike = 0, earlier = 0;
        for (int j = 0; j < b.n_threads && a.now != state::DONE; j++) {
            alike += waits_alike(a, b.fibers[j]);
            earlier += j < i && waits_alike(a, b.fibers[j]);
        }
        if (alike && !earlier)
            fprintf(stderr,
                    "  block %u: %d threads from (%u,%u,%u) on wait at %s, mask %08x, %s:%d\n",
                    b.index.x, alike, a.index.x, a.index.y, a.index.z, a.what, a.mask, a.at.file,
                    a.at.line);
    }
}

[[noreturn]] static void deadlock()
{
    fprintf(stderr, "emulated cuda: DEADLOCK in %s block (%u,%u,%u): %d of %d threads alive\n",
            kernel_name(), blockIdx.x, blockIdx.y, blockIdx.z, running->n_alive,
            running->n_threads);
    for (int i = 0; i < running->in->n; i++)
        tell_who_waits(*running->in->blocks[i]);
    abort();
}

void wake(fiber &f)
{
    f.now = state::RUNS;
    set_ready(*f.in, 1u << f.lane);
}

// Lands a copy. Called when no thread can run.
static bool land_somewhere()
{
    for (int i = 0; i < running->in->n; i++) {
        as_block there(running->in->blocks[i]);
        if (land_awaited(*running))
            return true;
    }
    return false;
}

static fiber *pick_or_land()
{
    fiber *next = pick();
    while (!next && land_somewhere())
        next = pick();
    if (!next)
        deadlock();
    return next;
}

// Leaves the current fiber for another lane of its warp, if the schedule is not random and one can
// run, else for any fiber.
static void go_on()
{
    const warp &w = *current->in;
    if (w.ready && running->schedule != settings::RANDOM)
        switch_to(&w.lane[pick_bit(w.ready)]);
    else
        switch_to(pick_or_land());
}

void wait_here()
{
    clear_ready(current);
    go_on();
}

void fail(const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (current && running)
        fprintf(stderr, "emulated cuda: %s block (%u,%u,%u) thread (%u,%u,%u): %s\n", kernel_name(),
                blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z, text);
    else
        fprintf(stderr, "emulated cuda: %s\n", text);
    abort();
}

// ---- barriers and collectives

static void release_barrier()
{
    block &b = *running;
    b.arrived = 0;
    b.kept = b.reduced;
    for (int i = 0; i < b.n_threads; i += 32) {
        warp &w = b.warps[i / 32];
        if (w.at_barrier)
            set_ready(w, w.at_barrier);
        w.at_barrier = 0;
    }
}

void barrier(place at)
{
    fiber *f = current;
    f->what = "a barrier";
    f->at = at;
    f->mask = 0;
    TSAN(__tsan_release(&running->tsan_barrier);)
    if (++running->arrived == running->n_alive) {
        release_barrier();
    } else {
        f->in->at_barrier |= 1u << f->lane;
        wait_here();
    }
    TSAN(__tsan_acquire(&running->tsan_barrier);)
}

long barrier_reduce(reduction how, long value, place at)
{
    block &b = *running;
    if (b.arrived == 0)
        b.reduced = how == reduction::ALL;
    b.reduced = how == reduction::SUM   ? b.reduced + value
                : how == reduction::ALL ? b.reduced && value
                                        : b.reduced || value;
    barrier(at);
    // A fiber that runs ahead may have reached the next barrier already, but cannot have passed it.
    return b.kept;
}

// Completes the operation if all live lanes in f's mask have reached the same one. Returns whether
// they have.
static bool try_complete(warp &w, const fiber *f)
{
    uint32_t need = f->mask & w.alive;
    if ((w.arrived & need) != need)
        return false;
    for (uint32_t m = w.alike ? 0 : need; m; m &= m - 1) {
        const fiber &other = w.lane[__builtin_ctz(m)];
        if (other.fn != f->fn || other.mask != f->mask)
            return false;
    }
    f->fn(w, need);
    w.arrived &= ~need;
    set_ready(w, need);
    return true;
}

void collective(uint32_t mask, void *operands, collective_fn fn, const char *what, place at)
{
    fiber *f = current;
    if (!(mask >> f->lane & 1))
        fail("%s: lane %u is not in its own mask %08x (%s:%d)", what, f->lane, mask, at.file,
             at.line);
    f->operands = operands;
    f->fn = fn;
    f->mask = mask;
    f->what = what;
    f->at = at;
    warp &w = *f->in;
    if (!w.arrived) {
        w.fn = fn;
        w.mask = mask;
        w.alike = true;
    }
    w.alike = w.alike && fn == w.fn && mask == w.mask;
    w.arrived |= 1u << f->lane;
    if (!try_complete(w, f))
        wait_here();
}

// Switches to the next fiber, or, after the cluster's last one, to the stack of the OS thread.
static void leave_fiber()
{
    const cluster &c = *running->in;
    for (int i = 0; i < c.n; i++)
        if (c.blocks[i]->n_alive) {
            go_on();
            return;
        }
    enter(*c.blocks[0]);
    switch_to(&running->scheduler);
}

static void end_fiber()
{
    fiber *f = current;
    warp &w = *f->in;
    block &b = *running;
    if (!f->copies.empty())
        fail("the thread ends with asynchronous copies in flight");
    f->now = state::DONE;
    w.alive &= ~(1u << f->lane);
    b.n_alive--;
    clear_ready(f);
    TSAN(__tsan_release(&b.tsan_end);)
    for (uint32_t m = w.arrived; m; m &= m - 1) { // a collective may have waited for this lane
        const fiber &other = w.lane[__builtin_ctz(m)];
        if ((w.arrived >> other.lane & 1) && (other.mask >> f->lane & 1))
            try_complete(w, &other);
    }
    if (b.n_alive && b.arrived == b.n_alive)
        release_barrier();
    if (b.in->arrived)
        release_cluster(*b.in);
    if (!b.n_alive)
        end_async(b);
    leave_fiber();
    abort(); // no fiber switches to one that has ended
}

static void begin_fiber()
{
    TSAN(__tsan_acquire(&running->in->tsan_start);)
    running->launch->call(running->launch->closure);
    end_fiber();
}

// ---- shared memory and asynchronous copies

void *shared_memory()
{
    return running->shared;
}

bool in_shared_memory(const void *p, size_t bytes)
{
    const char *c = (const char *)p;
    return c >= running->shared && c + bytes <= running->shared + running->shared_bytes;
}

void copy_async(void *to, const void *from, uint32_t bytes, place at)
{
    if (((uintptr_t)to | (bytes ? (uintptr_t)from : 0)) & 15)
        fail("cp.async: %p from %p is not aligned (%s:%d)", to, from, at.file, at.line);
    if (!in_shared_memory(to, 16))
        fail("cp.async: the target is outside shared memory (%s:%d)", at.file, at.line);
    memset(to, 0xff, 16);
    current->copies.push_back({to, from, bytes});
    TSAN(__tsan_write16(to);)
}

void copy_commit()
{
    current->groups.push_back((uint32_t)current->copies.size());
}

void copy_wait(uint32_t groups_left)
{
    fiber *f = current;
    if (f->groups.size() <= groups_left)
        return;
    size_t landed = f->groups.size() - groups_left;
    uint32_t n = f->groups[landed - 1];
    for (uint32_t i = 0; i < n; i++) {
        const async_copy &c = f->copies[i];
        memcpy(c.to, c.from, c.bytes);
        memset((char *)c.to + c.bytes, 0, 16 - c.bytes);
        TSAN(__tsan_write16(c.to); if (c.bytes) __tsan_read16((void *)c.from);)
    }
    f->copies.erase(f->copies.begin(), f->copies.begin() + n);
    f->groups.erase(f->groups.begin(), f->groups.begin() + (long)landed);
    for (uint32_t &end : f->groups)
        end -= n;
}

// ---- blocks

constexpr size_t STACK = 128 << 10; // of a fiber

static char *map_pages(size_t bytes)
{
    void *p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        fail("no memory for a block");
    return (char *)p;
}

block *new_block()
{
    block *b = new block;
    b->stacks = map_pages(MOST_THREADS * (STACK + PAGE));
    for (int i = 0; i < MOST_THREADS; i++) { // a guard page below each
        mprotect(b->stacks + (size_t)i * (STACK + PAGE), PAGE, PROT_NONE);
        b->fibers[i].stack_top = b->stacks + (size_t)(i + 1) * (STACK + PAGE);
    }
    char *shared = map_pages(MOST_SHARED + 2 * PAGE);
    b->shared_end = shared + MOST_SHARED + PAGE;
    mprotect(shared, PAGE, PROT_NONE);
    mprotect(b->shared_end, PAGE, PROT_NONE);
    return b;
}

static void prepare_fiber(block &b, int i, const launch_request &launch)
{
    fiber &f = b.fibers[i];
    unsigned t = (unsigned)i;
    f.lane = t & 31;
    f.in = &b.warps[i / 32];
    f.index = {t % launch.block.x, t / launch.block.x % launch.block.y,
               t / launch.block.x / launch.block.y};
    f.now = state::RUNS;
    f.copies.clear();
    f.groups.clear();
    // Staggered: otherwise the tops of all stacks share a few cache sets.
    f.stack_pointer = first_stack(f.stack_top - i % 61 * 192, begin_fiber);
    TSAN(if (!f.tsan) f.tsan = __tsan_create_fiber(0);)
}

static void prepare_block(block &b, const launch_request &launch, uint64_t number)
{
    unsigned n = (unsigned)(number % launch.grid.x);
    uint64_t rest = number / launch.grid.x;
    b.index = {n, (unsigned)(rest % launch.grid.y), (unsigned)(rest / launch.grid.y)};
    b.n_threads = b.n_alive = (int)(launch.block.x * launch.block.y * launch.block.z);
    b.ready_warps = 0;
    b.launch = &launch;
    b.schedule = setting().schedule;
    b.rng = ((setting().seed + number) * 0x9e3779b97f4a7c15u) | 1;
    b.arrived = 0;
    // Shared memory ends at a guard page, as closely as its alignment allows, and is filled with
    // NaN at the start.
    size_t bytes = (launch.shared + 127) & ~(size_t)127;
    b.shared = b.shared_end - bytes;
    b.shared_bytes = launch.shared;
    memset(b.shared, 0xff, bytes);
    for (int i = 0; i < b.n_threads; i += 32) {
        warp &w = b.warps[i / 32];
        int lanes = std::min(32, b.n_threads - i);
        w.lane = b.fibers + i;
        w.index = (uint32_t)i / 32;
        w.alive = lanes == 32 ? ~0u : (1u << lanes) - 1;
        w.ready = w.arrived = w.at_barrier = 0;
        w.of = &b;
        set_ready(w, w.alive);
    }
    for (int i = 0; i < b.n_threads; i++)
        prepare_fiber(b, i, launch);
    begin_async(b);
    TSAN(__tsan_release(&b.in->tsan_start);)
}

void run_cluster(cluster &c, const launch_request &launch, uint64_t number)
{
    blockDim = {launch.block.x, launch.block.y, launch.block.z};
    gridDim = {launch.grid.x, launch.grid.y, launch.grid.z};
    for (int i = 0; i < c.n; i++)
        prepare_block(*c.blocks[i], launch, number * (uint64_t)c.n + (uint64_t)i);
    enter(*c.blocks[0]);
    TSAN(running->scheduler.tsan = __tsan_get_current_fiber();)
    current = &running->scheduler;
    switch_to(pick());
    current = nullptr;
    TSAN(for (int i = 0; i < c.n; i++) __tsan_acquire(&c.blocks[i]->tsan_end);)
}

// ---- faults

static void on_fault(int signal_number, siginfo_t *info, void *)
{
    char text[512];
    int n;
    if (open_at(info->si_addr))
        return;
    if (current && running && current != &running->scheduler)
        n = snprintf(text, sizeof text,
                     "emulated cuda: INVALID ACCESS at %p in %s block (%u,%u,%u) thread "
                     "(%u,%u,%u): %s\n",
                     info->si_addr, kernel_name(), blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x,
                     threadIdx.y, threadIdx.z, describe(info->si_addr));
    else
        n = snprintf(text, sizeof text, "emulated cuda: invalid access at %p in host code: %s\n",
                     info->si_addr, describe(info->si_addr));
    if (write(STDERR_FILENO, text, (size_t)n) < 0)
        _exit(1);
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

void catch_faults()
{
    static std::once_flag once;
    std::call_once(once, [] {
        struct sigaction action = {};
        action.sa_sigaction = on_fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        sigaction(SIGSEGV, &action, nullptr);
        sigaction(SIGBUS, &action, nullptr);
    });
}

} // namespace emulated
