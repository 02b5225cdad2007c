// What control groups grant: see control_group.h.
#include "core/base/control_group.h"

#include <math.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GROUPS "/proc/self/cgroup"
#define MOUNT "/sys/fs/cgroup"

#define PATH_BYTES 4096
#define LINE_BYTES 256 // of a group's file, more than a name and two numbers have

// What one controller says of a group, given the folder of its files; INFINITY: no limit.
typedef struct controller {
    const char *name;
    double (*limit_of)(const char *folder);
} controller;

// ---- files of a group

static FILE *open_file(const char *folder, const char *name)
{
    char path[PATH_BYTES];
    if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, name) >= sizeof path)
        return NULL;
    return fopen(path, "re");
}

// The two numbers that a file begins with, 0 for one that is not there.
static void read_numbers(const char *folder, const char *name, double *ret_first,
                         double *ret_second)
{
    char line[LINE_BYTES], *end = line;
    *ret_first = *ret_second = 0;
    FILE *file = open_file(folder, name);
    if (!file)
        return;
    if (fgets(line, sizeof line, file)) {
        *ret_first = strtod(line, &end);
        *ret_second = strtod(end, NULL);
    }
    fclose(file);
}

// The number behind a word at the beginning of a line; 0 where there is none.
static double read_entry(const char *folder, const char *name, const char *word)
{
    char line[LINE_BYTES];
    double value = 0;
    size_t length = strlen(word);
    FILE *file = open_file(folder, name);
    if (!file)
        return 0;
    while (fgets(line, sizeof line, file))
        if (strncmp(line, word, length) == 0 && line[length] == ' ')
            value = strtod(line + length, NULL);
    fclose(file);
    return value;
}

// ---- controllers

static double quota_of(const char *folder)
{
    double quota, period, none;
    read_numbers(folder, "cpu.max", &quota, &period); // "max": 0
    if (period == 0) {
        read_numbers(folder, "cpu.cfs_quota_us", &quota, &none); // none: -1
        read_numbers(folder, "cpu.cfs_period_us", &period, &none);
    }
    return quota > 0 && period > 0 ? quota / period : INFINITY;
}

// Pages of files that nobody has used for a while count for used, but make room when it is needed.
static double memory_left_of(const char *folder)
{
    double limit, used, none;
    read_numbers(folder, "memory.max", &limit, &none); // "max": 0
    read_numbers(folder, "memory.current", &used, &none);
    double idle = read_entry(folder, "memory.stat", "inactive_file");
    if (used == 0) {
        // No limit is a number beyond any machine's memory.
        read_numbers(folder, "memory.limit_in_bytes", &limit, &none);
        read_numbers(folder, "memory.usage_in_bytes", &used, &none);
        idle = read_entry(folder, "memory.stat", "total_inactive_file");
    }
    if (!(limit > 0) || limit >= 0x1p62)
        return INFINITY;
    return fmax(limit - fmax(used - idle, 0), 0);
}

// ---- groups

// The least of a group and all that it is in. Inside a container the path may be the host's, and
// the folders the container's: those that are not there say nothing.
static double least_limit(const controller *c, const char *hierarchy, char *path)
{
    double least = INFINITY;
    for (char *end = path + strlen(path); end; end = strrchr(path, '/')) {
        char folder[PATH_BYTES];
        *end = '\0';
        if ((size_t)snprintf(folder, sizeof folder, "%s%s", hierarchy, path) < sizeof folder)
            least = fmin(least, c->limit_of(folder));
    }
    return least;
}

static bool is_listed(const char *name, char *names)
{
    char *rest = NULL;
    for (char *each = strtok_r(names, ",", &rest); each; each = strtok_r(NULL, ",", &rest))
        if (strcmp(each, name) == 0)
            return true;
    return false;
}

// Of a line "number:controllers:path"; there are no controllers in one of version 2.
static double line_limit(const controller *c, char *line, const char *mount)
{
    char hierarchy[PATH_BYTES];
    char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;
    if (!path)
        return INFINITY;
    *names++ = *path++ = '\0';
    bool is_2 = *names == '\0';
    if (!is_2 && !is_listed(c->name, names))
        return INFINITY;
    int length = snprintf(hierarchy, sizeof hierarchy, "%s%s%s", mount, is_2 ? "" : "/",
                          is_2 ? "" : c->name);
    return (size_t)length < sizeof hierarchy ? least_limit(c, hierarchy, path) : INFINITY;
}

static double find_limit(const controller *c, const char *groups, const char *mount)
{
    double least = INFINITY;
    FILE *file = fopen(groups, "re");
    if (!file)
        return least;
    char *line = NULL;
    size_t room = 0;
    for (ssize_t size; (size = getline(&line, &room, file)) > 0;) {
        line[size - 1] = line[size - 1] == '\n' ? '\0' : line[size - 1];
        least = fmin(least, line_limit(c, line, mount));
    }
    free(line);
    fclose(file);
    return least;
}

double atedm_group_quota(const char *groups, const char *mount)
{
    return find_limit(&(controller){"cpu", quota_of}, groups, mount);
}

double atedm_group_memory_left(const char *groups, const char *mount)
{
    return find_limit(&(controller){"memory", memory_left_of}, groups, mount);
}

// ---- this process

int atedm_processors(void)
{
    cpu_set_t allowed;
    long n = sched_getaffinity(0, sizeof allowed, &allowed) ? sysconf(_SC_NPROCESSORS_ONLN)
                                                            : CPU_COUNT(&allowed);
    double quota = ceil(atedm_group_quota(GROUPS, MOUNT));
    n = n > 1 ? n : 1;
    return quota < (double)n ? (int)quota : (int)n;
}

double atedm_memory_left(void)
{
    return atedm_group_memory_left(GROUPS, MOUNT);
}
