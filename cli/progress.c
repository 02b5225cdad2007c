// Draws the progress bar: see progress.h.
#include "cli/progress.h"

#include "core/base/clock.h"

#include <math.h>
#include <stdarg.h>
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

void atedm_progress_show(const atedm_progress *progress, double share, const char *format, ...)
{
    if (!progress->visible)
        return;
    char bar[BAR_WIDTH + 1];
    size_t full = share > 0 ? (size_t)(fmin(share, 1) * BAR_WIDTH) : 0;
    memset(bar, '#', full);
    memset(bar + full, '.', BAR_WIDTH - full);
    bar[BAR_WIDTH] = '\0';
    va_list args;
    va_start(args, format);
    fprintf(stderr, "\r[%s] ", bar);
    vfprintf(stderr, format, args);
    fputs("\033[K", stderr); // erases the rest of a longer line
    fflush(stderr);
    va_end(args);
}

bool atedm_progress_step(void *user, int step, int steps)
{
    atedm_progress *progress = user;
    double now = atedm_clock_monotonic();
    if (now > progress->deadline) {
        progress->late = true;
        return false;
    }
    atedm_progress_show(progress, (double)step / steps, "step %d of %d, %.1f s%s", step, steps,
                        now - progress->start, step == steps ? ", decoding" : "");
    return true;
}

void atedm_progress_clear(const atedm_progress *progress)
{
    if (progress->visible)
        fputs("\r\033[K", stderr);
}
