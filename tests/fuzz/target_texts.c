// What clients send: pruning objects and prompts.
#include "fuzz.h"

#include "core/base/utf8.h"
#include "core/flops.h"
#include "core/model.h"
#include "core/request.h"
#include "core/tokenizer.h"
#include "tests/unit/model_dir.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- pruning

static void *setup_pruning(void)
{
    atedm_model_config *config = fuzz_allocate(sizeof *config);
    fuzz_expect(atedm_model_config_from_arch("sdxl-base", config, NULL) == ATEDM_OK,
                "there is an architecture");
    return config;
}

static void check_errors(const atedm_field_errors *errors)
{
    fuzz_expect(errors->count <= ATEDM_FIELD_ERRORS_MAX, "errors are bounded");
    for (size_t i = 0; i < errors->count; i++) {
        const atedm_field_error *e = &errors->items[i];
        size_t pointer = strnlen(e->pointer, sizeof e->pointer);
        size_t detail = strnlen(e->detail, sizeof e->detail);
        fuzz_expect(pointer < sizeof e->pointer && detail < sizeof e->detail && detail > 0,
                    "texts end");
        fuzz_expect(strncmp(e->pointer, "/pruning", 8) == 0, "errors say where");
        fuzz_expect(atedm_utf8_is_valid(e->pointer, pointer) &&
                        atedm_utf8_is_valid(e->detail, detail),
                    "texts are UTF-8");
    }
}

// A spec that is taken makes a plan, or an error that says why it does not fit to the model.
static void use_spec(const atedm_model_config *config, const atedm_prune_spec *spec, fuzz_rng *rng)
{
    atedm_unet_cost cost;
    atedm_plan *plan = NULL;
    atedm_error err = {.message = ""};
    int steps = 1 + (int)fuzz_below(rng, ATEDM_MAX_STEPS);
    atedm_unet_cost_init(&cost, &config->parts.unet, 128, 128, 77);
    atedm_status status = atedm_plan_create(spec, steps, &cost, &plan, &err);
    fuzz_expect_message(status, &err);
    if (status)
        return;
    for (int k = 0; k < steps; k++)
        for (int b = 0; b < plan->n_blocks; b++) {
            float rho = atedm_plan_step(plan, k)[b];
            int64_t kept = atedm_plan_kept(plan, k, b, cost.blocks[b].layers, 4096);
            fuzz_expect(rho >= 0 && rho <= (float)ATEDM_RATIO_MAX, "ratios are in their range");
            fuzz_expect(kept >= 1 && kept <= 4096, "some tokens stay");
        }
    atedm_plan_destroy(plan);
}

static bool run_pruning(void *user, fuzz_rng *rng)
{
    static const char *const good[] = {
        "{\"preset\": \"at-edm-d\", \"ratio\": 0.5, \"schedule\": \"dsap\", \"tau\": 0.25,"
        " \"skip_levels\": [2, 0], \"prune_after\": [0, 3], \"score\": {\"map\": \"cross\","
        " \"heads\": \"mean\", \"max_iterations\": 64, \"tolerance\": 0, \"interval\": 2},"
        " \"recovery\": \"cosine\"}",
        "{\"flops_budget\": 0.6, \"schedule\": \"phases\", \"phases\": [{\"until\": 0.3,"
        " \"ratio\": 0.2, \"skip\": [\"down.1.0\", \"up.last\"]}, {\"until\": 1}]}",
        "{\"ratio\": 0.5, \"score\": {\"map\": \"random\"}, \"recovery\": \"nearest\"}",
        "\"at-edm\"", "[]"};
    atedm_prune_spec spec;
    atedm_field_errors errors = {.count = 0};
    fuzz_bytes text = fuzz_mutate_json_text(rng, good[fuzz_below(rng, sizeof good / sizeof *good)]);
    json_t *value = json_loadb((const char *)text.data, text.size,
                               JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
    free(text.data);
    if (!value)
        return false;
    memset(&spec, FUZZ_FILL, sizeof spec);
    atedm_prune_spec_from_json(value, "/pruning", &spec, &errors);
    check_errors(&errors);
    if (errors.count)
        fuzz_expect(fuzz_is_untouched(&spec, sizeof spec), "output is untouched");
    else
        use_spec(user, &spec, rng);
    json_decref(value);
    return errors.count == 0;
}

const fuzz_target fuzz_pruning = {"pruning", setup_pruning, run_pruning, free};

// ---- prompts

static void *setup_prompt(void)
{
    char dir[MODEL_DIR_MAX], path[MODEL_DIR_MAX];
    atedm_tokenizer *tokenizer = NULL;
    model_dir_copy("a", false, dir);
    model_dir_path(dir, "tokenizer_2", path);
    fuzz_expect(atedm_tokenizer_open(path, &tokenizer, NULL) == ATEDM_OK, "the tokenizer opens");
    model_dir_remove(dir);
    return tokenizer;
}

static void finish_prompt(void *user)
{
    atedm_tokenizer_close(user);
}

static bool run_prompt(void *user, fuzz_rng *rng)
{
    const atedm_tokenizer *tokenizer = user;
    int64_t ids[ATEDM_TOKENIZER_MAX_LENGTH], again[ATEDM_TOKENIZER_MAX_LENGTH];
    int64_t length = atedm_tokenizer_length(tokenizer);
    size_t cut = 0;
    atedm_error err = {.message = ""};
    fuzz_bytes text = fuzz_text(rng, ATEDM_TOKENIZER_MAX_TEXT + 64);
    const char *bytes = (const char *)text.data;
    bool legal = text.size <= ATEDM_TOKENIZER_MAX_TEXT && atedm_utf8_is_valid(bytes, text.size) &&
                 !memchr(bytes, '\0', text.size);
    atedm_status status = atedm_tokenizer_encode(tokenizer, bytes, text.size, ids, &cut, &err);
    fuzz_expect_message(status, &err);
    fuzz_expect(legal == (status == ATEDM_OK), "all valid text is encoded, and no other");
    if (!status) {
        for (int64_t i = 0; i < length; i++)
            fuzz_expect(ids[i] >= 0 && ids[i] < atedm_tokenizer_vocab_size(tokenizer),
                        "ids are in the vocabulary");
        fuzz_expect(cut <= text.size &&
                        (cut == text.size || ((unsigned char)bytes[cut] & 0xc0) != 0x80),
                    "the cut is not inside a character");
        fuzz_expect(atedm_tokenizer_encode(tokenizer, bytes, text.size, again, &cut, &err) ==
                            ATEDM_OK &&
                        memcmp(ids, again, (size_t)length * sizeof *ids) == 0,
                    "the same text gives the same ids");
    }
    free(text.data);
    return !status;
}

const fuzz_target fuzz_prompt = {"prompt", setup_prompt, run_prompt, finish_prompt};
