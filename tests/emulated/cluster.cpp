// Clusters: blocks that run together, with a barrier of all their threads, and with copies and
// arrivals that reach each other's shared memory. Sections of the PTX ISA: "Cluster of Cooperative
// Thread Arrays", "barrier.cluster", "mapa", ".multicast::cluster". C++.
#include "tests/emulated/hopper.hpp"

namespace emulated
{

// The same place in the shared memory of another block. It is a fault if that block has ended.
static void *place_in(const block &other, const void *p, place at)
{
    if (!other.n_alive)
        fail("a cluster's block (%u) has ended, and is still written to (%s:%d)", other.index.x,
             at.file, at.line);
    return other.shared + ((const char *)p - running->shared);
}

static block *member(int rank, place at)
{
    if (rank < 0 || rank >= running->in->n)
        fail("block %d of a cluster of %d (%s:%d)", rank, running->in->n, at.file, at.line);
    return running->in->blocks[rank];
}

void mbarrier_arrive_at(void *barrier, int rank, place at)
{
    block *other = member(rank, at);
    void *there = place_in(*other, barrier, at);
    as_block as(other);
    mbarrier_arrive(there, 0, at);
}

void tensor_load_to_all(void *to, const CUtensorMap &map, coordinates from, int rank, void *barrier,
                        uint32_t mask, place at)
{
    if (!mask)
        fail("cp.async.bulk.tensor: a copy to no block (%s:%d)", at.file, at.line);
    for (uint32_t left = mask; left; left &= left - 1) {
        block *other = member(__builtin_ctz(left), at);
        void *there = place_in(*other, to, at), *its_barrier = place_in(*other, barrier, at);
        as_block as(other);
        tensor_load(there, map, from, rank, its_barrier, at);
    }
}

bool release_cluster(cluster &c)
{
    int alive = 0;
    for (int i = 0; i < c.n; i++)
        alive += c.blocks[i]->n_alive;
    if (c.arrived < alive)
        return false;
    c.arrived = 0;
    for (int i = 0; i < c.n; i++) {
        as_block as(c.blocks[i]);
        wake_all(&c);
    }
    return true;
}

// The barrier is relaxed: it makes earlier writes visible to no other thread, except for mbarriers
// that were fenced.
void cluster_barrier(place at)
{
    need_hopper("barrier.cluster", at);
    cluster &c = *running->in;
    c.arrived++;
    if (!release_cluster(c))
        wait_for(&c, "a cluster's barrier", at);
}

} // namespace emulated
