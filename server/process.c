// Reads /proc/self, sets limits: see process.h and proc(5).
#include "server/process.h"

#include <dirent.h>
#include <inttypes.h>
#include <malloc.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

// The fields of /proc/self/stat that we use, counted from 1 as in proc(5).
#define FIELD_UTIME 14
#define FIELD_STIME 15
#define FIELD_START 22
#define FIELD_VSIZE 23
#define FIELD_RSS 24
#define FIELDS 24

// A block of at least MAPPED_BYTES is a mapping of its own, which returns to the system when it is
// freed. At the heap's end at most KEPT_BYTES free bytes are kept. Unless we set them, glibc raises
// both thresholds, up to 64 MiB, as soon as a large block is freed.
#define MAPPED_BYTES (128 << 10)
#define KEPT_BYTES (256 << 10)

void atedm_process_prepare(size_t descriptors)
{
    mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES);
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES);
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur >= descriptors)
        return;
    limit.rlim_cur = limit.rlim_max < descriptors ? limit.rlim_max : descriptors;
    setrlimit(RLIMIT_NOFILE, &limit); // if it fails, connections wait for descriptors
}

void atedm_process_trim(void)
{
    malloc_trim(0);
}

static size_t read_text(const char *path, char *text, size_t size)
{
    FILE *file = fopen(path, "re");
    size_t got = file ? fread(text, 1, size - 1, file) : 0;
    if (file)
        fclose(file);
    text[got] = '\0';
    return got;
}

static void read_stat(double ret_fields[FIELDS + 1])
{
    char text[2048];
    for (int i = 0; i <= FIELDS; i++)
        ret_fields[i] = NAN;
    read_text("/proc/self/stat", text, sizeof text);
    // Field 2, the program's name in parentheses, may hold anything; field 3 is a letter.
    char *at = strrchr(text, ')');
    if (!at || strlen(at) < 4)
        return;
    at += 3;
    for (int i = 4; i <= FIELDS; i++)
        ret_fields[i] = (double)strtoull(at, &at, 10);
}

// When the system started, in seconds since 1970: CLOCK_BOOTTIME is the clock of the start times in
// /proc/self/stat.
static double boot_time(void)
{
    struct timespec now, since_boot;
    if (clock_gettime(CLOCK_REALTIME, &now) || clock_gettime(CLOCK_BOOTTIME, &since_boot))
        return NAN;
    return (double)now.tv_sec - (double)since_boot.tv_sec +
           1e-9 * ((double)now.tv_nsec - (double)since_boot.tv_nsec);
}

static double count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    if (!dir)
        return NAN;
    int count = 0;
    for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir))
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count - 1; // one belongs to `dir`
}

atedm_process atedm_process_read(void)
{
    double fields[FIELDS + 1];
    read_stat(fields);
    double ticks = (double)sysconf(_SC_CLK_TCK);
    struct rlimit limit;
    return (atedm_process){
        .cpu_seconds = (fields[FIELD_UTIME] + fields[FIELD_STIME]) / ticks,
        .start_time = boot_time() + fields[FIELD_START] / ticks,
        .open_fds = count_fds(),
        .max_fds = getrlimit(RLIMIT_NOFILE, &limit) ? NAN : (double)limit.rlim_cur,
        .virtual_bytes = fields[FIELD_VSIZE],
        .resident_bytes = fields[FIELD_RSS] * (double)sysconf(_SC_PAGESIZE),
    };
}
