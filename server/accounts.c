// Decides which event counts in which metric: see accounts.h.
#include "server/accounts.h"

#include <stdio.h>

static const char *const rejections[ATEDM_N_REJECTIONS] = {
    [ATEDM_REJECTED_FULL] = "full",         [ATEDM_REJECTED_DRAINING] = "draining",
    [ATEDM_REJECTED_DEADLINE] = "deadline", [ATEDM_REJECTED_CLIENT_GONE] = "client_gone",
    [ATEDM_REJECTED_CANCELED] = "canceled", [ATEDM_REJECTED_STORAGE] = "storage",
    [ATEDM_REJECTED_RATE] = "rate",         [ATEDM_REJECTED_QUOTA] = "quota",
};

void atedm_account_start_rejections(atedm_metrics *metrics)
{
    for (size_t i = 0; i < ATEDM_N_REJECTIONS; i++)
        atedm_metrics_count(metrics, ATEDM_METRIC_QUEUE_REJECTED, 0, ATEDM_LABELS(rejections[i]));
}

void atedm_account_rejected(atedm_metrics *metrics, atedm_rejection why)
{
    atedm_metrics_count(metrics, ATEDM_METRIC_QUEUE_REJECTED, 1, ATEDM_LABELS(rejections[why]));
}

void atedm_account_start(atedm_metrics *metrics, double queue_s)
{
    atedm_metrics_observe(metrics, ATEDM_METRIC_STAGE_DURATION, queue_s, ATEDM_LABELS("queue"));
}

void atedm_account_evaluation(atedm_metrics *metrics, const char *device, size_t images,
                              double seconds)
{
    atedm_metrics_observe(metrics, ATEDM_METRIC_STEP_DURATION, seconds, ATEDM_LABELS(device));
    atedm_metrics_observe(metrics, ATEDM_METRIC_BATCH_SIZE, (double)images, ATEDM_LABELS(device));
}

atedm_request_cost atedm_account_cost(const atedm_job *job, const atedm_worker_result *result)
{
    atedm_request_cost cost = job->cost;
    cost.text_encoder = atedm_op_counts_flops(&result->report.counts[ATEDM_STAGE_TEXT]);
    cost.unet = atedm_op_counts_flops(&result->report.counts[ATEDM_STAGE_UNET]);
    cost.vae = atedm_op_counts_flops(&result->report.counts[ATEDM_STAGE_VAE]);
    cost.overhead = 2 * result->report.counts[ATEDM_STAGE_UNET].overhead;
    cost.executed = cost.text_encoder + cost.unet + cost.vae;
    cost.saved_ratio = 1 - (double)cost.executed / (double)cost.baseline;
    return cost;
}

static void count_flops(atedm_metrics *metrics, const char *kind, const char *stage, uint64_t flops)
{
    atedm_metrics_count(metrics, ATEDM_METRIC_FLOPS, flops, ATEDM_LABELS(kind, stage));
}

static void account_flops(atedm_metrics *metrics, const atedm_request_cost *cost)
{
    count_flops(metrics, "executed", "text_encoder", cost->text_encoder);
    count_flops(metrics, "executed", "unet", cost->unet);
    count_flops(metrics, "executed", "vae", cost->vae);
    // Only the UNet is pruned. The baseline of every other stage is what the stage executed.
    count_flops(metrics, "baseline", "text_encoder", cost->text_encoder);
    count_flops(metrics, "baseline", "unet", cost->unet_baseline);
    count_flops(metrics, "baseline", "vae", cost->vae);
    count_flops(metrics, "overhead", "unet", cost->overhead);
    atedm_metrics_observe(metrics, ATEDM_METRIC_FLOPS_SAVED, cost->saved_ratio, ATEDM_NO_LABELS);
}

// Counts the tokens at the end of every attention block, in every step, of all samples.
static void account_tokens(atedm_metrics *metrics, const atedm_job *job)
{
    const atedm_request *request = &job->request;
    uint64_t kept[ATEDM_MAX_LEVELS] = {0}, pruned[ATEDM_MAX_LEVELS] = {0};
    int64_t scale = atedm_model_config_scale(job->model);
    atedm_unet_cost unet;
    atedm_unet_cost_init(&unet, &job->model->parts.unet, request->height / scale,
                         request->width / scale, job->model->parts.clip[0].positions);
    for (int b = 0; b < unet.n_blocks; b++) {
        const atedm_block_info *block = &unet.blocks[b];
        int64_t tokens = atedm_unet_cost_tokens(&unet, b);
        for (int k = 0; k < request->steps; k++) {
            int64_t keep =
                job->plan ? atedm_plan_kept(job->plan, k, b, block->layers, tokens) : tokens;
            kept[block->level] += (uint64_t)keep;
            pruned[block->level] += (uint64_t)(tokens - keep);
        }
    }
    uint64_t samples = (uint64_t)request->num_images * (request->guidance_scale > 1 ? 2 : 1);
    for (int level = 0; level < ATEDM_MAX_LEVELS; level++) {
        char name[16];
        snprintf(name, sizeof name, "%d", level);
        if (kept[level] == 0)
            continue; // this level has no attention blocks
        atedm_metrics_count(metrics, ATEDM_METRIC_TOKENS, kept[level] * samples,
                            ATEDM_LABELS("kept", name));
        atedm_metrics_count(metrics, ATEDM_METRIC_TOKENS, pruned[level] * samples,
                            ATEDM_LABELS("pruned", name));
    }
}

void atedm_account_done(atedm_metrics *metrics, const atedm_job *job,
                        const atedm_worker_result *result)
{
    const atedm_timing *t = &result->report.timing;
    const struct {
        const char *name;
        double seconds;
    } stages[] = {{"text_encoder", t->text_encoder_s},
                  {"denoise", t->denoise_s},
                  {"vae", t->vae_s},
                  {"encode", t->encode_s}};
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++)
        atedm_metrics_observe(metrics, ATEDM_METRIC_STAGE_DURATION, stages[i].seconds,
                              ATEDM_LABELS(stages[i].name));
    const char *preset = job->request.prune.preset;
    atedm_metrics_count(metrics, ATEDM_METRIC_IMAGES, result->n_images,
                        ATEDM_LABELS(job->request.sampler, *preset ? preset : "custom"));
    atedm_request_cost cost = atedm_account_cost(job, result);
    account_flops(metrics, &cost);
    account_tokens(metrics, job);
}
