// Writes a line for each kernel, copy and fill that the GPU executes, those inside CUDA graphs too.
// The driver loads this library into a program where CUDA_INJECTION64_PATH names it; timeline.py
// reads the lines.
//
// $ATEDM_TIMELINE is the file: CSV with start and end (ns), launch (one number for all nodes of a
// graph's launch), graph (0: none), stream, blocks, threads of a block, name (mangled).
#include <cupti.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define BUFFER_BYTES ((size_t)8 << 20)

static FILE *file;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static size_t lost; // records for which CUPTI had no room

int InitializeInjection(void); // the name that the driver looks for

static void CUPTIAPI give_buffer(uint8_t **ret_buffer, size_t *ret_size, size_t *ret_records)
{
    *ret_buffer = malloc(BUFFER_BYTES);
    *ret_size = *ret_buffer ? BUFFER_BYTES : 0;
    *ret_records = 0; // as many as it has room for
}

static void write_line(uint64_t start, uint64_t end, uint32_t launch, uint32_t graph,
                       uint32_t stream, int64_t blocks, int64_t threads, const char *name)
{
    fprintf(file,
            "%" PRIu64 ",%" PRIu64 ",%" PRIu32 ",%" PRIu32 ",%" PRIu32 ",%" PRId64 ",%" PRId64
            ",%s\n",
            start, end, launch, graph, stream, blocks, threads, name);
}

static void write_record(const CUpti_Activity *record)
{
    if (record->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
        const CUpti_ActivityKernel10 *k = (const CUpti_ActivityKernel10 *)record;
        write_line(k->start, k->end, k->correlationId, k->graphId, k->streamId,
                   (int64_t)k->gridX * k->gridY * k->gridZ,
                   (int64_t)k->blockX * k->blockY * k->blockZ, k->name);
    }
    if (record->kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
        const CUpti_ActivityMemcpy6 *m = (const CUpti_ActivityMemcpy6 *)record;
        write_line(m->start, m->end, m->correlationId, m->graphId, m->streamId, 0, 0, "memcpy");
    }
    if (record->kind == CUPTI_ACTIVITY_KIND_MEMSET) {
        const CUpti_ActivityMemset4 *m = (const CUpti_ActivityMemset4 *)record;
        write_line(m->start, m->end, m->correlationId, m->graphId, m->streamId, 0, 0, "memset");
    }
}

static void CUPTIAPI take_buffer(CUcontext context, uint32_t stream, uint8_t *buffer, size_t size,
                                 size_t used)
{
    CUpti_Activity *record = NULL;
    size_t dropped = 0;
    (void)size;
    pthread_mutex_lock(&lock);
    while (file && cuptiActivityGetNextRecord(buffer, used, &record) == CUPTI_SUCCESS)
        write_record(record);
    if (cuptiActivityGetNumDroppedRecords(context, stream, &dropped) == CUPTI_SUCCESS)
        lost += dropped;
    pthread_mutex_unlock(&lock);
    free(buffer);
}

static void finish(void)
{
    cuptiActivityFlushAll(CUPTI_ACTIVITY_FLAG_FLUSH_FORCED);
    pthread_mutex_lock(&lock);
    if (lost || ferror(file) || fclose(file))
        fprintf(stderr, "timeline: incomplete, %zu records are lost\n", lost);
    file = NULL;
    pthread_mutex_unlock(&lock);
}

int InitializeInjection(void)
{
    const char *path = getenv("ATEDM_TIMELINE");
    file = path ? fopen(path, "we") : NULL;
    if (!file) {
        fprintf(stderr, "timeline: ATEDM_TIMELINE names no file that can be written\n");
        return 0;
    }
    if (cuptiActivityRegisterCallbacks(give_buffer, take_buffer) != CUPTI_SUCCESS ||
        cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) != CUPTI_SUCCESS ||
        cuptiActivityEnable(CUPTI_ACTIVITY_KIND_MEMCPY) != CUPTI_SUCCESS ||
        cuptiActivityEnable(CUPTI_ACTIVITY_KIND_MEMSET) != CUPTI_SUCCESS || atexit(finish)) {
        fprintf(stderr, "timeline: CUPTI does not record\n");
        return 0;
    }
    return 1;
}
