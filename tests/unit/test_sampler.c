// The scheduler: sigmas, timesteps and steps against diffusers' (goldens of tests/oracle), Euler
// steps against the formulas written out.
#include "core/request.h"
#include "core/rng.h"
#include "core/sampler.h"
#include "scheduler_text.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const atedm_scheduler_config sdxl = {
    .train_timesteps = 1000,
    .beta_start = 0.00085,
    .beta_end = 0.012,
    .betas = ATEDM_BETAS_SCALED_LINEAR,
    .prediction = ATEDM_PREDICT_EPSILON,
    .spacing = ATEDM_SPACING_LEADING,
    .steps_offset = 1,
};

static atedm_schedule make_for(const char *sampler, const atedm_scheduler_config *config, int steps)
{
    atedm_schedule schedule;
    atedm_error err = {{0}};
    cr_assert_eq(atedm_schedule_make(config, atedm_sampler_find(sampler), steps, &schedule, &err),
                 ATEDM_OK, "%s", err.message);
    return schedule;
}

static atedm_schedule make(const atedm_scheduler_config *config, int steps)
{
    return make_for("euler", config, steps);
}

static const atedm_sampler *euler(void)
{
    return atedm_sampler_find("euler");
}

static atedm_step step_of(const atedm_schedule *schedule, int k)
{
    atedm_step step;
    schedule->sampler->step(schedule, k, &step);
    return step;
}

static bool near(double got, double wanted, double relative)
{
    return fabs(got - wanted) <= relative * fmax(fabs(wanted), 1e-6);
}

static json_t *golden_cases(const char *file)
{
    const char *dir = getenv("ATEDM_GOLDEN_DIR");
    cr_assert_not_null(dir, "set ATEDM_GOLDEN_DIR to tests/golden/data");
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    json_error_t parse_error;
    json_t *cases = json_load_file(path, 0, &parse_error);
    cr_assert_not_null(cases, "%s: %s", path, parse_error.text);
    return cases;
}

static double number(const json_t *object, const char *key)
{
    const json_t *item = json_object_get(object, key);
    cr_assert(json_is_number(item), "%s", key);
    return json_number_value(item);
}

// key "": of the array itself.
static double element(const json_t *object, const char *key, size_t i)
{
    const json_t *item = json_array_get(*key ? json_object_get(object, key) : object, i);
    cr_assert(json_is_number(item), "%s[%zu]", key, i);
    return json_number_value(item);
}

static atedm_scheduler_config golden_config(const json_t *golden)
{
    json_t *object = json_copy(json_object_get(golden, "config"));
    json_object_set_new(object, "_class_name", json_string("EulerDiscreteScheduler"));
    char *text = json_dumps(object, 0);
    atedm_scheduler_config config;
    atedm_error err = {{0}};
    cr_assert_eq(scheduler_text_read(text, &config, &err), ATEDM_OK, "%s", err.message);
    free(text);
    json_decref(object);
    return config;
}

static void check_first_step(const char *name, const json_t *golden, const atedm_schedule *schedule)
{
    const json_t *first = json_object_get(golden, "first_step");
    atedm_step step = step_of(schedule, 0);
    for (size_t i = 0; i < 4; i++) {
        double x = element(first, "sample", i);
        double m = element(first, "prediction", i);
        double scaled = x * atedm_schedule_input_scale(schedule, 0);
        cr_assert(near(scaled, element(first, "scaled", i), 1e-6), "%s scaled", name);
        // diffusers subtracts floats of the size of sigma: hence the absolute bound.
        double error = fabs(step.x * x + step.output * m - element(first, "result", i));
        cr_assert(error <= 4e-7 * (1 + schedule->sigmas[0] + fabs(x)), "%s step: %g", name, error);
    }
}

// Sigmas, timesteps, and the factor of the noise where the golden has it. torch's square root may
// be off by one in the last place (2^-23). Logarithms and powers add to that; rescaling takes the
// root before 1 - alpha_bar cancels.
static void check_schedule(const char *name, const json_t *golden,
                           const atedm_scheduler_config *config, const atedm_schedule *schedule)
{
    bool logarithms =
        config->karras_sigmas || config->interpolation_log_linear || schedule->sampler->karras;
    double bound = config->rescale_zero_snr ? 1e-5 : logarithms ? 1e-6 : 0x1p-23;
    for (size_t k = 0; k <= (size_t)schedule->n; k++) {
        double wanted = element(golden, "sigmas", k);
        cr_assert(near(schedule->sigmas[k], wanted, bound), "%s/%s/%d sigma %zu: %.9g, %.9g", name,
                  schedule->sampler->name, schedule->n, k, schedule->sigmas[k], wanted);
    }
    bool whole = !logarithms || schedule->sampler->kind == ATEDM_SCHEDULE_MULTISTEP;
    for (size_t k = 0; k < (size_t)schedule->n; k++) {
        double wanted = element(golden, "timesteps", k);
        cr_assert(near(schedule->timesteps[k], wanted, whole ? 0 : 1e-5),
                  "%s/%s/%d timestep %zu: %.9g, %.9g", name, schedule->sampler->name, schedule->n,
                  k, schedule->timesteps[k], wanted);
    }
    double init = sqrt(schedule->sigmas[0] * schedule->sigmas[0] + 1);
    if (schedule->sampler->kind != ATEDM_SCHEDULE_MULTISTEP) // that has 1, in its own scale
        init = number(golden, "init_noise_sigma");
    cr_assert(near(schedule->init_noise_sigma, init, 1e-6), "%s/%s", name, schedule->sampler->name);
}

Test(sampler, agrees_with_diffusers)
{
    json_t *cases = golden_cases("schedulers.json");
    cr_assert_geq(json_array_size(cases), 30);
    for (size_t c = 0; c < json_array_size(cases); c++) {
        const json_t *golden = json_array_get(cases, c);
        const char *name = json_string_value(json_object_get(golden, "name"));
        atedm_scheduler_config config = golden_config(golden);
        atedm_schedule schedule = make(&config, (int)number(golden, "steps"));
        check_schedule(name, golden, &config, &schedule);
        check_first_step(name, golden, &schedule);
    }
    json_decref(cases);
}

// Of our latents before step k, in units of the golden's.
static double golden_scale(const atedm_schedule *schedule, int k)
{
    double sigma = schedule->sigmas[k];
    bool scaled = schedule->sampler->kind == ATEDM_SCHEDULE_MULTISTEP && k < schedule->n;
    return scaled ? sqrt(sigma * sigma + 1) : 1;
}

// How far from the golden's numbers, which are floats, a step may end.
static double way_bound(const atedm_schedule *schedule, int k, double wanted)
{
    if (schedule->sampler->kind == ATEDM_SCHEDULE_MULTISTEP) // latents of unit variance
        return 1e-6 * (k + 2) * (1 + fabs(wanted));
    return 4e-6 * (1 + schedule->sigmas[k]) * (k + 1);
}

// The golden's sample through all steps, with its predictions. Noise is what PyTorch's generator
// draws for 16 numbers, of which the golden has the first three.
static void check_way(const char *name, const json_t *golden, const atedm_schedule *schedule)
{
    const json_t *predictions = json_object_get(golden, "predictions"),
                 *results = json_object_get(golden, "results");
    const atedm_sampler *sampler = schedule->sampler;
    double x[3], kept[3] = {NAN, NAN, NAN};
    for (size_t i = 0; i < 3; i++)
        x[i] = element(golden, "sample", i) * golden_scale(schedule, 0);
    atedm_rng rng;
    atedm_rng_seed(&rng, sampler->noise ? (uint64_t)number(golden, "seed") : 0);
    for (int k = 0; k < schedule->n; k++) {
        float noise[16];
        atedm_rng_draw(&rng, noise, 16);
        atedm_step step = step_of(schedule, k);
        for (size_t i = 0; i < 3; i++) {
            double m = element(json_array_get(predictions, (size_t)k), "", i);
            double wanted = element(json_array_get(results, (size_t)k), "", i);
            double earlier = sampler->noise ? (double)noise[i] : kept[i];
            double next = step.x * x[i] + step.output * m;
            if (step.earlier != 0)
                next += step.earlier * earlier;
            kept[i] = step.keep_x * x[i] + step.keep_output * m;
            x[i] = next;
            double got = next / golden_scale(schedule, k + 1);
            cr_assert(fabs(got - wanted) <= way_bound(schedule, k, wanted),
                      "%s/%s: step %d of %d: %.9g, %.9g", name, sampler->name, k, schedule->n, got,
                      wanted);
        }
    }
}

static void check_all(const char *name, const json_t *golden, const char *sampler,
                      const atedm_scheduler_config *config)
{
    atedm_schedule schedule = make_for(sampler, config, (int)number(golden, "steps"));
    check_schedule(name, golden, config, &schedule);
    check_way(name, golden, &schedule);
}

Test(sampler, multistep_agrees_with_diffusers)
{
    json_t *cases = golden_cases("multistep.json");
    cr_assert_geq(json_array_size(cases), 48);
    for (size_t c = 0; c < json_array_size(cases); c++) {
        const json_t *golden = json_array_get(cases, c);
        atedm_scheduler_config config = golden_config(golden);
        check_all(json_string_value(json_object_get(golden, "name")), golden,
                  json_string_value(json_object_get(golden, "sampler")), &config);
    }
    json_decref(cases);
}

Test(sampler, ancestral_agrees_with_diffusers)
{
    json_t *cases = golden_cases("ancestral.json");
    cr_assert_geq(json_array_size(cases), 20);
    for (size_t c = 0; c < json_array_size(cases); c++) {
        const json_t *golden = json_array_get(cases, c);
        atedm_scheduler_config config = golden_config(golden);
        check_all(json_string_value(json_object_get(golden, "name")), golden, "euler_ancestral",
                  &config);
    }
    json_decref(cases);
}

// Files of every class that is taken, those that say all and those that say nearly nothing: what
// from_config of each sampler's own class makes of them.
Test(sampler, files_of_other_classes_agree_with_diffusers)
{
    json_t *cases = golden_cases("scheduler_files.json");
    cr_assert_geq(json_array_size(cases), 33);
    for (size_t c = 0; c < json_array_size(cases); c++) {
        const json_t *golden = json_array_get(cases, c), *ways = json_object_get(golden, "ways");
        const char *name = json_string_value(json_object_get(golden, "name"));
        atedm_scheduler_config config;
        atedm_error err = {{0}};
        const char *text = json_string_value(json_object_get(golden, "file"));
        cr_assert_eq(scheduler_text_read(text, &config, &err), ATEDM_OK, "%s: %s", name,
                     err.message);
        for (size_t w = 0; w < json_array_size(ways); w++) {
            const json_t *way = json_array_get(ways, w);
            check_all(name, way, json_string_value(json_object_get(way, "sampler")), &config);
        }
    }
    json_decref(cases);
}

// The way of a model that is right all along is a straight line: every order ends on it.
Test(sampler, every_sampler_is_exact_for_a_perfect_model)
{
    size_t count;
    const atedm_sampler *samplers = atedm_samplers(&count);
    for (size_t i = 0; i < count; i++) {
        if (samplers[i].noise)
            continue; // theirs is no line
        atedm_schedule schedule = make_for(samplers[i].name, &sdxl, 20);
        const double x0 = 0.7, e = -1.3;
        double kept = NAN, x = x0 + schedule.sigmas[0] * e;
        for (int k = 0; k < 20; k++) {
            atedm_step step = step_of(&schedule, k);
            cr_expect(step.earlier == 0 || (samplers[i].keeps_clean && k > 0),
                      "%s %d: nothing is kept", samplers[i].name, k);
            double next =
                step.x * x + step.output * e + (step.earlier == 0 ? 0 : step.earlier * kept);
            kept = step.keep_x * x + step.keep_output * e;
            cr_expect(fabs(kept - (samplers[i].keeps_clean ? x0 : 0)) <= 1e-9,
                      "%s %d: what it keeps is not the clean latent", samplers[i].name, k);
            x = next;
            cr_expect(fabs(x - x0 - schedule.sigmas[k + 1] * e) <= 1e-9, "%s %d: off the line",
                      samplers[i].name, k);
        }
    }
}

// What is left of the model's direction, and the noise, are together of the next sigma.
Test(sampler, ancestral_noise_makes_up_for_what_a_step_goes_beyond)
{
    atedm_schedule schedule = make_for("euler_ancestral", &sdxl, 20);
    for (int k = 0; k < 20; k++) {
        atedm_step step = step_of(&schedule, k);
        const double x0 = 0.7, e = -1.3, x = x0 + schedule.sigmas[k] * e;
        double down = (step.x * x + step.output * e - x0) / e, to = schedule.sigmas[k + 1];
        cr_expect(fabs(hypot(down, step.earlier) - to) <= 1e-9, "%d", k);
        cr_expect_eq(step.earlier == 0, k == 19, "%d", k);
    }
}

// How far from the exact way n steps end, before the last one, for latents of a Gaussian of
// variance 1/4: the best guess of x0 is x v / (v + sigma^2), and x grows as sqrt(v + sigma^2).
static double error_of(const char *sampler, int n)
{
    atedm_scheduler_config config = sdxl;
    config.karras_sigmas = true;
    config.spacing = ATEDM_SPACING_LINSPACE; // from the same sigma to the same, whatever n
    atedm_schedule schedule = make_for(sampler, &config, n);
    const double *sigmas = schedule.sigmas, v = 0.25;
    double x = sqrt(v + sigmas[0] * sigmas[0]), kept = NAN;
    for (int k = 0; k < n - 1; k++) {
        double m = x * sigmas[k] / (v + sigmas[k] * sigmas[k]);
        atedm_step step = step_of(&schedule, k);
        double next = step.x * x + step.output * m + (k == 0 ? 0 : step.earlier * kept);
        kept = step.keep_x * x + step.keep_output * m;
        x = next;
    }
    double exact = sqrt(v + sigmas[n - 1] * sigmas[n - 1]);
    return fabs(x - exact) / exact;
}

Test(sampler, orders)
{
    static const struct {
        const char *sampler;
        int order;
    } cases[] = {{"euler", 1}, {"dpmpp_2m_karras", 2}};
    for (size_t i = 0; i < 2; i++)
        for (int n = 20; n <= 40; n += 20) {
            double order = log2(error_of(cases[i].sampler, n) / error_of(cases[i].sampler, 2 * n));
            cr_expect_float_eq(order, cases[i].order, 0.4, "%s, %d steps: order %.2f",
                               cases[i].sampler, n, order);
        }
    cr_expect_lt(error_of("dpmpp_2m_karras", 15), error_of("euler", 60));
}

Test(sampler, spacings)
{
    atedm_scheduler_config config = sdxl;
    atedm_schedule schedule = make(&config, 4);
    const double leading[] = {751, 501, 251, 1};
    for (int k = 0; k < 4; k++)
        cr_assert_eq(schedule.timesteps[k], leading[k]);
    cr_assert_eq(schedule.sigmas[4], 0);
    cr_assert(
        near(schedule.init_noise_sigma, sqrt(schedule.sigmas[0] * schedule.sigmas[0] + 1), 1e-6));

    config.spacing = ATEDM_SPACING_TRAILING;
    schedule = make(&config, 4);
    const double trailing[] = {999, 749, 499, 249};
    for (int k = 0; k < 4; k++)
        cr_assert_eq(schedule.timesteps[k], trailing[k]);
    cr_assert_eq(schedule.init_noise_sigma, schedule.sigmas[0]);

    config.spacing = ATEDM_SPACING_LINSPACE;
    schedule = make(&config, 4);
    const double linspace[] = {999, 666, 333, 0};
    for (int k = 0; k < 4; k++)
        cr_assert_eq(schedule.timesteps[k], linspace[k]);
    cr_assert_eq(make(&config, 1).timesteps[0], 0);
}

// Every trained timestep from linspace with as many steps: sigma against the definition in double.
Test(sampler, sigmas_follow_the_definition)
{
    atedm_scheduler_config config = sdxl;
    config.train_timesteps = 150;
    config.spacing = ATEDM_SPACING_LINSPACE;
    atedm_schedule schedule = make(&config, 150);
    double alpha_bar = 1;
    for (int t = 0; t < 150; t++) {
        double root = sqrt(0.00085) + (sqrt(0.012) - sqrt(0.00085)) * t / 149;
        alpha_bar *= 1 - root * root;
        double sigma = sqrt((1 - alpha_bar) / alpha_bar);
        cr_assert(near(schedule.sigmas[149 - t], sigma, 1e-4), "%d", t);
    }
}

Test(sampler, cosine_betas)
{
    atedm_scheduler_config config = sdxl;
    config.betas = ATEDM_BETAS_SQUARED_COSINE;
    config.spacing = ATEDM_SPACING_LINSPACE;
    atedm_schedule schedule = make(&config, 3); // 999, 499.5, 0
    double from = cos(0.008 / 1.008 * M_PI / 2);
    double to = cos((500.5 / 1000 + 0.008) / 1.008 * M_PI / 2);
    double alpha_bar = (to * to) / (from * from); // about that of 499.5
    cr_assert(near(schedule.sigmas[1], sqrt((1 - alpha_bar) / alpha_bar), 1e-3));
}

// x = x0 + sigma e: whatever the model predicts, if it is right the step ends on the same line.
Test(sampler, euler_steps_are_exact_for_a_perfect_model)
{
    const atedm_prediction kinds[] = {ATEDM_PREDICT_EPSILON, ATEDM_PREDICT_V, ATEDM_PREDICT_SAMPLE};
    const double x0 = 0.7;
    const double e = -1.3;
    for (size_t i = 0; i < 3; i++) {
        atedm_scheduler_config config = sdxl;
        config.prediction = kinds[i];
        atedm_schedule schedule = make(&config, 7);
        for (int k = 0; k < 7; k++) {
            double sigma = schedule.sigmas[k];
            double x = x0 + sigma * e;
            double m = e;
            if (kinds[i] == ATEDM_PREDICT_SAMPLE)
                m = x0;
            if (kinds[i] == ATEDM_PREDICT_V)
                m = (e - sigma * x0) / sqrt(sigma * sigma + 1);
            atedm_step step = step_of(&schedule, k);
            double wanted = x0 + schedule.sigmas[k + 1] * e;
            cr_assert(fabs(step.x * x + step.output * m - wanted) <= 1e-12 * (1 + sigma), "%zu %d",
                      i, k);
            double scale = atedm_schedule_input_scale(&schedule, k);
            cr_assert(near(scale * scale * (sigma * sigma + 1), 1, 1e-12));
        }
    }
}

Test(sampler, step_limits)
{
    atedm_schedule schedule = {.n = 77};
    atedm_error err;
    cr_assert_eq(atedm_schedule_make(&sdxl, euler(), 0, &schedule, &err), ATEDM_ERR_LIMIT);
    cr_assert_eq(atedm_schedule_make(&sdxl, euler(), -1, &schedule, &err), ATEDM_ERR_LIMIT);
    cr_assert_eq(atedm_schedule_make(&sdxl, euler(), ATEDM_MAX_STEPS + 1, &schedule, &err),
                 ATEDM_ERR_LIMIT);
    atedm_scheduler_config config = sdxl;
    config.train_timesteps = 10;
    cr_assert_eq(atedm_schedule_make(&config, euler(), 11, &schedule, &err), ATEDM_ERR_INVALID);
    config.train_timesteps = 1;
    cr_assert_eq(atedm_schedule_make(&config, euler(), 1, &schedule, &err), ATEDM_ERR_LIMIT);
    config.train_timesteps = ATEDM_MAX_TRAIN_TIMESTEPS + 1;
    cr_assert_eq(atedm_schedule_make(&config, euler(), 1, &schedule, &err), ATEDM_ERR_LIMIT);
    cr_assert_eq(schedule.n, 77, "untouched on failure");

    config.train_timesteps = 10;
    (void)make(&config, 10);
    (void)make_for("dpmpp_2m", &config, 9);
    cr_assert_eq(atedm_schedule_make(&config, atedm_sampler_find("dpmpp_2m"), 10, &schedule, &err),
                 ATEDM_ERR_INVALID);
    (void)make(&sdxl, ATEDM_MAX_STEPS);
    config.train_timesteps = ATEDM_MAX_TRAIN_TIMESTEPS;
    config.beta_start = 1e-7;
    config.beta_end = 1e-6;
    (void)make(&config, 5);
}

Test(sampler, betas_without_a_usable_sigma_are_refused)
{
    atedm_schedule schedule;
    atedm_error err;
    atedm_scheduler_config config = sdxl;
    config.beta_start = 0;
    config.beta_end = 0;
    cr_assert_eq(atedm_schedule_make(&config, euler(), 4, &schedule, &err), ATEDM_ERR_FORMAT);
    config.beta_start = 1;
    config.beta_end = 1;
    cr_assert_eq(atedm_schedule_make(&config, euler(), 4, &schedule, &err), ATEDM_ERR_FORMAT);
}

Test(sampler, names)
{
    size_t count = 0;
    const atedm_sampler *samplers = atedm_samplers(&count);
    cr_assert_geq(count, 1);
    cr_assert_str_eq(samplers[0].name, "euler");
    for (size_t i = 0; i < count; i++) {
        cr_expect_eq(atedm_sampler_find(samplers[i].name), &samplers[i]);
        cr_expect_lt(strlen(samplers[i].name), sizeof((atedm_request *)0)->sampler);
    }
    cr_expect_null(atedm_sampler_find("Euler"));
    cr_expect_null(atedm_sampler_find(""));
}

// x' made of x and the model's output m by the Euler step; x0 as each prediction defines it.
Test(sampler, what_a_step_takes_for_clean_is_what_the_model_said)
{
    static const atedm_prediction predictions[] = {ATEDM_PREDICT_EPSILON, ATEDM_PREDICT_V,
                                                   ATEDM_PREDICT_SAMPLE};
    for (int i = 0; i < 3; i++) {
        atedm_scheduler_config config = sdxl;
        config.prediction = predictions[i];
        atedm_schedule schedule = make(&config, 12);
        for (int k = 0; k < 12; k++) {
            double sigma = schedule.sigmas[k], variance = sigma * sigma + 1, p, q;
            const double x = 3.25, m = -0.75;
            const double x0[] = {x - sigma * m, x / variance - sigma / sqrt(variance) * m, m};
            atedm_step step = step_of(&schedule, k);
            atedm_schedule_clean(&schedule, k, &p, &q);
            double got = p * (step.x * x + step.output * m) + q * x;
            cr_expect(near(got, x0[predictions[i]], 1e-9), "%d, step %d: %g, not %g", i, k, got,
                      x0[predictions[i]]);
        }
        double p, q; // at sigma 0 the latent is clean
        atedm_schedule_clean(&schedule, 11, &p, &q);
        cr_expect_eq(p, 1);
        cr_expect_eq(q, 0);
    }
    atedm_schedule flat = {.n = 1, .sampler = euler(), .sigmas = {2, 2}};
    double p, q;
    atedm_schedule_clean(&flat, 0, &p, &q);
    cr_expect(near(p, 1 / sqrt(5), 1e-12));
    cr_expect_eq(q, 0);

    // A last step that ends at some noise, in another scale.
    atedm_scheduler_config config = sdxl;
    config.final_sigma_min = true;
    atedm_schedule last = make_for("dpmpp_2m", &config, 1);
    atedm_step step = step_of(&last, 0);
    const double x = 3.25, m = -0.75;
    atedm_schedule_clean(&last, 0, &p, &q);
    cr_expect(near(p * (step.x * x + step.output * m) + q * x, x - last.sigmas[0] * m, 1e-9));
}
