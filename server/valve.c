// Picks a pruning plan under load: see valve.h.
#include "server/valve.h"

#include <math.h>
#include <string.h>

// How far one request moves the multiple: a factor of at most 1 + STEP.
#define STEP 0.1

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
                            double multiple, double objective_s)
{
    atedm_pick pick = {
        .preset = rungs[0].preset, .objective_s = objective_s, .expected_s = NAN, .meets = true};
    if (isnan(rate))
        return pick;
    for (size_t i = 0; i < count; i++) {
        pick.preset = rungs[i].preset;
        pick.mean_s = (ahead + (double)rungs[i].flops) / rate;
        pick.expected_s = multiple * pick.mean_s;
        double reserved = ATEDM_VALVE_RESERVE * ahead + (double)rungs[i].flops;
        pick.meets = multiple * reserved / rate <= objective_s;
        if (pick.meets)
            break;
    }
    return pick;
}

double atedm_valve_learn(double multiple, const atedm_pick *pick, double taken_s)
{
    if (!pick->preset || !(pick->mean_s > 0))
        return multiple;
    bool more = taken_s > multiple * pick->mean_s;
    multiple *= 1 + STEP * (more ? ATEDM_VALVE_SHARE : ATEDM_VALVE_SHARE - 1);
    return fmin(fmax(multiple, ATEDM_VALVE_LEAST), ATEDM_VALVE_MOST);
}
