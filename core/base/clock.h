// Time: a monotonic clock for durations, the wall clock for records.
#ifndef ATEDM_BASE_CLOCK_H
#define ATEDM_BASE_CLOCK_H

#include <stdint.h>

double atedm_clock_monotonic(void); // seconds since an arbitrary start, never goes back
int64_t atedm_clock_unix(void);     // whole seconds since 1970-01-01 UTC

#endif
