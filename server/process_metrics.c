// The usual process_* metrics of Prometheus' client libraries, from /proc and getrusage.
#include "server/metrics.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static long count_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    long count = -3; // ".", ".." and the descriptor of `dir`
    if (!dir)
        return 0;
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

// Pages of virtual and of resident memory.
static void read_pages(unsigned long *ret_virtual, unsigned long *ret_resident)
{
    *ret_virtual = *ret_resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file)
        return;
    if (fscanf(file, "%lu %lu", ret_virtual, ret_resident) != 2)
        *ret_virtual = *ret_resident = 0;
    fclose(file);
}

// Unix time at which the process started: field 22 of /proc/self/stat, in clock ticks since boot.
static double start_time(void)
{
    unsigned long long ticks = 0;
    struct timespec boot, now;
    FILE *file = fopen("/proc/self/stat", "r");
    if (!file)
        return 0;
    // The program's name, in parentheses, may hold anything but is at most 16 bytes.
    int found =
        fscanf(file,
               "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d "
               "%*d %*d %llu",
               &ticks);
    fclose(file);
    if (found != 1)
        return 0;
    clock_gettime(CLOCK_BOOTTIME, &boot);
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9 - (double)boot.tv_sec -
           (double)boot.tv_nsec * 1e-9 + (double)ticks / (double)sysconf(_SC_CLK_TCK);
}

static atedm_status print_one(atedm_buffer *out, const char *name, const char *kind,
                              const char *help, double value)
{
    return atedm_buffer_printf(out, "# HELP %s %s\n# TYPE %s %s\n%s %.17g\n", name, help, name,
                               kind, name, value);
}

atedm_status atedm_process_metrics_print(atedm_buffer *out)
{
    struct rusage usage;
    struct rlimit files;
    unsigned long virtual_pages, resident_pages;
    double page = (double)sysconf(_SC_PAGESIZE);
    getrusage(RUSAGE_SELF, &usage);
    getrlimit(RLIMIT_NOFILE, &files);
    read_pages(&virtual_pages, &resident_pages);
    double cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                 (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
    atedm_status status;
    if ((status = print_one(out, "process_cpu_seconds_total", "counter",
                            "User and system time spent in seconds.", cpu)) ||
        (status = print_one(out, "process_resident_memory_bytes", "gauge", "Resident memory size.",
                            (double)resident_pages * page)) ||
        (status = print_one(out, "process_virtual_memory_bytes", "gauge", "Virtual memory size.",
                            (double)virtual_pages * page)) ||
        (status = print_one(out, "process_open_fds", "gauge", "Open file descriptors.",
                            (double)count_descriptors())) ||
        (status = print_one(out, "process_max_fds", "gauge", "Limit of open file descriptors.",
                            (double)files.rlim_cur)) ||
        (status = print_one(out, "process_start_time_seconds", "gauge",
                            "Start time since the epoch in seconds.", start_time())))
        return status;
    return ATEDM_OK;
}
