// Noise schedules and samplers, from a diffusers `scheduler_config.json`.
#ifndef ATEDM_SAMPLER_H
#define ATEDM_SAMPLER_H

#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>

#define ATEDM_MAX_STEPS 150
#define ATEDM_MAX_TRAIN_TIMESTEPS 100000

typedef enum atedm_prediction {
    ATEDM_PREDICT_EPSILON,
    ATEDM_PREDICT_V,
    ATEDM_PREDICT_SAMPLE
} atedm_prediction;
typedef enum atedm_spacing {
    ATEDM_SPACING_LEADING,
    ATEDM_SPACING_TRAILING,
    ATEDM_SPACING_LINSPACE
} atedm_spacing;
typedef enum atedm_betas {
    ATEDM_BETAS_LINEAR,
    ATEDM_BETAS_SCALED_LINEAR,
    ATEDM_BETAS_SQUARED_COSINE
} atedm_betas;

typedef struct atedm_scheduler_config {
    int train_timesteps;
    double beta_start, beta_end;
    atedm_betas betas;
    atedm_prediction prediction;
    atedm_spacing spacing;
    int steps_offset;
    bool karras_sigmas;
    bool rescale_zero_snr;
    bool interpolation_log_linear; // else linear
    bool final_sigma_min;          // final_sigmas_type "sigma_min", else "zero"
} atedm_scheduler_config;

// Reads DIR/scheduler_config.json. Unknown kinds are refused with their name; options that change
// the numbers and are not implemented are refused too.
ATEDM_MUST_CHECK atedm_status atedm_scheduler_config_read(const char *path,
                                                          atedm_scheduler_config *ret_config,
                                                          atedm_error *err);

// What a sampler needs for n steps, in diffusers' EulerDiscreteScheduler's terms.
typedef struct atedm_schedule {
    int n;
    double timesteps[ATEDM_MAX_STEPS];  // as the UNet sees them
    double sigmas[ATEDM_MAX_STEPS + 1]; // sigmas[n]: where the last step ends
    double init_noise_sigma;            // factor of the initial unit noise
    atedm_prediction prediction;
} atedm_schedule;

ATEDM_MUST_CHECK atedm_status atedm_schedule_make(const atedm_scheduler_config *config, int steps,
                                                  atedm_schedule *ret_schedule, atedm_error *err);

// Factor of the latent at the UNet's entry at step k: 1 / sqrt(sigma_k^2 + 1).
double atedm_schedule_input_scale(const atedm_schedule *schedule, int k);
// The Euler step k as x' = a x + b m, m the guided model output (Karras et al. 2022, algorithm 1
// without churn).
void atedm_schedule_euler(const atedm_schedule *schedule, int k, double *ret_a, double *ret_b);
// What the Euler step k takes for the clean latent, x0 = a x' + b x: with the derivative d = (x -
// x0) / sigma of the same algorithm and x' = x + (sigma' - sigma) d, a = sigma / (sigma - sigma')
// and b = -sigma' / (sigma - sigma'), whatever the model predicts. Where a step does not come down
// (sigma' >= sigma), x' scaled to unit variance stands for it.
void atedm_schedule_clean(const atedm_schedule *schedule, int k, double *ret_a, double *ret_b);

// A way from one step's latents to the next one's that is linear in them and in the guided model
// output, as are those of first order without noise. Both functions are of a schedule and a step.
typedef struct atedm_sampler {
    const char *name;  // as requests spell it
    const char *title; // as a picture's settings do
    void (*step)(const atedm_schedule *schedule, int k, double *ret_a, double *ret_b);
    // What step k took for the clean latent, of the latents around it, as atedm_schedule_clean
    // gives it.
    void (*clean)(const atedm_schedule *schedule, int k, double *ret_a, double *ret_b);
} atedm_sampler;

// The table of samplers; the first one, "euler", is the default.
const atedm_sampler *atedm_samplers(size_t *ret_count);
const atedm_sampler *atedm_sampler_find(const char *name); // NULL: there is none of that name

#endif
