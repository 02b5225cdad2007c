// Prints the report of `atedm request`: see request_report.h.
#include "cli/request_report.h"

#include "cli/cli.h"
#include "core/request.h"

#include <stdio.h>

static double number(const json_t *object, const char *name)
{
    return json_number_value(json_object_get(object, name));
}

static const char *text(const json_t *object, const char *name)
{
    const char *value = json_string_value(json_object_get(object, name));
    return value ? value : "?";
}

int atedm_request_report_print(const json_t *result)
{
    size_t i;
    const json_t *item, *latency = json_object_get(result, "latency"),
                        *pruning = json_object_get(result, "pruning");
    json_array_foreach(json_object_get(result, "images"), i, item)
    {
        printf("%s: %.0fx%.0f, seed %" JSON_INTEGER_FORMAT "\n", text(item, "file"),
               number(item, "width"), number(item, "height"),
               json_integer_value(json_object_get(item, "seed")));
    }
    printf("%.2f s: waited %.2f, text encoders %.2f, %zu steps %.2f, VAE %.2f, PNG %.2f (%s)\n",
           number(latency, "total_s"), number(latency, "queue_s"),
           number(latency, "text_encoder_s"), json_array_size(json_object_get(latency, "steps_s")),
           number(latency, "denoise_s"), number(latency, "vae_s"), number(latency, "encode_s"),
           text(result, "model"));
    const json_t *preset = json_object_get(pruning, "preset");
    printf("pruning %s: UNet at %.1f %% of its FLOPs, %.4g TFLOPs in all\n",
           json_is_string(preset) ? json_string_value(preset) : "custom",
           100 * number(pruning, "mean_unet_flops_ratio"),
           number(json_object_get(result, "flops"), "executed") * 1e-12);
    json_array_foreach(json_object_get(result, "warnings"), i, item)
    {
        fprintf(stderr, "atedm request: %s\n", json_string_value(item));
    }
    if (fflush(stdout) == 0)
        return 0;
    return atedm_cli_failed("request", &(atedm_error){"the report could not be written"});
}

int atedm_request_report_problem(const json_t *problem, int status, double retry_after_s)
{
    size_t i;
    const json_t *item, *errors = json_object_get(problem, "errors");
    if (json_array_size(errors)) {
        atedm_field_errors named = {.count = 0};
        json_array_foreach(errors, i, item)
        {
            atedm_field_errors_add(&named, text(item, "pointer"), "%s", text(item, "detail"));
        }
        return atedm_cli_field_errors("request", &named);
    }
    if (json_is_object(problem))
        fprintf(stderr, "atedm request: %s: %s", text(problem, "title"), text(problem, "detail"));
    else
        fprintf(stderr, "atedm request: the daemon answered %d", status);
    if (retry_after_s > 0)
        fprintf(stderr, " (try again in %.0f s)", retry_after_s);
    fputc('\n', stderr);
    return ATEDM_EXIT_FAILED;
}
