// Time: see clock.h.
#include "core/base/clock.h"

#include <time.h>

double atedm_clock_monotonic(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

int64_t atedm_clock_unix(void)
{
    return (int64_t)time(NULL);
}
