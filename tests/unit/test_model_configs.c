// A model's configs, malformed in every way: each is refused with a message that names the file and
// the key, and changes nothing. Cases are made from a good model of the goldens by giving one key
// another value.
#include "core/json_read.h"
#include "core/model.h"
#include "model_dir.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[MODEL_DIR_MAX];
static atedm_error err;

static void make(void)
{
    model_dir_copy("a", false, dir);
}

static void clean_up(void)
{
    model_dir_remove(dir);
}

TestSuite(model_configs, .init = make, .fini = clean_up, .timeout = 120);

static atedm_status read_all(atedm_model_config *ret_config)
{
    err.message[0] = '\0';
    return atedm_model_config_read(dir, ret_config, &err);
}

static void write_text(const char *file, const char *text)
{
    model_dir_write(dir, file, text, strlen(text));
}

static bool names(const char *part)
{
    return strstr(err.message, part) != NULL;
}

static bool is_json(const char *text)
{
    json_t *value = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    json_decref(value);
    return value != NULL;
}

// The refusal names the file and the key; where the text is no JSON, the line.
static void check_message(const char *file, const char *key, const char *raw, const char *text)
{
    char path[MODEL_DIR_MAX], line[MODEL_DIR_MAX + 1];
    model_dir_path(dir, file, path);
    cr_expect(names(path), "%s: %s = %s: \"%s\"", file, key, raw, err.message);
    if (is_json(text)) {
        cr_expect(names(key), "%s: %s = %s: \"%s\"", file, key, raw, err.message);
        return;
    }
    snprintf(line, sizeof line, "%s:", path);
    const char *number = strstr(err.message, line);
    cr_expect(number && number[strlen(line)] >= '1' && number[strlen(line)] <= '9',
              "%s: %s = %s: no line in \"%s\"", file, key, raw, err.message);
}

static void expect_untouched(const atedm_model_config *config)
{
    const unsigned char *bytes = (const unsigned char *)config;
    for (size_t i = 0; i < sizeof *config; i++)
        cr_assert_eq(bytes[i], 0x5a, "output touched on failure");
}

// Puts the file back as it was before `good` was changed.
static void restore(const char *file, char *good)
{
    write_text(file, good);
    free(good);
}

static void expect_refused(const char *file, const char *key, const char *raw)
{
    atedm_model_config config;
    memset(&config, 0x5a, sizeof config);
    char *good = model_dir_read(dir, file, NULL), *text = model_dir_edit(dir, file, key, raw);
    write_text(file, text);
    atedm_status status = read_all(&config);
    cr_expect_neq(status, ATEDM_OK, "%s: %s = %s is taken", file, key, raw ? raw : "(missing)");
    if (status) {
        check_message(file, key, raw ? raw : "(missing)", text);
        expect_untouched(&config);
    }
    free(text);
    restore(file, good);
}

// A key that may be absent: its default is taken, or what does not fit to it is named.
static void expect_clean(const char *file, const char *key, const char *raw)
{
    atedm_model_config config;
    char *good = model_dir_read(dir, file, NULL), *text = model_dir_edit(dir, file, key, raw);
    write_text(file, text);
    if (read_all(&config) != ATEDM_OK)
        cr_expect(names(dir) && names(key), "%s: no %s: \"%s\"", file, key, err.message);
    free(text);
    restore(file, good);
}

static void expect_taken(const char *file, const char *key, const char *raw)
{
    atedm_model_config config;
    char *good = model_dir_read(dir, file, NULL), *text = model_dir_edit(dir, file, key, raw);
    write_text(file, text);
    cr_expect_eq(read_all(&config), ATEDM_OK, "%s: %s = %s: %s", file, key, raw, err.message);
    free(text);
    restore(file, good);
}

// ---- every key, every wrong value

typedef enum key_kind { COUNT, NATURAL, REAL, BOOL, NAME, COUNTS, LEVELS, NAMES, UNSET } key_kind;

typedef struct config_key {
    const char *name;
    key_kind kind;
    bool required;
} config_key;

// What no reader takes for a value of the kind.
static const char *const not_numbers[] = {"\"8\"",
                                          "\"NaN\"",
                                          "NaN",
                                          "nan",
                                          "Infinity",
                                          "-Infinity",
                                          "true",
                                          "{}",
                                          "[]",
                                          "\"\"",
                                          "\"\xff\"",
                                          "-1",
                                          "1e18",
                                          "9223372036854775807",
                                          "1e999",
                                          "0x10",
                                          "-9223372036854775808",
                                          "9223372036854775808",
                                          "123456789012345678901234567890",
                                          NULL};
static const char *const not_counts[] = {"8.0", "1.5", "1e0", "-0.0", "[8]", NULL};
static const char *const zero[] = {"0", NULL};
static const char *const not_bools[] = {"1",  "0",  "\"true\"", "\"\"", "1.0",
                                        "[]", "{}", "[true]",   "True", NULL};
static const char *const not_names[] = {"1",  "true",     "[]",         "{}",       "\"\"",
                                        "-1", "\"nope\"", "[\"silu\"]", "\"\xe9\"", NULL};
static const char *const not_lists[] = {"[]",
                                        "{\"0\": 8}",
                                        "[8]",
                                        "[8, 16]",
                                        "[8, 16, \"64\", 64]",
                                        "[8, 16, \"64\"]",
                                        "[8, 16, 64.0]",
                                        "[8, 16, null]",
                                        "[8, 16, true]",
                                        "[8, 16, [64]]",
                                        "[8, 16, 0]",
                                        "[8, 16, -64]",
                                        "[8, 16, 1e18]",
                                        "[8, 16, 9223372036854775807]",
                                        "[8, 16, 9223372036854775808]",
                                        "[8, 16, -9223372036854775808]",
                                        "[8, 8, 8, 8, 8, 8, 8, 8, 8]",
                                        "[8, 16, 64, ]",
                                        NULL};
static const char *const not_name_lists[] = {"1",
                                             "\"DownBlock2D\"",
                                             "[]",
                                             "[\"DownBlock2D\"]",
                                             "[1, 2, 3]",
                                             "[null, null, null]",
                                             "{}",
                                             "[\"a\", \"b\", \"c\"]",
                                             "[\"a\", \"b\", \"c\", \"d\"]",
                                             NULL};
static const char *const not_null[] = {"1", "0.5", "true", "\"x\"", "[1]", "{}", "[]", NULL};

static void refuse_each(const char *file, const char *key, const char *const *values)
{
    for (; *values; values++)
        expect_refused(file, key, *values);
}

// A list of levels may have any length up to the limit: a wrong one is at odds with other keys.
static void check_levels(const char *file, const char *key)
{
    static const char *const single[] = {"8", "0", "-8", NULL};
    refuse_each(file, key, single);
    for (const char *const *value = not_lists; *value; value++)
        if (strcmp(*value, "[8]") != 0 && strcmp(*value, "[8, 16]") != 0)
            expect_refused(file, key, *value);
}

static void check_key(const char *file, const config_key *key)
{
    switch (key->kind) {
    case COUNT:
        refuse_each(file, key->name, zero);
        // falls through
    case NATURAL:
        refuse_each(file, key->name, not_counts);
        // falls through
    case REAL:
        refuse_each(file, key->name, not_numbers);
        break;
    case BOOL:
        refuse_each(file, key->name, not_bools);
        break;
    case NAME:
        refuse_each(file, key->name, not_names);
        break;
    case COUNTS:
        refuse_each(file, key->name, not_lists);
        refuse_each(file, key->name, zero);
        break;
    case LEVELS:
        check_levels(file, key->name);
        break;
    case NAMES:
        refuse_each(file, key->name, not_name_lists);
        break;
    case UNSET:
        refuse_each(file, key->name, not_null);
        expect_taken(file, key->name, "null");
        break;
    }
    if (key->required) {
        expect_refused(file, key->name, NULL);
        expect_refused(file, key->name, "null");
    } else {
        expect_clean(file, key->name, NULL);
        if (key->kind != NAME) // null is a kind of its own for some of them
            expect_clean(file, key->name, "null");
    }
}

static void check_keys(const char *file, const config_key *keys, size_t count)
{
    atedm_model_config config;
    cr_assert_eq(read_all(&config), ATEDM_OK, "%s", err.message);
    for (size_t i = 0; i < count; i++)
        check_key(file, &keys[i]);
    cr_assert_eq(read_all(&config), ATEDM_OK, "the good one still is: %s", err.message);
}

Test(model_configs, unet)
{
    static const config_key keys[] = {
        {"block_out_channels", LEVELS, true},
        {"transformer_layers_per_block", COUNTS, true},
        {"attention_head_dim", COUNTS, true},
        {"down_block_types", NAMES, true},
        {"up_block_types", NAMES, true},
        {"cross_attention_dim", COUNT, true},
        {"addition_time_embed_dim", COUNT, true},
        {"projection_class_embeddings_input_dim", COUNT, true},
        {"sample_size", REAL, true},
        {"in_channels", COUNT, false},
        {"out_channels", COUNT, false},
        {"layers_per_block", COUNT, false},
        {"norm_num_groups", COUNT, false},
        {"norm_eps", REAL, false},
        {"use_linear_projection", BOOL, false},
        {"act_fn", NAME, false},
        {"addition_embed_type", NAME, false},
        {"attention_type", NAME, false},
        {"mid_block_type", NAME, false},
        {"resnet_time_scale_shift", NAME, false},
        {"time_embedding_type", NAME, false},
        {"center_input_sample", BOOL, false},
        {"class_embeddings_concat", BOOL, false},
        {"dual_cross_attention", BOOL, false},
        {"flip_sin_to_cos", BOOL, false},
        {"mid_block_only_cross_attention", BOOL, false},
        {"only_cross_attention", BOOL, false},
        {"resnet_skip_time_act", BOOL, false},
        {"conv_in_kernel", REAL, false},
        {"conv_out_kernel", REAL, false},
        {"downsample_padding", REAL, false},
        {"freq_shift", REAL, false},
        {"mid_block_scale_factor", REAL, false},
        {"class_embed_type", UNSET, false},
        {"cross_attention_norm", UNSET, false},
        {"encoder_hid_dim", UNSET, false},
        {"encoder_hid_dim_type", UNSET, false},
        {"num_class_embeds", UNSET, false},
        {"time_cond_proj_dim", UNSET, false},
        {"time_embedding_act_fn", UNSET, false},
        {"time_embedding_dim", UNSET, false},
        {"timestep_post_act", UNSET, false},
        {"reverse_transformer_layers_per_block", UNSET, false},
    };
    check_keys("unet/config.json", keys, sizeof keys / sizeof *keys);
}

Test(model_configs, vae)
{
    static const config_key keys[] = {
        {"block_out_channels", LEVELS, true},     {"up_block_types", NAMES, true},
        {"latent_channels", COUNT, false},        {"out_channels", COUNT, false},
        {"layers_per_block", COUNT, false},       {"norm_num_groups", COUNT, false},
        {"scaling_factor", REAL, false},          {"use_post_quant_conv", BOOL, false},
        {"mid_block_add_attention", BOOL, false}, {"act_fn", NAME, false},
        {"latents_mean", UNSET, false},           {"latents_std", UNSET, false},
        {"shift_factor", UNSET, false},
    };
    check_keys("vae/config.json", keys, sizeof keys / sizeof *keys);
}

static const config_key clip_keys[] = {
    {"hidden_size", COUNT, true},       {"intermediate_size", COUNT, true},
    {"num_hidden_layers", COUNT, true}, {"num_attention_heads", COUNT, true},
    {"architectures", NAMES, true},     {"vocab_size", COUNT, false},
    {"projection_dim", COUNT, false},   {"max_position_embeddings", COUNT, false},
    {"eos_token_id", NATURAL, false},   {"layer_norm_eps", REAL, false},
    {"hidden_act", NAME, false},
};

Test(model_configs, text_encoder)
{
    check_keys("text_encoder/config.json", clip_keys, sizeof clip_keys / sizeof *clip_keys);
}

Test(model_configs, text_encoder_2)
{
    check_keys("text_encoder_2/config.json", clip_keys, sizeof clip_keys / sizeof *clip_keys);
}

Test(model_configs, scheduler)
{
    static const config_key keys[] = {
        {"_class_name", NAME, true},
        {"num_train_timesteps", COUNT, false},
        {"steps_offset", NATURAL, false},
        {"beta_start", REAL, false},
        {"beta_end", REAL, false},
        {"use_karras_sigmas", BOOL, false},
        {"rescale_betas_zero_snr", BOOL, false},
        {"beta_schedule", NAME, false},
        {"prediction_type", NAME, false},
        {"timestep_spacing", NAME, false},
        {"interpolation_type", NAME, false},
        {"final_sigmas_type", NAME, false},
        {"timestep_type", NAME, false},
        {"use_exponential_sigmas", BOOL, false},
        {"use_beta_sigmas", BOOL, false},
        {"trained_betas", UNSET, false},
        {"sigma_min", UNSET, false},
        {"sigma_max", UNSET, false},
        {"lambda_min_clipped", UNSET, false},
        {"use_lu_lambdas", BOOL, false},
        {"use_flow_sigmas", BOOL, false},
        {"thresholding", BOOL, false},
        {"lower_order_final", BOOL, false},
        {"euler_at_final", BOOL, false},
    };
    check_keys("scheduler/scheduler_config.json", keys, sizeof keys / sizeof *keys);
}

Test(model_configs, index)
{
    static const config_key keys[] = {
        {"_class_name", NAME, true},
        {"force_zeros_for_empty_prompt", BOOL, false},
    };
    check_keys("model_index.json", keys, sizeof keys / sizeof *keys);
}

// ---- what does not fit together

Test(model_configs, numbers_that_contradict_each_other)
{
    static const struct {
        const char *file, *key, *raw;
    } cases[] = {
        {"unet/config.json", "block_out_channels", "[8, 12, 64]"},
        {"unet/config.json", "norm_num_groups", "16"},
        {"unet/config.json", "norm_num_groups", "65536"},
        {"unet/config.json", "attention_head_dim", "[1, 3, 1]"},
        {"unet/config.json", "attention_head_dim", "[1, 1, 65536]"},
        {"unet/config.json", "attention_head_dim", "7"},
        {"unet/config.json", "num_attention_heads", "[1, 1, 3]"},
        {"unet/config.json", "num_attention_heads", "\"1\""},
        {"unet/config.json", "cross_attention_dim", "63"},
        {"unet/config.json", "cross_attention_dim", "65536"},
        {"unet/config.json", "addition_time_embed_dim", "15"},
        {"unet/config.json", "addition_time_embed_dim", "18"},
        {"unet/config.json", "addition_time_embed_dim", "65536"},
        {"unet/config.json", "projection_class_embeddings_input_dim", "96"},
        {"unet/config.json", "projection_class_embeddings_input_dim", "121"},
        {"unet/config.json", "layers_per_block", "9"},
        {"unet/config.json", "transformer_layers_per_block", "33"},
        {"unet/config.json", "transformer_layers_per_block", "[1, 2, 33]"},
        {"unet/config.json", "in_channels", "5"},
        {"unet/config.json", "out_channels", "3"},
        {"unet/config.json", "sample_size", "4096"},
        {"unet/config.json", "sample_size", "0.5"},
        {"unet/config.json", "up_block_types",
         "[\"UpBlock2D\", \"CrossAttnUpBlock2D\", \"CrossAttnUpBlock2D\"]"},
        {"unet/config.json", "down_block_types",
         "[\"DownBlock2D\", \"CrossAttnDownBlock2D\", \"AttnDownBlock2D\"]"},
        {"unet/config.json", "mid_block_type", "null"},
        {"unet/config.json", "addition_embed_type", "null"},
        {"vae/config.json", "norm_num_groups", "16"},
        {"vae/config.json", "block_out_channels", "[8, 8, 8, 12]"},
        {"vae/config.json", "latent_channels", "16"},
        {"vae/config.json", "out_channels", "4"},
        {"vae/config.json", "layers_per_block", "9"},
        {"vae/config.json", "scaling_factor", "0"},
        {"text_encoder/config.json", "hidden_size", "34"},
        {"text_encoder/config.json", "num_attention_heads", "3"},
        {"text_encoder/config.json", "num_hidden_layers", "65"},
        {"text_encoder/config.json", "architectures", "[\"CLIPTextModelWithProjection\"]"},
        {"text_encoder_2/config.json", "architectures", "[\"CLIPTextModel\"]"},
        {"text_encoder_2/config.json", "architectures", "[\"T5EncoderModel\"]"},
        {"text_encoder_2/config.json", "projection_dim", "25"},
        {"text_encoder_2/config.json", "hidden_size", "16384"},
        {"scheduler/scheduler_config.json", "num_train_timesteps", "1"},
        {"scheduler/scheduler_config.json", "num_train_timesteps", "100001"},
        {"scheduler/scheduler_config.json", "steps_offset", "1000"},
        {"scheduler/scheduler_config.json", "beta_end", "1.5"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        atedm_model_config config;
        char *good = model_dir_read(dir, cases[i].file, NULL);
        char *text = model_dir_edit(dir, cases[i].file, cases[i].key, cases[i].raw);
        write_text(cases[i].file, text);
        cr_expect_neq(read_all(&config), ATEDM_OK, "%s: %s = %s is taken", cases[i].file,
                      cases[i].key, cases[i].raw);
        cr_expect(names(dir) && names(cases[i].key), "%s: %s = %s: \"%s\"", cases[i].file,
                  cases[i].key, cases[i].raw, err.message);
        free(text);
        restore(cases[i].file, good);
    }
}

// More attention blocks than there is room for, each number within its own limit.
Test(model_configs, too_many_attention_blocks)
{
    static const char text[] =
        "{\"block_out_channels\": [8, 8, 8, 8, 8, 8, 8, 8], \"layers_per_block\": 8,"
        " \"norm_num_groups\": 8, \"transformer_layers_per_block\": 1, \"attention_head_dim\": 1,"
        " \"cross_attention_dim\": 64, \"addition_time_embed_dim\": 16,"
        " \"projection_class_embeddings_input_dim\": 120, \"sample_size\": 16,"
        " \"down_block_types\": [%s, %s], \"up_block_types\": [%s, %s]}";
#define FOUR(x) x ", " x ", " x ", " x
    static const char down[] = FOUR("\"CrossAttnDownBlock2D\""),
                      up[] = FOUR("\"CrossAttnUpBlock2D\"");
    char whole[2048];
    snprintf(whole, sizeof whole, text, down, down, up, up);
    write_text("unet/config.json", whole);
    atedm_model_config config;
    cr_expect_eq(read_all(&config), ATEDM_ERR_LIMIT, "%s", err.message);
    cr_expect(names("unet/config.json") && names("layers_per_block"), "%s", err.message);
}

// Betas at the ends of their range: a schedule of finite sigmas, or an error; never anything else.
Test(model_configs, extreme_betas)
{
    static const char *const ends[] = {"0", "1e-300", "1e-12", "0.5", "0.999999999", "1"};
    static const char file[] = "scheduler/scheduler_config.json";
    for (size_t i = 0; i < 36; i++) {
        atedm_model_config config;
        atedm_schedule schedule;
        char *good = model_dir_read(dir, file, NULL),
             *text = model_dir_edit(dir, file, "beta_start", ends[i / 6]);
        write_text(file, text);
        free(text);
        text = model_dir_edit(dir, file, "beta_end", ends[i % 6]);
        write_text(file, text);
        free(text);
        cr_assert_eq(read_all(&config), ATEDM_OK, "%s", err.message);
        atedm_status status = atedm_schedule_make(&config.scheduler, atedm_sampler_find("euler"),
                                                  30, &schedule, &err);
        for (int k = 0; k <= 30 && !status; k++)
            cr_expect(schedule.sigmas[k] >= 0 && schedule.sigmas[k] < 1e30, "betas %s..%s: %g",
                      ends[i / 6], ends[i % 6], schedule.sigmas[k]);
        restore(file, good);
    }
}

// ---- files that are no configs

static const char *const files[] = {"model_index.json",         "scheduler/scheduler_config.json",
                                    "text_encoder/config.json", "text_encoder_2/config.json",
                                    "unet/config.json",         "vae/config.json"};
#define N_FILES (sizeof files / sizeof *files)

static void expect_bad_file(const char *file, const char *what)
{
    atedm_model_config config;
    char path[MODEL_DIR_MAX];
    model_dir_path(dir, file, path);
    cr_expect_neq(read_all(&config), ATEDM_OK, "%s: %s is taken", file, what);
    cr_expect(names(path), "%s: %s: \"%s\"", file, what, err.message);
}

Test(model_configs, files_that_are_no_objects)
{
    static const char *const texts[] = {"",
                                        " \n",
                                        "null",
                                        "[]",
                                        "1",
                                        "\"x\"",
                                        "true",
                                        "{",
                                        "{}}",
                                        "{\"a\"",
                                        "{\"a\":1,}",
                                        "{'a':1}",
                                        "\xff\xfe{}",
                                        "\xef\xbb\xbf{}",
                                        "{\"a\\u0000\":1}",
                                        "{\"\xc3\": 1}",
                                        "{\"a\": \"\xed\xa0\x80\"}",
                                        "{\"a\": 1e400}",
                                        "// {}"};
    for (size_t i = 0; i < N_FILES; i++) {
        size_t size = 0;
        char *good = model_dir_read(dir, files[i], &size);
        for (size_t k = 0; k < sizeof texts / sizeof *texts; k++) {
            write_text(files[i], texts[k]);
            expect_bad_file(files[i], texts[k]);
        }
        for (size_t cut = 1; cut + 2 < size; cut += 1 + size / 40) {
            model_dir_write(dir, files[i], good, cut);
            expect_bad_file(files[i], "a part of it");
        }
        model_dir_write(dir, files[i], "{\0}", 3);
        expect_bad_file(files[i], "a NUL byte");
        restore(files[i], good);
    }
}

Test(model_configs, duplicate_keys_and_deep_nesting)
{
    const size_t depth = 100000;
    for (size_t i = 0; i < N_FILES; i++) {
        char *good = model_dir_read(dir, files[i], NULL);
        const char *rest = strchr(good, '{') + 1;
        char *text = malloc(strlen(rest) + 2 * depth + 64);
        sprintf(text, "{\"_note\": 1, \"_note\": 1,%s", rest);
        write_text(files[i], text);
        expect_bad_file(files[i], "a duplicate key");
        size_t at = (size_t)sprintf(text, "{\"_note\": ");
        memset(text + at, '[', depth);
        memset(text + at + depth, ']', depth);
        sprintf(text + at + 2 * depth, ",%s", rest);
        write_text(files[i], text);
        expect_bad_file(files[i], "deep nesting");
        free(text);
        restore(files[i], good);
    }
}

Test(model_configs, files_over_the_limit_and_missing_ones)
{
    for (size_t i = 0; i < N_FILES; i++) {
        atedm_model_config config;
        char path[MODEL_DIR_MAX], *good = model_dir_read(dir, files[i], NULL);
        model_dir_path(dir, files[i], path);
        static const off_t sizes[] = {(off_t)ATEDM_JSON_FILE_MAX + 1, 100 << 20,
                                      (off_t)1 << 40}; // sparse
        for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
            cr_assert_eq(truncate(path, sizes[k]), 0);
            cr_expect_eq(read_all(&config), ATEDM_ERR_LIMIT, "%s", err.message);
            cr_expect(names(path), "%s", err.message);
        }
        cr_assert_eq(unlink(path), 0);
        cr_expect_eq(read_all(&config), ATEDM_ERR_NOT_FOUND, "%s", err.message);
        cr_expect(names(path), "%s", err.message);
        restore(files[i], good);
    }
}

// ---- what is taken

Test(model_configs, unknown_keys_are_taken)
{
    static const char *const values[] = {"null", "1", "\"x\"", "[1, {}]", "{\"a\": null}", "1e300"};
    for (size_t i = 0; i < N_FILES; i++)
        for (size_t k = 0; k < sizeof values / sizeof *values; k++)
            expect_taken(files[i], "key_of_a_newer_version", values[k]);
}
