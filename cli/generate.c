// `atedm generate`: runs one request in this process, from options to PNG files.
#include "cli/cli.h"
#include "cli/dump.h"
#include "cli/generate_options.h"
#include "cli/generate_report.h"
#include "cli/picture_files.h"
#include "cli/progress.h"
#include "core/base/clock.h"
#include "core/base/memory.h"
#include "core/pipeline.h"
#include "core/png_settings.h"
#include "core/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PNG_MAX (512u * 1024 * 1024) // bytes of one file

// What one run of the command uses.
typedef struct job {
    const atedm_generate_options *options;
    double start;
    atedm_request request;
    atedm_device *device;
    atedm_model *model;
    atedm_pipeline *pipeline;
    atedm_generation *generation;
    atedm_dump dump;
    atedm_host_tensor latents; // initial latents, data owned; data NULL: use the seed's noise
    uint8_t **images;          // [num_images] RGB, [height, width, 3] each
    char **files;              // [num_images] file names
    double load_s;
    atedm_timing timing;
} job;

static void job_finish(job *j)
{
    atedm_generation_destroy(j->generation);
    atedm_pipeline_destroy(j->pipeline);
    atedm_model_close(j->model);
    atedm_device_destroy(j->device);
    atedm_dump_finish(&j->dump);
    free((void *)j->latents.data);
    for (int i = 0; j->images && i < j->request.num_images; i++)
        free(j->images[i]);
    for (int i = 0; j->files && i < j->request.num_images; i++)
        free(j->files[i]);
    free(j->images);
    free(j->files);
    atedm_request_finish(&j->request);
}

static atedm_status allocate_images(job *j, atedm_error *err)
{
    int n = j->request.num_images;
    size_t bytes = 3 * (size_t)(j->request.width * j->request.height);
    j->images = calloc((size_t)n, sizeof *j->images);
    j->files = calloc((size_t)n, sizeof *j->files);
    for (int i = 0; j->images && j->files && i < n; i++) {
        j->images[i] = malloc(bytes);
        j->files[i] = atedm_picture_name(j->options->values[ATEDM_GENERATE_OUTPUT], i, n);
        if (!j->images[i] || !j->files[i])
            return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for %d images", n);
    }
    if (!j->images || !j->files)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for %d images", n);
    return ATEDM_OK;
}

static atedm_status read_latents(job *j, const char *path, atedm_error *err)
{
    atedm_safetensors *file = NULL;
    atedm_status status = atedm_safetensors_open(path, &file, err);
    if (status)
        return status;
    const atedm_host_tensor *found = atedm_safetensors_find(file, "latents_init");
    if (!found) {
        status = atedm_error_set(err, ATEDM_ERR_NOT_FOUND, "%s: no tensor latents_init", path);
    } else {
        size_t bytes = (size_t)atedm_host_tensor_count(found) * atedm_dtype_size(found->dtype);
        void *data = malloc(bytes ? bytes : 1);
        if (data) {
            memcpy(data, found->data, bytes); // a copy, because the mapping may be unaligned
            j->latents = *found;
            j->latents.data = data;
        } else {
            status = atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for latents");
        }
    }
    atedm_safetensors_close(file);
    return status;
}

static atedm_status load(job *j, atedm_error *err)
{
    const char *const *values = j->options->values;
    const char *backend = values[ATEDM_GENERATE_BACKEND],
               *dtype_name = values[ATEDM_GENERATE_DTYPE];
    atedm_dtype dtype;
    atedm_status status = atedm_picture_check(values[ATEDM_GENERATE_OUTPUT], err);
    if (!status)
        status = allocate_images(j, err);
    if (!status && values[ATEDM_GENERATE_LATENTS])
        status = read_latents(j, values[ATEDM_GENERATE_LATENTS], err);
    if (!status)
        status = atedm_cli_open_device(backend ? backend : "auto", dtype_name ? dtype_name : "auto",
                                       &j->device, &dtype, err);
    if (!status)
        status = atedm_model_open(values[ATEDM_GENERATE_MODEL], j->device, dtype, &j->model, err);
    if (!status)
        status = atedm_pipeline_create(j->model, &j->pipeline, err);
    j->load_s = atedm_clock_monotonic() - j->start;
    return status;
}

static atedm_status run(job *j, atedm_error *err)
{
    bool dumping = j->options->values[ATEDM_GENERATE_DUMP] != NULL;
    atedm_status status =
        atedm_generation_create(j->pipeline, &j->request, j->latents.data ? &j->latents : NULL,
                                dumping ? atedm_dump_add : NULL, &j->dump, &j->generation, err);
    if (status)
        return status;
    atedm_progress progress;
    atedm_progress_init(&progress, j->request.deadline_s);
    status = atedm_generation_run(j->generation, atedm_progress_step, &progress, j->images,
                                  &j->timing, err);
    atedm_progress_clear(&progress);
    if (progress.late)
        return atedm_error_context(err, status, "the deadline of %g s has passed",
                                   j->request.deadline_s);
    return status;
}

static atedm_status write_images(job *j, atedm_error *err)
{
    const atedm_plan *plan = atedm_generation_plan(j->generation);
    double start = atedm_clock_monotonic();
    for (int i = 0; i < j->request.num_images; i++) {
        atedm_buffer png;
        atedm_buffer_init(&png, PNG_MAX);
        atedm_status status =
            atedm_png_encode_image(j->images[i], &j->request, plan, i, &j->model->config,
                                   j->model->dtype, atedm_device_backend(j->device), &png, err);
        if (!status)
            status = atedm_picture_write(j->files[i], png.data, png.size, err);
        atedm_buffer_finish(&png);
        if (status)
            return status;
    }
    j->timing.encode_s = atedm_clock_monotonic() - start;
    return ATEDM_OK;
}

// Finds out without the weights, which take long to load, whether the model allows the plan.
static void check_plan(const atedm_model_config *config, const atedm_request *request,
                       atedm_field_errors *errors)
{
    atedm_plan *plan = NULL;
    atedm_request_cost cost;
    atedm_error err = {""};
    if (atedm_estimate(config, request, &plan, &cost, &err) == ATEDM_ERR_INVALID)
        atedm_field_errors_add(errors, "/pruning", "%s", err.message);
    atedm_plan_destroy(plan);
}

int atedm_cli_generate(int argc, char **argv)
{
    atedm_generate_options options;
    int result = 0;
    if (!atedm_generate_options_parse(argc, argv, &options, &result))
        return result;
    job j = {.options = &options, .start = atedm_clock_monotonic()};
    atedm_error err = {""};
    atedm_model_config config;
    if (atedm_model_config_read(options.values[ATEDM_GENERATE_MODEL], &config, &err))
        return atedm_cli_failed("generate", &err);
    atedm_field_errors errors = {.count = 0};
    atedm_generate_options_request(&options, &config, &j.request, &errors);
    if (!errors.count)
        check_plan(&config, &j.request, &errors);
    if (errors.count) {
        result = atedm_cli_field_errors("generate", &errors);
        goto fail;
    }
    atedm_status status = load(&j, &err);
    if (!status)
        status = run(&j, &err);
    if (!status)
        status = write_images(&j, &err);
    if (!status && options.values[ATEDM_GENERATE_DUMP])
        status = atedm_dump_write(&j.dump, options.values[ATEDM_GENERATE_DUMP], &err);
    if (status) {
        result = atedm_cli_failed("generate", &err);
        goto fail;
    }
    result = atedm_generate_report_print(
        &(atedm_generate_report){
            .model = j.model,
            .request = &j.request,
            .generation = j.generation,
            .timing = &j.timing,
            .files = j.files,
            .load_s = j.load_s,
            .total_s = atedm_clock_monotonic() - j.start,
        },
        options.json);
fail:
    job_finish(&j);
    return result;
}
