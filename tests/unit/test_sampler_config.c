// scheduler_config.json, read strictly: what is taken, of which classes, and what is refused by
// name.
#include "scheduler_text.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

Test(sampler_config, reads_the_config_of_sdxl_base)
{
    atedm_scheduler_config config;
    atedm_error err = {{0}};
    const char *text = "{\"_class_name\": \"EulerDiscreteScheduler\", \"beta_end\": 0.012,"
                       " \"_diffusers_version\": \"0.19.0.dev0\", \"beta_schedule\":"
                       " \"scaled_linear\", \"beta_start\": 0.00085, \"clip_sample\": false,"
                       " \"interpolation_type\": \"linear\", \"num_train_timesteps\": 1000,"
                       " \"prediction_type\": \"epsilon\", \"sample_max_value\": 1.0,"
                       " \"set_alpha_to_one\": false, \"skip_prk_steps\": true,"
                       " \"steps_offset\": 1, \"timestep_spacing\": \"leading\","
                       " \"trained_betas\": null, \"use_karras_sigmas\": false}";
    cr_assert_eq(scheduler_text_read(text, &config, &err), ATEDM_OK, "%s", err.message);
    cr_assert_eq(config.train_timesteps, 1000);
    cr_assert_eq(config.beta_start, 0.00085);
    cr_assert_eq(config.beta_end, 0.012);
    cr_assert_eq(config.betas, ATEDM_BETAS_SCALED_LINEAR);
    cr_assert_eq(config.prediction, ATEDM_PREDICT_EPSILON);
    cr_assert_eq(config.spacing, ATEDM_SPACING_LEADING);
    cr_assert_eq(config.steps_offset, 1);
    cr_assert_not(config.karras_sigmas);
    cr_assert_not(config.rescale_zero_snr);
    cr_assert_not(config.interpolation_log_linear);
    cr_assert_not(config.final_sigma_min);
}

Test(sampler_config, absent_keys_have_the_defaults_of_diffusers)
{
    atedm_scheduler_config config;
    atedm_error err = {{0}};
    cr_assert_eq(
        scheduler_text_read("{\"_class_name\": \"EulerDiscreteScheduler\"}", &config, &err),
        ATEDM_OK, "%s", err.message);
    cr_assert_eq(config.beta_start, 0.0001);
    cr_assert_eq(config.beta_end, 0.02);
    cr_assert_eq(config.betas, ATEDM_BETAS_LINEAR);
    cr_assert_eq(config.spacing, ATEDM_SPACING_LINSPACE);
    cr_assert_eq(config.steps_offset, 0);
}

// Each class that is taken also has goldens, in test_sampler.c.
Test(sampler_config, classes)
{
    static const char *const taken[] = {
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
    static const char *const refused[] = {
        "LCMScheduler",
        "TCDScheduler",
        "EDMEulerScheduler",
        "EDMDPMSolverMultistepScheduler",
        "FlowMatchEulerDiscreteScheduler",
        "CMStochasticIterativeScheduler",
        "DPMSolverMultistepInverseScheduler",
        "EulerDiscreteSchedule",
        "eulerdiscretescheduler",
        "",
    };
    char text[128];
    atedm_scheduler_config config;
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++) {
        atedm_error err = {{0}};
        snprintf(text, sizeof text, "{\"_class_name\": \"%s\"}", taken[i]);
        cr_expect_eq(scheduler_text_read(text, &config, &err), ATEDM_OK, "%s", err.message);
    }
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        atedm_error err = {{0}};
        snprintf(text, sizeof text, "{\"_class_name\": \"%s\"}", refused[i]);
        cr_expect_eq(scheduler_text_read(text, &config, &err), ATEDM_ERR_UNSUPPORTED, "%s", text);
        cr_expect_not_null(strstr(err.message, refused[i]), "%s", err.message);
    }
}

// What Python's json writes for a limit that is none; anywhere else, and any other, is no JSON.
Test(sampler_config, infinity_is_no_limit)
{
    static const struct {
        const char *member;
        bool taken;
    } cases[] = {
        {"\"lambda_min_clipped\": -Infinity", true},
        {"\"lambda_min_clipped\" :\n\t-Infinity", true},
        {"\"lambda_min_clipped\": Infinity", false},
        {"\"lambda_min_clipped\": -Infinity5", false},
        {"\"lambda_min_clipped\" -Infinity", false},
        {"\"beta_start\": -Infinity", false},
        {"\"beta_start\": \"lambda_min_clipped\", \"x\": -Infinity", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[256];
        snprintf(text, sizeof text, "{\"_class_name\": \"EulerDiscreteScheduler\", %s}",
                 cases[i].member);
        atedm_scheduler_config config;
        atedm_error err = {{0}};
        atedm_status status = scheduler_text_read(text, &config, &err);
        cr_expect_eq(status, cases[i].taken ? ATEDM_OK : ATEDM_ERR_FORMAT, "%s: %s", text,
                     err.message);
    }
    atedm_scheduler_config config;
    atedm_error err;
    cr_expect_eq(scheduler_text_read("{\"lambda_min_clipped\"", &config, &err), ATEDM_ERR_FORMAT);
    cr_expect_eq(scheduler_text_read("{\"lambda_min_clipped\": ", &config, &err), ATEDM_ERR_FORMAT);
}

// One wrong member each: the status, and what the message has to name.
Test(sampler_config, wrong_configs_are_refused_by_name)
{
    static const struct {
        const char *member;
        atedm_status status;
        const char *named;
    } wrong[] = {
        {"\"_class_name\": null", ATEDM_ERR_FORMAT, "_class_name"},
        {"\"beta_schedule\": \"exp\"", ATEDM_ERR_UNSUPPORTED, "\"exp\""},
        {"\"prediction_type\": \"flow\"", ATEDM_ERR_UNSUPPORTED, "\"flow\""},
        {"\"timestep_spacing\": \"odd\"", ATEDM_ERR_UNSUPPORTED, "\"odd\""},
        {"\"interpolation_type\": \"cubic\"", ATEDM_ERR_UNSUPPORTED, "\"cubic\""},
        {"\"final_sigmas_type\": \"one\"", ATEDM_ERR_UNSUPPORTED, "\"one\""},
        {"\"timestep_type\": \"continuous\"", ATEDM_ERR_UNSUPPORTED, "\"continuous\""},
        {"\"trained_betas\": [0.1]", ATEDM_ERR_UNSUPPORTED, "trained_betas"},
        {"\"sigma_min\": 0.1", ATEDM_ERR_UNSUPPORTED, "sigma_min"},
        {"\"sigma_max\": 80", ATEDM_ERR_UNSUPPORTED, "sigma_max"},
        {"\"use_exponential_sigmas\": true", ATEDM_ERR_UNSUPPORTED, "use_exponential_sigmas"},
        {"\"use_beta_sigmas\": true", ATEDM_ERR_UNSUPPORTED, "use_beta_sigmas"},
        {"\"use_lu_lambdas\": true", ATEDM_ERR_UNSUPPORTED, "use_lu_lambdas"},
        {"\"use_flow_sigmas\": true", ATEDM_ERR_UNSUPPORTED, "use_flow_sigmas"},
        {"\"thresholding\": true", ATEDM_ERR_UNSUPPORTED, "thresholding"},
        {"\"lambda_min_clipped\": -5.1", ATEDM_ERR_UNSUPPORTED, "lambda_min_clipped"},
        {"\"lower_order_final\": 1", ATEDM_ERR_FORMAT, "lower_order_final"},
        {"\"euler_at_final\": 1", ATEDM_ERR_FORMAT, "euler_at_final"},
        {"\"use_beta_sigmas\": 1", ATEDM_ERR_FORMAT, "use_beta_sigmas"},
        {"\"use_karras_sigmas\": \"yes\"", ATEDM_ERR_FORMAT, "use_karras_sigmas"},
        {"\"rescale_betas_zero_snr\": 0", ATEDM_ERR_FORMAT, "rescale_betas_zero_snr"},
        {"\"num_train_timesteps\": 1", ATEDM_ERR_FORMAT, "num_train_timesteps"},
        {"\"num_train_timesteps\": 100001", ATEDM_ERR_FORMAT, "num_train_timesteps"},
        {"\"num_train_timesteps\": 10.5", ATEDM_ERR_FORMAT, "num_train_timesteps"},
        {"\"steps_offset\": -1", ATEDM_ERR_FORMAT, "steps_offset"},
        {"\"steps_offset\": 1000", ATEDM_ERR_FORMAT, "steps_offset"},
        {"\"beta_start\": -0.1", ATEDM_ERR_FORMAT, "beta_start"},
        {"\"beta_end\": 1.1", ATEDM_ERR_FORMAT, "beta_end"},
        {"\"beta_end\": \"0.1\"", ATEDM_ERR_FORMAT, "beta_end"},
        {"\"beta_schedule\": 3", ATEDM_ERR_FORMAT, "beta_schedule"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        bool names_class = strncmp(wrong[i].member, "\"_class_name", 12) == 0;
        char text[256];
        snprintf(text, sizeof text, "{%s%s}",
                 names_class ? "" : "\"_class_name\": \"EulerDiscreteScheduler\", ",
                 wrong[i].member);
        atedm_scheduler_config config = {.train_timesteps = 5};
        atedm_error err = {{0}};
        cr_assert_eq(scheduler_text_read(text, &config, &err), wrong[i].status, "%s: %s", text,
                     err.message);
        cr_assert_not_null(strstr(err.message, wrong[i].named), "%s: %s", text, err.message);
        cr_assert_eq(config.train_timesteps, 5, "untouched on failure");
    }
    atedm_scheduler_config config;
    atedm_error err;
    cr_assert_eq(scheduler_text_read("[]", &config, &err), ATEDM_ERR_FORMAT);
    cr_assert_eq(scheduler_text_read("{", &config, &err), ATEDM_ERR_FORMAT);
    cr_assert_neq(atedm_scheduler_config_read("/nonexistent/x.json", &config, &err), ATEDM_OK);
}
