// Picks a pruning plan under load: see valve.h.
#include "server/valve.h"

#include <math.h>
#include <string.h>

size_t atedm_valve_order(atedm_rung rungs[ATEDM_VALVE_MAX], size_t count, const char *floor)
{
    atedm_rung last = {.preset = floor};
    for (size_t i = 0; i < count; i++) {
        if (strcmp(rungs[i].preset, floor) == 0)
            last = rungs[i];
    }
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        const atedm_rung rung = rungs[i];
        size_t at = kept;
        while (at > 0 && rungs[at - 1].flops < rung.flops)
            at--;
        if (rung.flops <= last.flops || (at > 0 && rungs[at - 1].flops == rung.flops))
            continue;
        memmove(&rungs[at + 1], &rungs[at], (kept++ - at) * sizeof *rungs);
        rungs[at] = rung;
    }
    rungs[kept++] = last;
    return kept;
}

atedm_pick atedm_valve_pick(const atedm_rung *rungs, size_t count, double ahead, double rate,
                            double objective_s)
{
    atedm_pick pick = {
        .preset = rungs[0].preset, .objective_s = objective_s, .expected_s = NAN, .meets = true};
    if (isnan(rate))
        return pick;
    for (size_t i = 0; i < count; i++) {
        pick.preset = rungs[i].preset;
        pick.expected_s = (ahead + (double)rungs[i].flops) / rate;
        pick.meets = pick.expected_s <= ATEDM_VALVE_MARGIN * objective_s;
        if (pick.meets)
            break;
    }
    return pick;
}
