// Pruning as the overload valve: "pruning": "auto" lets the daemon pick the mildest plan with which
// a request makes the latency objective, from what is there to be done and how fast that goes, and
// no rougher one than the operator's floor.
#ifndef ATEDM_VALVE_H
#define ATEDM_VALVE_H

#include "core/flops.h"
#include "core/plan.h"

#include <stdbool.h>
#include <stddef.h>

// Share of the objective that a plan may be expected to take: what is expected is a mean, and half
// of all requests take longer.
#define ATEDM_VALVE_MARGIN 0.7
#define ATEDM_VALVE_MAX 8 // rungs: plans to pick from

// A plan to pick: rungs are in the order of their cost, the first is the mildest.
typedef struct atedm_rung {
    const char *preset; // static storage
    uint64_t flops;     // of the request with it
} atedm_rung;

// What was picked, and why: kept for the answer.
typedef struct atedm_pick {
    const char *preset; // NULL: the client chose
    double objective_s;
    double expected_s; // from admission to answer; NAN: no speed was measured yet
    bool meets;        // the margin of the objective
} atedm_pick;

// Orders presets by what they cost the request, down to `floor`, which is one of them; of equal
// costs the first that is given stays. Returns how many are left.
size_t atedm_valve_order(atedm_rung rungs[ATEDM_VALVE_MAX], size_t count, const char *floor);

// `ahead`: FLOPs that are to be done before or beside the request. `rate`: FLOPs a second; NAN:
// unknown. Where no plan meets the objective it is the last.
atedm_pick atedm_valve_pick(const atedm_rung *rungs, size_t count, double ahead, double rate,
                            double objective_s);

#endif
