// The environment of worker processes: the daemon's, with how many threads compute there and how
// long they wait for each other awake (for kernels/cpu, by OpenMP; libgomp reads both before
// main).
#ifndef ATEDM_WORKER_ENVIRONMENT_H
#define ATEDM_WORKER_ENVIRONMENT_H

#include <stddef.h>

// A copy of `environment`, NULL behind the last, and OMP_NUM_THREADS and GOMP_SPINCOUNT, unless
// these are there (or OMP_WAIT_POLICY, for the latter): who sets them knows why. `sharers` workers
// share so many `processors` between them. NULL: no memory.
char **atedm_worker_environment_create(char *const *environment, int processors, size_t sharers);
void atedm_worker_environment_destroy(char **environment); // NULL allowed

#endif
