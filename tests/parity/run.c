// One case: both sides, all checks; and timing.
#include "tests/parity/parity.h"

#include "core/base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// A benchmark measures for at least this many seconds, after one warm-up call.
#define BENCH_SECONDS 0.2
// A group of calls has one wait. It grows until it takes this long or has this many calls.
#define BENCH_GROUP_SECONDS 0.005
#define BENCH_MOST_CALLS 1024
// The reference is timed only on calls up to this size, because it is slow.
#define BENCH_REFERENCE_FLOPS 2e9

static void build(parity_case *c, const parity_op *op, atedm_dtype act, uint64_t seed, int bench)
{
    *c = (parity_case){.op = op, .act = act, .rng = {seed}, .bench = bench, .n_parts = 1};
    op->build(c);
}

// Sets the magnitudes of outputs by running the reference on absolute values.
static bool measure_magnitudes(parity_case *c, atedm_stream *reference, char *why, size_t size)
{
    parity_side side;
    parity_side_init(&side, c, reference, true);
    c->op->run(c, &side, -1);
    bool good = parity_side_fetch(&side, c, why, size);
    for (size_t k = 0; good && k < c->n_arrays; k++) {
        parity_array *a = &c->arrays[k];
        if (a->role == PARITY_IN || a->magnitude)
            continue;
        a->magnitude = parity_alloc(c, a->count, sizeof *a->magnitude);
        for (size_t i = 0; i < a->count; i++)
            a->magnitude[i] = parity_value(&side, c, k, i);
    }
    parity_side_finish(&side, c);
    return good;
}

static bool same_counts(const atedm_op_counts *a, const atedm_op_counts *b)
{
    return a->conv == b->conv && a->linear == b->linear && a->attention == b->attention &&
           a->overhead == b->overhead;
}

// Describes how array k of the samples differs from that of the whole call: the number of elements,
// and the values of the first one.
static void describe_difference(const parity_case *c, const parity_side *side,
                                const parity_side *whole, size_t k, char *why, size_t size)
{
    size_t first, bytes, total;
    parity_extent(side, c, k, &first, &bytes, &total);
    size_t element = parity_element_size(c->arrays[k].type, side->act);
    size_t count = bytes / element, differ = 0, from = 0, to = 0;
    for (size_t i = 0; i < count; i++) {
        size_t at = first + i * element;
        if (!memcmp(side->after[k] + at, whole->after[k] + at, element))
            continue;
        from = differ++ ? from : i;
        to = i;
    }
    if (differ)
        snprintf(why, size,
                 "%zu samples one by one: %zu of %zu elements of %s differ, from %zu to %zu; the "
                 "first is %.9g, of the whole %.9g",
                 c->n_parts, differ, count, c->arrays[k].name, from, to,
                 parity_value(side, c, k, from), parity_value(whole, c, k, from));
    else
        snprintf(why, size, "%zu samples one by one: what lies around %s differs", c->n_parts,
                 c->arrays[k].name);
}

// Checks that every sample of the call, run alone, gives the same bits.
static parity_result compare_parts(const parity_session *session, const parity_case *c,
                                   const parity_side *whole, parity_rng *spoil, char *why,
                                   size_t size)
{
    parity_side side;
    parity_result result = PARITY_PASS;
    parity_side_init(&side, c, session->candidate, false);
    for (size_t part = 0; part < c->n_parts; part++)
        c->op->run(c, &side, (int64_t)part);
    if (!parity_side_fetch(&side, c, why, size)) {
        result = PARITY_FAIL;
        goto done;
    }
    if (session->sabotage == PARITY_SABOTAGE_PART &&
        !parity_sabotage_apply(session->sabotage, c, &side, spoil)) {
        result = PARITY_NOTHING;
        goto done;
    }
    for (size_t k = 0; k < c->n_arrays; k++) {
        size_t first, bytes, total;
        parity_extent(&side, c, k, &first, &bytes, &total);
        if (!memcmp(side.after[k], whole->after[k], total))
            continue;
        describe_difference(c, &side, whole, k, why, size);
        result = PARITY_FAIL;
        break;
    }
done:
    parity_side_finish(&side, c);
    return result;
}

// Checks that a dry device computed nothing, and that its downloads left the host's memory alone.
static bool nothing_happened(const parity_case *c, const parity_side *side, char *why, size_t size)
{
    for (size_t k = 0; k < c->n_arrays; k++) {
        size_t first, bytes, total;
        parity_extent(side, c, k, &first, &bytes, &total);
        if (memcmp(side->before[k], side->after[k], total) != 0) {
            snprintf(why, size, "%s has changed", c->arrays[k].name);
            return false;
        }
    }
    return true;
}

static parity_result run_sides(const parity_session *session, const parity_case *c,
                               parity_side *reference, parity_side *candidate, char *why,
                               size_t size)
{
    parity_rng spoil = {c->rng.state};
    c->op->run(c, reference, -1);
    if (!parity_side_fetch(reference, c, why, size))
        return PARITY_FAIL;
    c->op->run(c, candidate, -1);
    if (!parity_side_fetch(candidate, c, why, size))
        return PARITY_FAIL;
    atedm_op_counts counts = atedm_stream_counts(candidate->stream);
    if (session->sabotage == PARITY_SABOTAGE_COUNT)
        counts.linear++;
    else if (session->sabotage != PARITY_SABOTAGE_NONE &&
             session->sabotage != PARITY_SABOTAGE_PART &&
             !parity_sabotage_apply(session->sabotage, c, candidate, &spoil))
        return PARITY_NOTHING;
    if (!same_counts(&counts, &c->counts)) {
        snprintf(why, size,
                 "multiply-accumulates: conv %llu, linear %llu, attention %llu, overhead %llu; "
                 "should be %llu, %llu, %llu, %llu",
                 (unsigned long long)counts.conv, (unsigned long long)counts.linear,
                 (unsigned long long)counts.attention, (unsigned long long)counts.overhead,
                 (unsigned long long)c->counts.conv, (unsigned long long)c->counts.linear,
                 (unsigned long long)c->counts.attention, (unsigned long long)c->counts.overhead);
        return PARITY_FAIL;
    }
    if (!parity_side_intact(candidate, c, why, size))
        return PARITY_FAIL;
    if (atedm_device_is_dry(candidate->device)) // it only counts
        return nothing_happened(c, candidate, why, size) ? PARITY_PASS : PARITY_FAIL;
    if (!parity_compare(c, reference, candidate, why, size))
        return PARITY_FAIL;
    if (c->n_parts > 1)
        return compare_parts(session, c, candidate, &spoil, why, size);
    return session->sabotage == PARITY_SABOTAGE_PART ? PARITY_NOTHING : PARITY_PASS;
}

parity_result parity_run_case(const parity_session *session, const parity_op *op, uint64_t seed,
                              char *why, size_t size)
{
    parity_case c;
    parity_side reference, candidate;
    char reason[512] = "";
    build(&c, op, atedm_stream_dtype(session->candidate), seed,
          session->large ? PARITY_LARGE : PARITY_RANDOM);
    parity_result result = PARITY_FAIL;
    if (!c.by_absolute || measure_magnitudes(&c, session->reference, reason, sizeof reason)) {
        parity_side_init(&reference, &c, session->reference, false);
        parity_side_init(&candidate, &c, session->candidate, false);
        result = run_sides(session, &c, &reference, &candidate, reason, sizeof reason);
        parity_side_finish(&reference, &c);
        parity_side_finish(&candidate, &c);
    }
    if (result == PARITY_FAIL)
        snprintf(why, size, "%s: %s", c.text, reason);
    parity_case_finish(&c);
    return result;
}

// Seconds from the start of `calls` calls until the last one's results are there.
static double time_group(const parity_case *c, const parity_side *side, atedm_stream *stream,
                         int calls)
{
    atedm_error err = {{0}};
    double start = atedm_clock_monotonic();
    for (int i = 0; i < calls; i++)
        c->op->run(c, side, -1);
    parity_require(atedm_stream_sync(stream, &err), &err, c->op->name);
    return atedm_clock_monotonic() - start;
}

// Seconds of one call, measured in groups large enough that waiting takes no noticeable part.
static double time_call(const parity_case *c, atedm_stream *stream)
{
    char why[512];
    parity_side side;
    parity_side_init(&side, c, stream, false);
    c->op->run(c, &side, -1);
    if (!parity_side_fetch(&side, c, why, sizeof why)) {
        fprintf(stderr, "%s %s: %s\n", c->op->name, c->text, why);
        exit(1);
    }
    int group = 1;
    while (group < BENCH_MOST_CALLS && time_group(c, &side, stream, group) < BENCH_GROUP_SECONDS)
        group *= 2;
    double passed = 0;
    int64_t calls = 0;
    for (; passed < BENCH_SECONDS; calls += group)
        passed += time_group(c, &side, stream, group);
    parity_side_finish(&side, c);
    return passed / (double)calls;
}

// Bytes of everything that the call may read and write, each counted once.
static uint64_t case_bytes(const parity_case *c)
{
    uint64_t bytes = 0, element = atedm_dtype_size(c->act);
    for (size_t i = 0; i < c->n_arrays; i++) {
        const parity_array *a = &c->arrays[i];
        bytes += (uint64_t)a->count * parity_element_size(a->type, c->act) *
                 (a->role == PARITY_INOUT ? 2 : 1);
    }
    for (size_t i = 0; i < c->n_weights; i++)
        for (size_t k = 0; k < c->weights[i].n_parts; k++)
            bytes += element * (uint64_t)atedm_host_tensor_count(&c->weights[i].matrix[k]);
    return bytes;
}

parity_result parity_run_full_size(const parity_session *session, const parity_op *op, int size,
                                   char *why, size_t why_size)
{
    parity_case c;
    parity_side side;
    parity_rng rng = {1};
    char reason[512] = "";
    build(&c, op, atedm_stream_dtype(session->candidate), 1, size);
    parity_result result = PARITY_NOTHING;
    if (c.n_parts > 1) {
        parity_side_init(&side, &c, session->candidate, false);
        c.op->run(&c, &side, -1);
        result = parity_side_fetch(&side, &c, reason, sizeof reason) &&
                         parity_side_intact(&side, &c, reason, sizeof reason)
                     ? compare_parts(session, &c, &side, &rng, reason, sizeof reason)
                     : PARITY_FAIL;
        parity_side_finish(&side, &c);
    }
    if (result == PARITY_FAIL)
        snprintf(why, why_size, "%s: %s", c.text, reason);
    parity_case_finish(&c);
    return result;
}

double parity_rate(const parity_session *session, const parity_op *op, int size)
{
    parity_case c;
    build(&c, op, atedm_stream_dtype(session->candidate), 1, size);
    double rate = c.bench_flops / time_call(&c, session->candidate);
    parity_case_finish(&c);
    return rate;
}

static void print_line(const parity_session *session, const parity_case *c, double seconds)
{
    printf("%-18s %-58s %12.0f ns", c->op->name, c->text, seconds * 1e9);
    if (c->bench_flops > 0)
        printf(" %9.1f GFLOP/s %4.0f %%", c->bench_flops / seconds * 1e-9,
               100 * c->bench_flops / seconds / session->yardstick);
    else
        printf(" %24s", "");
    if (c->bench_flops <= BENCH_REFERENCE_FLOPS)
        printf(" %8.1f x ref", time_call(c, session->reference) / seconds);
    printf("\n");
}

void parity_bench(const parity_session *session, const parity_op *op, int only, bool json)
{
    for (int size = 0; size < op->n_bench; size++) {
        if (only >= 0 && size != only)
            continue;
        parity_case c;
        build(&c, op, atedm_stream_dtype(session->candidate), 1, size);
        double seconds = time_call(&c, session->candidate);
        if (json)
            printf("{\"op\": \"%s\", \"size\": %d, \"case\": \"%s\", \"seconds\": %.9g, "
                   "\"flops\": %.0f, \"bytes\": %llu}\n",
                   op->name, size, c.text, seconds, c.bench_flops,
                   (unsigned long long)case_bytes(&c));
        else
            print_line(session, &c, seconds);
        fflush(stdout);
        parity_case_finish(&c);
    }
}
