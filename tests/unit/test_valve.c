// The overload valve: the mildest plan that is expected in time, never below the floor.
#include "server/valve.h"

#include <criterion/criterion.h>
#include <math.h>

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
    // 10 FLOPs a second, an objective of 20 s: 140 FLOPs within the margin.
    const struct {
        double ahead;
        const char *preset;
        double expected;
        bool meets;
    } cases[] = {
        {0, "off", 10, true},           {40, "off", 14, true},      {41, "at-edm-d", 12.1, true},
        {61, "at-edm", 12.1, true},     {90, "at-edm-b", 14, true}, {91, "at-edm-b", 14.1, false},
        {1000, "at-edm-b", 105, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        atedm_pick pick = atedm_valve_pick(rungs, n, cases[i].ahead, 10, 20);
        cr_assert_str_eq(pick.preset, cases[i].preset, "%g ahead", cases[i].ahead);
        cr_assert_float_eq(pick.expected_s, cases[i].expected, 1e-9);
        cr_assert_eq(pick.meets, cases[i].meets);
        cr_assert_eq(pick.objective_s, 20);
    }
}

Test(valve, prunes_nothing_before_a_speed_is_known)
{
    atedm_rung rungs[ATEDM_VALVE_MAX];
    size_t n = make_rungs(rungs, "at-edm-a");
    atedm_pick pick = atedm_valve_pick(rungs, n, 1e9, NAN, 1);
    cr_assert_str_eq(pick.preset, "off");
    cr_assert(isnan(pick.expected_s));
}
