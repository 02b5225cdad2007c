// The value of "pruning": what is read, and every way of being wrong, each named once
// and at its place.
#include "core/request.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static atedm_field_errors read_text(const char *text, atedm_prune_spec *ret_spec)
{
    json_error_t parse_error;
    json_t *value = json_loads(text, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &parse_error);
    cr_assert_not_null(value, "%s: %s", text, parse_error.text);
    atedm_field_errors errors = {.count = 0};
    atedm_prune_spec_from_json(value, "/pruning", ret_spec, &errors);
    json_decref(value);
    return errors;
}

static atedm_prune_spec good(const char *text)
{
    atedm_prune_spec spec = {.ratio = -7};
    atedm_field_errors errors = read_text(text, &spec);
    cr_assert_eq(errors.count, 0, "%s: %s %s", text, errors.items[0].pointer,
                 errors.items[0].detail);
    return spec;
}

// One error at `pointer` (behind "/pruning"), whose text holds `part`.
static void bad(const char *text, const char *pointer, const char *part)
{
    atedm_prune_spec spec = {.ratio = -7};
    atedm_field_errors errors = read_text(text, &spec);
    cr_assert_eq(errors.count, 1, "%s: %zu errors (%s %s)", text, errors.count,
                 errors.items[1].pointer, errors.items[1].detail);
    char wanted[128];
    snprintf(wanted, sizeof wanted, "/pruning%s", pointer);
    cr_assert_str_eq(errors.items[0].pointer, wanted, "%s", text);
    cr_assert_not_null(strstr(errors.items[0].detail, part), "%s: %s", text,
                       errors.items[0].detail);
    cr_assert_eq(spec.ratio, -7, "untouched on failure");
}

Test(prune_json, names)
{
    cr_assert_not(good("\"off\"").enabled);
    cr_assert_str_eq(good("\"at-edm\"").preset, "at-edm");
    cr_assert_eq(good("\"at-edm-a\"").ratio, 0.937);
    bad("\"at-edm-z\"", "", "\"at-edm-z\" is not a preset");
    bad("\"\"", "", "is not a preset");
    bad("3", "", "neither");
    bad("null", "", "neither");
    bad("[]", "", "neither");
    bad("true", "", "neither");
}

Test(prune_json, empty_object_is_at_edm_without_its_name)
{
    atedm_prune_spec preset;
    cr_assert_eq(atedm_prune_preset("at-edm", &preset), ATEDM_OK);
    atedm_prune_spec spec = good("{}");
    cr_assert(spec.enabled);
    cr_assert_str_eq(spec.preset, "");
    cr_assert_eq(spec.ratio, preset.ratio);
    cr_assert(isnan(spec.flops_budget));
    cr_assert_eq(spec.schedule, ATEDM_PRUNE_DSAP);
    cr_assert_eq(spec.n_prune_after, 1);
}

Test(prune_json, every_field)
{
    atedm_prune_spec spec =
        good("{\"preset\": \"at-edm-d\", \"ratio\": 0.5, \"schedule\": \"dsap\", \"tau\": 0.25,"
             " \"skip_levels\": [2, 0], \"prune_after\": [0, 3],"
             " \"score\": {\"map\": \"cross\", \"heads\": \"mean\", \"max_iterations\": 64,"
             " \"tolerance\": 0, \"interval\": 1}, \"selection\": \"top\", \"recovery\": "
             "\"cosine\", \"copy\": \"value\","
             " \"proportional_attention\": false, \"masks\": \"own\"}");
    cr_assert_str_eq(spec.preset, "at-edm-d");
    cr_assert_eq(spec.ratio, 0.5);
    cr_assert(isnan(spec.flops_budget));
    cr_assert_eq(spec.schedule, ATEDM_PRUNE_DSAP);
    cr_assert_eq(spec.tau, 0.25);
    cr_assert_eq(spec.skip_levels, 5);
    cr_assert_eq(spec.n_prune_after, 2);
    cr_assert_eq(spec.prune_after[0], 0);
    cr_assert_eq(spec.prune_after[1], 3);
    cr_assert_eq(spec.score_map, ATEDM_SCORE_CROSS);
    cr_assert_eq(spec.rank.heads, ATEDM_HEADS_MEAN);
    cr_assert_eq(spec.rank.max_iterations, 64);
    cr_assert_eq(spec.rank.tolerance, 0);
    cr_assert_eq(spec.selection, ATEDM_SELECT_TOP);
    cr_assert_eq(spec.recovery, ATEDM_RECOVER_COSINE);
    cr_assert_eq(spec.copy, ATEDM_COPY_VALUE);
    cr_assert_not(spec.proportional_attention);
    cr_assert_eq(spec.masks, ATEDM_MASKS_OWN);
}

Test(prune_json, what_is_left_out_comes_from_the_preset)
{
    atedm_prune_spec spec = good("{\"preset\": \"at-edm-dagger\", \"recovery\": \"zero\"}");
    cr_assert_eq(spec.ratio, 0.63);
    cr_assert_eq(spec.schedule, ATEDM_PRUNE_UNIFORM);
    cr_assert_eq(spec.skip_levels, 2);
    cr_assert_eq(spec.recovery, ATEDM_RECOVER_ZERO);
    cr_assert_eq(good("{\"preset\": \"at-edm-dagger\", \"skip_levels\": []}").skip_levels, 0);
    spec = good("{\"preset\": \"at-edm-a\", \"schedule\": \"dsap\"}");
    cr_assert_eq(spec.schedule, ATEDM_PRUNE_DSAP);
    cr_assert_eq(spec.tau, 0.3);
    cr_assert_eq(good("{\"schedule\": \"uniform\"}").schedule, ATEDM_PRUNE_UNIFORM);
    spec = good("{\"score\": {\"heads\": \"mean\"}}");
    cr_assert_eq(spec.rank.max_iterations, 8);
    cr_assert_eq(spec.rank.tolerance, 1e-3F);
    cr_assert_eq(spec.score_map, ATEDM_SCORE_SELF);
    spec = good("{\"score\": {}}");
    cr_assert_eq(spec.rank.heads, ATEDM_HEADS_RMS);
    cr_assert_eq(good("{\"recovery\": \"nearest\"}").recovery, ATEDM_RECOVER_NEAREST);
    cr_assert_eq(good("{\"recovery\": \"attention\"}").recovery, ATEDM_RECOVER_ATTENTION);
    cr_assert_eq(good("{\"ratio\": 0.5}").selection, ATEDM_SELECT_SAMPLED);
    cr_assert_eq(good("{\"selection\": \"sampled\"}").selection, ATEDM_SELECT_SAMPLED);
    cr_assert_eq(good("{\"ratio\": 0.5}").copy, ATEDM_COPY_UPDATE);
    cr_assert_eq(good("{\"copy\": \"update\"}").copy, ATEDM_COPY_UPDATE);
    cr_assert(good("{\"ratio\": 0.5}").proportional_attention);
    cr_assert(good("{\"proportional_attention\": true}").proportional_attention);
    cr_assert_eq(good("{\"ratio\": 0.5}").masks, ATEDM_MASKS_SHARED);
    cr_assert_eq(good("{\"masks\": \"shared\"}").masks, ATEDM_MASKS_SHARED);
    cr_assert_not(good("{\"preset\": \"off\"}").enabled);
}

Test(prune_json, budget_takes_the_ratio_s_place)
{
    atedm_prune_spec spec = good("{\"preset\": \"at-edm\", \"flops_budget\": 0.61}");
    cr_assert_eq(spec.flops_budget, 0.61);
    cr_assert(isnan(spec.ratio));
    cr_assert_eq(good("{\"flops_budget\": 1}").flops_budget, 1);
}

Test(prune_json, phases)
{
    atedm_prune_spec spec =
        good("{\"phases\": [{\"until\": 0.3, \"ratio\": 0.5, \"skip\": [\"down.first\", \"mid\"]},"
             " {\"until\": 0.5}, {\"until\": 1, \"ratio\": 0, \"skip\": []}]}");
    cr_assert_eq(spec.schedule, ATEDM_PRUNE_PHASES);
    cr_assert_eq(spec.n_phases, 3);
    cr_assert_eq(spec.phases[0].until, 0.3);
    cr_assert_eq(spec.phases[0].ratio, 0.5);
    cr_assert_eq(spec.phases[0].n_skip, 2);
    cr_assert_str_eq(spec.phases[0].skip[0], "down.first");
    cr_assert_str_eq(spec.phases[0].skip[1], "mid");
    cr_assert(isnan(spec.phases[1].ratio));
    cr_assert_eq(spec.phases[2].ratio, 0);
    cr_assert_eq(spec.phases[2].n_skip, 0);
    // A preset's uniform schedule gives way.
    spec = good("{\"preset\": \"at-edm-a\", \"phases\": [{\"until\": 1}], \"flops_budget\": 0.8}");
    cr_assert_eq(spec.schedule, ATEDM_PRUNE_PHASES);
}

Test(prune_json, numbers_at_their_limits)
{
    cr_assert_eq(good("{\"ratio\": 0}").ratio, 0);
    cr_assert_eq(good("{\"ratio\": 0.9999}").ratio, ATEDM_RATIO_MAX);
    bad("{\"ratio\": 0.99991}", "/ratio", "0..0.9999");
    bad("{\"ratio\": 1}", "/ratio", "is 1, not within");
    bad("{\"ratio\": -0.1}", "/ratio", "is -0.1");
    bad("{\"ratio\": \"0.5\"}", "/ratio", "not a number");
    bad("{\"ratio\": null}", "/ratio", "not a number");
    bad("{\"flops_budget\": 0}", "/flops_budget", "not over 0");
    bad("{\"flops_budget\": 1.01}", "/flops_budget", "up to 1");
    bad("{\"flops_budget\": [1]}", "/flops_budget", "not a number");
    cr_assert_eq(good("{\"tau\": 0}").tau, 0);
    cr_assert_eq(good("{\"tau\": 1}").tau, 1);
    bad("{\"tau\": 1.1}", "/tau", "0..1");
    bad("{\"tau\": -1}", "/tau", "0..1");
    cr_assert_eq(good("{\"score\": {\"max_iterations\": 1}}").rank.max_iterations, 1);
    bad("{\"score\": {\"max_iterations\": 0}}", "/score/max_iterations", "1..64");
    bad("{\"score\": {\"max_iterations\": 65}}", "/score/max_iterations", "1..64");
    bad("{\"score\": {\"max_iterations\": 2.0}}", "/score/max_iterations", "not an integer");
    cr_assert_eq(good("{\"score\": {\"tolerance\": 2}}").rank.tolerance, 2);
    bad("{\"score\": {\"tolerance\": 2.1}}", "/score/tolerance", "0..2");
    bad("{\"score\": {\"tolerance\": -1e-9}}", "/score/tolerance", "0..2");
    bad("{\"score\": {\"tolerance\": 1e300}}", "/score/tolerance", "0..2");
    cr_assert_eq(good("{\"score\": {\"interval\": 1000}}").score_interval, 1000);
    bad("{\"score\": {\"interval\": 0}}", "/score/interval", "1..1000");
    bad("{\"score\": {\"interval\": 1001}}", "/score/interval", "1..1000");
    bad("{\"score\": {\"interval\": 1.5}}", "/score/interval", "not an integer");
    bad("{\"prune_after\": [0, 3], \"score\": {\"interval\": 2}}", "/score/interval", "must be 1");
    bad("{\"score\": {\"map\": \"random\", \"interval\": 1}}", "/score/interval", "no meaning");
}

Test(prune_json, names_that_are_not_known)
{
    bad("{\"schedule\": \"phases\"}", "/schedule", "\"dsap\", \"uniform\"");
    bad("{\"schedule\": 1}", "/schedule", "is not one of");
    bad("{\"recovery\": \"copy\"}", "/recovery", "\"attention\", \"cosine\"");
    bad("{\"recovery\": null}", "/recovery", "is not one of");
    bad("{\"copy\": \"half\"}", "/copy", "\"update\", \"value\"");
    bad("{\"proportional_attention\": \"yes\"}", "/proportional_attention", "true or false");
    bad("{\"proportional_attention\": null}", "/proportional_attention", "true or false");
    bad("{\"selection\": \"best\"}", "/selection", "\"sampled\", \"top\"");
    bad("{\"masks\": \"both\"}", "/masks", "\"shared\", \"own\"");
    bad("{\"score\": {\"map\": \"text\"}}", "/score/map",
        "is not one of \"self\", \"cross\", \"random\"");
    bad("{\"score\": {\"heads\": \"max\"}}", "/score/heads", "\"rms\", \"mean\"");
    bad("{\"score\": \"rms\"}", "/score", "not an object");
    bad("{\"score\": null}", "/score", "not an object");
    bad("{\"preset\": \"x\"}", "/preset", "\"x\" is not a preset");
    bad("{\"preset\": 1}", "/preset", "not a string");
    bad("{\"preset\": null}", "/preset", "not a string");
    bad("{\"preset\": \"off\", \"ratio\": 0.5}", "/preset", "excludes");
}

Test(prune_json, unknown_fields)
{
    bad("{\"rho\": 0.5}", "/rho", "not a known field");
    bad("{\"score\": {\"map\": \"self\", \"head\": 1}}", "/score/head", "not a known field");
    bad("{\"phases\": [{\"until\": 1, \"from\": 0}]}", "/phases/0/from", "not a known field");
    bad("{\"a/b~c\": 0}", "/a~1b~0c", "not a known field");
    bad("{\"\": 0}", "/", "not a known field");
    atedm_prune_spec spec;
    atedm_field_errors errors = read_text(
        "{\"aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggggggggg\": 1}", &spec);
    cr_assert_eq(errors.count, 1);
    cr_assert_eq(strlen(errors.items[0].pointer), sizeof errors.items[0].pointer - 1);
}

Test(prune_json, exclusions)
{
    bad("{\"ratio\": 0.5, \"flops_budget\": 0.6}", "/flops_budget", "excludes \"ratio\"");
    bad("{\"schedule\": \"dsap\", \"phases\": [{\"until\": 1}]}", "/phases", "excludes");
    bad("{\"tau\": 0.3, \"phases\": [{\"until\": 1}]}", "/phases", "excludes");
    bad("{\"schedule\": \"uniform\", \"tau\": 0.3}", "/tau", "no meaning");
    bad("{\"preset\": \"at-edm-a\", \"tau\": 0.3}", "/tau", "no meaning");
    bad("{\"flops_budget\": 0.6, \"phases\": [{\"until\": 1, \"ratio\": 0.5}]}", "/flops_budget",
        "needs a phase");
}

// What a preset says of the iterations is no mistake of the request's; what the request says is, be
// it otherwise right or wrong.
Test(prune_json, a_random_map_has_no_iterations)
{
    static const char *const none = "has no meaning with the map \"random\"";
    atedm_prune_spec spec = good("{\"score\": {\"map\": \"random\"}}");
    cr_assert_eq(spec.score_map, ATEDM_SCORE_RANDOM);
    cr_assert_eq(spec.recovery, ATEDM_RECOVER_ATTENTION);
    spec = good(
        "{\"preset\": \"at-edm-a\", \"score\": {\"map\": \"random\"}, \"recovery\": \"zero\"}");
    cr_assert_eq(spec.score_map, ATEDM_SCORE_RANDOM);
    cr_assert_eq(spec.ratio, 0.937);
    bad("{\"score\": {\"map\": \"random\", \"heads\": \"rms\"}}", "/score/heads", none);
    bad("{\"score\": {\"map\": \"random\", \"heads\": \"max\"}}", "/score/heads", none);
    bad("{\"score\": {\"max_iterations\": 8, \"map\": \"random\"}}", "/score/max_iterations", none);
    bad("{\"score\": {\"map\": \"random\", \"tolerance\": 0.001}}", "/score/tolerance", none);
    bad("{\"score\": {\"map\": \"random\", \"seed\": 1}}", "/score/seed", "not a known field");
    atedm_field_errors errors =
        read_text("{\"score\": {\"map\": \"random\", \"heads\": \"mean\", \"max_iterations\": 1,"
                  " \"tolerance\": 0}}",
                  &spec);
    cr_assert_eq(errors.count, 3);
}

Test(prune_json, lists)
{
    bad("{\"skip_levels\": 1}", "/skip_levels", "not an array");
    bad("{\"skip_levels\": [8]}", "/skip_levels/0", "0..7");
    bad("{\"skip_levels\": [1, -1]}", "/skip_levels/1", "0..7");
    bad("{\"skip_levels\": [1, 1.5]}", "/skip_levels/1", "not an integer");
    bad("{\"skip_levels\": [0,1,2,3,4,5,6,7,0]}", "/skip_levels", "9 entries, not 0..8");
    cr_assert_eq(good("{\"skip_levels\": [0,1,2,3,4,5,6,7]}").skip_levels, 0xff);
    bad("{\"prune_after\": []}", "/prune_after", "0 entries, not 1..8");
    bad("{\"prune_after\": [0,1,2,3,4,5,6,7,8]}", "/prune_after", "9 entries");
    cr_assert_eq(good("{\"prune_after\": [0,1,2,3,4,5,6,31]}").prune_after[7], 31);
    bad("{\"prune_after\": [32]}", "/prune_after/0", "0..31");
    bad("{\"prune_after\": [-1]}", "/prune_after/0", "0..31");
    bad("{\"prune_after\": [0, 0]}", "/prune_after/1", "is 0, not after 0");
    bad("{\"prune_after\": [3, 1]}", "/prune_after/1", "is 1, not after 3");
    bad("{\"prune_after\": [\"0\"]}", "/prune_after/0", "not an integer");
    bad("{\"prune_after\": {}}", "/prune_after", "not an array");
}

Test(prune_json, wrong_phases)
{
    bad("{\"phases\": {}}", "/phases", "not an array");
    bad("{\"phases\": []}", "/phases", "0 entries, not 1..16");
    bad("{\"phases\": [1]}", "/phases/0", "not an object");
    bad("{\"phases\": [{\"ratio\": 0.5}]}", "/phases/0/until", "is missing");
    bad("{\"phases\": [{\"until\": 0}, {\"until\": 1}]}", "/phases/0/until", "not over 0");
    bad("{\"phases\": [{\"until\": 1.5}]}", "/phases/0/until", "up to 1");
    bad("{\"phases\": [{\"until\": \"1\"}]}", "/phases/0/until", "not a number");
    bad("{\"phases\": [{\"until\": 0.9}]}", "/phases/0/until", "the last phase ends at 1");
    bad("{\"phases\": [{\"until\": 0.5}, {\"until\": 0.5}, {\"until\": 1}]}", "/phases/1/until",
        "not after");
    bad("{\"phases\": [{\"until\": 1}, {\"until\": 1}]}", "/phases/1/until", "not after");
    bad("{\"phases\": [{\"until\": 1, \"ratio\": 1}]}", "/phases/0/ratio", "0..0.9999");
    bad("{\"phases\": [{\"until\": 1, \"ratio\": null}]}", "/phases/0/ratio", "not a number");
    bad("{\"phases\": [{\"until\": 1, \"skip\": \"mid\"}]}", "/phases/0/skip", "not an array");
    bad("{\"phases\": [{\"until\": 1, \"skip\": [\"mid\", 3]}]}", "/phases/0/skip/1",
        "not a string");
    bad("{\"phases\": [{\"until\": 1, \"skip\": [\"down.last\"]}]}", "/phases/0/skip/0",
        "\"down.last\" is neither");
}

// A list of `n` equal items behind `head` and before `tail`.
static const char *repeat(char *buffer, size_t size, const char *head, const char *item, int n,
                          const char *tail)
{
    size_t used = (size_t)snprintf(buffer, size, "%s", head);
    for (int i = 0; i < n; i++)
        used += (size_t)snprintf(buffer + used, size - used, "%s%s", i ? ", " : "", item);
    snprintf(buffer + used, size - used, "%s", tail);
    return buffer;
}

Test(prune_json, list_limits)
{
    char text[1024];
    atedm_prune_spec spec =
        good(repeat(text, sizeof text, "{\"phases\": [{\"until\": 1, \"skip\": [", "\"mid\"",
                    ATEDM_MAX_PHASE_SKIPS, "]}]}"));
    cr_assert_eq(spec.phases[0].n_skip, ATEDM_MAX_PHASE_SKIPS);
    bad(repeat(text, sizeof text, "{\"phases\": [{\"until\": 1, \"skip\": [", "\"mid\"",
               ATEDM_MAX_PHASE_SKIPS + 1, "]}]}"),
        "/phases/0/skip", "17 entries, not 0..16");

    size_t used = (size_t)snprintf(text, sizeof text, "{\"phases\": [");
    for (int i = 1; i <= ATEDM_MAX_PHASES; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s{\"until\": %g}",
                                 i > 1 ? ", " : "", (double)i / ATEDM_MAX_PHASES);
    snprintf(text + used, sizeof text - used, "]}");
    cr_assert_eq(good(text).n_phases, ATEDM_MAX_PHASES);
    bad(repeat(text, sizeof text, "{\"phases\": [", "{\"until\": 1}", ATEDM_MAX_PHASES + 1, "]}"),
        "/phases", "17 entries");
}

Test(prune_json, all_errors_at_once)
{
    atedm_prune_spec spec;
    atedm_field_errors errors =
        read_text("{\"preset\": \"x\", \"ratio\": 2, \"flops_budget\": 0, \"tau\": 5,"
                  " \"skip_levels\": [9], \"prune_after\": [99], \"recovery\": \"x\", \"copy\": 2,"
                  " \"proportional_attention\": 1, \"masks\": 1, \"y\": 1, \"selection\": 1,"
                  " \"score\": {\"map\": \"x\", \"heads\": \"x\", \"max_iterations\": 0,"
                  " \"tolerance\": 9, \"z\": 1}}",
                  &spec);
    static const char *const wanted[] = {"/y",
                                         "/preset",
                                         "/tau",
                                         "/ratio",
                                         "/flops_budget",
                                         "/flops_budget",
                                         "/skip_levels/0",
                                         "/prune_after/0",
                                         "/score/z",
                                         "/score/map",
                                         "/score/heads",
                                         "/score/max_iterations",
                                         "/score/tolerance",
                                         "/selection",
                                         "/recovery",
                                         "/copy",
                                         "/proportional_attention",
                                         "/masks"};
    cr_assert_eq(errors.count, sizeof wanted / sizeof wanted[0]);
    for (size_t i = 0; i < errors.count; i++)
        cr_assert_str_eq(errors.items[i].pointer + strlen("/pruning"), wanted[i]);
}

// Presets and what is read from JSON are specs that request validation accepts.
Test(prune_json, what_is_read_is_valid)
{
    const atedm_request_limits limits = {.native_width = 64,
                                         .native_height = 64,
                                         .size_multiple = 32,
                                         .max_area = 4096,
                                         .max_images = 1,
                                         .max_steps = 10};
    static const char *const texts[] = {"\"off\"", "\"at-edm\"", "{}", "{\"flops_budget\": 0.5}",
                                        "{\"ratio\": 0}"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        atedm_prune_spec spec = good(texts[i]);
        atedm_request request;
        atedm_request_init(&request, &limits, &spec);
        request.steps = 10;
        char prompt[] = "x";
        request.prompt = prompt;
        atedm_field_errors errors = {.count = 0};
        atedm_request_validate(&request, &limits, &errors);
        cr_assert_eq(errors.count, 0, "%s: %s", texts[i], errors.items[0].detail);
    }
}
