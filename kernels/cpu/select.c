// Which tokens are kept: selection in the cpu backend, and random scores.
#include "kernels/cpu/cpu.h"

#include "core/base/splitmix.h"

#include <math.h>
#include <string.h>

void atedm_cpu_random_scores(atedm_stream *stream, const uint64_t *draws, const float *weights,
                             float *scores, const atedm_random_span *spans, int64_t n_spans)
{
    for (int64_t k = 0; k < n_spans; k++) {
        float *to = scores + spans[k].first;
        const float *from = weights ? weights + spans[k].first : NULL;
        uint64_t key = atedm_splitmix(draws[spans[k].draw], spans[k].salt);
        for (int64_t i = 0; i < spans[k].n; i++) {
            int32_t places = (int32_t)(atedm_splitmix(key, (uint64_t)i) >> 41);
            float u = ((float)places + 0.5F) * 0x1p-23F; // exact
            to[i] = from ? from[i] / -logf(u) : u;
        }
    }
}

// An integer in the order of the scores. NaN gives 0, which is below every number. -0 equals 0.
static uint32_t order_of(float score)
{
    uint32_t bits;
    score += 0.0f;
    if (score != score)
        return 0;
    memcpy(&bits, &score, sizeof bits);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

static int64_t count_from(const float *scores, int64_t n, uint32_t least)
{
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++)
        count += order_of(scores[i]) >= least;
    return count;
}

// The integer (order_of) of the keep-th largest score, found bit by bit: the largest value that at
// least `keep` scores reach.
static uint32_t threshold_of(const float *scores, int64_t n, int64_t keep)
{
    uint32_t threshold = 0;
    for (uint32_t bit = 0x80000000u; bit; bit >>= 1)
        if (count_from(scores, n, threshold | bit) >= keep)
            threshold |= bit;
    return threshold;
}

static void select_span(const float *scores, int32_t *kept, int64_t n, int64_t keep)
{
    uint32_t threshold = threshold_of(scores, n, keep);
    int64_t above = threshold == UINT32_MAX ? 0 : count_from(scores, n, threshold + 1);
    int64_t ties = keep - above; // tokens kept among those at the threshold: the first ones
    for (int64_t i = 0; i < n; i++) {
        uint32_t order = order_of(scores[i]);
        if (order < threshold || (order == threshold && ties == 0))
            continue;
        ties -= order == threshold;
        *kept++ = (int32_t)i;
    }
}

void atedm_cpu_select_tokens(atedm_stream *stream, const float *scores, int32_t *kept,
                             const atedm_prune_span *spans, int64_t n_spans)
{
    int64_t tokens = 0;
    for (int64_t i = 0; i < n_spans; i++)
        tokens += spans[i].n;
#pragma omp parallel for schedule(dynamic)                                                         \
    num_threads(atedm_cpu_threads(tokens *ATEDM_CPU_ELEMENT_WORK))
    for (int64_t i = 0; i < n_spans; i++) {
        const atedm_prune_span *span = &spans[i];
        if (span->keep < span->n)
            select_span(scores + span->first, kept + span->kept_first, span->n, span->keep);
        else
            for (int64_t j = 0; j < span->n; j++)
                kept[span->kept_first + j] = (int32_t)j;
    }
}
