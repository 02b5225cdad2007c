// The analytic cost model against two witnesses: counts by hooks on diffusers' own modules (goldens
// of tests/oracle), and what our operations count when the networks run on the dry backend.
#include "core/flops.h"
#include "core/model.h"
#include "core/request.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *golden_path(char *buffer, size_t size, const char *name)
{
    const char *dir = getenv("ATEDM_GOLDEN_DIR");
    cr_assert_not_null(dir, "set ATEDM_GOLDEN_DIR to tests/golden/data");
    snprintf(buffer, size, "%s/%s", dir, name);
    return buffer;
}

static json_t *load_json(const char *name)
{
    char path[4096];
    json_error_t parse_error;
    json_t *root = json_load_file(golden_path(path, sizeof path, name), 0, &parse_error);
    cr_assert_not_null(root, "%s: %s", path, parse_error.text);
    return root;
}

// The toy models "a", "b", "c", and "sdxl-base".
static atedm_model_configs configs_of(const char *name)
{
    atedm_model_config config;
    atedm_error err = {{0}};
    atedm_status status;
    if (strcmp(name, "sdxl-base") == 0) {
        status = atedm_model_config_from_arch(name, &config, &err);
    } else {
        char model[64];
        char path[4096];
        snprintf(model, sizeof model, "models/%s", name);
        status = atedm_model_config_read(golden_path(path, sizeof path, model), &config, &err);
    }
    cr_assert_eq(status, ATEDM_OK, "%s: %s", name, err.message);
    return config.parts;
}

static const char *const models[] = {"sdxl-base", "a", "b", "c"};
#define N_MODELS (sizeof models / sizeof models[0])

static uint64_t integer(const json_t *object, const char *key)
{
    const json_t *item = json_object_get(object, key);
    cr_assert(json_is_integer(item), "%s", key);
    return (uint64_t)json_integer_value(item);
}

static uint64_t total(const atedm_op_counts *c)
{
    return c->conv + c->linear + c->attention;
}

static void check_counts(const char *what, const json_t *golden, const atedm_op_counts *counts)
{
    cr_assert_eq(counts->conv, integer(golden, "convolution"), "%s convolution", what);
    cr_assert_eq(counts->linear, integer(golden, "linear"), "%s linear", what);
    cr_assert_eq(counts->attention, integer(golden, "attention"), "%s attention", what);
    cr_assert_eq(counts->overhead, 0);
}

static void read_size(const char *text, int64_t *ret_h, int64_t *ret_w)
{
    char *end = NULL;
    *ret_w = strtoll(text, &end, 10) / 8;
    cr_assert_eq(*end, 'x');
    *ret_h = strtoll(end + 1, &end, 10) / 8;
}

// ---- diffusers' modules

// diffusers embeds the condition in every evaluation, we do it once.
static void check_unets(const atedm_model_configs *configs, json_t *sizes)
{
    uint64_t condition = atedm_unet_condition_cost(&configs->unet).linear;
    const char *size = NULL;
    json_t *golden = NULL;
    cr_assert_geq(json_object_size(sizes), 4);
    json_object_foreach(sizes, size, golden)
    {
        atedm_unet_cost cost;
        int64_t h = 0;
        int64_t w = 0;
        read_size(size, &h, &w);
        atedm_unet_cost_init(&cost, &configs->unet, h, w, 77);
        atedm_op_counts counts = atedm_unet_cost_eval(&cost, NULL, NULL);
        counts.linear += condition;
        check_counts(size, golden, &counts);
        const json_t *blocks = json_object_get(golden, "blocks");
        cr_assert_eq(json_object_size(blocks), (size_t)cost.n_blocks);
        for (int b = 0; b < cost.n_blocks; b++) {
            counts = atedm_unet_cost_block(&cost, b, NULL, 0);
            cr_assert_eq(total(&counts), integer(blocks, cost.blocks[b].name), "%s %s", size,
                         cost.blocks[b].name);
        }
    }
}

static void check_vaes(const atedm_model_configs *configs, json_t *sizes)
{
    const char *size = NULL;
    json_t *golden = NULL;
    json_object_foreach(sizes, size, golden)
    {
        int64_t h = 0;
        int64_t w = 0;
        read_size(size, &h, &w);
        atedm_op_counts counts = atedm_vae_cost(&configs->vae, h, w);
        check_counts(size, golden, &counts);
    }
}

Test(flops_models, networks_count_as_in_diffusers)
{
    json_t *root = load_json("flops.json");
    for (size_t i = 0; i < N_MODELS; i++) {
        const json_t *golden = json_object_get(root, models[i]);
        cr_assert(json_is_object(golden));
        atedm_model_configs configs = configs_of(models[i]);
        check_unets(&configs, json_object_get(golden, "unet"));
        check_vaes(&configs, json_object_get(golden, "vae"));
        // transformers runs the first encoder's last layer too, for an output that SDXL leaves.
        const json_t *text = json_object_get(golden, "text_encoder");
        atedm_op_counts counts = atedm_clip_cost(&configs.clip[0], 77);
        cr_assert_eq(total(&counts), integer(text, "total") - integer(text, "last_layer"));
        counts = atedm_clip_cost(&configs.clip[1], 77);
        check_counts("text_encoder_2", json_object_get(golden, "text_encoder_2"), &counts);
    }
    json_decref(root);
}

static atedm_prune_spec read_spec(const json_t *pruning)
{
    atedm_prune_spec spec;
    atedm_field_errors errors = {.count = 0};
    atedm_prune_spec_from_json(pruning, "/pruning", &spec, &errors);
    cr_assert_eq(errors.count, 0, "%s %s", errors.items[0].pointer, errors.items[0].detail);
    return spec;
}

// Useful operations of step k of a plan, the condition included as diffusers counts it.
static uint64_t step_total(const atedm_unet_cost *cost, const atedm_plan *plan, int k)
{
    atedm_op_counts c = atedm_unet_cost_eval(cost, &plan->spec, atedm_plan_step(plan, k));
    return total(&c) + atedm_unet_condition_cost(&cost->config).linear;
}

static atedm_plan *make_plan(const atedm_prune_spec *spec, int steps, const atedm_unet_cost *cost)
{
    atedm_plan *plan = NULL;
    atedm_error err = {{0}};
    cr_assert_eq(atedm_plan_create(spec, steps, cost, &plan, &err), ATEDM_OK, "%s", err.message);
    return plan;
}

static void check_plan(const char *what, const atedm_unet_cost *cost, const json_t *golden)
{
    atedm_prune_spec spec = read_spec(json_object_get(golden, "pruning"));
    atedm_plan *plan = make_plan(&spec, 50, cost);
    cr_assert_eq(step_total(cost, plan, 0), integer(golden, "first_step"), "%s", what);
    cr_assert_eq(step_total(cost, plan, 49), integer(golden, "last_step"), "%s", what);
    uint64_t sum = 0;
    for (int k = 0; k < 50; k++)
        sum += step_total(cost, plan, k);
    double mean = json_number_value(json_object_get(golden, "mean"));
    cr_assert_float_eq((double)sum / 50, mean, 1e-9 * mean, "%s", what);
    atedm_plan_destroy(plan);
}

Test(flops_models, plans_count_as_in_diffusers)
{
    json_t *root = load_json("flops.json");
    size_t checked = 0;
    for (size_t i = 0; i < N_MODELS; i++) {
        json_t *sizes = json_object_get(json_object_get(root, models[i]), "plans");
        atedm_model_configs configs = configs_of(models[i]);
        const char *size = NULL;
        json_t *plans = NULL;
        json_object_foreach(sizes, size, plans)
        {
            atedm_unet_cost cost;
            int64_t h = 0;
            int64_t w = 0;
            read_size(size, &h, &w);
            atedm_unet_cost_init(&cost, &configs.unet, h, w, 77);
            const char *name = NULL;
            json_t *golden = NULL;
            json_object_foreach(plans, name, golden)
            {
                check_plan(name, &cost, golden);
                checked++;
            }
        }
    }
    cr_assert_geq(checked, 15);
    json_decref(root);
}

// Every step of the AT-EDM goldens.
Test(flops_models, golden_requests_count_as_in_diffusers)
{
    json_t *root = load_json("flops.json");
    json_t *cases = json_object_get(root, "atedm");
    cr_assert_geq(json_object_size(cases), 25);
    const char *name = NULL;
    json_t *steps = NULL;
    json_object_foreach(cases, name, steps)
    {
        char file[128];
        snprintf(file, sizeof file, "atedm/%s.json", name);
        json_t *golden = load_json(file);
        const json_t *request = json_object_get(golden, "request");
        atedm_model_configs configs =
            configs_of(json_string_value(json_object_get(golden, "model")));
        atedm_prune_spec spec = read_spec(json_object_get(request, "pruning"));
        atedm_unet_cost cost;
        atedm_unet_cost_init(&cost, &configs.unet, (int64_t)integer(request, "height") / 8,
                             (int64_t)integer(request, "width") / 8, 77);
        atedm_plan *plan = make_plan(&spec, (int)json_array_size(steps), &cost);
        for (int k = 0; k < plan->steps; k++) {
            uint64_t wanted = (uint64_t)json_integer_value(json_array_get(steps, (size_t)k));
            cr_assert_eq(step_total(&cost, plan, k), wanted, "%s step %d", name, k);
        }
        atedm_plan_destroy(plan);
        json_decref(golden);
    }
    json_decref(root);
}

// ---- the dry backend

typedef struct dry_run {
    atedm_model *model;
    atedm_stream *s;
    atedm_arena arena;
    void *memory; // an address on the dry device for every operand
} dry_run;

static void dry_init(dry_run *run, const char *name)
{
    atedm_model_config config = {.parts = configs_of(name)};
    atedm_error err = {{0}};
    cr_assert_eq(atedm_model_open_dry(&config, ATEDM_BF16, ATEDM_BF16, &run->model, &err), ATEDM_OK,
                 "%s", err.message);
    cr_assert_eq(atedm_stream_create(run->model->device, ATEDM_BF16, &run->s, &err), ATEDM_OK);
    cr_assert_eq(atedm_device_alloc(run->model->device, (size_t)1 << 30, &run->memory, &err),
                 ATEDM_OK);
    atedm_arena_init_measuring(&run->arena);
}

static void dry_finish(dry_run *run)
{
    atedm_device_free(run->model->device, run->memory);
    atedm_arena_finish(&run->arena);
    atedm_stream_destroy(run->s);
    atedm_model_close(run->model);
}

// What was counted since the last call.
static atedm_op_counts dry_counts(dry_run *run)
{
    atedm_error err = {{0}};
    cr_assert_eq(atedm_stream_sync(run->s, &err), ATEDM_OK, "%s", err.message);
    atedm_op_counts counts = atedm_stream_counts(run->s);
    atedm_stream_reset_counts(run->s);
    return counts;
}

static void check_equal(const char *what, const atedm_op_counts *counted,
                        const atedm_op_counts *analytic, uint64_t times)
{
    cr_assert_eq(counted->conv, times * analytic->conv, "%s conv", what);
    cr_assert_eq(counted->linear, times * analytic->linear, "%s linear", what);
    cr_assert_eq(counted->attention, times * analytic->attention, "%s attention", what);
    cr_assert_eq(counted->overhead, times * analytic->overhead, "%s overhead: %llu %llu", what,
                 (unsigned long long)counted->overhead, (unsigned long long)analytic->overhead);
}

static void check_stages(dry_run *run, const char *name)
{
    const atedm_model_configs *parts = &run->model->config.parts;
    const int64_t ids[2 * 77] = {0};
    for (int i = 0; i < 2; i++) {
        atedm_clip_encode(run->model->clip[i], run->s, &run->arena, ids, 2, 77, run->memory,
                          i == 1 ? run->memory : NULL);
        atedm_op_counts counted = dry_counts(run);
        atedm_op_counts analytic = atedm_clip_cost(&parts->clip[i], 77);
        check_equal(name, &counted, &analytic, 2);
    }
    const double time_ids[3 * ATEDM_UNET_TIME_IDS] = {0};
    atedm_unet_embed_condition(run->model->unet, run->s, &run->arena, run->memory, time_ids, 3,
                               run->memory);
    atedm_op_counts counted = dry_counts(run);
    atedm_op_counts analytic = atedm_unet_condition_cost(&parts->unet);
    check_equal(name, &counted, &analytic, 3);

    static const int64_t sizes[][2] = {{8, 12}, {13, 9}, {64, 64}, {128, 128}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        atedm_vae_decode(run->model->vae, run->s, &run->arena, run->memory, sizes[i][0],
                         sizes[i][1], run->memory);
        counted = dry_counts(run);
        analytic = atedm_vae_cost(&parts->vae, sizes[i][0], sizes[i][1]);
        check_equal(name, &counted, &analytic, 1);
    }
}

Test(flops_models, stages_count_what_the_model_says)
{
    for (size_t i = 0; i < N_MODELS; i++) {
        dry_run run;
        dry_init(&run, models[i]);
        check_stages(&run, models[i]);
        dry_finish(&run);
    }
}

// Samples of one batch, each with its own pruning: what is counted is the sum of the samples.
static void check_batch(dry_run *run, int64_t h, int64_t w, const atedm_prune_spec *const *specs,
                        int n, const char *what)
{
    atedm_unet_cost cost;
    atedm_unet_cost_init(&cost, &run->model->config.parts.unet, h, w, 77);
    atedm_unet_sample samples[8] = {{0}};
    atedm_plan *plans[8] = {NULL};
    atedm_op_counts analytic = {0};
    for (int i = 0; i < n; i++) {
        const float *rho = NULL;
        if (specs[i]) {
            plans[i] = make_plan(specs[i], 4, &cost);
            rho = atedm_plan_step(plans[i], i % 4);
        }
        samples[i] = (atedm_unet_sample){.timestep = 10, .prune = specs[i], .rho = rho};
        atedm_op_counts c = atedm_unet_cost_eval(&cost, specs[i], rho);
        analytic.conv += c.conv;
        analytic.linear += c.linear;
        analytic.attention += c.attention;
        analytic.overhead += c.overhead;
    }
    const atedm_unet_args args = {.x = run->memory,
                                  .context = run->memory,
                                  .context_tokens = 77,
                                  .condition = run->memory,
                                  .samples = samples,
                                  .n = n,
                                  .h = h,
                                  .w = w,
                                  .y = run->memory};
    atedm_unet_forward(run->model->unet, run->s, &run->arena, &args);
    atedm_op_counts counted = dry_counts(run);
    check_equal(what, &counted, &analytic, 1);
    for (int i = 0; i < n; i++)
        atedm_plan_destroy(plans[i]);
}

static const char *const prunings[] = {
    "{\"preset\": \"off\"}",
    "{\"ratio\": 0}",
    "{\"preset\": \"at-edm\"}",
    "{\"preset\": \"at-edm-a\"}",
    "{\"preset\": \"at-edm-dagger\"}",
    "{\"ratio\": 0.0001, \"schedule\": \"uniform\"}", // keeps every token of small grids
    "{\"ratio\": 0.9999, \"schedule\": \"uniform\"}",
    "{\"ratio\": 0.63, \"prune_after\": [0, 3], \"recovery\": \"cosine\"}",
    "{\"ratio\": 0.3, \"prune_after\": [0, 1, 2, 5, 9, 20]}",
    "{\"ratio\": 0.5, \"prune_after\": [1], \"recovery\": \"nearest\"}",
    "{\"ratio\": 0.5, \"score\": {\"map\": \"cross\", \"max_iterations\": 5}}",
    "{\"ratio\": 0.5, \"score\": {\"map\": \"cross\"}, \"recovery\": \"zero\"}",
    "{\"ratio\": 0.5, \"prune_after\": [0, 2], \"score\": {\"map\": \"random\"}}",
    "{\"ratio\": 0.5, \"score\": {\"map\": \"random\"}, \"recovery\": \"nearest\"}",
    "{\"flops_budget\": 0.999, \"score\": {\"max_iterations\": 1}}",
    "{\"phases\": [{\"until\": 0.5, \"ratio\": 0.2, \"skip\": [\"mid\"]}, {\"until\": 1}]}",
};
#define N_PRUNINGS (sizeof prunings / sizeof prunings[0])

static void check_prunings(dry_run *run, int64_t h, int64_t w)
{
    atedm_prune_spec specs[N_PRUNINGS];
    const atedm_prune_spec *batch[8] = {NULL};
    check_batch(run, h, w, batch, 1, "none");
    for (size_t i = 0; i < N_PRUNINGS; i++) {
        json_t *value = json_loads(prunings[i], 0, NULL);
        specs[i] = read_spec(value);
        json_decref(value);
        batch[0] = &specs[i];
        check_batch(run, h, w, batch, 1, prunings[i]);
    }
    for (int i = 0; i < 7; i++)
        batch[i] = &specs[(size_t)i * 2 % N_PRUNINGS];
    batch[7] = NULL;
    check_batch(run, h, w, batch, 8, "batch");
}

Test(flops_models, toy_unets_count_what_the_model_says)
{
    for (size_t i = 1; i < N_MODELS; i++) {
        dry_run run;
        dry_init(&run, models[i]);
        check_prunings(&run, 8, 12);
        check_prunings(&run, 13, 9);
        check_prunings(&run, 64, 32);
        dry_finish(&run);
    }
}

Test(flops_models, sdxl_base_counts_what_the_model_says)
{
    dry_run run;
    dry_init(&run, "sdxl-base");
    check_prunings(&run, 64, 64);
    check_prunings(&run, 96, 96);
    check_prunings(&run, 128, 128);
    check_prunings(&run, 144, 112);
    dry_finish(&run);
}
