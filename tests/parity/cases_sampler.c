// Cases of the sampler's arithmetic and of the image's last step.
#include "tests/parity/parity.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

static int64_t random_count(parity_case *c)
{
    return parity_range(&c->rng, 1, parity_chance(&c->rng, 12) ? 60000 : 3000);
}

typedef struct scale_params {
    int64_t n, count;
    double *a; // [n]; 1: the sample is only converted, and exactly so
} scale_params;

// Values of a sample that is only converted. Some are halfway between two neighbours in bf16 or
// f16, where rounding goes to the even one.
static void fill_converted(parity_case *c, parity_array *x, size_t first, size_t count)
{
    for (size_t i = first; i < first + count; i++)
        if (parity_chance(&c->rng, 20)) {
            float odd = (float)(2 * parity_range(&c->rng, 0, 1 << 12) + 1);
            x->values[i] = ldexpf(odd, (int)parity_range(&c->rng, -9, 0));
        }
    parity_add_strange(c, x, first, count);
}

void parity_build_scale_input(parity_case *c)
{
    scale_params *p = c->params = parity_alloc(c, 1, sizeof *p);
    p->n = parity_range(&c->rng, 1, 4);
    p->count = c->bench < 0 ? random_count(c) : 65536;
    p->a = parity_alloc(c, (size_t)p->n, sizeof *p->a);
    parity_array *x = parity_add(c, "x", PARITY_F32, PARITY_IN, (size_t)(p->n * p->count));
    parity_fill(c, x, 0, 10);
    for (int64_t i = 0; i < p->n; i++) {
        bool is_converted = c->bench < 0 && parity_chance(&c->rng, 40);
        p->a[i] = is_converted ? 1 : 0.07 + parity_uniform(&c->rng);
        if (is_converted)
            fill_converted(c, x, (size_t)(i * p->count), (size_t)p->count);
    }
    parity_add(c, "y", PARITY_ACT, PARITY_OUT, (size_t)(p->n * p->count));
    c->n_parts = (size_t)p->n;
    snprintf(c->text, sizeof c->text, "n %" PRId64 ", count %" PRId64, p->n, p->count);
}

void parity_run_scale_input(const parity_case *c, const parity_side *side, int64_t part)
{
    const scale_params *p = c->params;
    int64_t first = part < 0 ? 0 : part;
    atedm_scale_input(side->stream, parity_at(side, c, 0, first * p->count), p->a + first,
                      parity_at(side, c, 1, first * p->count), part < 0 ? p->n : 1, p->count);
}

bool parity_check_scale_input(const parity_case *c, const parity_side *reference,
                              const parity_side *candidate, char *why, size_t size)
{
    const scale_params *p = c->params;
    for (size_t i = 0; i < c->arrays[1].count; i++) {
        double x = (double)c->arrays[0].values[i], value = parity_value(candidate, c, 1, i);
        bool is_converted = p->a[i / (size_t)p->count] == 1;
        double right = is_converted ? (double)parity_round(c->act, c->arrays[0].values[i])
                                    : parity_value(reference, c, 1, i);
        // Units may flush results below the smallest normal number to zero.
        if (is_converted ? value == right || (isnan(right) && isnan(value)) ||
                               (fabs(right) < 0x1p-126 && value == 0)
                         : parity_close(c, 1, i, right, value))
            continue;
        snprintf(why, size, "element %zu: %.9g became %.9g, should be %.9g", i, x, value, right);
        return false;
    }
    return true;
}

typedef struct step_params {
    int64_t count;
    bool guided, remembers;
    float guidance_scale;
    atedm_step step;
    size_t uncond, history; // indices of the arrays
} step_params;

void parity_build_sampler_step(parity_case *c)
{
    step_params *p = c->params = parity_alloc(c, 1, sizeof *p);
    p->count = c->bench < 0 ? random_count(c) : 65536;
    p->guided = parity_chance(&c->rng, 60);
    p->guidance_scale = (float)(30 * parity_uniform(&c->rng));
    p->step.x = parity_chance(&c->rng, 50) ? 1 : 2 * parity_uniform(&c->rng);
    p->step.output = -2 * parity_uniform(&c->rng);
    p->remembers = parity_chance(&c->rng, 50);
    p->step.earlier = parity_chance(&c->rng, 30) ? 0 : parity_uniform(&c->rng);
    p->step.keep_x = 2 * parity_uniform(&c->rng);
    p->step.keep_output = -2 * parity_uniform(&c->rng);
    parity_array *x = parity_add(c, "x", PARITY_F32, PARITY_INOUT, (size_t)p->count);
    parity_array *cond = parity_add(c, "cond", PARITY_ACT, PARITY_IN, (size_t)p->count);
    parity_fill(c, x, 0, 5);
    parity_fill(c, cond, 0, 1);
    parity_array *uncond = NULL, *history = NULL;
    if (p->guided) {
        p->uncond = c->n_arrays;
        uncond = parity_add(c, "uncond", PARITY_ACT, PARITY_IN, (size_t)p->count);
        parity_fill(c, uncond, 0, 1);
    }
    if (p->remembers) {
        p->history = c->n_arrays;
        history = parity_add(c, "history", PARITY_F32, PARITY_INOUT, (size_t)p->count);
        parity_fill(c, history, 0, 5);
        if (p->step.earlier == 0)
            history->values[0] = NAN; // which must not be read
        history->magnitude = parity_alloc(c, history->count, sizeof *history->magnitude);
    }
    x->magnitude = parity_alloc(c, x->count, sizeof *x->magnitude);
    for (size_t i = 0; i < x->count; i++) {
        double m = fabs((double)cond->values[i]);
        if (uncond) {
            double u = fabs((double)uncond->values[i]);
            m = u + (double)p->guidance_scale * (m + u);
        }
        double size = fabs((double)x->values[i]);
        x->magnitude[i] = p->step.x * size + fabs(p->step.output) * m;
        if (!history)
            continue;
        if (p->step.earlier != 0)
            x->magnitude[i] += p->step.earlier * fabs((double)history->values[i]);
        history->magnitude[i] = p->step.keep_x * size + fabs(p->step.keep_output) * m;
    }
    snprintf(c->text, sizeof c->text,
             "count %" PRId64 ", guided %d, scale %g, x %g, output %g, remembers %d, earlier %g",
             p->count, p->guided, (double)p->guidance_scale, p->step.x, p->step.output,
             p->remembers, p->step.earlier);
}

void parity_run_sampler_step(const parity_case *c, const parity_side *side, int64_t part)
{
    const step_params *p = c->params;
    atedm_step_args args = {.cond = side->data[1],
                            .uncond = p->guided ? side->data[p->uncond] : NULL,
                            .x = side->data[0],
                            .count = p->count,
                            .guidance_scale = p->guidance_scale,
                            .step = p->step,
                            .history = p->remembers ? side->data[p->history] : NULL};
    atedm_sampler_step(side->stream, &args);
}

void parity_build_image_finish(parity_case *c)
{
    int64_t *count = c->params = parity_alloc(c, 1, sizeof *count);
    *count = c->bench < 0 ? random_count(c) : 1024 * 1024 * 3;
    parity_array *x = parity_add(c, "x", PARITY_ACT, PARITY_IN, (size_t)*count);
    parity_fill(c, x, 0, 0.8f);
    for (size_t i = 0; i < x->count; i++) { // near halfway between two bytes, and beyond both ends
        float byte = (float)parity_range(&c->rng, -2, 257);
        if (parity_chance(&c->rng, 20))
            x->values[i] = parity_round(c->act, (byte + 0.5f) / 127.5f - 1);
    }
    x->values[x->count / 2] = 0; // exactly halfway
    static const float strange[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < 3; i++)
        if (parity_chance(&c->rng, 50))
            x->values[parity_range(&c->rng, 0, *count - 1)] = strange[i];
    parity_add(c, "y", PARITY_U8, PARITY_OUT, (size_t)*count);
    snprintf(c->text, sizeof c->text, "count %" PRId64, *count);
}

void parity_run_image_finish(const parity_case *c, const parity_side *side, int64_t part)
{
    const int64_t *count = c->params;
    atedm_image_finish(side->stream, side->data[0], side->data[1], *count);
}

// The right byte, or its neighbour if the value is within F32's error of halfway between them. 0 is
// exactly halfway; there no rounding error excuses an odd result.
bool parity_check_image_finish(const parity_case *c, const parity_side *reference,
                               const parity_side *candidate, char *why, size_t size)
{
    for (size_t i = 0; i < c->arrays[1].count; i++) {
        double v = (double)c->arrays[0].values[i] / 2 + 0.5;
        v = 255 * (v > 0 ? (v < 1 ? v : 1) : 0);
        double error = c->op->bound.accumulate * 0x1p-24 * 255;
        double byte = parity_value(candidate, c, 1, i);
        if (v == 127.5 ? byte == 128
                       : byte >= floor(v - error + 0.5) && byte <= ceil(v + error - 0.5))
            continue;
        snprintf(why, size, "element %zu: %.9g became %g, should be %g", i,
                 (double)c->arrays[0].values[i], byte, parity_value(reference, c, 1, i));
        return false;
    }
    return true;
}
