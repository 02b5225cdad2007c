// The random choices of `atedm bench serve`, as pure functions of the run's seed and a request's
// number. So two runs with one seed send the same requests at the same times, whatever the daemon
// does.
#ifndef ATEDM_CLI_LOAD_DRAW_H
#define ATEDM_CLI_LOAD_DRAW_H

#include <stddef.h>
#include <stdint.h>

// Seconds between the arrivals of request `number` - 1 and request `number` (0: from the start).
// Exponential with mean 1 / rate, so that the arrivals are a Poisson process. rate: 1/s, > 0.
double atedm_load_draw_gap(uint64_t seed, uint64_t number, double rate);

// The index of request `number` among `n` entries, in proportion to their weights. cumulative[i]:
// the sum of weights 0..i; the last is > 0.
size_t atedm_load_draw_entry(uint64_t seed, uint64_t number, const double *cumulative, size_t n);

// The "seed" of request `number`, for bodies that have none: 0..2^32-1, the bits that PyTorch's
// generator uses.
uint32_t atedm_load_draw_seed(uint64_t seed, uint64_t number);

#endif
