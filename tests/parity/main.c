// Command line of the parity program: see usage(), and parity.h for how it works.
#include "tests/parity/parity.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SKIPPED 77 // Meson's exit status for it

// Cases of each kind of sabotage, and how many of them may go unseen: an element's fault can hide
// within the tolerance of an ill-conditioned case. All other faults have to be seen every time.
#define SABOTAGE_CASES 10
#define SABOTAGE_UNSEEN 1
// Seeds tried until a fault applies to a case.
#define SABOTAGE_SEEDS 40

typedef struct options {
    const char *backend, *dtype, *op, *sabotage;
    uint64_t seed;
    int64_t iterations;
    bool bench;
} options;

static void usage(void)
{
    printf("usage: parity [OPTION]...\n"
           "Holds a backend's operations against the reference backend.\n"
           "  --backend NAME     ref or cpu (default ref)\n"
           "  --dtype NAME       f32, bf16 or f16 (default f32)\n"
           "  --op NAME          this operation only; \"bad_calls\" for the refused calls\n"
           "  --seed N           first seed (default 1); case i uses seed N + i\n"
           "  --iterations N     cases an operation (default 40)\n"
           "  --bench            time the operations at the sizes of SDXL instead\n"
           "  --sabotage OP|all  falsify results and succeed only if each fault is seen\n");
}

static const char *option_error(options *o, int argc, char **argv)
{
    enum { BACKEND = 1, DTYPE, OP, SEED, ITERATIONS, BENCH, SABOTAGE, HELP };
    static const struct option longs[] = {{"backend", required_argument, NULL, BACKEND},
                                          {"dtype", required_argument, NULL, DTYPE},
                                          {"op", required_argument, NULL, OP},
                                          {"seed", required_argument, NULL, SEED},
                                          {"iterations", required_argument, NULL, ITERATIONS},
                                          {"bench", no_argument, NULL, BENCH},
                                          {"sabotage", required_argument, NULL, SABOTAGE},
                                          {"help", no_argument, NULL, HELP},
                                          {NULL, 0, NULL, 0}};
    int which;
    while ((which = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        char *end = NULL;
        if (which == BACKEND)
            o->backend = optarg;
        else if (which == DTYPE)
            o->dtype = optarg;
        else if (which == OP)
            o->op = optarg;
        else if (which == SABOTAGE)
            o->sabotage = optarg;
        else if (which == BENCH)
            o->bench = true;
        else if (which == SEED)
            o->seed = strtoull(optarg, &end, 10);
        else if (which == ITERATIONS)
            o->iterations = strtoll(optarg, &end, 10);
        else if (which == HELP) {
            usage();
            exit(0);
        } else
            return "try --help";
        if (end && (*end || end == optarg))
            return "a number is malformed";
    }
    return optind < argc ? "takes options only" : NULL;
}

// False where nothing is called so.
static bool parse_dtype(const char *name, atedm_dtype *ret_dtype)
{
    static const atedm_dtype dtypes[] = {ATEDM_F32, ATEDM_BF16, ATEDM_F16};
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (!strcmp(name, atedm_dtype_name(dtypes[i]))) {
            *ret_dtype = dtypes[i];
            return true;
        }
    return false;
}

static bool test_op(const parity_session *session, const parity_op *op, const options *o)
{
    char why[1024] = "";
    for (int64_t i = 0; i < o->iterations; i++) {
        uint64_t seed = o->seed + (uint64_t)i;
        if (parity_run_case(session, op, seed, why, sizeof why) != PARITY_FAIL)
            continue;
        printf("FAIL %s: %s\n", op->name, why);
        printf("     replay: --backend %s --dtype %s --op %s --seed %" PRIu64 " --iterations 1\n",
               o->backend, o->dtype, op->name, seed);
        return false;
    }
    printf("ok   %s, %" PRId64 " cases\n", op->name, o->iterations);
    return true;
}

// Whether the faults of this kind are seen in the operation's results.
static bool test_sabotage(const parity_session *session, const parity_op *op, const options *o)
{
    char why[1024] = "";
    int cases = 0, seen = 0;
    for (uint64_t i = 0; i < SABOTAGE_SEEDS && cases < SABOTAGE_CASES; i++) {
        parity_result result = parity_run_case(session, op, o->seed + i, why, sizeof why);
        cases += result != PARITY_NOTHING;
        seen += result == PARITY_FAIL;
    }
    // Results of integers, calls without inputs or of one sample have nothing of some kinds.
    bool optional = session->sabotage == PARITY_SABOTAGE_NAN ||
                    session->sabotage == PARITY_SABOTAGE_INPUT ||
                    session->sabotage == PARITY_SABOTAGE_PART;
    int unseen = session->sabotage == PARITY_SABOTAGE_ELEMENT ? SABOTAGE_UNSEEN : 0;
    bool good = cases ? seen >= cases - unseen : optional;
    printf("%s %s, %s: %d of %d faults seen\n", good ? "ok  " : "FAIL", op->name,
           parity_sabotage_name(session->sabotage), seen, cases);
    return good;
}

static int run(const parity_session *given, const options *o)
{
    parity_session session = *given;
    int failed = 0, found = 0;
    for (size_t i = 0; i < parity_n_ops; i++) {
        const parity_op *op = &parity_ops[i];
        const char *wanted = o->sabotage ? o->sabotage : o->op;
        if (wanted && strcmp(wanted, op->name) != 0 && !(o->sabotage && !strcmp(wanted, "all")))
            continue;
        found++;
        if (o->bench)
            parity_bench(&session, op);
        else if (!o->sabotage)
            failed += !test_op(&session, op, o);
        else
            for (int kind = PARITY_SABOTAGE_NONE + 1; kind < PARITY_SABOTAGE_KINDS; kind++) {
                session.sabotage = (parity_sabotage)kind;
                failed += !test_sabotage(&session, op, o);
            }
    }
    if (!o->bench && !o->sabotage && (!o->op || !strcmp(o->op, "bad_calls"))) {
        found++;
        failed += parity_bad_calls(session.candidate);
    }
    if (!found)
        fprintf(stderr, "parity: no such operation\n");
    return failed || !found;
}

int main(int argc, char **argv)
{
    options o = {.backend = "ref", .dtype = "f32", .seed = 1, .iterations = 40};
    const char *problem = option_error(&o, argc, argv);
    atedm_dtype dtype;
    if (!problem && !parse_dtype(o.dtype, &dtype))
        problem = "--dtype is f32, bf16 or f16";
    if (problem) {
        fprintf(stderr, "parity: %s\n", problem);
        return 2;
    }
    atedm_error err = {{0}};
    atedm_device *reference = NULL, *candidate = NULL;
    parity_require(atedm_device_create("ref", &reference, &err), &err, "reference backend");
    atedm_status status = atedm_device_create(o.backend, &candidate, &err);
    if (status == ATEDM_ERR_UNSUPPORTED) { // this machine cannot run it
        printf("skipped: %s\n", err.message);
        atedm_device_destroy(reference);
        return SKIPPED;
    }
    parity_require(status, &err, "candidate backend");
    int result = SKIPPED;
    if (!atedm_device_supports(candidate, dtype)) {
        printf("skipped: %s does not compute in %s here\n", o.backend, o.dtype);
    } else {
        parity_session session = {0};
        parity_require(atedm_stream_create(reference, ATEDM_F32, &session.reference, &err), &err,
                       "reference stream");
        parity_require(atedm_stream_create(candidate, dtype, &session.candidate, &err), &err,
                       "candidate stream");
        result = run(&session, &o);
        atedm_stream_destroy(session.reference);
        atedm_stream_destroy(session.candidate);
    }
    atedm_device_destroy(reference);
    atedm_device_destroy(candidate);
    return result;
}
