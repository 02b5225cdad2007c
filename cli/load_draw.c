// The random choices of `atedm bench serve`: see load_draw.h.
#include "cli/load_draw.h"

#include "core/base/splitmix.h"

#include <math.h>

// Three generators, independent except for the run's seed.
enum { DRAW_GAP, DRAW_ENTRY, DRAW_SEED };

static uint64_t draw(uint64_t seed, uint64_t what, uint64_t number)
{
    return atedm_splitmix(atedm_splitmix(seed, what), number);
}

// [0, 1), 53 bits.
static double uniform(uint64_t bits)
{
    return (double)(bits >> 11) * 0x1p-53;
}

double atedm_load_draw_gap(uint64_t seed, uint64_t number, double rate)
{
    // The inverse of the distribution function 1 - exp(-rate t).
    return -log1p(-uniform(draw(seed, DRAW_GAP, number))) / rate;
}

size_t atedm_load_draw_entry(uint64_t seed, uint64_t number, const double *cumulative, size_t n)
{
    double place = uniform(draw(seed, DRAW_ENTRY, number)) * cumulative[n - 1];
    size_t i = 0;
    while (i + 1 < n && !(place < cumulative[i]))
        i++;
    return i;
}

uint32_t atedm_load_draw_seed(uint64_t seed, uint64_t number)
{
    return (uint32_t)(draw(seed, DRAW_SEED, number) >> 32);
}
