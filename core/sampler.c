// Computes the steps from one noise level to the next; holds the table of samplers: see sampler.h.
// In formulas s is the sigma of a step and t the sigma of the next one.
#include "core/sampler.h"

#include <math.h>
#include <string.h>

static void step_euler(const atedm_schedule *schedule, int k, atedm_step *ret_step)
{
    double sigma = schedule->sigmas[k];
    double step = schedule->sigmas[k + 1] - sigma;
    double variance = sigma * sigma + 1;
    *ret_step = (atedm_step){.x = 1};
    switch (schedule->prediction) {
    case ATEDM_PREDICT_EPSILON: // derivative: m
        ret_step->output = step;
        break;
    case ATEDM_PREDICT_V: // x0 = x / variance - sigma / sqrt(variance) m (Salimans & Ho 2022)
        ret_step->x = 1 + step * sigma / variance;
        ret_step->output = step / sqrt(variance);
        break;
    case ATEDM_PREDICT_SAMPLE: // derivative: (x - m) / sigma
        ret_step->x = 1 + step / sigma;
        ret_step->output = -step / sigma;
        break;
    }
}

// Computes the clean latent that the model's output m implies: x0 = keep_x x + keep_output m.
static void keep_clean(const atedm_schedule *schedule, int k, atedm_step *step)
{
    double sigma = schedule->sigmas[k], variance = sigma * sigma + 1;
    switch (schedule->prediction) {
    case ATEDM_PREDICT_EPSILON:
        step->keep_x = 1;
        step->keep_output = -sigma;
        break;
    case ATEDM_PREDICT_V:
        step->keep_x = 1 / variance;
        step->keep_output = -sigma / sqrt(variance);
        break;
    case ATEDM_PREDICT_SAMPLE:
        step->keep_x = 0;
        step->keep_output = 1;
        break;
    }
}

static bool ends_in_first_order(const atedm_schedule *schedule)
{
    switch (schedule->last_step) {
    case ATEDM_LAST_BY_STEPS:
        return schedule->n < 15;
    case ATEDM_LAST_FIRST_ORDER:
        return true;
    case ATEDM_LAST_SECOND_ORDER:
        break;
    }
    return false;
}

// The share of the difference from the previous step's x0 that is added: h / (2 h_before) with h =
// log(s / t). 0 in a step of first order.
static double second_order(const atedm_schedule *schedule, int k)
{
    const double *sigmas = schedule->sigmas;
    bool last = k == schedule->n - 1;
    if (k == 0 || (last && (sigmas[k + 1] == 0 || ends_in_first_order(schedule))))
        return 0;
    return log(sigmas[k] / sigmas[k + 1]) / (2 * log(sigmas[k - 1] / sigmas[k]));
}

// The factor of the latents after a step. The latents after the last step of a multistep sampler
// are decoded in diffusers' scale, that of unit variance, even if the step ends at a sigma above 0.
// 1 otherwise.
static double end_scale(const atedm_schedule *schedule, int k)
{
    double t = schedule->sigmas[k + 1];
    bool ends = k == schedule->n - 1 && schedule->sampler->kind == ATEDM_SCHEDULE_MULTISTEP;
    return ends ? 1 / sqrt(t * t + 1) : 1;
}

static void step_dpmpp_2m(const atedm_schedule *schedule, int k, atedm_step *ret_step)
{
    double ratio = schedule->sigmas[k + 1] / schedule->sigmas[k], w = second_order(schedule, k);
    double scale = end_scale(schedule, k), to_clean = scale * (1 - ratio);
    *ret_step = (atedm_step){.earlier = -to_clean * w};
    keep_clean(schedule, k, ret_step);
    ret_step->x = scale * ratio + to_clean * (1 + w) * ret_step->keep_x;
    ret_step->output = to_clean * (1 + w) * ret_step->keep_output;
}

// Moves along d = (x - x0) / s down to sigma t^2 / s, then adds noise of sqrt(t^2 - t^4 / s^2).
// Together they have sigma t.
static void step_euler_ancestral(const atedm_schedule *schedule, int k, atedm_step *ret_step)
{
    double s = schedule->sigmas[k], t = schedule->sigmas[k + 1], ratio = t * t / (s * s);
    *ret_step = (atedm_step){.earlier = t * sqrt(fmax(0, 1 - ratio))};
    keep_clean(schedule, k, ret_step);
    ret_step->x = ratio + (1 - ratio) * ret_step->keep_x;
    ret_step->output = (1 - ratio) * ret_step->keep_output;
}

void atedm_schedule_clean(const atedm_schedule *schedule, int k, double *ret_after,
                          double *ret_before)
{
    double sigma = schedule->sigmas[k], next = schedule->sigmas[k + 1];
    double scale = end_scale(schedule, k);
    if (!(next < sigma)) {
        *ret_after = 1 / sqrt(next * next + 1) / scale;
        *ret_before = 0;
        return;
    }
    *ret_after = sigma / (sigma - next) / scale;
    *ret_before = -next / (sigma - next);
}

const atedm_sampler *atedm_samplers(size_t *ret_count)
{
    static const atedm_sampler samplers[] = {
        {.name = "euler", .title = "Euler", .step = step_euler},
        {.name = "euler_ancestral",
         .title = "Euler a",
         .step = step_euler_ancestral,
         .kind = ATEDM_SCHEDULE_ANCESTRAL,
         .keeps_clean = true,
         .noise = true},
        {.name = "dpmpp_2m",
         .title = "DPM++ 2M",
         .step = step_dpmpp_2m,
         .kind = ATEDM_SCHEDULE_MULTISTEP,
         .keeps_clean = true},
        {.name = "dpmpp_2m_karras",
         .title = "DPM++ 2M Karras",
         .step = step_dpmpp_2m,
         .kind = ATEDM_SCHEDULE_MULTISTEP,
         .karras = true,
         .keeps_clean = true},
    };
    *ret_count = sizeof samplers / sizeof samplers[0];
    return samplers;
}

const atedm_sampler *atedm_sampler_find(const char *name)
{
    size_t count;
    const atedm_sampler *samplers = atedm_samplers(&count);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(name, samplers[i].name) == 0)
            return &samplers[i];
    }
    return NULL;
}
