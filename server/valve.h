// Pruning as the overload valve: "pruning": "auto" lets the daemon pick the mildest plan with which
// a request makes the latency objective, from what is there to be done and how fast that goes, and
// no rougher one than the operator's floor.
#ifndef ATEDM_VALVE_H
#define ATEDM_VALVE_H

#include "core/flops.h"
#include "core/plan.h"

#include <stdbool.h>
#include <stddef.h>

// Work over speed is what a request takes in the mean; later ones share the device with it, and the
// speed is not the same for every mix. So the valve watches what requests take of that, and goes by
// the multiple that this share of them does not exceed.
#define ATEDM_VALVE_SHARE 0.95
#define ATEDM_VALVE_FIRST 1.4 // the multiple before any was seen
#define ATEDM_VALVE_LEAST 1.0
#define ATEDM_VALVE_MOST 10.0
// Requests come in bursts, and who comes in one finds what those before it chose. A pick counts
// what is ahead so many times, as if it came again meanwhile: so the queue stays short enough that
// the floor carries the burst.
#define ATEDM_VALVE_RESERVE 2.0
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
    double mean_s;     // work over speed; NAN: no speed was measured yet
    double expected_s; // the multiple of it, from admission to answer; NAN likewise
    bool meets;        // the objective, also with the reserve
} atedm_pick;

// Orders presets by what they cost the request, down to `floor`, which is one of them; of equal
// costs the first that is given stays. Returns how many are left.
size_t atedm_valve_order(atedm_rung rungs[ATEDM_VALVE_MAX], size_t count, const char *floor);

// `ahead`: FLOPs that are to be done before or beside the request. `rate`: FLOPs a second; NAN:
// unknown. `multiple`: ATEDM_VALVE_FIRST, then what was learned. Where no plan meets the objective
// it is the last.
atedm_pick atedm_valve_pick(const atedm_rung *rungs, size_t count, double ahead, double rate,
                            double multiple, double objective_s);

// The multiple, now that a request of this pick has taken so long. Up by much where it took more,
// down by little where it did not: in balance where ATEDM_VALVE_SHARE of them do not (stochastic
// approximation of a quantile; Robbins and Monro, 1951).
double atedm_valve_learn(double multiple, const atedm_pick *pick, double taken_s);

#endif
