// Makes the environment of worker processes. It is the daemon's, plus two variables for OpenMP,
// which kernels/cpu uses: how many threads compute, and how long they spin when they wait for each
// other. They have to be in the environment because libgomp reads them before main.
#ifndef ATEDM_WORKER_ENVIRONMENT_H
#define ATEDM_WORKER_ENVIRONMENT_H

#include <stddef.h>

// A copy of `environment`, which ends with NULL, plus OMP_NUM_THREADS and GOMP_SPINCOUNT. It leaves
// them alone if the operator has set them (or OMP_WAIT_POLICY instead of the latter). `sharers`:
// how many workers share the `processors`. The caller destroys the copy. NULL: no memory.
char **atedm_worker_environment_create(char *const *environment, int processors, size_t sharers);
void atedm_worker_environment_destroy(char **environment); // NULL allowed

#endif
