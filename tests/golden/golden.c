// Holds the pipeline against diffusers: every case of DATA/pipeline (and DATA/atedm, against the
// float64 AT-EDM of tests/oracle) is run, every intermediate that the golden has is compared, the
// picture too, and what the operations counted is held against the analytic cost. `golden --data
// DIR [--backend NAME] [CASE...]`.
#include "compare.h"

#include "core/json_read.h"
#include "core/pipeline.h"
#include "core/safetensors.h"

#include <dirent.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Largest relative L2 error of any f32 intermediate, and smallest PSNR of the final picture. The
// oracle takes only cases whose last latents in f32 are within a fifth of that of those in f64.
#define MAX_RELATIVE_L2 1e-4
#define MIN_PSNR_DB 60.0
#define MAX_CASES 256

typedef struct golden_run {
    const char *data, *backend;
    atedm_device *device;
    atedm_model *model; // of the last case, kept while the next has the same
    char model_name[64];
    int passed, failed;
    // The current case.
    const char *name;
    const atedm_safetensors *golden;
    bool case_failed;
    size_t compared;
    double worst;
    char worst_name[96];
} golden_run;

static void complain(golden_run *run, const char *format, ...) ATEDM_PRINTF(2, 3);
static void complain(golden_run *run, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    printf("  FAILED %s: ", run->name);
    vprintf(format, args);
    printf("\n");
    va_end(args);
    run->case_failed = true;
}

// ---- comparing
// -------------------------------------------------------------------------------------

static void compare_floats(golden_run *run, const char *name, const atedm_host_tensor *ours,
                           const atedm_host_tensor *golden)
{
    size_t count = (size_t)atedm_host_tensor_count(golden);
    float *copy = malloc(count * sizeof *copy);
    if (!copy) {
        complain(run, "no memory");
        return;
    }
    memcpy(copy, golden->data, count * sizeof *copy);
    double error = compare_relative_l2(ours->data, copy, count);
    if (!(error <= MAX_RELATIVE_L2))
        complain(run, "%s: relative L2 error %.3g, more than %.3g", name, error, MAX_RELATIVE_L2);
    if (!(error <= run->worst)) {
        run->worst = error;
        snprintf(run->worst_name, sizeof run->worst_name, "%s", name);
    }
    free(copy);
}

static void compare_integers(golden_run *run, const char *name, const atedm_host_tensor *ours,
                             const atedm_host_tensor *golden)
{
    size_t count = (size_t)atedm_host_tensor_count(golden);
    int64_t *copy = malloc(count * sizeof *copy);
    if (!copy) {
        complain(run, "no memory");
        return;
    }
    memcpy(copy, golden->data, count * sizeof *copy);
    size_t mismatches = compare_mismatches(ours->data, copy, count);
    if (mismatches)
        complain(run, "%s: %zu of %zu differ", name, mismatches, count);
    free(copy);
}

static void on_dump(void *user, const char *name, const atedm_host_tensor *ours)
{
    golden_run *run = user;
    const atedm_host_tensor *golden = atedm_safetensors_find(run->golden, name);
    if (!golden)
        return;
    char shapes[2][96];
    run->compared++;
    if (ours->dtype != golden->dtype ||
        !atedm_host_tensor_has_shape(ours, golden->ndim, golden->shape))
        complain(run, "%s: %s %s, golden has %s %s", name, atedm_dtype_name(ours->dtype),
                 atedm_shape_text(ours->ndim, ours->shape, shapes[0], sizeof shapes[0]),
                 atedm_dtype_name(golden->dtype),
                 atedm_shape_text(golden->ndim, golden->shape, shapes[1], sizeof shapes[1]));
    else if (ours->dtype == ATEDM_F32)
        compare_floats(run, name, ours, golden);
    else
        compare_integers(run, name, ours, golden);
}

// rgb [height, width, 3] against planes [3, height, width].
static void compare_image(golden_run *run, const uint8_t *rgb, const uint8_t *planes, size_t pixels)
{
    uint8_t *planar = malloc(3 * pixels);
    if (!planar) {
        complain(run, "no memory");
        return;
    }
    for (size_t i = 0; i < pixels; i++)
        for (size_t c = 0; c < 3; c++)
            planar[c * pixels + i] = rgb[3 * i + c];
    double psnr = compare_psnr(planar, planes, 3 * pixels);
    if (!(psnr >= MIN_PSNR_DB))
        complain(run, "picture: %.1f dB, less than %.1f dB", psnr, MIN_PSNR_DB);
    free(planar);
}

// What the operations counted is what the cost model says, stage by stage, to the last one.
static void compare_counts(golden_run *run, const atedm_pipeline *pipeline,
                           const atedm_generation *g)
{
    atedm_op_counts counts[3];
    atedm_pipeline_counts(pipeline, counts); // which has served this request only
    const atedm_request_cost *cost = atedm_generation_cost(g);
    const uint64_t expected[3] = {cost->text_encoder, cost->unet, cost->vae};
    static const char *const names[3] = {"text encoders", "UNet", "VAE"};
    for (int i = 0; i < 3; i++)
        if (atedm_op_counts_flops(&counts[i]) != expected[i])
            complain(run, "%s: operations counted %" PRIu64 " FLOPs, the cost model says %" PRIu64,
                     names[i], atedm_op_counts_flops(&counts[i]), expected[i]);
    if (2 * counts[1].overhead != cost->overhead)
        complain(run,
                 "overhead: operations counted %" PRIu64 " FLOPs, the cost model says %" PRIu64,
                 2 * counts[1].overhead, cost->overhead);
}

// ---- running
// ---------------------------------------------------------------------------------------

static atedm_status open_model(golden_run *run, const char *name, atedm_error *err)
{
    if (run->model && !strcmp(run->model_name, name))
        return ATEDM_OK;
    atedm_model_close(run->model);
    run->model = NULL;
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/models/%s", run->data, name);
    snprintf(run->model_name, sizeof run->model_name, "%s", name);
    return atedm_model_open(path, run->device, ATEDM_F32, &run->model, err);
}

static char *copy_text(const json_t *value)
{
    return json_is_string(value) ? strdup(json_string_value(value)) : NULL;
}

static atedm_status read_request(golden_run *run, const json_t *body, atedm_request *request,
                                 atedm_error *err)
{
    atedm_prune_spec off;
    atedm_field_errors errors = {0};
    if (atedm_prune_preset("off", &off))
        return atedm_error_set(err, ATEDM_ERR_NOT_FOUND, "no preset off");
    atedm_request_limits limits = {.native_width = 64,
                                   .native_height = 64,
                                   .size_multiple = 8,
                                   .max_area = 1 << 20,
                                   .max_images = 8,
                                   .max_steps = 50};
    atedm_request_init(request, &limits, &off);
    request->prompt = copy_text(json_object_get(body, "prompt"));
    request->negative_prompt = copy_text(json_object_get(body, "negative_prompt"));
    request->width = json_integer_value(json_object_get(body, "width"));
    request->height = json_integer_value(json_object_get(body, "height"));
    request->steps = (int)json_integer_value(json_object_get(body, "steps"));
    request->guidance_scale = json_number_value(json_object_get(body, "guidance_scale"));
    request->seed = (uint64_t)json_integer_value(json_object_get(body, "seed"));
    request->num_images = (int)json_integer_value(json_object_get(body, "num_images"));
    const char *sampler = json_string_value(json_object_get(body, "sampler"));
    if (sampler)
        snprintf(request->sampler, sizeof request->sampler, "%s", sampler);
    const json_t *pruning = json_object_get(body, "pruning");
    if (pruning)
        atedm_prune_spec_from_json(pruning, "/pruning", &request->prune, &errors);
    atedm_request_validate(request, &limits, &errors);
    if (errors.count)
        return atedm_error_set(err, ATEDM_ERR_INVALID, "%s %s", errors.items[0].pointer,
                               errors.items[0].detail);
    return ATEDM_OK;
}

static atedm_status generate(golden_run *run, atedm_pipeline *pipeline,
                             const atedm_request *request, uint8_t *rgb, atedm_error *err)
{
    atedm_generation *g = NULL;
    atedm_timing timing;
    uint8_t *images[ATEDM_PIPELINE_BATCH];
    size_t pixels = (size_t)(request->width * request->height);
    for (int i = 0; i < request->num_images; i++)
        images[i] = rgb + (size_t)i * 3 * pixels;
    // A golden with given latents starts from them; the others from the seed.
    const atedm_host_tensor *given = atedm_safetensors_find(run->golden, "latents_given");
    atedm_status status = atedm_generation_create(pipeline, request, given, on_dump, run, &g, err);
    if (!status)
        status = atedm_generation_run(g, NULL, NULL, images, &timing, err);
    if (!status)
        compare_counts(run, pipeline, g);
    atedm_generation_destroy(g);
    const atedm_host_tensor *picture = atedm_safetensors_find(run->golden, "image_u8");
    for (int i = 0; !status && picture && i < request->num_images; i++)
        compare_image(run, images[i], (const uint8_t *)picture->data + (size_t)i * 3 * pixels,
                      pixels);
    return status;
}

static atedm_status run_case(golden_run *run, const char *path, atedm_error *err)
{
    char tensors[PATH_MAX];
    json_t *object = NULL;
    atedm_safetensors *golden = NULL;
    atedm_pipeline *pipeline = NULL;
    atedm_request request = {0};
    uint8_t *rgb = NULL;
    const char *model = NULL;
    snprintf(tensors, sizeof tensors, "%.*s.safetensors", (int)(strlen(path) - 5), path);
    atedm_status status = atedm_json_load(path, &object, err);
    if (!status)
        status = atedm_json_string(object, path, "model", false, &model, err);
    if (!status)
        status = open_model(run, model, err);
    if (!status)
        status = atedm_safetensors_open(tensors, &golden, err);
    if (!status)
        status = atedm_pipeline_create(run->model, &pipeline, err);
    if (!status)
        status = read_request(run, json_object_get(object, "request"), &request, err);
    if (status)
        goto fail;
    run->golden = golden;
    rgb = malloc((size_t)(3 * request.width * request.height * request.num_images));
    status = rgb ? generate(run, pipeline, &request, rgb, err) : ATEDM_ERR_NOMEM;
fail:
    free(rgb);
    atedm_request_finish(&request);
    atedm_pipeline_destroy(pipeline);
    atedm_safetensors_close(golden);
    json_decref(object);
    return status;
}

static void run_and_report(golden_run *run, const char *path, const char *name)
{
    atedm_error err = {0};
    run->name = name;
    run->case_failed = false;
    run->compared = 0;
    run->worst = 0;
    run->worst_name[0] = '\0';
    atedm_status status = run_case(run, path, &err);
    if (status)
        complain(run, "%s (%s)", err.message, atedm_status_name(status));
    else if (run->compared == 0)
        complain(run, "the golden has nothing to compare with");
    printf("%s %-28s %4zu tensors, worst relative L2 %.2g %s\n", run->case_failed ? "not ok" : "ok",
           name, run->compared, run->worst, run->worst_name);
    fflush(stdout);
    run->failed += run->case_failed;
    run->passed += !run->case_failed;
}

static int is_case(const struct dirent *entry)
{
    size_t length = strlen(entry->d_name);
    return length > 5 && !strcmp(entry->d_name + length - 5, ".json");
}

static bool is_wanted(const char *name, char **wanted, int n)
{
    for (int i = 0; i < n; i++)
        if (strstr(name, wanted[i]))
            return true;
    return n == 0;
}

static int run_folder(golden_run *run, const char *folder, char **wanted, int n_wanted)
{
    char dir[PATH_MAX], path[PATH_MAX + 300];
    struct dirent **entries;
    snprintf(dir, sizeof dir, "%s/%s", run->data, folder);
    int n = scandir(dir, &entries, is_case, alphasort);
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, entries[i]->d_name);
        if (is_wanted(entries[i]->d_name, wanted, n_wanted))
            run_and_report(run, path, entries[i]->d_name);
        free(entries[i]);
    }
    if (n >= 0)
        free(entries);
    return n;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"data", required_argument, NULL, 'd'},
                                            {"backend", required_argument, NULL, 'b'},
                                            {NULL, 0, NULL, 0}};
    golden_run run = {.backend = "ref"};
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 'd')
            run.data = optarg;
        else if (c == 'b')
            run.backend = optarg;
        else
            return 2;
    }
    if (!run.data)
        return 2;
    atedm_error err;
    if (atedm_device_create(run.backend, &run.device, &err)) {
        printf("%s\n", err.message);
        return 1;
    }
    int found = run_folder(&run, "pipeline", argv + optind, argc - optind);
    found += run_folder(&run, "atedm", argv + optind, argc - optind);
    printf("%d passed, %d failed\n", run.passed, run.failed);
    atedm_model_close(run.model);
    atedm_device_destroy(run.device);
    return run.failed || found < 1;
}
