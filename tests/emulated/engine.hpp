// What the files of the emulation share: the block that an OS thread runs, and the settings.
// C++, only for tests/emulated.
#ifndef ATEDM_TESTS_EMULATED_ENGINE_HPP
#define ATEDM_TESTS_EMULATED_ENGINE_HPP

#include "tests/emulated/cuda_emulated.hpp"

#ifdef __SANITIZE_THREAD__
#error "the engine is not instrumented: it moves data between fibers on purpose"
#endif

// Fibers are fibers to ThreadSanitizer too, and switching orders nothing: only barriers,
// collectives that say so, and the launch do. So a barrier that is missing is a data race.
#ifdef ATEDM_EMULATED_TSAN
extern "C" {
void *__tsan_create_fiber(unsigned);
void *__tsan_get_current_fiber();
void __tsan_switch_to_fiber(void *, unsigned);
void __tsan_acquire(void *);
void __tsan_release(void *);
void __tsan_read16(void *);
void __tsan_write16(void *);
void AnnotateIgnoreReadsBegin(const char *, int);
void AnnotateIgnoreReadsEnd(const char *, int);
void AnnotateIgnoreWritesBegin(const char *, int);
void AnnotateIgnoreWritesEnd(const char *, int);
}
#define TSAN(...) __VA_ARGS__
#else
#define TSAN(...)
#endif

namespace emulated
{

constexpr int MOST_THREADS = 1024;
constexpr size_t MOST_SHARED = (size_t)227 << 10; // of a block on sm_90
constexpr size_t PAGE = 4096;
constexpr int MOST_DEVICES = 16;
constexpr int MOST_CLUSTER = 8; // blocks, that every device has room for

// From the environment, so that one binary runs in all modes.
struct settings {
    enum order { FORWARD, REVERSE, RANDOM };
    order schedule = FORWARD; // ATEDM_EMULATED_SCHEDULE: forward, reverse, random:SEED
    uint64_t seed = 1;
    int workers = 0;      // ATEDM_EMULATED_WORKERS: OS threads that run blocks; 0: one a core
    bool late = false;    // ATEDM_EMULATED_LATE=1: streams run only when something waits for them
    bool protect = false; // ATEDM_EMULATED_PROTECT=1: host code cannot touch device memory
    int sm = 80;          // ATEDM_EMULATED_SM: compute capability
    int devices = 1;      // ATEDM_EMULATED_DEVICES
    // ATEDM_EMULATED_MULTIPROCESSORS of each: few, so that toy sizes are several rounds of blocks.
    int multiprocessors = 1;
    int most_cluster = MOST_CLUSTER; // ATEDM_EMULATED_MOST_CLUSTER: blocks that it has room for
    int fail_after = -1;             // ATEDM_EMULATED_FAIL_AFTER
    int blas_ms = 0;              // ATEDM_EMULATED_BLAS_MS: that a product of cuBLASLt takes more
    bool blas_bias_first = false; // ATEDM_EMULATED_BLAS_BIAS_FIRST=1: added before residuals
    size_t memory = (size_t)8 << 30; // ATEDM_EMULATED_MEMORY: bytes of each device
    settings();
};
const settings &setting();

// What a block has going on beside its threads: hopper.hpp.
struct asynchronous;
struct block;

// Blocks that one OS thread runs together, since they reach each other's shared memory: mostly one.
struct cluster {
    block *blocks[MOST_CLUSTER];
    int n = 0;
    int arrived = 0; // threads of all blocks, at the cluster's barrier
    char tsan_start = 0;
};

struct block {
    fiber fibers[MOST_THREADS];
    fiber scheduler; // stands for the OS thread's own stack
    warp warps[32];
    uint32_t ready_warps = 0;
    int n_threads = 0, n_alive = 0;
    int arrived = 0;            // at the barrier
    long reduced = 0, kept = 0; // of barrier_reduce: so far, and of the last barrier
    char *stacks = nullptr;
    char *shared = nullptr, *shared_end = nullptr;
    size_t shared_bytes = 0;
    const launch_request *launch = nullptr;
    uint3 index{};
    cluster *in = nullptr;
    settings::order schedule = settings::FORWARD; // of setting(), within reach
    uint64_t rng = 0;
    asynchronous *async = nullptr; // never destroyed, as the block
    char tsan_end, tsan_barrier, tsan_warp[32];
};
ATEDM_EMULATED_TLS block *running;

// ---- engine.cpp

// While one lives, what is said of the running block is said of that one.
class as_block
{
  public:
    explicit as_block(block *b);
    ~as_block();
    as_block(const as_block &) = delete;
    as_block &operator=(const as_block &) = delete;

  private:
    block *before;
};

// The current fiber cannot go on until somebody wakes it.
void wait_here();
void wake(fiber &f);
// Whether what may happen now or later happens now: with threads in forward order later, in reverse
// now, in random order either, by the schedule's own numbers, so that a run can be repeated.
bool is_early();

// A block with stacks and shared memory, for any launch.
block *new_block();
// From its blocks' first thread to their last.
void run_cluster(cluster &c, const launch_request &launch, uint64_t number);
// Has bad accesses told, with kernel, block and thread.
void catch_faults();

// ---- cluster.cpp

// Whoever waits at the cluster's barrier goes on where all threads that live are there.
bool release_cluster(cluster &c);

// ---- hopper.cpp

// Before a block's first thread, and behind its last.
void begin_async(block &b);
void end_async(const block &b);
// Lets copies land that somebody waits for; false: there are none.
bool land_awaited(block &b);

} // namespace emulated

#endif
