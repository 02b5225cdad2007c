// The environment of worker processes: see worker_environment.h.
#include "server/worker_environment.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// How often a thread checks for the others before it sleeps; it spins for 0.1 to 0.4 ms. If each
// thread has its own processor, the others arrive within that time, and waking a thread takes
// longer than many operations. libgomp's default spins thirty times as long, and keeps the
// processor from other work meanwhile.
#define SPIN_COUNT 10000

#define MORE 2 // variables that are added at most

static bool has(char *const *environment, const char *name)
{
    size_t length = strlen(name);
    for (; *environment; environment++)
        if (strncmp(*environment, name, length) == 0 && (*environment)[length] == '=')
            return true;
    return false;
}

// Adds a variable at *next, and advances it. False if there is no memory.
static bool add_number(char ***next, const char *name, long value)
{
    if (asprintf(*next, "%s=%ld", name, value) < 0) {
        **next = NULL;
        return false;
    }
    ++*next;
    return true;
}

char **atedm_worker_environment_create(char *const *environment, int processors, size_t sharers)
{
    size_t n = 0;
    while (environment[n])
        n++;
    char **all = calloc(n + MORE + 1, sizeof *all), **next = all;
    bool good = all;
    for (size_t i = 0; good && i < n; i++)
        good = (*next++ = strdup(environment[i]));
    long share = (processors + (long)sharers - 1) / (long)sharers; // rounded up
    if (good && !has(environment, "OMP_NUM_THREADS"))
        good = add_number(&next, "OMP_NUM_THREADS", share);
    if (good && !has(environment, "GOMP_SPINCOUNT") && !has(environment, "OMP_WAIT_POLICY"))
        good = add_number(&next, "GOMP_SPINCOUNT", SPIN_COUNT);
    if (good)
        return all;
    atedm_worker_environment_destroy(all);
    return NULL;
}

void atedm_worker_environment_destroy(char **environment)
{
    for (size_t i = 0; environment && environment[i]; i++)
        free(environment[i]);
    free(environment);
}
