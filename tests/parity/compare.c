// Comparison of a candidate's results with the reference's: see parity.h.
#include "tests/parity/parity.h"

#include <math.h>
#include <stdio.h>

static double roundoff(atedm_dtype dtype)
{
    return dtype == ATEDM_BF16 ? 0x1p-8 : dtype == ATEDM_F16 ? 0x1p-11 : 0x1p-24;
}

// The error that rounding to zero may cause: half of the smallest subnormal. Where units may flush
// subnormals, it is the smallest normal number.
static double underflow(atedm_dtype dtype)
{
    return dtype == ATEDM_F16 ? 0x1p-25 : 0x1p-126; // f32, bf16: units may flush subnormals
}

static double tolerance(const parity_case *c, size_t array, size_t i, double reference)
{
    const parity_array *a = &c->arrays[array];
    const parity_bound *bound = &c->op->bound;
    atedm_dtype dtype = a->type == PARITY_ACT ? c->act : ATEDM_F32;
    double magnitude = a->magnitude ? a->magnitude[i] : fabs(reference);
    double growth = a->growth ? a->growth[i] : 1;
    double arithmetic = bound->accumulate * roundoff(ATEDM_F32) * growth;
    double passes = a->passes ? a->passes[i] : 1;
    double intermediate = bound->intermediate * roundoff(c->act) * passes;
    return bound->output * roundoff(dtype) * fabs(reference) +
           (arithmetic + intermediate) * magnitude + underflow(dtype);
}

bool parity_close(const parity_case *c, size_t array, size_t i, double reference, double candidate)
{
    // Written so that NaN, on either side, is not close.
    return fabs(candidate - reference) <= tolerance(c, array, i, reference);
}

static bool compare_array(const parity_case *c, size_t array, const parity_side *reference,
                          const parity_side *candidate, char *why, size_t size)
{
    const parity_array *a = &c->arrays[array];
    size_t worst = 0, wrong = 0;
    double worst_excess = 0;
    for (size_t i = 0; i < a->count; i++) {
        if (a->written && !a->written[i])
            continue;
        double r = parity_value(reference, c, array, i), v = parity_value(candidate, c, array, i);
        bool good = c->op->exact || a->exact || a->type == PARITY_I32 || a->type == PARITY_U8
                        ? (r == v && signbit(r) == signbit(v)) || (isnan(r) && isnan(v))
                        : parity_close(c, array, i, r, v);
        if (good)
            continue;
        double excess = fabs(v - r) / tolerance(c, array, i, r);
        if (!wrong++ || !(excess <= worst_excess)) {
            worst = i;
            worst_excess = excess;
        }
    }
    if (!wrong)
        return true;
    double r = parity_value(reference, c, array, worst);
    snprintf(why, size,
             "%zu of %zu elements of %s are wrong; the worst is element %zu: %.9g, should be %.9g "
             "(%.3g times the tolerance)",
             wrong, a->count, a->name, worst, parity_value(candidate, c, array, worst), r,
             worst_excess);
    return false;
}

bool parity_compare(const parity_case *c, const parity_side *reference,
                    const parity_side *candidate, char *why, size_t size)
{
    if (c->op->check)
        return c->op->check(c, reference, candidate, why, size);
    for (size_t i = 0; i < c->n_arrays; i++)
        if (c->arrays[i].role != PARITY_IN && !compare_array(c, i, reference, candidate, why, size))
            return false;
    return true;
}
