// The overload valve: the mildest plan that is expected in time, never below the floor.
#include "server/valve.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

// As they come: by name, with a name for one that is there twice.
static size_t make_rungs(atedm_rung rungs[ATEDM_VALVE_MAX], const char *floor)
{
    const atedm_rung all[] = {{"off", 100},     {"at-edm", 60},   {"at-edm-a", 30},
                              {"at-edm-b", 50}, {"at-edm-c", 60}, {"at-edm-d", 80}};
    for (size_t i = 0; i < 6; i++)
        rungs[i] = all[i];
    return atedm_valve_order(rungs, 6, floor);
}

Test(valve, orders_by_cost_down_to_the_floor)
{
    atedm_rung rungs[ATEDM_VALVE_MAX];
    cr_assert_eq(make_rungs(rungs, "at-edm-b"), 4);
    const char *const wanted[] = {"off", "at-edm-d", "at-edm", "at-edm-b"};
    for (size_t i = 0; i < 4; i++)
        cr_assert_str_eq(rungs[i].preset, wanted[i]);
    cr_assert_eq(make_rungs(rungs, "off"), 1);
    cr_assert_str_eq(rungs[0].preset, "off");
    cr_assert_eq(make_rungs(rungs, "at-edm-a"), 5);
    cr_assert_eq(make_rungs(rungs, "at-edm-c"), 3);
    cr_assert_str_eq(rungs[2].preset, "at-edm-c");
}

Test(valve, picks_the_mildest_that_meets)
{
    atedm_rung rungs[ATEDM_VALVE_MAX];
    size_t n = make_rungs(rungs, "at-edm-b");
    // 10 FLOPs a second, an objective of 20 s, a multiple of 2: 100 FLOPs are in time, those ahead
    // counted twice.
    const struct {
        double ahead;
        const char *preset;
        double expected;
        bool meets;
    } cases[] = {
        {0, "off", 20, true},           {1, "at-edm-d", 16.2, true}, {10, "at-edm-d", 18, true},
        {11, "at-edm", 14.2, true},     {25, "at-edm-b", 15, true},  {26, "at-edm-b", 15.2, false},
        {1000, "at-edm-b", 210, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        atedm_pick pick = atedm_valve_pick(rungs, n, cases[i].ahead, 10, 2, 20);
        cr_assert_str_eq(pick.preset, cases[i].preset, "%g ahead", cases[i].ahead);
        cr_assert_float_eq(pick.expected_s, cases[i].expected, 1e-9);
        cr_assert_eq(pick.meets, cases[i].meets);
        cr_assert_float_eq(pick.mean_s, cases[i].expected / 2, 1e-9);
        cr_assert_eq(pick.objective_s, 20);
    }
}

Test(valve, prunes_nothing_before_a_speed_is_known)
{
    atedm_rung rungs[ATEDM_VALVE_MAX];
    size_t n = make_rungs(rungs, "at-edm-a");
    atedm_pick pick = atedm_valve_pick(rungs, n, 1e9, NAN, ATEDM_VALVE_FIRST, 1);
    cr_assert_str_eq(pick.preset, "off");
    cr_assert(isnan(pick.expected_s));
}

// Requests that take 0 to 4 times the mean, evenly: 95 of 100 take at most 3.8 times.
Test(valve, learns_the_multiple_that_most_do_not_exceed)
{
    const atedm_pick pick = {.preset = "off", .mean_s = 2};
    double multiple = ATEDM_VALVE_FIRST, sum = 0;
    uint32_t random = 1;
    const int n = 20000;
    for (int i = 0; i < n; i++) {
        random = random * 1664525 + 1013904223;
        multiple = atedm_valve_learn(multiple, &pick, 2 * 4.0 * (random >> 8) / (1 << 24));
        sum += multiple;
    }
    cr_assert_float_eq(sum / n, 3.8, 0.2);
}

Test(valve, learns_within_bounds_and_from_its_own_picks_only)
{
    const atedm_pick pick = {.preset = "off", .mean_s = 2}, chosen = {.preset = NULL, .mean_s = 2},
                     unknown = {.preset = "off", .mean_s = NAN};
    double up = 5, down = 5;
    for (int i = 0; i < 1000; i++) {
        up = atedm_valve_learn(up, &pick, 1e9);
        down = atedm_valve_learn(down, &pick, 0);
    }
    cr_assert_eq(up, ATEDM_VALVE_MOST);
    cr_assert_eq(down, ATEDM_VALVE_LEAST);
    cr_assert_eq(atedm_valve_learn(5, &chosen, 1e9), 5);
    cr_assert_eq(atedm_valve_learn(5, &unknown, 1e9), 5);
}

// ---- a device under load, simulated

#define REQUESTS 600
#define ACTIVE 8 // that share the device; the others wait
#define OBJECTIVE 20.0

typedef struct request {
    double arrival, left; // s; FLOPs, 100 of them unpruned, that the device does in 1.15 s
    atedm_pick pick;
} request;

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// The 95th percentile of the latency, s, of requests that come at random (Poisson) at `load` times
// what the device can do unpruned.
static double simulate(uint32_t random, double load, bool valve)
{
    static const atedm_rung rungs[] = {{"off", 100}, {"d", 84}, {"c", 75}, {"b", 68}, {"a", 62}};
    static request requests[REQUESTS];
    static double latencies[REQUESTS];
    const double rate = 100 / 1.15, step = 0.02;
    double multiple = ATEDM_VALVE_FIRST, next = 0;
    size_t arrived = 0, done = 0, active[ACTIVE], n_active = 0, waiting = 0;
    for (int64_t tick = 0; done < REQUESTS; tick++) {
        double now = (double)tick * step;
        for (; arrived < REQUESTS && next <= now; arrived++) {
            double ahead = 0;
            for (size_t i = 0; i < arrived; i++)
                ahead += requests[i].left;
            atedm_pick pick =
                atedm_valve_pick(rungs, valve ? 5 : 1, ahead, rate, multiple, OBJECTIVE);
            size_t rung = 0;
            while (rungs[rung].preset != pick.preset)
                rung++;
            requests[arrived] = (request){next, (double)rungs[rung].flops, pick};
            random = random * 1664525 + 1013904223;
            next -= log(((random >> 8) + 1.0) / (1 << 24)) * 1.15 / load;
        }
        while (n_active < ACTIVE && waiting < arrived)
            active[n_active++] = waiting++;
        size_t sharing = n_active;
        for (size_t i = n_active; i-- > 0;) {
            request *r = &requests[active[i]];
            r->left -= rate * step / (double)sharing;
            if (r->left > 0)
                continue;
            r->left = 0;
            latencies[done] = now + step - r->arrival;
            multiple = atedm_valve_learn(multiple, &r->pick, latencies[done++]);
            active[i] = active[--n_active];
        }
    }
    qsort(latencies, REQUESTS, sizeof *latencies, by_value);
    return latencies[REQUESTS * 95 / 100];
}

Test(valve, holds_the_objective_in_bursts_of_an_overload)
{
    for (uint32_t seed = 1; seed <= 5; seed++) {
        double with = simulate(seed, 1.4, true), without = simulate(seed, 1.4, false);
        cr_assert_leq(with, OBJECTIVE, "seed %u: %.1f s", seed, with);
        cr_assert_geq(without, 4 * OBJECTIVE, "seed %u: %.1f s", seed, without);
    }
}
