// Quotas of control groups, in folders made like theirs.
#include "core/base/control_group.h"

#include <criterion/criterion.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static char folder[] = "/tmp/atedm-groups-XXXXXX";

static void write_file(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    // The folders that it is in.
    for (char *slash = path + strlen(folder) + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
        *slash = '\0';
        mkdir(path, 0700);
    }
    FILE *file = fopen(path, "w");
    cr_assert_neq(file, NULL, "%s", path);
    cr_assert_geq(fputs(text, file), 0);
    cr_assert_eq(fclose(file), 0);
}

static void make_folder(void)
{
    cr_assert_neq(mkdtemp(folder), NULL);
}

static void remove_folder(void)
{
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", folder);
    cr_assert_eq(system(command), 0);
}

TestSuite(control_group, .init = make_folder, .fini = remove_folder);

typedef double (*limit_fn)(const char *groups, const char *mount);

static double limit_of(limit_fn find, const char *groups)
{
    char path[64];
    write_file("groups", groups);
    snprintf(path, sizeof path, "%s/groups", folder);
    return find(path, folder);
}

static double quota_of(const char *groups)
{
    return limit_of(atedm_group_quota, groups);
}

static double memory_of(const char *groups)
{
    return limit_of(atedm_group_memory_left, groups);
}

Test(control_group, version_2_of_the_group_and_those_above)
{
    write_file("cpu.max", "max 100000\n");
    write_file("a/cpu.max", "400000 100000\n");
    write_file("a/b/cpu.max", "50000 20000\n");
    write_file("a/c/cpu.max", "1000000 100000\n");
    write_file("a/d/cpu.weight", "100\n");
    cr_assert_eq(quota_of("0::/a/b\n"), 2.5);
    cr_assert_eq(quota_of("0::/a/c\n"), 4);
    cr_assert_eq(quota_of("0::/a/d\n"), 4);
    cr_assert_eq(quota_of("0::/a/d"), 4, "without an end of the line");
    cr_assert_eq(quota_of("0::/\n"), INFINITY);
}

Test(control_group, a_container_has_the_host_s_path_and_its_own_files)
{
    write_file("cpu.max", "150000 100000\n");
    cr_assert_eq(quota_of("0::/\n"), 1.5);
    cr_assert_eq(quota_of("0::/kubepods/burstable/pod1/abc\n"), 1.5);
    cr_assert_eq(quota_of("0::/../../other\n"), 1.5);
}

Test(control_group, version_1)
{
    write_file("cpu/cpu.cfs_quota_us", "-1\n");
    write_file("cpu/cpu.cfs_period_us", "100000\n");
    write_file("cpu/docker/x/cpu.cfs_quota_us", "300000\n");
    write_file("cpu/docker/x/cpu.cfs_period_us", "100000\n");
    write_file("cpuset/docker/x/cpu.cfs_quota_us", "100\n"); // another hierarchy's
    write_file("cpuset/docker/x/cpu.cfs_period_us", "100\n");
    cr_assert_eq(
        quota_of("5:memory:/docker/x\n4:cpuset:/docker/x\n3:cpu,cpuacct:/docker/x\n0::/\n"), 3);
    cr_assert_eq(quota_of("3:cpuacct,cpu:/docker/x\n"), 3);
    cr_assert_eq(quota_of("3:cpuacct,cpu:/docker/y\n"), INFINITY);
    cr_assert_eq(quota_of("4:cpuset:/docker/x\n"), INFINITY);
}

Test(control_group, what_is_no_quota_counts_for_none)
{
    static const char *const values[] = {"",       "x",   "100000",  "0 100000", "-1 100000",
                                         "1000 0", "max", "1000 -1", "nan nan"};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        write_file("cpu.max", values[i]);
        cr_assert_eq(quota_of("0::/\n"), INFINITY, "'%s'", values[i]);
    }
    cr_assert_eq(quota_of(""), INFINITY);
    cr_assert_eq(quota_of("nothing\n:\n1:\n"), INFINITY);
    cr_assert_eq(atedm_group_quota("/nonexistent", "/nonexistent"), INFINITY);
}

Test(control_group, memory_of_version_2)
{
    write_file("memory.max", "max\n");
    write_file("memory.current", "5000\n");
    write_file("a/memory.max", "1000\n");
    write_file("a/memory.current", "700\n");
    write_file("a/memory.stat", "anon 500\nactive_inactive_file 9\ninactive_file 150\nfile 200\n");
    write_file("a/b/memory.max", "800\n");
    write_file("a/b/memory.current", "600\n");
    write_file("a/c/memory.max", "800\n");
    write_file("a/c/memory.current", "900\n"); // the limit was lowered
    cr_assert_eq(memory_of("0::/\n"), INFINITY);
    cr_assert_eq(memory_of("0::/a\n"), 450);
    cr_assert_eq(memory_of("0::/a/b\n"), 200);
    cr_assert_eq(memory_of("0::/a/c\n"), 0);
    cr_assert_eq(memory_of("0::/a/d\n"), 450);
}

Test(control_group, memory_of_version_1)
{
    write_file("memory/memory.limit_in_bytes", "9223372036854771712\n");
    write_file("memory/memory.usage_in_bytes", "123456\n");
    write_file("memory/docker/memory.limit_in_bytes", "4096\n");
    write_file("memory/docker/memory.usage_in_bytes", "1000\n");
    write_file("memory/docker/memory.stat", "inactive_file 7\ntotal_inactive_file 100\n");
    cr_assert_eq(memory_of("5:memory:/\n"), INFINITY);
    cr_assert_eq(memory_of("5:memory:/docker\n4:cpu:/docker\n"), 3196);
    cr_assert_eq(memory_of("4:cpu:/docker\n"), INFINITY);
}

Test(control_group, no_more_than_the_process_may_run_on)
{
    int all = atedm_processors();
    cr_assert_geq(all, 1);
    cpu_set_t allowed, one;
    cr_assert_eq(sched_getaffinity(0, sizeof allowed, &allowed), 0);
    cr_assert_leq(all, CPU_COUNT(&allowed));
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++)
        if (CPU_ISSET(i, &allowed))
            CPU_SET(i, &one);
    cr_assert_eq(sched_setaffinity(0, sizeof one, &one), 0);
    cr_assert_eq(atedm_processors(), 1);
}
