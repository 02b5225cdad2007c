// Noise schedules and samplers, made from a diffusers `scheduler_config.json`.
#ifndef ATEDM_SAMPLER_H
#define ATEDM_SAMPLER_H

#include "core/base/status.h"
#include "kernels/kernels.h" // atedm_step

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

// The order of dpmpp_2m's last step, in a schedule of several steps that ends at a sigma above 0.
typedef enum atedm_last_step {
    ATEDM_LAST_BY_STEPS,     // first order with fewer than 15 steps, else second
    ATEDM_LAST_FIRST_ORDER,  // first order: euler_at_final
    ATEDM_LAST_SECOND_ORDER, // second order: lower_order_final is false
} atedm_last_step;

typedef struct atedm_scheduler_config {
    int train_timesteps;
    double beta_start, beta_end;
    atedm_betas betas;
    atedm_prediction prediction;
    atedm_spacing spacing;
    int steps_offset;
    bool karras_sigmas;
    bool rescale_zero_snr;
    bool interpolation_log_linear; // otherwise linear
    bool final_sigma_min;          // final_sigmas_type is "sigma_min", otherwise "zero"
    atedm_last_step last_step;     // of dpmpp_2m
} atedm_scheduler_config;

// Reads DIR/scheduler_config.json, which may be of any class that api.md names. Each sampler
// corresponds to a class of diffusers, and reads the config as that class's from_config would.
// Refuses other classes by name, and options that change the numbers but are not implemented
// (ATEDM_ERR_UNSUPPORTED).
ATEDM_MUST_CHECK atedm_status atedm_scheduler_config_read(const char *path,
                                                          atedm_scheduler_config *ret_config,
                                                          atedm_error *err);

typedef struct atedm_sampler atedm_sampler;

// The scheduler of diffusers whose sigmas and timesteps a schedule has.
typedef enum atedm_schedule_kind {
    ATEDM_SCHEDULE_EULER,
    ATEDM_SCHEDULE_MULTISTEP, // DPMSolverMultistepScheduler
    ATEDM_SCHEDULE_ANCESTRAL, // EulerAncestralDiscreteScheduler; it has no options for other sigmas
} atedm_schedule_kind;

// What a sampler needs for n steps. Latents are x0 + sigma e, as in diffusers'
// EulerDiscreteScheduler. DPMSolverMultistepScheduler's latents are smaller by the factor
// sqrt(sigma^2 + 1); only what the last step leaves is in its scale.
typedef struct atedm_schedule {
    int n;
    const atedm_sampler *sampler;
    double timesteps[ATEDM_MAX_STEPS];  // as the UNet sees them
    double sigmas[ATEDM_MAX_STEPS + 1]; // sigmas[n]: where the last step ends
    double init_noise_sigma;            // factor of the initial unit noise
    atedm_prediction prediction;
    atedm_last_step last_step;
} atedm_schedule;

// Makes the schedule. ATEDM_ERR_LIMIT: `steps` or the number of training timesteps is out of range.
// ATEDM_ERR_INVALID: the sampler cannot make that many steps of the model's training timesteps.
// ATEDM_ERR_FORMAT: a sigma is 0 or not finite. ATEDM_ERR_NOMEM: out of memory.
ATEDM_MUST_CHECK atedm_status atedm_schedule_make(const atedm_scheduler_config *config,
                                                  const atedm_sampler *sampler, int steps,
                                                  atedm_schedule *ret_schedule, atedm_error *err);

// The factor by which the latent is scaled for the UNet at step k: 1 / sqrt(sigma_k^2 + 1).
double atedm_schedule_input_scale(const atedm_schedule *schedule, int k);
// Gives the clean latent that step k assumed, as x0 = after x' + before x, where x is the latent
// before the step and x' the one after it. With the derivative d = (x - x0) / sigma and x' = x +
// (sigma' - sigma) d (Karras et al. 2022, algorithm 1), after = sigma / (sigma - sigma') and before
// = -sigma' / (sigma - sigma'), whatever the model predicts. If a step does not lower sigma (sigma'
// >= sigma), x' scaled to unit variance takes the place of x0.
void atedm_schedule_clean(const atedm_schedule *schedule, int k, double *ret_after,
                          double *ret_before);

struct atedm_sampler {
    const char *name;  // the name in requests
    const char *title; // the name in a picture's settings
    // Computes the coefficients of step k. euler: Karras et al. 2022, algorithm 1 without churn.
    // dpmpp_2m: DPM-Solver++(2M), Lu et al. 2022 (arXiv 2211.01095), algorithm 2, in diffusers'
    // form: the first step is of first order, and so is the last one if it ends at sigma 0 or
    // `last_step` says so. euler_ancestral: as in k-diffusion; a step goes below the next sigma,
    // and new noise makes up for the difference.
    void (*step)(const atedm_schedule *schedule, int k, atedm_step *ret_step);
    atedm_schedule_kind kind;
    bool karras;      // sigmas of Karras et al. 2022, equation 5, even if the model's config says
                      // otherwise
    bool keeps_clean; // a step keeps the model's clean latent for the next step and for previews;
                      // false: it keeps nothing
    bool noise;       // a step gets unit noise, drawn anew, instead of what the step before kept
};

// The table of samplers; the first one, "euler", is the default.
const atedm_sampler *atedm_samplers(size_t *ret_count);
const atedm_sampler *atedm_sampler_find(const char *name); // NULL: no sampler has this name

#endif
