// `atedm inspect`: the project's cost tables out of its own output, parameters against the files,
// and what it refuses.
#include "cli/cli.h"
#include "cli/inspect.h"
#include "core/safetensors.h"

#include <criterion/criterion.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_ARGS 12

// Runs the command with its output in a file; returns the exit status. The output, and what went to
// standard error, are the caller's to free.
static int run(const char *const *args, char **ret_output, char **ret_errors)
{
    char *argv[MAX_ARGS + 2] = {strdup("atedm inspect")};
    int argc = 1;
    for (; args[argc - 1]; argc++) {
        cr_assert_lt(argc, MAX_ARGS);
        argv[argc] = strdup(args[argc - 1]);
    }
    FILE *files[2] = {tmpfile(), tmpfile()};
    int saved[2] = {dup(STDOUT_FILENO), dup(STDERR_FILENO)};
    fflush(NULL);
    for (int i = 0; i < 2; i++)
        dup2(fileno(files[i]), STDOUT_FILENO + i);
    optind = 0; // GNU: start anew
    int result = atedm_cli_inspect(argc, argv);
    fflush(NULL);
    char **texts[2] = {ret_output, ret_errors};
    for (int i = 0; i < 2; i++) {
        dup2(saved[i], STDOUT_FILENO + i);
        close(saved[i]);
        fseek(files[i], 0, SEEK_END);
        long size = ftell(files[i]);
        rewind(files[i]);
        *texts[i] = calloc((size_t)size + 1, 1);
        cr_assert_eq(fread(*texts[i], 1, (size_t)size, files[i]), (size_t)size);
        fclose(files[i]);
    }
    for (int i = 0; i < argc; i++)
        free(argv[i]);
    return result;
}

static json_t *run_json(const char *const *args)
{
    char *output = NULL;
    char *errors = NULL;
    cr_assert_eq(run(args, &output, &errors), 0, "%s", errors);
    json_error_t parse_error;
    json_t *report = json_loads(output, 0, &parse_error);
    cr_assert_not_null(report, "%s", parse_error.text);
    free(output);
    free(errors);
    return report;
}

static const json_t *find(const json_t *list, const char *name)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        if (strcmp(json_string_value(json_object_get(item, "name")), name) == 0)
            return item;
    }
    cr_assert_fail("no \"%s\"", name);
    return NULL;
}

static double number(const json_t *object, const char *key)
{
    const json_t *item = json_object_get(object, key);
    cr_assert(json_is_number(item), "%s", key);
    return json_number_value(item);
}

// Compares as printed, with the decimals that `wanted` has.
static void check_printed(double value, const char *wanted)
{
    char text[64];
    snprintf(text, sizeof text, "%.*f", (int)strlen(strchr(wanted, '.') + 1), value);
    cr_assert_str_eq(text, wanted);
}

Test(inspect, sdxl_base)
{
    json_t *report = run_json((const char *[]){"--arch", "sdxl-base", "--json", NULL});
    const json_t *components = json_object_get(report, "components");
    cr_assert_eq(number(find(components, "text_encoder"), "parameters"), 123060480);
    cr_assert_eq(number(find(components, "text_encoder_2"), "parameters"), 694659840);
    cr_assert_eq(number(find(components, "unet"), "parameters"), 2567463684);
    cr_assert_eq(number(find(components, "vae"), "parameters"), 49490199); // the decoder's part

    const json_t *unet = json_object_get(report, "unet");
    const json_t *macs = json_object_get(unet, "macs");
    check_printed(number(macs, "convolution") / 1e12, "0.812");
    check_printed(number(macs, "linear") / 1e12, "2.177");
    check_printed(number(macs, "attention") / 1e12, "0.392");
    check_printed(number(macs, "total") / 1e12, "3.381");
    check_printed(number(unet, "flops") / 1e12, "6.76");

    static const struct {
        const char *plan, *tflops;
    } plans[] = {{"off", "6.76"},           {"at-edm", "4.10"},   {"at-edm-a", "2.90"},
                 {"at-edm-b", "3.60"},      {"at-edm-c", "4.10"}, {"at-edm-d", "4.46"},
                 {"at-edm-dagger", "4.443"}};
    const json_t *list = json_object_get(report, "plans");
    cr_assert_eq(json_array_size(list), 7);
    for (size_t i = 0; i < 7; i++)
        check_printed(number(find(list, plans[i].plan), "mean_unet_flops") / 1e12, plans[i].tflops);
    const json_t *request = json_object_get(report, "request");
    cr_assert_eq(number(request, "width"), 1024);
    cr_assert_eq(number(request, "steps"), 30);
    const json_t *flops = json_object_get(request, "flops");
    cr_assert_eq(number(flops, "executed"),
                 number(flops, "text_encoder") + number(flops, "unet") + number(flops, "vae"));
    cr_assert_lt(number(flops, "executed"), number(flops, "baseline"));
    json_decref(report);
}

// The tables as a person reads them.
Test(inspect, sdxl_base_text)
{
    static const struct {
        const char *args[8];
        const char *line;
    } cases[] = {
        {{"--arch", "sdxl-base"}, "convolutions         0.812 T\n"},
        {{"--arch", "sdxl-base"}, "linear layers        2.177 T\n"},
        {{"--arch", "sdxl-base"}, "attention products   0.392 T\n"},
        {{"--arch", "sdxl-base"}, "total                3.381 T, that is 6.761 TFLOPs\n"},
        {{"--arch", "sdxl-base", "--size", "512x512"}, "that is 1.589 TFLOPs\n"},
        {{"--arch", "sdxl-base", "--size", "768"}, "that is 3.641 TFLOPs\n"},
        {{"--arch", "sdxl-base", "--pruning", "{\"ratio\": 0.63, \"schedule\": \"uniform\"}"},
         "given              0.63 uniform      4.065     60.1%"},
        {{"--arch", "sdxl-base", "--pruning", "at-edm-dagger"},
         "at-edm-dagger      0.63 uniform      4.443     65.7%"},
        {{"--arch", "sdxl-base", "--pruning", "{\"ratio\": 0.9999}"},
         "given            0.9999 dsap         3.090     45.7%"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *output = NULL;
        char *errors = NULL;
        cr_assert_eq(run(cases[i].args, &output, &errors), 0, "%s", errors);
        cr_assert_not_null(strstr(output, cases[i].line), "%s in\n%s", cases[i].line, output);
        free(output);
        free(errors);
    }
}

Test(inspect, a_budget_is_solved)
{
    json_t *report = run_json((const char *[]){"--arch", "sdxl-base", "--json", "--pruning",
                                               "{\"flops_budget\": 0.61}", "--steps", "50", NULL});
    const json_t *plans = json_object_get(report, "plans");
    cr_assert_eq(json_array_size(plans), 2);
    const json_t *given = find(plans, "given");
    cr_assert_leq(number(given, "mean_unet_flops_ratio"), 0.61);
    cr_assert_gt(number(given, "mean_unet_flops_ratio"), 0.609);
    cr_assert_float_eq(number(given, "ratio"), 0.69, 0.01);
    const json_t *phases = json_object_get(given, "phases");
    cr_assert_eq(json_array_size(phases), 2);
    cr_assert_eq(number(json_array_get(phases, 0), "steps"), 15);
    cr_assert_eq(number(json_array_get(phases, 1), "first_step"), 15);
    json_decref(report);
}

static const char *golden_model(char *buffer, size_t size, const char *name)
{
    const char *dir = getenv("ATEDM_GOLDEN_DIR");
    cr_assert_not_null(dir, "set ATEDM_GOLDEN_DIR to tests/golden/data");
    snprintf(buffer, size, "%s/models/%s", dir, name);
    return buffer;
}

// Every tensor of a UNet's file is a parameter of the UNet.
Test(inspect, parameters_are_those_of_the_files)
{
    static const struct {
        const char *model, *file;
    } models[] = {{"a", "unet/diffusion_pytorch_model.safetensors"},
                  {"b", "unet/diffusion_pytorch_model.fp16.safetensors"}};
    for (size_t i = 0; i < 2; i++) {
        char dir[4096];
        char path[4096 + 64];
        golden_model(dir, sizeof dir, models[i].model);
        json_t *report = run_json((const char *[]){dir, "--json", NULL});
        const json_t *unet = find(json_object_get(report, "components"), "unet");
        snprintf(path, sizeof path, "%s/%s", dir, models[i].file);
        atedm_safetensors *file = NULL;
        atedm_error err = {{0}};
        cr_assert_eq(atedm_safetensors_open(path, &file, &err), ATEDM_OK, "%s", err.message);
        int64_t elements = 0;
        for (size_t k = 0; k < atedm_safetensors_count(file); k++)
            elements += atedm_host_tensor_count(atedm_safetensors_tensor(file, k));
        cr_assert_eq(number(unet, "parameters"), (double)elements);
        double stored = 0;
        const char *dtype = NULL;
        json_t *count = NULL;
        json_object_foreach(json_object_get(unet, "stored"), dtype, count) stored +=
            json_number_value(count);
        cr_assert_eq(stored, (double)elements);
        cr_assert_geq(number(unet, "stored_bytes"), 2 * (double)elements);
        atedm_safetensors_close(file);
        json_decref(report);
    }
}

Test(inspect, wrong_use)
{
    char model[4096];
    golden_model(model, sizeof model, "a");
    const struct {
        const char *args[8];
        int status;
        const char *named;
    } wrong[] = {
        {{NULL}, 2, "--arch"},
        {{model, "--arch", "sdxl-base"}, 2, "either"},
        {{model, "more"}, 2, "more"},
        {{model, "--size", "64"}, 0, NULL},
        {{model, "--size", "65x64"}, 2, "--width: is 65"},
        {{model, "--size", "64x"}, 2, "64x"},
        {{model, "--steps", "0"}, 2, "--steps"},
        {{model, "--steps", "151"}, 2, "1..150"},
        {{model, "--steps", "many"}, 2, "many"},
        {{model, "--pruning", "max"}, 2, "\"max\" is not a preset"},
        {{model, "--pruning", "{\"ratio\": 2}"}, 2, "--pruning/ratio"},
        {{model, "--pruning", "{"}, 2, "--pruning"},
        {{model, "--pruning", "{\"flops_budget\": 0.01}"}, 1, "floor"},
        {{model, "--pruning", "{\"phases\": [{\"until\": 1, \"skip\": [\"up.9.0\"]}]}"},
         1,
         "up.9.0"},
        {{"/nonexistent"}, 1, "/nonexistent"},
        {{"--arch", "/nonexistent"}, 1, "/nonexistent"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char *output = NULL;
        char *errors = NULL;
        int status = run(wrong[i].args, &output, &errors);
        cr_assert_eq(status, wrong[i].status, "%zu: %d %s", i, status, errors);
        if (wrong[i].named) {
            cr_assert_not_null(strstr(errors, wrong[i].named), "%zu: %s", i, errors);
            cr_assert_eq(output[0], 0);
        }
        free(output);
        free(errors);
    }
}
