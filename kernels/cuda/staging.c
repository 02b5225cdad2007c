// Uploads and downloads of the cuda backend, through stages in pinned memory. For an upload the
// host copies into a stage and goes on; the device reads the stage when it gets there. A download
// goes from the device to a stage, and from there to the caller's memory when the caller waits for
// the stream, or when the stage is needed again.
//
// The stages are a ring. The host waits, for the oldest one, only where more copies are under way
// than all of them hold.
#include "kernels/cuda/cuda.h"

#include <string.h>

#define STAGE_ALIGN ((size_t)64)

_Static_assert(ATEDM_CUDA_STAGE_BYTES % STAGE_ALIGN == 0, "stages are filled in whole lines");

atedm_status atedm_cuda_staging_init(atedm_cuda_staging *staging, atedm_error *err)
{
    for (int i = 0; i < ATEDM_CUDA_STAGES; i++) {
        atedm_cuda_stage *g = &staging->stages[i];
        void *memory = NULL;
        cudaError_t error = cudaMallocHost(&memory, ATEDM_CUDA_STAGE_BYTES);
        g->memory = error ? NULL : memory;
        if (!error)
            error = cudaEventCreateWithFlags(&g->done, cudaEventDisableTiming);
        if (error)
            return atedm_cuda_status(error, "memory to stage copies in", err);
    }
    return ATEDM_OK;
}

void atedm_cuda_staging_finish(atedm_cuda_staging *staging)
{
    for (int i = 0; i < ATEDM_CUDA_STAGES; i++) {
        if (staging->stages[i].done)
            (void)cudaEventDestroy(staging->stages[i].done);
        (void)cudaFreeHost(staging->stages[i].memory);
    }
}

// Copies the stage's downloads, which have arrived, to the callers' memory, and makes it free. On a
// stream that has failed they may not have arrived: nothing is copied.
static void empty_stage(const atedm_cuda_stream *s, atedm_cuda_stage *g)
{
    for (int i = 0; !s->head.status && i < g->n_downloads; i++)
        memcpy(g->downloads[i].to, g->downloads[i].from, g->downloads[i].bytes);
    g->used = 0;
    g->n_downloads = 0;
    g->full = false;
}

// Closes the stage that is being filled, and frees the next one in the ring for use.
static void turn_ring(atedm_cuda_stream *s)
{
    atedm_cuda_staging *staging = &s->staging;
    atedm_cuda_stage *g = &staging->stages[staging->at];
    atedm_cuda_check(&s->head, cudaEventRecord(g->done, s->stream), "staging");
    g->full = true;
    staging->at = (staging->at + 1) % ATEDM_CUDA_STAGES;
    g = &staging->stages[staging->at];
    if (!g->full)
        return;
    atedm_cuda_check(&s->head, cudaEventSynchronize(g->done), "waiting for a stage");
    empty_stage(s, g);
}

// A stage with room for some of `bytes` bytes: *ret_bytes of them at *ret_memory. NULL after
// failing the stream.
static atedm_cuda_stage *take_room(atedm_cuda_stream *s, size_t bytes, char **ret_memory,
                                   size_t *ret_bytes)
{
    const atedm_cuda_stage *now = &s->staging.stages[s->staging.at];
    if (s->graphs.capturing) // a graph would copy the stage at each launch, whatever is there then
        atedm_stream_fail(&s->head, ATEDM_ERR_INVALID, "a copy from or to the host in a capture");
    if (s->head.status)
        return NULL;
    if (now->used == ATEDM_CUDA_STAGE_BYTES || now->n_downloads == ATEDM_CUDA_STAGE_DOWNLOADS)
        turn_ring(s);
    if (s->head.status)
        return NULL;
    atedm_cuda_stage *g = &s->staging.stages[s->staging.at];
    size_t room = ATEDM_CUDA_STAGE_BYTES - g->used, n = bytes < room ? bytes : room;
    *ret_memory = g->memory + g->used;
    *ret_bytes = n;
    g->used += (n + STAGE_ALIGN - 1) / STAGE_ALIGN * STAGE_ALIGN;
    return g;
}

void atedm_cuda_upload(atedm_stream *head, const void *from_host, void *to_device, size_t bytes)
{
    atedm_cuda_stream *s = atedm_cuda_stream_of(head);
    for (size_t at = 0, n = 0; at < bytes; at += n) {
        char *stage = NULL;
        if (!take_room(s, bytes - at, &stage, &n))
            return;
        memcpy(stage, (const char *)from_host + at, n);
        atedm_cuda_check(
            head,
            cudaMemcpyAsync((char *)to_device + at, stage, n, cudaMemcpyHostToDevice, s->stream),
            "upload");
    }
}

void atedm_cuda_download(atedm_stream *head, const void *from_device, void *to_host, size_t bytes)
{
    atedm_cuda_stream *s = atedm_cuda_stream_of(head);
    for (size_t at = 0, n = 0; at < bytes; at += n) {
        char *stage = NULL;
        atedm_cuda_stage *g = take_room(s, bytes - at, &stage, &n);
        if (!g)
            return;
        atedm_cuda_check(head,
                         cudaMemcpyAsync(stage, (const char *)from_device + at, n,
                                         cudaMemcpyDeviceToHost, s->stream),
                         "download");
        g->downloads[g->n_downloads].from = stage;
        g->downloads[g->n_downloads].to = (char *)to_host + at;
        g->downloads[g->n_downloads++].bytes = n;
    }
}

void atedm_cuda_sync(atedm_stream *head)
{
    atedm_cuda_stream *s = atedm_cuda_stream_of(head);
    atedm_cuda_check(head, cudaStreamSynchronize(s->stream), "waiting");
    if (s->aside.unjoined)
        atedm_cuda_check(head, cudaStreamSynchronize(s->aside.stream), "waiting");
    // The oldest first: of two downloads to one place the later one counts.
    for (int i = 1; i <= ATEDM_CUDA_STAGES; i++)
        empty_stage(s, &s->staging.stages[(s->staging.at + i) % ATEDM_CUDA_STAGES]);
}
