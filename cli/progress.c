// The progress bar: see progress.h.
#include "cli/progress.h"

#include "core/base/clock.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BAR_WIDTH 32

void atedm_progress_init(atedm_progress *progress, double deadline_s)
{
    double now = atedm_clock_monotonic();
    *progress = (atedm_progress){
        .visible = isatty(STDERR_FILENO) == 1,
        .start = now,
        .deadline = isnan(deadline_s) ? INFINITY : now + deadline_s,
    };
}

bool atedm_progress_step(void *user, int step, int steps)
{
    atedm_progress *progress = user;
    double now = atedm_clock_monotonic();
    if (now > progress->deadline) {
        progress->late = true;
        return false;
    }
    if (progress->visible) {
        char bar[BAR_WIDTH + 1];
        int full = step * BAR_WIDTH / steps;
        memset(bar, '#', (size_t)full);
        memset(bar + full, '.', (size_t)(BAR_WIDTH - full));
        bar[BAR_WIDTH] = '\0';
        fprintf(stderr, "\r[%s] step %d of %d, %.1f s%s", bar, step, steps, now - progress->start,
                step == steps ? ", decoding" : "");
        fflush(stderr);
    }
    return true;
}

void atedm_progress_clear(const atedm_progress *progress)
{
    if (progress->visible)
        fputs("\r\033[K", stderr);
}
