// Trials of algorithms: see trial.h.
#include "kernels/cuda/trial.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// "0" turns trials off: then linear layers have one algorithm for all numbers of rows, and cuDNN
// gets a call for each sample.
#define SWITCH "ATEDM_CUDA_TRIALS"
// Results that are compared before two algorithms count as the same. Of plain operands, two that
// add up in different orders give different 16-bit results only about once in ten thousand.
#ifndef ATEDM_CUDA_TRIAL_RESULTS
#define ATEDM_CUDA_TRIAL_RESULTS ((int64_t)1 << 20)
#endif
#define MOST_ROUNDS 16 // shapes so small that they would take more gain little
// Runs that are timed, of which the least time counts; of short ones more: algorithms for few rows
// differ by microseconds.
#define LONG_TIMES 3
#define SHORT_TIMES 8
#define SHORT_MS 1.0F
#define ALIGN ((size_t)256) // bytes

// A trial under way.
typedef struct course {
    atedm_cuda_stream *s;
    const atedm_cuda_trial *trial;
    char *operands, *expected, *y;           // [device] expected: the known algorithm's results
    char *cold;                              // [device] ATEDM_CUDA_TRIAL_COLD_BYTES
    float *counts;                           // [device] of differences
    bool is_in[ATEDM_CUDA_TRIAL_CANDIDATES]; // by candidate: has given the expected bits so far
} course;

size_t atedm_cuda_trial_whole(size_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

static size_t bytes_of(atedm_dtype act, const atedm_cuda_trial_operand *operand)
{
    return (size_t)(operand->rows * operand->stride) * atedm_dtype_size(act);
}

void atedm_cuda_trial_place(atedm_dtype act, atedm_cuda_trial_operands *operands)
{
    operands->weight_at = atedm_cuda_trial_whole(bytes_of(act, &operands->x));
    operands->addends_at =
        operands->weight_at + atedm_cuda_trial_whole(bytes_of(act, &operands->weight));
    operands->bytes =
        operands->addends_at + atedm_cuda_trial_whole(bytes_of(act, &operands->addends));
}

static cudaError_t fill(const atedm_cuda_stream *s, const atedm_cuda_trial_operand *operand,
                        atedm_cuda_noise noise, uint32_t seed, void *memory)
{
    return atedm_cuda_launch_noise(s->head.act, noise, seed, memory, operand->rows,
                                   operand->columns, operand->stride, s->stream);
}

// Kinds of rounds: see atedm_cuda_trial_operands.
static int count_kinds(const atedm_cuda_trial_operands *operands)
{
    return operands->addends.noise == ATEDM_CUDA_NOISE_PLAIN ? 2 : 3;
}

cudaError_t atedm_cuda_trial_fill(const atedm_cuda_stream *s,
                                  const atedm_cuda_trial_operands *operands, char *memory,
                                  int round)
{
    const atedm_cuda_trial_operand *x = &operands->x, *weight = &operands->weight;
    const atedm_cuda_noise plain = ATEDM_CUDA_NOISE_PLAIN;
    uint32_t seed = (uint32_t)round << 20;
    int kind = round % count_kinds(operands);
    char *addends = memory + operands->addends_at;
    cudaError_t error = fill(s, x, kind ? plain : x->noise, seed, memory);
    if (!error)
        error =
            fill(s, weight, kind ? plain : weight->noise, seed + 1, memory + operands->weight_at);
    if (error)
        return error;
    if (kind)
        return fill(s, &operands->addends, kind == 1 ? plain : operands->addends.noise, seed + 2,
                    addends);
    return cudaMemsetAsync(addends, 0, bytes_of(s->head.act, &operands->addends), s->stream);
}

// False where there is no memory for it.
static bool begin(atedm_cuda_stream *s, const atedm_cuda_trial *trial, course *ret_course)
{
    size_t operands = trial->operands->bytes;
    size_t y = atedm_cuda_trial_whole(trial->y_bytes);
    size_t counts = atedm_cuda_trial_whole(ATEDM_CUDA_DIFFERENCES * sizeof *ret_course->counts);
    size_t all = operands + 2 * y + counts + ATEDM_CUDA_TRIAL_COLD_BYTES;
    void *memory = NULL;
    atedm_error err;
    if (all > ATEDM_CUDA_TRIAL_BYTES || atedm_cuda_alloc(s->head.device, all, &memory, &err))
        return false;
    *ret_course = (course){.s = s, .trial = trial, .operands = memory};
    ret_course->expected = ret_course->operands + operands;
    ret_course->y = ret_course->expected + y;
    ret_course->counts = (float *)(void *)(ret_course->y + y);
    ret_course->cold = ret_course->y + y + counts;
    for (int i = 0; i < trial->candidates; i++)
        ret_course->is_in[i] = true;
    return true;
}

float atedm_cuda_count_differences(atedm_cuda_stream *s, const void *a, const void *b, size_t bytes,
                                   float *counts)
{
    float parts[ATEDM_CUDA_DIFFERENCES], all = 0;
    atedm_cuda_check(
        &s->head,
        atedm_cuda_launch_differences(a, b, (int64_t)(bytes / sizeof(uint32_t)), counts, s->stream),
        "trial");
    atedm_cuda_download(&s->head, counts, parts, sizeof parts);
    atedm_cuda_sync(&s->head);
    for (int i = 0; !s->head.status && i < ATEDM_CUDA_DIFFERENCES; i++)
        all += parts[i];
    return s->head.status ? INFINITY : all;
}

// Whether the candidate gives what is expected.
static bool is_equal(const course *c, int candidate)
{
    const atedm_cuda_trial *trial = c->trial;
    atedm_stream *s = &c->s->head;
    // NaN, so that results that are not written do not look like the expected ones.
    atedm_cuda_check(s, cudaMemsetAsync(c->y, 0xff, trial->y_bytes, c->s->stream), "trial");
    if (s->status)
        return false;
    if (!trial->run(trial->user, c->operands, candidate, c->y)) {
        (void)cudaGetLastError(); // a launch that is refused is not for the next call to find
        return false;
    }
    return atedm_cuda_count_differences(c->s, c->expected, c->y, trial->y_bytes, c->counts) == 0;
}

// A round: candidates that do not give the known algorithm's bits are out. False where that one
// fails, or the stream does.
static bool go_round(course *c, int round)
{
    const atedm_cuda_trial *trial = c->trial;
    atedm_cuda_check(&c->s->head, atedm_cuda_trial_fill(c->s, trial->operands, c->operands, round),
                     "trial");
    if (c->s->head.status ||
        !trial->run(trial->user, c->operands, ATEDM_CUDA_TRIAL_KNOWN, c->expected))
        return false;
    for (int i = 0; i < trial->candidates; i++)
        c->is_in[i] = c->is_in[i] && is_equal(c, i);
    return !c->s->head.status;
}

// Milliseconds of a run between two events of the device, INFINITY where it fails. As in an
// evaluation, the weights come from memory, and x, which the operation before has just written, is
// in the cache. What comes before the first event also gives the host the time to enqueue the run.
static float time_run(const course *c, int candidate, const cudaEvent_t events[2])
{
    const atedm_cuda_trial *trial = c->trial;
    atedm_stream *s = &c->s->head;
    cudaStream_t stream = c->s->stream;
    float ms = INFINITY;
    cudaError_t error = cudaMemsetAsync(c->cold, 0, ATEDM_CUDA_TRIAL_COLD_BYTES, stream);
    if (!error)
        error = fill(c->s, &trial->operands->x, ATEDM_CUDA_NOISE_PLAIN, 0, c->operands);
    if (!error)
        error = cudaEventRecord(events[0], stream);
    atedm_cuda_check(s, error, "trial");
    if (s->status || !trial->run(trial->user, c->operands, candidate, c->y))
        return INFINITY;
    atedm_cuda_check(s, cudaEventRecord(events[1], stream), "trial");
    atedm_cuda_sync(s);
    if (!s->status)
        atedm_cuda_check(s, cudaEventElapsedTime(&ms, events[0], events[1]), "trial");
    return s->status ? INFINITY : ms;
}

static float least_ms(const course *c, int candidate, const cudaEvent_t events[2])
{
    float least = time_run(c, candidate, events);
    for (int i = 1; i < (least < SHORT_MS ? SHORT_TIMES : LONG_TIMES); i++)
        least = fminf(least, time_run(c, candidate, events));
    return least;
}

// Of the candidates that are still in.
static int compare_times(const course *c, const cudaEvent_t events[2])
{
    int fastest = ATEDM_CUDA_TRIAL_KNOWN;
    float least = INFINITY;
    // Else what other streams have under way would be timed as well.
    atedm_cuda_check(&c->s->head, cudaDeviceSynchronize(), "trial");
    for (int i = 0; i < c->trial->candidates; i++) {
        float ms = c->is_in[i] ? least_ms(c, i, events) : INFINITY;
        if (ms < least) {
            least = ms;
            fastest = i;
        }
    }
    return fastest;
}

static int find_fastest(const course *c)
{
    cudaEvent_t events[2] = {NULL, NULL};
    int fastest = ATEDM_CUDA_TRIAL_KNOWN;
    cudaError_t error = cudaEventCreateWithFlags(&events[0], cudaEventDefault);
    if (!error)
        error = cudaEventCreateWithFlags(&events[1], cudaEventDefault);
    atedm_cuda_check(&c->s->head, error, "trial");
    if (!error)
        fastest = compare_times(c, events);
    for (int i = 0; i < 2; i++)
        if (events[i])
            (void)cudaEventDestroy(events[i]);
    return fastest;
}

int atedm_cuda_trial_pick(atedm_cuda_stream *s, const atedm_cuda_trial *trial)
{
    const char *value = getenv(SWITCH);
    bool off = value && strcmp(value, "0") == 0;
    int64_t rounds = (ATEDM_CUDA_TRIAL_RESULTS + trial->results - 1) / trial->results;
    int kinds = count_kinds(trial->operands); // one round of each, at least
    rounds = rounds > kinds ? rounds : kinds;
    course c;
    // F32 is for comparing, not for speed.
    if (off || s->head.act == ATEDM_F32 || s->head.status || rounds > MOST_ROUNDS ||
        !begin(s, trial, &c))
        return ATEDM_CUDA_TRIAL_KNOWN;
    bool good = true;
    for (int round = 0; good && round < rounds; round++)
        good = go_round(&c, round);
    int fastest = good ? find_fastest(&c) : ATEDM_CUDA_TRIAL_KNOWN;
    atedm_cuda_sync(&s->head); // cudaFree need not wait for what uses it
    atedm_cuda_free(s->head.device, c.operands);
    return fastest;
}
