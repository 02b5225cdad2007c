// What chance decides in `atedm bench serve`: pure functions of the run's seed and a request's
// number, so that two runs of one seed send the same requests at the same times, whatever the
// daemon does meanwhile.
#ifndef ATEDM_CLI_LOAD_DRAW_H
#define ATEDM_CLI_LOAD_DRAW_H

#include <stddef.h>
#include <stdint.h>

// Seconds between the arrivals of request `number` - 1 and request `number` (0: from the start).
// Exponential with mean 1 / rate, so that the arrivals are a Poisson process. rate: 1/s, > 0.
double atedm_load_draw_gap(uint64_t seed, uint64_t number, double rate);

// Which of `n` entries request `number` is, in proportion to their weights. cumulative[i]: the sum
// of weights 0..i; the last is > 0.
size_t atedm_load_draw_entry(uint64_t seed, uint64_t number, const double *cumulative, size_t n);

// The "seed" of request `number`, for bodies that name none: 0..2^32-1, all that PyTorch's
// generator looks at.
uint32_t atedm_load_draw_seed(uint64_t seed, uint64_t number);

#endif
