// SplitMix64 (Steele, Lea & Flood, OOPSLA 2014; constants of Java's SplittableRandom and Vigna's
// splitmix64.c): a generator whose outputs can be had in any order, so that its numbers serve as
// hashes and as keys of further ones.
#ifndef ATEDM_BASE_SPLITMIX_H
#define ATEDM_BASE_SPLITMIX_H

#include <stdint.h>

// Output `number` = 0, 1, .. of the generator started at `key`.
static inline uint64_t atedm_splitmix(uint64_t key, uint64_t number)
{
    uint64_t z = key + (number + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

#endif
