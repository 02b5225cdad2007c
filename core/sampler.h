// Noise schedules and samplers, from a diffusers `scheduler_config.json`.
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

// Of what order a last step of several is that does not end at no noise.
typedef enum atedm_last_step {
    ATEDM_LAST_BY_STEPS,     // the first of fewer than 15 steps
    ATEDM_LAST_FIRST_ORDER,  // euler_at_final
    ATEDM_LAST_SECOND_ORDER, // lower_order_final false
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
    bool interpolation_log_linear; // else linear
    bool final_sigma_min;          // final_sigmas_type "sigma_min", else "zero"
    atedm_last_step last_step;     // of dpmpp_2m
} atedm_scheduler_config;

// Reads DIR/scheduler_config.json, of any class that api.md names: what from_config of the class
// that a sampler is like takes over of it. Other classes are refused with their name; options that
// change the numbers and are not implemented are refused too.
ATEDM_MUST_CHECK atedm_status atedm_scheduler_config_read(const char *path,
                                                          atedm_scheduler_config *ret_config,
                                                          atedm_error *err);

typedef struct atedm_sampler atedm_sampler;

// Which of diffusers' schedulers a schedule is like.
typedef enum atedm_schedule_kind {
    ATEDM_SCHEDULE_EULER,
    ATEDM_SCHEDULE_MULTISTEP, // DPMSolverMultistepScheduler
    ATEDM_SCHEDULE_ANCESTRAL, // EulerAncestralDiscreteScheduler, which knows of no other sigmas
} atedm_schedule_kind;

// What a sampler needs for n steps. Latents are x0 + sigma e: those of diffusers'
// EulerDiscreteScheduler, and sqrt(sigma^2 + 1) times those of DPMSolverMultistepScheduler, but
// that what its last step leaves is what it has.
typedef struct atedm_schedule {
    int n;
    const atedm_sampler *sampler;
    double timesteps[ATEDM_MAX_STEPS];  // as the UNet sees them
    double sigmas[ATEDM_MAX_STEPS + 1]; // sigmas[n]: where the last step ends
    double init_noise_sigma;            // factor of the initial unit noise
    atedm_prediction prediction;
    atedm_last_step last_step;
} atedm_schedule;

// ATEDM_ERR_LIMIT: steps out of range. ATEDM_ERR_INVALID: more than the sampler makes of the
// model's training timesteps. ATEDM_ERR_FORMAT: a sigma is 0 or no number.
ATEDM_MUST_CHECK atedm_status atedm_schedule_make(const atedm_scheduler_config *config,
                                                  const atedm_sampler *sampler, int steps,
                                                  atedm_schedule *ret_schedule, atedm_error *err);

// Factor of the latent at the UNet's entry at step k: 1 / sqrt(sigma_k^2 + 1).
double atedm_schedule_input_scale(const atedm_schedule *schedule, int k);
// What step k took for the clean latent, x0 = after x' + before x of the latents around it: with
// the derivative d = (x - x0) / sigma and x' = x + (sigma' - sigma) d (Karras et al. 2022,
// algorithm 1), after = sigma / (sigma - sigma') and before = -sigma' / (sigma - sigma'), whatever
// the model predicts. Where a step does not come down (sigma' >= sigma), x' scaled to unit variance
// stands for it.
void atedm_schedule_clean(const atedm_schedule *schedule, int k, double *ret_after,
                          double *ret_before);

struct atedm_sampler {
    const char *name;  // as requests spell it
    const char *title; // as a picture's settings do
    // euler: Karras et al. 2022, algorithm 1 without churn. dpmpp_2m: DPM-Solver++(2M), Lu et al.
    // 2022 (arXiv 2211.01095), algorithm 2, in diffusers' form: the first step is of first order,
    // and the last one where it ends at sigma 0 or `last_step` says so. euler_ancestral:
    // k-diffusion's, of as much noise as makes up for what a step goes beyond the next sigma.
    void (*step)(const atedm_schedule *schedule, int k, atedm_step *ret_step);
    atedm_schedule_kind kind;
    bool karras;      // sigmas of Karras et al. 2022, equation 5, whatever the model's config says
    bool keeps_clean; // a step keeps the clean latent that the model spoke of, for the next one and
                      // for previews; false: nothing
    bool noise;       // unit noise, drawn anew for each step, stands where the step before has kept
};

// The table of samplers; the first one, "euler", is the default.
const atedm_sampler *atedm_samplers(size_t *ret_count);
const atedm_sampler *atedm_sampler_find(const char *name); // NULL: there is none of that name

#endif
