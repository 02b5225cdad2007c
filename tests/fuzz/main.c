// A fuzzer without a library behind it: hands damaged input, the same for the same seed, to
// everything that reads what others wrote. Meant to be built with sanitizers; what they or a check
// find ends the program, which then prints the arguments that do it again.
//
// usage: fuzz TARGET [ITERATIONS [SEED]]
#include "fuzz.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SECONDS_AN_INPUT 60 // one that takes longer is a finding
#define ENOUGH_INPUTS 100

static const fuzz_target *const targets[] = {&fuzz_safetensors, &fuzz_configs, &fuzz_vocabulary,
                                             &fuzz_pruning,     &fuzz_prompt,  &fuzz_keys};

// The arguments that repeat what runs now, for the signal handler.
static char replay[128];

static void report(int number)
{
    // The handler may do little more than this; that nothing can be printed changes nothing.
    ssize_t written = write(STDERR_FILENO, replay, strlen(replay));
    (void)written;
    signal(number, SIG_DFL);
    raise(number);
}

void fuzz_expect(bool holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "fuzz: does not hold: %s\n", what);
    abort();
}

void *fuzz_allocate(size_t size)
{
    void *memory = calloc(1, size);
    if (!memory)
        abort();
    return memory;
}

bool fuzz_is_untouched(const void *output, size_t size)
{
    const unsigned char *bytes = output;
    size_t i = 0;
    while (i < size && bytes[i] == FUZZ_FILL)
        i++;
    return i == size;
}

void fuzz_expect_message(atedm_status status, const atedm_error *err)
{
    if (status == ATEDM_OK)
        return;
    size_t length = strnlen(err->message, sizeof err->message);
    fuzz_expect(length > 0 && length < sizeof err->message, "a failure has a message");
}

static bool parse_number(const char *text, uint64_t *ret_value)
{
    char *end = NULL;
    errno = 0;
    *ret_value = strtoull(text, &end, 10);
    return errno == 0 && end != text && *end == '\0' && *text != '-';
}

static void run(const fuzz_target *target, uint64_t iterations, uint64_t seed)
{
    void *state = target->setup();
    uint64_t taken = 0;
    for (uint64_t i = 0; i < iterations; i++) {
        fuzz_rng rng = {seed + i};
        snprintf(replay, sizeof replay, "\nfuzz: to do it again: fuzz %s 1 %llu\n", target->name,
                 (unsigned long long)(seed + i));
        alarm(SECONDS_AN_INPUT);
        taken += target->run(state, &rng);
    }
    alarm(0);
    target->finish(state);
    printf("%s: %llu inputs from seed %llu, %llu taken\n", target->name,
           (unsigned long long)iterations, (unsigned long long)seed, (unsigned long long)taken);
    // Damage that always shows, or never, would test little.
    fuzz_expect(iterations < ENOUGH_INPUTS || (taken > 0 && taken < iterations),
                "some inputs are taken, some are refused");
}

int main(int argc, char **argv)
{
    uint64_t iterations = 1000, seed = 1;
    const fuzz_target *target = NULL;
    for (size_t i = 0; argc > 1 && i < sizeof targets / sizeof *targets; i++)
        if (strcmp(argv[1], targets[i]->name) == 0)
            target = targets[i];
    if (!target || argc > 4 || (argc > 2 && !parse_number(argv[2], &iterations)) ||
        (argc > 3 && !parse_number(argv[3], &seed))) {
        fprintf(stderr, "usage: fuzz TARGET [ITERATIONS [SEED]]\ntargets:");
        for (size_t i = 0; i < sizeof targets / sizeof *targets; i++)
            fprintf(stderr, " %s", targets[i]->name);
        fputc('\n', stderr);
        return 2;
    }
    signal(SIGABRT, report);
    signal(SIGALRM, report);
    run(target, iterations, seed);
    return 0;
}
