// What worker processes find in their environment.
#include "server/worker_environment.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define MOST 8

static void expect(const char *const *environment, int processors, size_t sharers,
                   const char *const wanted[MOST])
{
    char **all = atedm_worker_environment_create((char *const *)environment, processors, sharers);
    cr_assert_neq(all, NULL);
    for (size_t i = 0;; i++) {
        if (!wanted[i]) {
            cr_assert_eq(all[i], NULL, "one more: %s", all[i]);
            break;
        }
        cr_assert_neq(all[i], NULL, "not there: %s", wanted[i]);
        cr_assert_str_eq(all[i], wanted[i]);
    }
    atedm_worker_environment_destroy(all);
}

Test(worker_environment, processors_are_shared)
{
    const char *const none[] = {NULL};
    const struct {
        int processors;
        size_t sharers;
        const char *threads;
    } cases[] = {{1, 1, "OMP_NUM_THREADS=1"},  {8, 1, "OMP_NUM_THREADS=8"},
                 {8, 2, "OMP_NUM_THREADS=4"},  {7, 2, "OMP_NUM_THREADS=4"},
                 {2, 64, "OMP_NUM_THREADS=1"}, {129, 64, "OMP_NUM_THREADS=3"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect(none, cases[i].processors, cases[i].sharers,
               (const char *[MOST]){cases[i].threads, "GOMP_SPINCOUNT=10000"});
}

Test(worker_environment, what_the_operator_says_counts)
{
    expect((const char *[]){"A=1", "OMP_NUM_THREADS=3", "B=", NULL}, 8, 1,
           (const char *[MOST]){"A=1", "OMP_NUM_THREADS=3", "B=", "GOMP_SPINCOUNT=10000"});
    expect((const char *[]){"OMP_WAIT_POLICY=passive", NULL}, 8, 1,
           (const char *[MOST]){"OMP_WAIT_POLICY=passive", "OMP_NUM_THREADS=8"});
    expect((const char *[]){"GOMP_SPINCOUNT=7", "OMP_NUM_THREADS=", NULL}, 8, 1,
           (const char *[MOST]){"GOMP_SPINCOUNT=7", "OMP_NUM_THREADS="});
    expect((const char *[]){"OMP_NUM_THREADS_=3", "XOMP_NUM_THREADS=3", NULL}, 8, 1,
           (const char *[MOST]){"OMP_NUM_THREADS_=3", "XOMP_NUM_THREADS=3", "OMP_NUM_THREADS=8",
                                "GOMP_SPINCOUNT=10000"});
}

Test(worker_environment, nothing_to_destroy)
{
    atedm_worker_environment_destroy(NULL);
}
