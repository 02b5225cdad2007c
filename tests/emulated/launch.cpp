// Launches: checks of their parameters, and running a grid's clusters on OS threads. C++.
#include "tests/emulated/engine.hpp"

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <mutex>
#include <thread>

namespace emulated
{

static std::mutex pool_mutex;
// Blocks that no thread is running, guarded by pool_mutex. Never destroyed, so that the leak
// checker still finds the blocks.
static std::vector<block *> &pool = *new std::vector<block *>;

static void take_blocks(cluster &c, int n)
{
    std::lock_guard<std::mutex> lock(pool_mutex);
    for (; c.n < n; c.n++) {
        block *&b = c.blocks[c.n];
        if (pool.empty()) {
            b = new_block();
        } else {
            b = pool.back();
            pool.pop_back();
        }
        b->in = &c;
    }
}

// `next` and `total` count clusters.
static void run_clusters(const launch_request &launch, std::atomic<uint64_t> &next, uint64_t total)
{
    cluster c;
    take_blocks(c, launch.cluster);
    std::vector<char> handler_stack(64 << 10); // a fiber's own stack may have overflowed
    stack_t mine = {}, before = {};
    mine.ss_sp = handler_stack.data();
    mine.ss_size = handler_stack.size();
    sigaltstack(&mine, &before);
    for (uint64_t n; (n = next.fetch_add(1)) < total;)
        run_cluster(c, launch, n);
    sigaltstack(&before, nullptr);
    std::lock_guard<std::mutex> lock(pool_mutex);
    pool.insert(pool.end(), c.blocks, c.blocks + c.n);
    running = nullptr;
}

cudaError_t check_launch(const launch_request &launch)
{
    uint64_t threads = (uint64_t)launch.block.x * launch.block.y * launch.block.z;
    size_t most_shared = setting().sm >= 90 ? MOST_SHARED : (size_t)163 << 10;
    if (threads > 0 && threads <= MOST_THREADS && launch.grid.x && launch.grid.y && launch.grid.z &&
        launch.grid.x <= INT32_MAX && launch.grid.y <= 65535 && launch.grid.z <= 65535 &&
        launch.shared <= most_shared && launch.cluster <= setting().most_cluster &&
        launch.grid.x % (unsigned)launch.cluster == 0 &&
        (launch.cluster == 1 || setting().sm == 90))
        return cudaSuccess;
    fprintf(stderr,
            "emulated cuda: %s refused: grid (%u,%u,%u), %llu threads, %zu bytes shared, "
            "clusters of %d\n",
            launch.name, launch.grid.x, launch.grid.y, launch.grid.z, (unsigned long long)threads,
            launch.shared, launch.cluster);
    return cudaErrorInvalidConfiguration;
}

cudaError_t count_clusters(int cluster, int *ret_clusters)
{
    bool is_room = cluster <= setting().most_cluster;
    *ret_clusters = is_room ? std::max(1, setting().multiprocessors / cluster) : 0;
    return cudaSuccess;
}

void run_launch(const launch_request &launch)
{
    catch_faults();
    uint64_t total = (uint64_t)launch.grid.x * launch.grid.y * launch.grid.z;
    std::atomic<uint64_t> next{0};
    uint64_t clusters = total / (uint64_t)launch.cluster;
    // Starting a thread costs more than a small launch.
    uint64_t threads = total * launch.block.x * launch.block.y * launch.block.z;
    uint64_t most = threads < 1024 ? 1 : (uint64_t)setting().workers;
    int workers = (int)std::min(most, clusters);
    std::vector<std::thread> others;
    for (int i = 1; i < workers; i++)
        others.emplace_back([&] { run_clusters(launch, next, clusters); });
    run_clusters(launch, next, clusters);
    for (auto &other : others)
        other.join();
}

} // namespace emulated
