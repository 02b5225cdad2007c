// Computes sigmas and timesteps: see sampler.h.
//
// The numbers are those of diffusers' EulerDiscreteScheduler, EulerAncestralDiscreteScheduler and
// DPMSolverMultistepScheduler. The noise schedule is computed in float, with diffusers' operations
// in diffusers' order, because 1 - alpha_bar cancels at the low end: in double, a sigma would
// differ in its fifth digit. The remaining difference is the last bit of torch's square roots,
// which depends on the library that torch was built with.
#include "core/sampler.h"

#include <math.h>
#include <stdlib.h>

// torch.linspace in float: counts from the nearer end, with fused multiply-add.
static float linspace_float(float start, float end, int count, int i)
{
    float step = (end - start) / (float)(count - 1);
    if (i < count / 2)
        return fmaf(step, (float)i, start);
    return fmaf(-step, (float)(count - 1 - i), end);
}

// Nichol & Dhariwal 2021, equation 17, before the square.
static double cosine_alpha_bar(double t)
{
    double c = cos((t + 0.008) / 1.008 * M_PI / 2);
    return c * c;
}

static float train_beta(const atedm_scheduler_config *config, int t)
{
    int count = config->train_timesteps;
    switch (config->betas) {
    case ATEDM_BETAS_LINEAR:
        return linspace_float((float)config->beta_start, (float)config->beta_end, count, t);
    case ATEDM_BETAS_SCALED_LINEAR: {
        float root = linspace_float((float)sqrt(config->beta_start), (float)sqrt(config->beta_end),
                                    count, t);
        return root * root;
    }
    case ATEDM_BETAS_SQUARED_COSINE:
        break;
    }
    double from = cosine_alpha_bar((double)t / count);
    double to = cosine_alpha_bar((double)(t + 1) / count);
    return (float)fmin(1 - to / from, 0.999);
}

// alpha_bar[t] = prod_{i <= t} alpha[i], in place. Accumulates in double, like torch.cumprod.
static void cumulate(float *alpha, int count)
{
    double product = 1;
    for (int t = 0; t < count; t++) {
        product *= (double)alpha[t];
        alpha[t] = (float)product;
    }
}

// Shifts and scales sqrt(alpha_bar) so that it ends at 0 and begins where it began before (Lin et
// al. 2024, "Common diffusion noise schedules and sample steps are flawed", algorithm 1). Then
// computes alphas from it and cumulates them again, to round as diffusers does.
static void rescale_zero_snr(float *alpha_bar, int count)
{
    float first = sqrtf(alpha_bar[0]);
    float last = sqrtf(alpha_bar[count - 1]);
    float factor = first / (first - last);
    float previous = 1;
    for (int t = 0; t < count; t++) {
        float root = (sqrtf(alpha_bar[t]) - last) * factor;
        float current = root * root;
        float beta = 1 - current / previous;
        alpha_bar[t] = 1 - beta;
        previous = current;
    }
    cumulate(alpha_bar, count);
    // The smallest fp16 subnormal in place of 0, so that the first sigma is finite.
    alpha_bar[count - 1] = 0x1p-24f;
}

// Fills sigmas [train_timesteps] in the order of the timesteps: sqrt((1 - alpha_bar) / alpha_bar).
static void train_sigmas(const atedm_scheduler_config *config, float *sigmas)
{
    int count = config->train_timesteps;
    for (int t = 0; t < count; t++)
        sigmas[t] = 1 - train_beta(config, t);
    cumulate(sigmas, count);
    if (config->rescale_zero_snr)
        rescale_zero_snr(sigmas, count);
    for (int t = 0; t < count; t++)
        sigmas[t] = sqrtf((1 - sigmas[t]) / sigmas[t]);
}

// The timestep of step k of n (Lin et al. 2024, table 2). A multistep sampler has whole timesteps.
// For it, unless the spacing is trailing, n + 1 timesteps are spaced, and the last one, which is
// nearly clean, is left out.
static float spaced_timestep(const atedm_scheduler_config *config, bool multistep, int k, int n)
{
    int count = config->train_timesteps, spaced = n + multistep;
    switch (config->spacing) {
    case ATEDM_SPACING_LEADING: {
        int ratio = count / spaced;
        return (float)((spaced - 1 - k) * ratio + config->steps_offset);
    }
    case ATEDM_SPACING_TRAILING: {
        // Like numpy.arange(count, 0, -count / n), whose increment is the difference of its first
        // two values. For 61, 103, 121 and 122 steps of 1000 timesteps arange makes one value too
        // many; this makes n.
        double increment = (count - (double)count / n) - count;
        return (float)(rint(count + k * increment) - 1);
    }
    case ATEDM_SPACING_LINSPACE:
        break;
    }
    if (spaced == 1)
        return 0;
    if (k == 0)
        return (float)(count - 1);
    double timestep = (spaced - 1 - k) * ((double)(count - 1) / (spaced - 1));
    return (float)(multistep ? rint(timestep) : timestep);
}

// Interpolates sigmas linearly between two trained timesteps. Beyond the last one, returns the last
// sigma.
static double interpolate(const float *sigmas, int count, double timestep)
{
    if (timestep >= count - 1)
        return (double)sigmas[count - 1];
    int low = (int)timestep;
    double slope = (double)sigmas[low + 1] - (double)sigmas[low];
    return slope * (timestep - low) + (double)sigmas[low];
}

// The inverse: returns the timestep at which the sigma, interpolated in its logarithm, is `sigma`.
static double timestep_of_sigma(const float *sigmas, int count, double sigma)
{
    double wanted = log(fmax(sigma, 1e-10));
    int low = 0;
    for (int t = 0; t < count - 1; t++) {
        if (wanted >= (double)logf(sigmas[t]))
            low = t;
    }
    float low_log = logf(sigmas[low]);
    float high_log = logf(sigmas[low + 1]);
    double w = ((double)low_log - wanted) / (double)(low_log - high_log);
    w = fmin(fmax(w, 0), 1);
    return (1 - w) * low + w * (low + 1);
}

// Karras et al. 2022, equation 5, rho = 7.
static double karras_sigma(double sigma_max, double sigma_min, int k, int n)
{
    const double rho = 7;
    double ramp = n == 1 ? 0 : (double)k / (n - 1);
    double from = pow(sigma_max, 1 / rho);
    double to = pow(sigma_min, 1 / rho);
    return pow(from + ramp * (to - from), rho);
}

static bool is_log_linear(const atedm_scheduler_config *config, const atedm_sampler *sampler)
{
    return config->interpolation_log_linear && sampler->kind == ATEDM_SCHEDULE_EULER;
}

static void fill_spaced(const atedm_scheduler_config *config, const float *sigmas,
                        atedm_schedule *schedule)
{
    int count = config->train_timesteps, n = schedule->n;
    bool multistep = schedule->sampler->kind == ATEDM_SCHEDULE_MULTISTEP;
    for (int k = 0; k < n; k++) {
        schedule->timesteps[k] = (double)spaced_timestep(config, multistep, k, n);
        schedule->sigmas[k] = interpolate(sigmas, count, schedule->timesteps[k]);
    }
    if (!is_log_linear(config, schedule->sampler))
        return;
    // diffusers makes n + 1 sigmas and appends the final one, which no step reaches: the last step
    // ends at the smallest trained sigma.
    float from = logf(sigmas[count - 1]);
    float to = logf(sigmas[0]);
    for (int k = 0; k <= n; k++)
        schedule->sigmas[k] = (double)expf(linspace_float(from, to, n + 1, k));
}

// Fills in Karras' sigmas between the first and the last spaced sigma. A multistep sampler has them
// between the ends of all trained sigmas, and has whole timesteps.
static void fill_karras(const atedm_scheduler_config *config, const float *sigmas,
                        atedm_schedule *schedule)
{
    int count = config->train_timesteps, n = schedule->n;
    bool multistep = schedule->sampler->kind == ATEDM_SCHEDULE_MULTISTEP;
    double sigma_max = multistep ? (double)sigmas[count - 1] : schedule->sigmas[0];
    double sigma_min = multistep
                           ? (double)sigmas[0]
                           : schedule->sigmas[is_log_linear(config, schedule->sampler) ? n : n - 1];
    for (int k = 0; k < n; k++) {
        double sigma = karras_sigma(sigma_max, sigma_min, k, n);
        double timestep = timestep_of_sigma(sigmas, count, sigma);
        schedule->sigmas[k] = sigma;
        if (!multistep)
            timestep = (double)(float)timestep;
        else
            timestep =
                config->betas == ATEDM_BETAS_SQUARED_COSINE ? trunc(timestep) : rint(timestep);
        schedule->timesteps[k] = timestep;
    }
}

static void fill_steps(const atedm_scheduler_config *config, const float *sigmas,
                       atedm_schedule *schedule)
{
    int n = schedule->n;
    bool ancestral = schedule->sampler->kind == ATEDM_SCHEDULE_ANCESTRAL;
    bool karras = (config->karras_sigmas && !ancestral) || schedule->sampler->karras;
    double final = config->final_sigma_min && !ancestral ? (double)sigmas[0] : 0;
    schedule->sigmas[n] = final;
    fill_spaced(config, sigmas, schedule);
    if (karras) {
        fill_karras(config, sigmas, schedule);
        schedule->sigmas[n] = final;
    }
    for (int k = 0; k <= n; k++)
        schedule->sigmas[k] = (double)(float)schedule->sigmas[k];
}

// The factor of the initial unit noise: sqrt(sigma^2 + 1), the standard deviation of a
// unit-variance image with noise of the largest sigma. For samplers that are not multistep it is
// just sigma if the spacing starts at the noisiest timestep.
static double init_noise_sigma(const atedm_scheduler_config *config, const atedm_schedule *schedule)
{
    float largest = 0;
    for (int k = 0; k <= schedule->n; k++)
        largest = fmaxf(largest, (float)schedule->sigmas[k]);
    if (config->spacing != ATEDM_SPACING_LEADING &&
        schedule->sampler->kind != ATEDM_SCHEDULE_MULTISTEP)
        return (double)largest;
    return (double)sqrtf(largest * largest + 1);
}

atedm_status atedm_schedule_make(const atedm_scheduler_config *config, const atedm_sampler *sampler,
                                 int steps, atedm_schedule *ret_schedule, atedm_error *err)
{
    int count = config->train_timesteps;
    if (count < 2 || count > ATEDM_MAX_TRAIN_TIMESTEPS)
        return atedm_error_set(err, ATEDM_ERR_LIMIT, "%d training timesteps, not within 2..%d",
                               count, ATEDM_MAX_TRAIN_TIMESTEPS);
    if (steps < 1 || steps > ATEDM_MAX_STEPS)
        return atedm_error_set(err, ATEDM_ERR_LIMIT, "%d steps, not within 1..%d", steps,
                               ATEDM_MAX_STEPS);
    if (steps + (sampler->kind == ATEDM_SCHEDULE_MULTISTEP) > count)
        return atedm_error_set(err, ATEDM_ERR_INVALID,
                               "%d steps of %s are more than the model's %d training timesteps "
                               "allow",
                               steps, sampler->name, count);
    float *sigmas = malloc((size_t)count * sizeof *sigmas);
    if (!sigmas)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for %d sigmas", count);
    train_sigmas(config, sigmas);
    atedm_schedule schedule = {.n = steps,
                               .sampler = sampler,
                               .prediction = config->prediction,
                               .last_step = config->last_step};
    fill_steps(config, sigmas, &schedule);
    free(sigmas);
    for (int k = 0; k < steps; k++) {
        if (!(isfinite(schedule.sigmas[k]) && schedule.sigmas[k] > 0))
            return atedm_error_set(err, ATEDM_ERR_FORMAT,
                                   "the scheduler's betas give a sigma of %g at step %d",
                                   schedule.sigmas[k], k);
    }
    schedule.init_noise_sigma = init_noise_sigma(config, &schedule);
    *ret_schedule = schedule;
    return ATEDM_OK;
}

double atedm_schedule_input_scale(const atedm_schedule *schedule, int k)
{
    double sigma = schedule->sigmas[k];
    return 1 / sqrt(sigma * sigma + 1);
}
