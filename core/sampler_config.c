// Reads a diffusers scheduler_config.json: see sampler.h. Reading is strict. A class that is not in
// `classes` is refused by name, and so is every option that would change the numbers of one of our
// samplers but is not implemented. The file's class has no other influence: from_config of the
// sampler's own class takes the keys that it knows from the file, and uses its own defaults for the
// others, not those of the file's class.
#include "core/sampler.h"

#include "core/base/file.h"
#include "core/json_read.h"

#include <stdlib.h>
#include <string.h>

// The classes that diffusers treats as interchangeable (KarrasDiffusionSchedulers), except
// EDMEulerScheduler, whose models are scaled differently. LCMScheduler and TCDScheduler are not
// among them: models that were distilled for these need their steps.
static const char *const classes[] = {
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
};

// The values that a string option may have; a value's index is its enumerator.
typedef struct name_list {
    const char *key;
    const char *names[4]; // NULL-terminated
} name_list;

static const name_list betas_names = {"beta_schedule",
                                      {"linear", "scaled_linear", "squaredcos_cap_v2"}};
static const name_list prediction_names = {"prediction_type",
                                           {"epsilon", "v_prediction", "sample"}};
static const name_list spacing_names = {"timestep_spacing", {"leading", "trailing", "linspace"}};
static const name_list interpolation_names = {"interpolation_type", {"linear", "log_linear"}};
static const name_list final_sigma_names = {"final_sigmas_type", {"zero", "sigma_min"}};

// Reads a string option. If the key is absent, *ret_place keeps its value, the default.
static atedm_status read_name(const json_t *object, const char *path, const name_list *list,
                              int *ret_place, atedm_error *err)
{
    const char *name = list->names[*ret_place];
    atedm_status status = atedm_json_string(object, path, list->key, true, &name, err);
    if (status)
        return status;
    for (int i = 0; list->names[i]; i++) {
        if (strcmp(name, list->names[i]) == 0) {
            *ret_place = i;
            return ATEDM_OK;
        }
    }
    return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED, "%s: %s \"%.64s\" is not supported", path,
                           list->key, name);
}

static atedm_status check_class(const json_t *object, const char *path, atedm_error *err)
{
    const char *name = NULL;
    atedm_status status = atedm_json_string(object, path, "_class_name", false, &name, err);
    if (status)
        return status;
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++) {
        if (strcmp(name, classes[i]) == 0)
            return ATEDM_OK;
    }
    return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED, "%s: _class_name \"%.64s\" is not supported",
                           path, name);
}

// Refuses options that change the numbers but are not implemented. algorithm_type, solver_order and
// solver_type are not among these options, because the sampler's name already says what they would
// say.
static atedm_status refuse_unsupported(const json_t *object, const char *path, atedm_error *err)
{
    static const char *const unset[] = {"trained_betas", "sigma_min", "sigma_max",
                                        "lambda_min_clipped"};
    static const char *const off[] = {"use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas",
                                      "use_flow_sigmas", "thresholding"};

    atedm_status status = check_class(object, path, err);
    if (status)
        return status;
    for (size_t i = 0; i < sizeof unset / sizeof unset[0]; i++) {
        const json_t *item = json_object_get(object, unset[i]);
        if (item && !json_is_null(item))
            return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED, "%s: \"%s\" is not supported", path,
                                   unset[i]);
    }
    for (size_t i = 0; i < sizeof off / sizeof off[0]; i++) {
        bool on = false;
        status = atedm_json_bool(object, path, off[i], true, &on, err);
        if (status)
            return status;
        if (on)
            return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED, "%s: \"%s\" is not supported", path,
                                   off[i]);
    }
    const char *name = "discrete";
    status = atedm_json_string(object, path, "timestep_type", true, &name, err);
    if (status)
        return status;
    if (strcmp(name, "discrete") != 0)
        return atedm_error_set(err, ATEDM_ERR_UNSUPPORTED,
                               "%s: timestep_type \"%.64s\" is not supported", path, name);
    return ATEDM_OK;
}

static atedm_status read_names(const json_t *object, const char *path,
                               atedm_scheduler_config *config, atedm_error *err)
{
    int betas = ATEDM_BETAS_LINEAR;
    int prediction = ATEDM_PREDICT_EPSILON;
    int spacing = ATEDM_SPACING_LINSPACE;
    int interpolation = 0;
    int final_sigma = 0;
    atedm_status status = read_name(object, path, &betas_names, &betas, err);
    if (!status)
        status = read_name(object, path, &prediction_names, &prediction, err);
    if (!status)
        status = read_name(object, path, &spacing_names, &spacing, err);
    if (!status)
        status = read_name(object, path, &interpolation_names, &interpolation, err);
    if (!status)
        status = read_name(object, path, &final_sigma_names, &final_sigma, err);
    if (status)
        return status;
    config->betas = (atedm_betas)betas;
    config->prediction = (atedm_prediction)prediction;
    config->spacing = (atedm_spacing)spacing;
    config->interpolation_log_linear = interpolation == 1;
    config->final_sigma_min = final_sigma == 1;
    return ATEDM_OK;
}

static atedm_status read_last_step(const json_t *object, const char *path,
                                   atedm_last_step *ret_last_step, atedm_error *err)
{
    bool lower_order_final = true, euler_at_final = false;
    atedm_status status =
        atedm_json_bool(object, path, "lower_order_final", true, &lower_order_final, err);
    if (!status)
        status = atedm_json_bool(object, path, "euler_at_final", true, &euler_at_final, err);
    if (status)
        return status;
    *ret_last_step = euler_at_final      ? ATEDM_LAST_FIRST_ORDER
                     : lower_order_final ? ATEDM_LAST_BY_STEPS
                                         : ATEDM_LAST_SECOND_ORDER;
    return ATEDM_OK;
}

static atedm_status read_object(const json_t *object, const char *path,
                                atedm_scheduler_config *config, atedm_error *err)
{
    atedm_status status = refuse_unsupported(object, path, err);
    if (!status)
        status = read_names(object, path, config, err);
    int64_t train_timesteps = 1000;
    if (!status)
        status = atedm_json_int(object, path, "num_train_timesteps", true, 2,
                                ATEDM_MAX_TRAIN_TIMESTEPS, &train_timesteps, err);
    int64_t offset = 0;
    if (!status)
        status = atedm_json_int(object, path, "steps_offset", true, 0, train_timesteps - 1, &offset,
                                err);
    if (!status)
        status =
            atedm_json_real(object, path, "beta_start", true, 0.0, 1.0, &config->beta_start, err);
    if (!status)
        status = atedm_json_real(object, path, "beta_end", true, 0.0, 1.0, &config->beta_end, err);
    if (!status)
        status =
            atedm_json_bool(object, path, "use_karras_sigmas", true, &config->karras_sigmas, err);
    if (!status)
        status = atedm_json_bool(object, path, "rescale_betas_zero_snr", true,
                                 &config->rescale_zero_snr, err);
    if (!status)
        status = read_last_step(object, path, &config->last_step, err);
    if (status)
        return status;
    config->train_timesteps = (int)train_timesteps;
    config->steps_offset = (int)offset;
    return ATEDM_OK;
}

// For "no limit" Python writes -Infinity, which is not JSON; DPMSolverMultistepScheduler and
// similar classes have such a limit. Replaces it in place by null and spaces, so that lines and
// columns in error messages stay correct.
static void forgive_infinity(char *text)
{
    static const char key[] = "\"lambda_min_clipped\"", infinity[] = "-Infinity";
    char *at = strstr(text, key);
    if (!at)
        return;
    at += strlen(key);
    at += strspn(at, " \t\r\n");
    if (*at != ':')
        return;
    at++;
    at += strspn(at, " \t\r\n");
    if (strncmp(at, infinity, strlen(infinity)) == 0)
        memcpy(at, "null     ", strlen(infinity));
}

atedm_status atedm_scheduler_config_read(const char *path, atedm_scheduler_config *ret_config,
                                         atedm_error *err)
{
    char *text = NULL;
    size_t size = 0;
    json_t *object = NULL;
    atedm_status status = atedm_file_read(path, ATEDM_JSON_FILE_MAX, &text, &size, err);
    if (status)
        return status;
    forgive_infinity(text);
    status = atedm_json_parse(path, text, size, &object, err);
    free(text);
    if (status)
        return status;
    // The defaults that are the same in the schedulers of all our samplers.
    atedm_scheduler_config config = {
        .train_timesteps = 1000,
        .beta_start = 0.0001,
        .beta_end = 0.02,
    };
    status = read_object(object, path, &config, err);
    json_decref(object);
    if (status)
        return status;
    *ret_config = config;
    return ATEDM_OK;
}
