// How many processors there are for this process: fewer than the machine has, where it may run on
// some only, or in a container that has a share of them. More threads than that stand in each
// other's way.
#ifndef ATEDM_BASE_PROCESSORS_H
#define ATEDM_BASE_PROCESSORS_H

// Those that it may run on, or as many as its control groups' quota is worth, rounded up, where
// these are fewer. At least 1.
int atedm_processors(void);

// What control groups grant, in processors: the least of the process' groups and those that they
// are in; INFINITY where none says anything. `groups`: its groups, in the form of
// /proc/self/cgroup; `mount`: where their files are, /sys/fs/cgroup. Of version 2 (cpu.max) and
// version 1 (cpu.cfs_quota_us, cpu.cfs_period_us). Source: Linux' admin-guide/cgroup-v2 and
// scheduler/sched-bwc.
double atedm_processor_quota(const char *groups, const char *mount);

#endif
