// Command line of the parity program: see usage(), and parity.h for how it works.
#include "tests/parity/parity.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SKIPPED 77 // Meson's exit status for it

// The most cases of each kind of sabotage, and how many of them may go unseen. A fault in one
// element can hide within the tolerance of an ill-conditioned case. All other faults must be seen
// every time.
#define SABOTAGE_CASES 10
#define SABOTAGE_UNSEEN 1
// Seeds tried until a fault applies to a case.
#define SABOTAGE_SEEDS 40

typedef struct options {
    const char *backend, *dtype, *op, *sabotage;
    uint64_t seed;
    int64_t iterations;
    int64_t size; // of the benchmarks; -1: all
    bool bench, json, full_size, large, required;
} options;

typedef struct tally {
    int64_t passed, failed;
} tally;

static void usage(void)
{
    printf("usage: parity [OPTION]...\n"
           "Holds a backend's operations against the reference backend.\n"
           "  --backend NAME     ref, cpu, cuda, or dry, which computes nothing (default ref)\n"
           "  --dtype NAME       f32, bf16 or f16 (default f32)\n"
           "  --op NAME          this operation only; or \"bad_calls\" or \"devices\"\n"
           "  --seed N           first seed (default 1); case i uses seed N + i\n"
           "  --iterations N     cases an operation (default 40)\n"
           "  --bench            time the operations at the sizes of SDXL instead; percentages\n"
           "                     are of the rate of a linear layer of 4096 x 1280 x 1280\n"
           "  --size N           with --bench: the operation's benchmark N only, from 0 on\n"
           "  --json             with --bench: an object a line, with FLOPs and bytes\n"
           "  --full-size        instead, at these sizes: each sample gives the same bits alone\n"
           "  --large            cases have several tiles: attention of aligned rows and heads of\n"
           "                     64, convolutions of stride 1 and 64 channels or multiples,\n"
           "                     linear layers of aligned rows\n"
           "  --sabotage OP|all  falsify results and succeed only if each fault is seen\n"
           "  --required         a backend or dtype that cannot run here is a failure\n");
}

static const char *option_error(options *o, int argc, char **argv)
{
    enum {
        BACKEND = 1,
        DTYPE,
        OP,
        SEED,
        ITERATIONS,
        BENCH,
        SIZE,
        JSON,
        FULL_SIZE,
        LARGE,
        SABOTAGE,
        REQUIRED,
        HELP
    };
    static const struct option longs[] = {{"backend", required_argument, NULL, BACKEND},
                                          {"dtype", required_argument, NULL, DTYPE},
                                          {"op", required_argument, NULL, OP},
                                          {"seed", required_argument, NULL, SEED},
                                          {"iterations", required_argument, NULL, ITERATIONS},
                                          {"bench", no_argument, NULL, BENCH},
                                          {"size", required_argument, NULL, SIZE},
                                          {"json", no_argument, NULL, JSON},
                                          {"full-size", no_argument, NULL, FULL_SIZE},
                                          {"large", no_argument, NULL, LARGE},
                                          {"sabotage", required_argument, NULL, SABOTAGE},
                                          {"required", no_argument, NULL, REQUIRED},
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
        else if (which == JSON)
            o->json = true;
        else if (which == SIZE)
            o->size = strtoll(optarg, &end, 10);
        else if (which == FULL_SIZE)
            o->full_size = true;
        else if (which == LARGE)
            o->large = true;
        else if (which == REQUIRED)
            o->required = true;
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

// False if no dtype has this name.
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

static void test_op(const parity_session *session, const parity_op *op, const options *o,
                    tally *sum)
{
    char why[1024] = "";
    int64_t failed = 0;
    for (int64_t i = 0; i < o->iterations; i++) {
        uint64_t seed = o->seed + (uint64_t)i;
        if (parity_run_case(session, op, seed, why, sizeof why) != PARITY_FAIL)
            continue;
        if (failed++) { // the first failure says enough
            printf("     and --seed %" PRIu64 "\n", seed);
            continue;
        }
        printf("FAIL %s: %s\n", op->name, why);
        printf("     replay: --backend %s --dtype %s --op %s --seed %" PRIu64 " --iterations 1%s\n",
               o->backend, o->dtype, op->name, seed, o->large ? " --large" : "");
    }
    printf("%s %s, %" PRId64 " of %" PRId64 " cases\n", failed ? "FAIL" : "ok  ", op->name,
           o->iterations - failed, o->iterations);
    sum->passed += o->iterations - failed;
    sum->failed += failed;
}

static void test_full_size(const parity_session *session, const parity_op *op, tally *sum)
{
    char why[1024] = "";
    for (int size = 0; size < op->n_bench; size++) {
        parity_result result = parity_run_full_size(session, op, size, why, sizeof why);
        if (result == PARITY_NOTHING)
            continue;
        if (result == PARITY_FAIL)
            printf("FAIL %s: %s\n", op->name, why);
        else
            printf("ok   %s, size %d\n", op->name, size);
        sum->passed += result == PARITY_PASS;
        sum->failed += result == PARITY_FAIL;
    }
}

// Tests that faults of this kind are seen in the operation's results, and that results without a
// fault pass.
static void test_sabotage(const parity_session *given, parity_sabotage kind, const parity_op *op,
                          const options *o, tally *sum)
{
    parity_session with = *given, without = *given;
    with.sabotage = kind;
    char why[1024] = "";
    int cases = 0, seen = 0;
    int wanted = o->iterations < SABOTAGE_CASES ? (int)o->iterations : SABOTAGE_CASES;
    for (uint64_t i = 0; i < SABOTAGE_SEEDS && cases < wanted; i++) {
        parity_result result = parity_run_case(&with, op, o->seed + i, why, sizeof why);
        cases += result != PARITY_NOTHING;
        seen += result == PARITY_FAIL &&
                parity_run_case(&without, op, o->seed + i, why, sizeof why) == PARITY_PASS;
    }
    // Some kinds do not apply to integer results, calls without inputs, or calls of one sample.
    bool optional = kind == PARITY_SABOTAGE_NAN || kind == PARITY_SABOTAGE_INPUT ||
                    kind == PARITY_SABOTAGE_PART;
    int unseen = kind == PARITY_SABOTAGE_ELEMENT ? SABOTAGE_UNSEEN : 0;
    bool good = cases ? seen >= cases - unseen : optional;
    printf("%s %s, %s: %d of %d faults seen\n", good ? "ok  " : "FAIL", op->name,
           parity_sabotage_name(kind), seen, cases);
    sum->passed += good && cases;
    sum->failed += !good;
}

static bool is_wanted(const options *o, const parity_op *op)
{
    const char *wanted = o->sabotage ? o->sabotage : o->op;
    return !wanted || !strcmp(wanted, op->name) || (o->sabotage && !strcmp(wanted, "all"));
}

// Runs the tests that are not comparisons. False if none of them is asked for.
static bool test_others(const parity_session *session, const options *o, tally *sum)
{
    if (o->bench || o->full_size || o->sabotage)
        return false;
    // On the dry backend several operands may share an address, and memory keeps nothing.
    bool dry = atedm_device_is_dry(atedm_stream_device(session->candidate));
    bool bad_calls = !dry && (!o->op || !strcmp(o->op, "bad_calls"));
    bool devices = !o->op || !strcmp(o->op, "devices");
    int failed[2] = {bad_calls ? parity_bad_calls(session->candidate) : 0,
                     devices ? parity_devices(o->backend) : 0};
    sum->passed += (bad_calls && !failed[0]) + (devices && !failed[1]);
    sum->failed += failed[0] + failed[1];
    return bad_calls || devices;
}

static int run(parity_session *session, const options *o)
{
    tally sum = {0, 0};
    bool found = false;
    if (o->bench && !o->json) {
        session->yardstick = parity_rate(session, &parity_ops[0], 0); // linear
        printf("yardstick: linear 4096 x 1280 x 1280, %.1f GFLOP/s\n", session->yardstick * 1e-9);
    }
    for (size_t i = 0; i < parity_n_ops; i++) {
        const parity_op *op = &parity_ops[i];
        if (!is_wanted(o, op))
            continue;
        found = true;
        if (o->bench)
            parity_bench(session, op, (int)o->size, o->json);
        else if (o->full_size)
            test_full_size(session, op, &sum);
        else if (!o->sabotage)
            test_op(session, op, o, &sum);
        else
            for (int kind = PARITY_SABOTAGE_NONE + 1; kind < PARITY_SABOTAGE_KINDS; kind++)
                test_sabotage(session, (parity_sabotage)kind, op, o, &sum);
    }
    found |= test_others(session, o, &sum);
    if (!found)
        fprintf(stderr, "parity: no such operation\n");
    if (!o->bench)
        printf("%" PRId64 " passed, %" PRId64 " failed\n", sum.passed, sum.failed);
    return sum.failed || !found;
}

int main(int argc, char **argv)
{
    options o = {.backend = "ref", .dtype = "f32", .seed = 1, .iterations = 40, .size = -1};
    const char *problem = option_error(&o, argc, argv);
    atedm_dtype dtype;
    if (!problem && !parse_dtype(o.dtype, &dtype))
        problem = "--dtype is f32, bf16 or f16";
    setvbuf(stdout, NULL, _IOLBF, 0); // so that a crash of a backend loses no lines
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
        return o.required ? 1 : SKIPPED;
    }
    parity_require(status, &err, "candidate backend");
    int result = o.required ? 1 : SKIPPED;
    if (!atedm_device_supports(candidate, dtype)) {
        printf("skipped: %s does not compute in %s here\n", o.backend, o.dtype);
    } else {
        parity_session session = {.large = o.large};
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
