// core/checkpoint_names and core/model_files: where a checkpoint keeps each parameter, as
// diffusers' conversion has it, and what a model's path means. Whole checkpoints:
// tests/e2e/cli_checkpoint.py.
#include "core/checkpoint_names.h"
#include "core/model.h"
#include "core/model_files.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const components[] = {"text_encoder", "text_encoder_2", "unet", "vae"};
static const char *const forms[] = {"as asked",   "first third", "second third",
                                    "last third", "transposed",  "pointwise"};
static atedm_error err;

static json_t *golden(void)
{
    char path[512];
    json_error_t error;
    snprintf(path, sizeof path, "%s/checkpoint.json", getenv("ATEDM_GOLDEN_DIR"));
    json_t *root = json_load_file(path, 0, &error);
    cr_assert_not_null(root, "%s: %s", path, error.text);
    return root;
}

// What the component's loader asks for.
static atedm_recorder *record(const atedm_model_configs *parts, atedm_component component)
{
    atedm_device *dry = NULL;
    atedm_recorder *recorder = NULL;
    atedm_clip *clip = NULL;
    atedm_unet *unet = NULL;
    atedm_vae *vae = NULL;
    cr_assert_eq(atedm_device_create("dry", &dry, &err), ATEDM_OK);
    cr_assert_eq(atedm_recorder_create(&recorder), ATEDM_OK);
    atedm_weights *weights = atedm_recorder_weights(recorder);
    atedm_status status =
        component == ATEDM_UNET
            ? atedm_unet_create(dry, ATEDM_F32, &parts->unet, weights, &unet, &err)
        : component == ATEDM_VAE
            ? atedm_vae_create(dry, ATEDM_F32, &parts->vae, weights, &vae, &err)
            : atedm_clip_create(dry, ATEDM_F32, &parts->clip[component], weights, &clip, &err);
    cr_assert_eq(status, ATEDM_OK, "%s", err.message);
    atedm_clip_destroy(clip);
    atedm_unet_destroy(unet);
    atedm_vae_destroy(vae);
    atedm_device_destroy(dry);
    return recorder;
}

// The whole name in the checkpoint.
static void find(const atedm_renaming *renaming, const char *name, char ret_where[512],
                 const char **ret_form)
{
    atedm_stored stored = {.form = ATEDM_STORED_AS_ASKED};
    if (renaming->find)
        renaming->find(renaming->user, name, &stored);
    else
        snprintf(stored.name, sizeof stored.name, "%s", name);
    snprintf(ret_where, 512, "%s%s", renaming->prefix, stored.name);
    *ret_form = forms[stored.form];
}

static void check_model(const char *model)
{
    json_t *root = golden();
    char path[512];
    atedm_model_config config;
    snprintf(path, sizeof path, "%s/models/%s", getenv("ATEDM_GOLDEN_DIR"), model);
    cr_assert_eq(atedm_model_config_read(path, &config, &err), ATEDM_OK, "%s", err.message);
    for (int i = 0; i < 4; i++) {
        const json_t *wanted = json_object_get(json_object_get(root, model), components[i]);
        atedm_recorder *recorder = record(&config.parts, (atedm_component)i);
        atedm_renaming renaming = atedm_checkpoint_renaming(&config.parts, (atedm_component)i);
        size_t count = 0;
        const atedm_recorded *entries = atedm_recorder_entries(recorder, &count);
        cr_expect_eq(count, json_object_size(wanted), "%s: %zu parameters", components[i], count);
        for (size_t k = 0; k < count; k++) {
            char where[512];
            const char *form;
            const json_t *place = json_object_get(wanted, entries[k].name);
            cr_assert_not_null(place, "%s %s", components[i], entries[k].name);
            find(&renaming, entries[k].name, where, &form);
            cr_expect_str_eq(where, json_string_value(json_array_get(place, 0)));
            cr_expect_str_eq(form, json_string_value(json_array_get(place, 1)));
        }
        atedm_recorder_destroy(recorder);
    }
    json_decref(root);
}

Test(checkpoint, names_are_diffusers_own_of_sdxl_s_stages)
{
    check_model("b");
}

Test(checkpoint, names_are_diffusers_own_of_other_stages)
{
    check_model("c");
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const atedm_recorded *)a)->name, ((const atedm_recorded *)b)->name);
}

// 64-bit FNV-1a goes on over the text.
static uint64_t digest(uint64_t value, const char *text)
{
    for (; *text; text++)
        value = (value ^ (unsigned char)*text) * 0x100000001b3u;
    return value;
}

Test(checkpoint, names_are_diffusers_own_of_sdxl_base)
{
    json_t *root = golden();
    atedm_model_config config;
    cr_assert_eq(atedm_model_config_from_arch("sdxl-base", &config, &err), ATEDM_OK);
    for (int i = 0; i < 4; i++) {
        const json_t *wanted = json_object_get(json_object_get(root, "sdxl-base"), components[i]);
        atedm_recorder *recorder = record(&config.parts, (atedm_component)i);
        atedm_renaming renaming = atedm_checkpoint_renaming(&config.parts, (atedm_component)i);
        size_t count = 0;
        const atedm_recorded *entries = atedm_recorder_entries(recorder, &count);
        atedm_recorded *sorted = calloc(count, sizeof *sorted);
        cr_assert_not_null(sorted);
        memcpy(sorted, entries, count * sizeof *sorted);
        qsort(sorted, count, sizeof *sorted, by_name);
        uint64_t value = 0xcbf29ce484222325u;
        for (size_t k = 0; k < count; k++) {
            char where[512], line[1024];
            const char *form;
            find(&renaming, sorted[k].name, where, &form);
            snprintf(line, sizeof line, "%s %s %s\n", sorted[k].name, where, form);
            value = digest(value, line);
        }
        char text[32];
        snprintf(text, sizeof text, "%016llx", (unsigned long long)value);
        cr_expect_eq((json_int_t)count, json_integer_value(json_object_get(wanted, "count")));
        cr_expect_str_eq(text, json_string_value(json_object_get(wanted, "fnv1a")), "%s",
                         components[i]);
        free(sorted);
        atedm_recorder_destroy(recorder);
    }
    json_decref(root);
}

Test(checkpoint, what_a_path_means)
{
    static const struct {
        const char *path, *folder, *checkpoint, *name;
    } cases[] = {
        {"sdxl", "sdxl", "", "sdxl"},
        {"/models/sdxl//", "/models/sdxl//", "", "sdxl"},
        {"sdxl/fine.safetensors", "sdxl", "sdxl/fine.safetensors", "fine"},
        {"fine.safetensors", ".", "fine.safetensors", "fine"},
        {"/fine.v2.safetensors", "/", "/fine.v2.safetensors", "fine.v2"},
        {"sdxl/.safetensors", "sdxl/.safetensors", "", ".safetensors"},
        {"fine.safetensors/", "fine.safetensors/", "", "fine.safetensors"},
        {"/", "/", "", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        atedm_model_files files;
        cr_assert_eq(atedm_model_files_find(cases[i].path, &files, &err), ATEDM_OK);
        cr_expect_str_eq(files.folder, cases[i].folder, "%s", cases[i].path);
        cr_expect_str_eq(files.checkpoint, cases[i].checkpoint, "%s", cases[i].path);
        cr_expect_str_eq(files.name, cases[i].name, "%s", cases[i].path);
    }
    char longest[PATH_MAX + 1];
    memset(longest, 'a', sizeof longest);
    longest[PATH_MAX - 1] = '\0';
    atedm_model_files files;
    cr_expect_eq(atedm_model_files_find(longest, &files, &err), ATEDM_OK);
    longest[PATH_MAX - 1] = 'a';
    longest[PATH_MAX] = '\0';
    cr_expect_eq(atedm_model_files_find(longest, &files, &err), ATEDM_ERR_LIMIT);
}
