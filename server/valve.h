// Pruning as an overload valve. With "pruning": "auto" the daemon picks the mildest plan with which
// it expects a request to meet the latency objective. It calculates this from the work ahead and
// the measured speed. It never picks a plan that prunes more than the operator's floor. Pure
// functions: any thread.
#ifndef ATEDM_VALVE_H
#define ATEDM_VALVE_H

#include "core/flops.h"
#include "core/plan.h"

#include <stdbool.h>
#include <stddef.h>

// Work divided by speed is the mean time that a request takes. Single requests take more or less,
// since later ones share the device with them, and the speed depends on the mix of requests. So the
// valve learns a multiple of that mean time which this share of requests does not exceed.
#define ATEDM_VALVE_SHARE 0.95
#define ATEDM_VALVE_FIRST 1.4 // the multiple before any request has ended
#define ATEDM_VALVE_LEAST 1.0
#define ATEDM_VALVE_MOST 10.0
// Requests come in bursts, and a pick cannot change the plans that earlier requests of its burst
// have got. So a pick counts the work ahead this many times, as if as much came again meanwhile.
// This keeps the queue so short that the floor can carry a burst.
#define ATEDM_VALVE_RESERVE 2.0
#define ATEDM_VALVE_MAX ATEDM_PRUNE_PRESETS_MAX // rungs: plans to pick from

// A plan that the valve may pick. Rungs are ordered by cost: the first is the most expensive, and
// so the mildest.
typedef struct atedm_rung {
    const char *preset; // static storage
    uint64_t flops;     // of the request with this preset
} atedm_rung;

// What the valve picked, and why. The job keeps it for its answer.
typedef struct atedm_pick {
    const char *preset; // static storage; NULL: the client chose
    double objective_s;
    double mean_s;     // work divided by speed; not above 0 (or NAN): no speed was measured yet
    double expected_s; // `mean_s` times the multiple, from admission to answer; NAN: no speed yet
    bool meets;        // expected to meet the objective, reserve included
} atedm_pick;

// Orders the presets by their cost for the request, and drops those below `floor`, which has to be
// one of them. Of presets with equal costs it keeps the first. Returns how many rungs are left.
size_t atedm_valve_order(atedm_rung rungs[ATEDM_VALVE_MAX], size_t count, const char *floor);

// Picks the first rung that meets the objective; the last one if none does; the first one if `rate`
// is NAN. `ahead`: FLOPs that have to be done before or beside the request. `rate`: FLOPs a second;
// NAN: not measured yet. `multiple`: ATEDM_VALVE_FIRST, later what atedm_valve_learn returned.
atedm_pick atedm_valve_pick(const atedm_rung *rungs, size_t count, double ahead, double rate,
                            double multiple, double objective_s);

// The new multiple after a request with this pick has taken `taken_s` seconds. It rises by much if
// the request took longer than the multiple said, else it falls by little. The two balance when
// ATEDM_VALVE_SHARE of the requests take no longer (stochastic approximation of a quantile; Robbins
// and Monro, 1951).
double atedm_valve_learn(double multiple, const atedm_pick *pick, double taken_s);

#endif
