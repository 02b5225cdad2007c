// POST /v1/estimate: computes what a request would cost and how long it would wait, without running
// it.
#include "core/plan_json.h"
#include "server/admit.h"
#include "server/daemon.h"
#include "server/handlers.h"
#include "server/pick_json.h"
#include "server/problem.h"

#include <math.h>
#include <string.h>

static json_t *seconds_json(double seconds)
{
    return isfinite(seconds) ? json_real(seconds) : json_null();
}

// Describes consecutive steps that prune alike: their ratio in each attention block.
static json_t *run_json(const atedm_plan *plan, const atedm_block_info *blocks, int first, int last)
{
    const float *rho = atedm_plan_step(plan, first);
    json_t *by_block = json_object();
    for (int b = 0; b < plan->n_blocks; b++) {
        // A float is exact to about six digits; the later ones are noise.
        double ratio = round((double)rho[b] * 1e6) / 1e6;
        json_object_set_new(by_block, blocks[b].name, json_real(ratio));
    }
    return json_pack("{s:i, s:i, s:o}", "first_step", first, "last_step", last, "ratios", by_block);
}

// Writes the plan's matrix, steps x blocks. Consecutive equal rows become one entry.
static json_t *plan_json(const atedm_plan *plan, const atedm_unet_config *unet)
{
    json_t *list = json_array();
    if (!plan)
        return list;
    atedm_block_info blocks[ATEDM_MAX_BLOCKS];
    atedm_unet_config_blocks(unet, blocks);
    size_t row = (size_t)plan->n_blocks * sizeof(float);
    int first = 0;
    for (int k = 1; k <= plan->steps; k++) {
        if (k < plan->steps &&
            memcmp(atedm_plan_step(plan, first), atedm_plan_step(plan, k), row) == 0)
            continue;
        json_array_append_new(list, run_json(plan, blocks, first, k - 1));
        first = k;
    }
    return list;
}

void atedm_handle_estimate(void *app, atedm_exchange *x)
{
    atedm_daemon *d = app;
    json_t *body;
    atedm_response refusal;
    atedm_job *job = atedm_admit(d, x, false, &body, &refusal);
    json_decref(body);
    if (!job) {
        atedm_exchange_respond(x, refusal);
        return;
    }
    atedm_dispatch_state state = atedm_dispatch_get_state(d->dispatch);
    double wait = atedm_dispatch_expected_wait(d->dispatch, job->request.priority);
    double run = (double)job->cost.executed / state.rate;
    json_t *queue = json_pack("{s:I, s:I, s:I}", "depth", (json_int_t)state.depth, "flops",
                              (json_int_t)state.queue_flops, "active", (json_int_t)state.active);
    json_t *expected =
        json_pack("{s:o, s:o, s:o, s:o}", "wait_s", seconds_json(wait), "run_s", seconds_json(run),
                  "total_s", seconds_json(wait + run), "flops_per_s", seconds_json(state.rate));
    json_t *value = json_pack("{s:s, s:I, s:I, s:i, s:i, s:o, s:o, s:o, s:o, s:o}", "model",
                              d->model.name, "width", (json_int_t)job->request.width, "height",
                              (json_int_t)job->request.height, "steps", job->request.steps,
                              "num_images", job->request.num_images, "pruning",
                              atedm_pruning_json(job->plan, &job->cost, &job->pick), "plan",
                              plan_json(job->plan, &d->model.parts.unet), "flops",
                              atedm_cost_json(&job->cost), "expected", expected, "queue", queue);
    atedm_job_destroy(job);
    atedm_exchange_respond(x, atedm_json_response(200, atedm_exchange_id(x), value));
}
