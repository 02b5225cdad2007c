// A progress bar on standard error, if that is a terminal, and a request's deadline.
#ifndef ATEDM_CLI_PROGRESS_H
#define ATEDM_CLI_PROGRESS_H

#include "core/base/status.h"

#include <stdbool.h>

typedef struct atedm_progress {
    bool visible;
    double start;    // s, atedm_clock_monotonic
    double deadline; // s, atedm_clock_monotonic; INFINITY: none
    bool late;       // the deadline has ended the request
} atedm_progress;

// deadline_s: seconds from now; NAN: none.
void atedm_progress_init(atedm_progress *progress, double deadline_s);
// Draws the bar, filled to `share` (0..1; larger counts as 1), and the text after it.
void atedm_progress_show(const atedm_progress *progress, double share, const char *format, ...)
    ATEDM_PRINTF(3, 4);
// Shows the step, or returns false after the deadline. An atedm_progress_fn; `user` is an
// atedm_progress.
bool atedm_progress_step(void *user, int step, int steps);
void atedm_progress_clear(const atedm_progress *progress); // erases the bar

#endif
