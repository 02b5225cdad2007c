// What Linux lets this process have of the machine: in a container, or in a service with limits,
// less than there is. Threads beyond its processors stand in each other's way; for memory beyond
// its limit the kernel ends it.
//
// Control groups of version 2 (cpu.max, memory.max) and version 1 (cpu.cfs_quota_us,
// memory.limit_in_bytes) are looked at, the process' own and those that they are in. Source: Linux'
// admin-guide/cgroup-v2, admin-guide/cgroup-v1/memory, scheduler/sched-bwc.
#ifndef ATEDM_BASE_CONTROL_GROUP_H
#define ATEDM_BASE_CONTROL_GROUP_H

// Processors that it may run on, or as many as its quota is worth, rounded up, where these are
// fewer. At least 1.
int atedm_processors(void);

// Bytes that it and what shares its groups may still take; INFINITY where there is no limit.
double atedm_memory_left(void);

// The same of groups that are listed in a file like /proc/self/cgroup and have their files below
// `mount`, /sys/fs/cgroup; the quota in processors. INFINITY where nothing is said.
double atedm_group_quota(const char *groups, const char *mount);
double atedm_group_memory_left(const char *groups, const char *mount);

#endif
