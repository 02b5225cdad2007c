// Resolves plans: schedules, FLOPs budgets, and which steps rank tokens. See plan.h.
#include "core/plan.h"

#include "core/flops.h"
#include "core/sampler.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MILLION 1000000

static int64_t millionths(double share)
{
    return llrint(share * MILLION);
}

int64_t atedm_prune_keep(double ratio, int64_t n)
{
    int64_t keep = n - millionths(ratio) * n / MILLION;
    return keep < 1 ? 1 : keep;
}

int atedm_phase_end(double until, int n)
{
    return (int)((millionths(until) * n + MILLION / 2) / MILLION);
}

// Skips an index at the start of `text`: digits, at least one, without leading zeros. Returns the
// rest of the text, or NULL if there is no index.
static const char *skip_index(const char *text)
{
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || (digits > 1 && text[0] == '0'))
        return NULL;
    return text + digits;
}

bool atedm_skip_is_valid(const char *skip)
{
    if (strcmp(skip, "down.first") == 0 || strcmp(skip, "up.last") == 0 || strcmp(skip, "mid") == 0)
        return true;
    if (strlen(skip) >= ATEDM_BLOCK_NAME_MAX)
        return false;
    const char *rest = NULL;
    if (strncmp(skip, "down.", 5) == 0)
        rest = skip_index(skip + 5);
    else if (strncmp(skip, "up.", 3) == 0)
        rest = skip_index(skip + 3);
    if (!rest || *rest != '.')
        return false;
    rest = skip_index(rest + 1);
    return rest && *rest == '\0';
}

static void add_skip(atedm_phase *phase, const char *skip)
{
    snprintf(phase->skip[phase->n_skip++], ATEDM_BLOCK_NAME_MAX, "%s", skip);
}

size_t atedm_prune_phases(const atedm_prune_spec *spec, atedm_phase *ret_phases)
{
    if (spec->schedule == ATEDM_PRUNE_PHASES) {
        memcpy(ret_phases, spec->phases, spec->n_phases * sizeof *ret_phases);
        return spec->n_phases;
    }
    size_t n = 0;
    if (spec->schedule == ATEDM_PRUNE_DSAP && spec->tau > 0) {
        // The prune-less steps (Wang et al., section 3.3).
        ret_phases[n] = (atedm_phase){.until = spec->tau, .ratio = NAN};
        add_skip(&ret_phases[n], "down.first");
        add_skip(&ret_phases[n], "up.last");
        n++;
        if (spec->tau >= 1)
            return n;
    }
    ret_phases[n++] = (atedm_phase){.until = 1, .ratio = NAN};
    return n;
}

static bool skip_matches(const char *skip, const atedm_block_info *block)
{
    if (strcmp(skip, "down.first") == 0)
        return block->first_of_down;
    if (strcmp(skip, "up.last") == 0)
        return block->last_of_up;
    return strcmp(skip, block->name) == 0;
}

static bool phase_skips(const atedm_phase *phase, const atedm_block_info *block)
{
    for (size_t i = 0; i < phase->n_skip; i++) {
        if (skip_matches(phase->skip[i], block))
            return true;
    }
    return false;
}

// A block that is named must exist in the model. The two sets may be empty.
static atedm_status check_skips(const atedm_phase *phases, size_t n_phases,
                                const atedm_unet_cost *cost, atedm_error *err)
{
    for (size_t p = 0; p < n_phases; p++) {
        for (size_t i = 0; i < phases[p].n_skip; i++) {
            const char *skip = phases[p].skip[i];
            bool found = strcmp(skip, "down.first") == 0 || strcmp(skip, "up.last") == 0;
            for (int b = 0; b < cost->n_blocks && !found; b++)
                found = strcmp(skip, cost->blocks[b].name) == 0;
            if (!found)
                return atedm_error_set(err, ATEDM_ERR_INVALID,
                                       "the model has no attention block \"%s\"", skip);
        }
    }
    return ATEDM_OK;
}

// A spec that is being resolved: its phases, and which steps each phase covers.
typedef struct resolver {
    const atedm_prune_spec *spec;
    const atedm_unet_cost *cost;
    size_t n_phases;
    atedm_phase phases[ATEDM_MAX_PHASES];
    int end[ATEDM_MAX_PHASES]; // first step after the phase
} resolver;

static void resolver_init(resolver *r, const atedm_prune_spec *spec, int steps,
                          const atedm_unet_cost *cost)
{
    r->spec = spec;
    r->cost = cost;
    r->n_phases = atedm_prune_phases(spec, r->phases);
    for (size_t p = 0; p < r->n_phases; p++)
        r->end[p] = p + 1 == r->n_phases ? steps : atedm_phase_end(r->phases[p].until, steps);
}

// Fills one row of the matrix, [n_blocks]: the ratios of phase p. `ratio` is the plan's.
static void phase_rho(const resolver *r, size_t p, double ratio, float *ret_rho)
{
    const atedm_phase *phase = &r->phases[p];
    double own = isnan(phase->ratio) ? ratio : phase->ratio;
    for (int b = 0; b < r->cost->n_blocks; b++) {
        const atedm_block_info *block = &r->cost->blocks[b];
        bool skipped = ((r->spec->skip_levels >> block->level) & 1) || phase_skips(phase, block);
        ret_rho[b] = skipped || !r->spec->enabled ? 0 : (float)own;
    }
}

static uint64_t without_overhead(atedm_op_counts counts)
{
    return counts.conv + counts.linear + counts.attention;
}

// Mean cost of a step as a share of an unpruned step's cost, overhead left out.
static double mean_share(const resolver *r, int64_t ratio_millionths)
{
    double unpruned = (double)without_overhead(atedm_unet_cost_eval(r->cost, r->spec, NULL));
    double sum = 0;
    int begin = 0;
    for (size_t p = 0; p < r->n_phases; p++) {
        float rho[ATEDM_MAX_BLOCKS];
        phase_rho(r, p, (double)ratio_millionths / MILLION, rho);
        double cost = (double)without_overhead(atedm_unet_cost_eval(r->cost, r->spec, rho));
        if (r->end[p] > begin) {
            sum += (r->end[p] - begin) * cost;
            begin = r->end[p];
        }
    }
    return sum / (begin * unpruned);
}

// Finds the smallest ratio (in millionths) within the budget. The cost is a step function of the
// ratio and never rises with it, so bisection over whole millionths is exact.
static atedm_status solve_budget(const resolver *r, int64_t *ret_ratio, atedm_error *err)
{
    double budget = r->spec->flops_budget;
    int64_t within = millionths(ATEDM_RATIO_MAX);
    double floor_share = mean_share(r, within);
    if (!(floor_share <= budget)) // the message rounds up, so that the named floor is accepted
        return atedm_error_set(err, ATEDM_ERR_INVALID,
                               "flops_budget %g is below the floor of this plan, %.4f", budget,
                               ceil(floor_share * 1e4) / 1e4);
    int64_t over = -1;
    while (within - over > 1) {
        int64_t middle = (within + over) / 2;
        if (mean_share(r, middle) <= budget)
            within = middle;
        else
            over = middle;
    }
    *ret_ratio = within;
    return ATEDM_OK;
}

// Marks the steps at which each block ranks its tokens: it loses tokens at that step, and has no
// scores that are recent enough.
static void plan_rankings(atedm_plan *plan, const atedm_unet_cost *cost)
{
    for (int block = 0; block < plan->n_blocks; block++) {
        int64_t tokens = atedm_unet_cost_tokens(cost, block);
        int layers = cost->blocks[block].layers, last = -plan->spec.score_interval;
        for (int k = 0; k < plan->steps; k++) {
            if (atedm_plan_kept(plan, k, block, layers, tokens) == tokens ||
                k - last < plan->spec.score_interval)
                continue;
            plan->ranks[(ptrdiff_t)k * plan->n_blocks + block] = true;
            last = k;
        }
    }
}

static bool is_interval_valid(const atedm_prune_spec *spec)
{
    int interval = spec->score_interval;
    return interval == 1 || (interval > 1 && interval <= ATEDM_MAX_SCORE_INTERVAL &&
                             spec->n_prune_after == 1 && spec->score_map != ATEDM_SCORE_RANDOM);
}

atedm_status atedm_plan_create(const atedm_prune_spec *spec, int steps, const atedm_unet_cost *cost,
                               atedm_plan **ret_plan, atedm_error *err)
{
    if (steps < 1 || steps > ATEDM_MAX_STEPS)
        return atedm_error_set(err, ATEDM_ERR_LIMIT, "%d steps, not within 1..%d", steps,
                               ATEDM_MAX_STEPS);
    bool has_ratio = spec->ratio >= 0 && spec->ratio <= ATEDM_RATIO_MAX;
    if (isnan(spec->flops_budget) && !has_ratio)
        return atedm_error_set(err, ATEDM_ERR_INVALID, "ratio %.15g, not within 0..%g", spec->ratio,
                               ATEDM_RATIO_MAX);
    if (!is_interval_valid(spec))
        return atedm_error_set(
            err, ATEDM_ERR_INVALID,
            "the score interval %d is not within 1..%d, or is over 1 with the map "
            "\"random\" or several pruning layers",
            spec->score_interval, ATEDM_MAX_SCORE_INTERVAL);
    resolver r;
    resolver_init(&r, spec, steps, cost);
    atedm_status status = check_skips(r.phases, r.n_phases, cost, err);
    if (status)
        return status;

    int64_t ratio = 0;
    if (spec->enabled && isnan(spec->flops_budget))
        ratio = millionths(spec->ratio);
    else if (spec->enabled)
        status = solve_budget(&r, &ratio, err);
    if (status)
        return status;

    atedm_plan *plan = calloc(1, sizeof *plan);
    if (!plan)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a plan");
    plan->spec = *spec;
    plan->ratio = (double)ratio / MILLION;
    plan->steps = steps;
    plan->n_blocks = cost->n_blocks;
    plan->rho = calloc((size_t)steps * (size_t)cost->n_blocks, sizeof *plan->rho);
    plan->ranks = calloc((size_t)steps * (size_t)cost->n_blocks, sizeof *plan->ranks);
    if (!plan->rho || !plan->ranks) {
        atedm_plan_destroy(plan);
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for a plan of %d steps", steps);
    }
    int k = 0;
    for (size_t p = 0; p < r.n_phases; p++) {
        for (; k < r.end[p]; k++)
            phase_rho(&r, p, plan->ratio, plan->rho + (ptrdiff_t)k * plan->n_blocks);
    }
    plan_rankings(plan, cost);
    *ret_plan = plan;
    return ATEDM_OK;
}

void atedm_plan_destroy(atedm_plan *plan)
{
    if (!plan)
        return;
    free(plan->rho);
    free(plan->ranks);
    free(plan);
}

const float *atedm_plan_step(const atedm_plan *plan, int k)
{
    return plan->rho + (ptrdiff_t)k * plan->n_blocks;
}

const bool *atedm_plan_ranks(const atedm_plan *plan, int k)
{
    return plan->ranks + (ptrdiff_t)k * plan->n_blocks;
}

bool atedm_plan_same_step(const atedm_plan *plan, int j, int k)
{
    size_t n = (size_t)plan->n_blocks;
    return memcmp(atedm_plan_step(plan, j), atedm_plan_step(plan, k), n * sizeof *plan->rho) == 0 &&
           memcmp(atedm_plan_ranks(plan, j), atedm_plan_ranks(plan, k), n * sizeof *plan->ranks) ==
               0;
}

int64_t atedm_plan_kept(const atedm_plan *plan, int k, int block, int layers, int64_t tokens)
{
    double rho = (double)atedm_plan_step(plan, k)[block];
    for (size_t i = 0; i < plan->spec.n_prune_after; i++)
        if (plan->spec.prune_after[i] < layers)
            tokens = atedm_prune_keep(rho, tokens);
    return tokens;
}
