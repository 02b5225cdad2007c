// Processors for this process: see processors.h.
#include "core/base/processors.h"

#include <math.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATH_BYTES 4096
#define VALUE_BYTES 256 // of a group's file, more than two numbers have

// The two numbers that a file of a group's folder begins with, 0 for one that is not there.
static void read_numbers(const char *folder, const char *name, double *ret_first,
                         double *ret_second)
{
    char path[PATH_BYTES], text[VALUE_BYTES], *end = text;
    *ret_first = *ret_second = 0;
    if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, name) >= sizeof path)
        return;
    FILE *file = fopen(path, "re");
    if (!file)
        return;
    if (fgets(text, sizeof text, file)) {
        *ret_first = strtod(text, &end);
        *ret_second = strtod(end, NULL);
    }
    fclose(file);
}

// Of one group; INFINITY where it has no quota ("max" or -1), or says nothing.
static double quota_of(const char *folder)
{
    double quota, period, none;
    read_numbers(folder, "cpu.max", &quota, &period);
    if (period == 0) {
        read_numbers(folder, "cpu.cfs_quota_us", &quota, &none);
        read_numbers(folder, "cpu.cfs_period_us", &period, &none);
    }
    return quota > 0 && period > 0 ? quota / period : INFINITY;
}

// Of a group and all that it is in. Inside a container the path may be the host's, and the folders
// the container's: those that are not there say nothing.
static double least_quota(const char *hierarchy, char *path)
{
    double least = INFINITY;
    for (char *end = path + strlen(path);; end = strrchr(path, '/')) {
        char folder[PATH_BYTES];
        if (end)
            *end = '\0';
        if ((size_t)snprintf(folder, sizeof folder, "%s%s", hierarchy, path) < sizeof folder)
            least = fmin(least, quota_of(folder));
        if (!end || end == path)
            return least;
    }
}

// Whether "cpu" is one of the controllers of a line.
static bool has_cpu(char *controllers)
{
    char *rest = NULL;
    for (char *name = strtok_r(controllers, ",", &rest); name; name = strtok_r(NULL, ",", &rest))
        if (strcmp(name, "cpu") == 0)
            return true;
    return false;
}

// Of a line "number:controllers:path"; there are no controllers in one of version 2.
static double line_quota(char *line, const char *mount)
{
    char hierarchy[PATH_BYTES];
    char *controllers = strchr(line, ':'),
         *path = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!path)
        return INFINITY;
    *path++ = '\0';
    bool is_2 = controllers[1] == '\0';
    if (!is_2 && !has_cpu(controllers + 1))
        return INFINITY;
    if ((size_t)snprintf(hierarchy, sizeof hierarchy, "%s%s", mount, is_2 ? "" : "/cpu") >=
        sizeof hierarchy)
        return INFINITY;
    return least_quota(hierarchy, path);
}

double atedm_processor_quota(const char *groups, const char *mount)
{
    double least = INFINITY;
    FILE *file = fopen(groups, "re");
    if (!file)
        return least;
    char *line = NULL;
    size_t room = 0;
    for (ssize_t size; (size = getline(&line, &room, file)) > 0;) {
        line[size - 1] = line[size - 1] == '\n' ? '\0' : line[size - 1];
        least = fmin(least, line_quota(line, mount));
    }
    free(line);
    fclose(file);
    return least;
}

int atedm_processors(void)
{
    cpu_set_t allowed;
    long n = sched_getaffinity(0, sizeof allowed, &allowed) ? sysconf(_SC_NPROCESSORS_ONLN)
                                                            : CPU_COUNT(&allowed);
    double quota = ceil(atedm_processor_quota("/proc/self/cgroup", "/sys/fs/cgroup"));
    n = n > 1 ? n : 1;
    return quota < (double)n ? (int)quota : (int)n;
}
