// Sequences of operations as CUDA graphs, for atedm_stream_repeat. A sequence is captured when its
// key comes for the second time, and launched from then on. The caller promises that equal keys
// mean equal operations; this file keeps the graphs within their limits, and drops them before the
// scratch memory moves whose address they hold.
#include "kernels/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// For measuring what graphs bring: "0" turns them off.
#define SWITCH "ATEDM_CUDA_GRAPHS"

typedef struct atedm_cuda_graph {
    void *key;
    size_t key_bytes;
    cudaGraphExec_t graph;         // NULL: not captured
    size_t bytes;                  // of device memory that the graph takes
    atedm_op_counts counts;        // what its operations add to the stream's
    struct atedm_cuda_graph *next; // the one that was used before this one
} atedm_cuda_graph;

void atedm_cuda_graphs_init(atedm_cuda_stream *s)
{
    const char *value = getenv(SWITCH);
    s->graphs.off = value && strcmp(value, "0") == 0;
}

// Drops g's graph, but not its key. A launch of it that is still running goes on to its end.
static void drop(atedm_cuda_stream *s, atedm_cuda_graph *g)
{
    if (!g->graph)
        return;
    (void)cudaGraphExecDestroy(g->graph);
    g->graph = NULL;
    s->head.repeats.bytes -= g->bytes;
    s->head.repeats.dropped++;
}

static void free_from(atedm_cuda_stream *s, atedm_cuda_graph **place)
{
    atedm_cuda_graph *g = *place;
    *place = NULL;
    while (g) {
        atedm_cuda_graph *next = g->next;
        drop(s, g);
        free(g->key);
        free(g);
        g = next;
    }
}

void atedm_cuda_graphs_finish(atedm_cuda_stream *s)
{
    free_from(s, &s->graphs.latest);
}

void atedm_cuda_stream_forget(atedm_stream *head)
{
    atedm_cuda_graphs_finish(atedm_cuda_stream_of(head));
}

bool atedm_cuda_graphs_release(atedm_cuda_stream *s)
{
    if (s->graphs.capturing) {
        atedm_stream_fail(&s->head, ATEDM_ERR_NOMEM, "scratch memory grows during a capture");
        return false;
    }
    for (atedm_cuda_graph *g = s->graphs.latest; g; g = g->next)
        drop(s, g);
    return true;
}

// Drops all graphs and makes no more: none at all, or, where only memory ran out, none for a while,
// since others may give theirs back. atedm_repeat_figures gets the reason: the stream's failure if
// there is one, else `error`, which `what` met with. The stream goes on as one without a failure.
static void refuse(atedm_cuda_stream *s, cudaError_t error, const char *what)
{
    bool is_full = error == cudaErrorMemoryAllocation && !s->head.status;
    s->graphs.off = !is_full;
    s->graphs.pause = is_full ? ATEDM_CUDA_GRAPH_PAUSE : 0;
    if (!s->head.status)
        atedm_cuda_check(&s->head, error, what);
    s->head.status = ATEDM_OK;
    (void)cudaGetLastError(); // is not for the next call to find
    snprintf(s->head.repeats.refusal, sizeof s->head.repeats.refusal,
             "goes on without CUDA graphs%s: %.400s", is_full ? " for now" : "",
             s->head.error.message);
    free_from(s, &s->graphs.latest);
}

// ---- keys

// Drops what is beyond the limits, the least recently used first.
static void trim(atedm_cuda_stream *s)
{
    size_t keys = 0, graphs = 0, bytes = 0;
    for (atedm_cuda_graph **place = &s->graphs.latest; *place; place = &(*place)->next) {
        if (++keys > ATEDM_CUDA_MAX_KEYS) {
            free_from(s, place);
            return;
        }
        if (!(*place)->graph)
            continue;
        bytes += (*place)->bytes;
        if (++graphs > ATEDM_CUDA_MAX_GRAPHS || (bytes > ATEDM_CUDA_MAX_GRAPH_BYTES && graphs > 1))
            drop(s, *place);
    }
}

static atedm_cuda_graph *make(const void *key, size_t key_bytes)
{
    atedm_cuda_graph *g = calloc(1, sizeof *g);
    if (g && !(g->key = malloc(key_bytes ? key_bytes : 1))) {
        free(g);
        return NULL;
    }
    if (g) {
        memcpy(g->key, key, key_bytes);
        g->key_bytes = key_bytes;
    }
    return g;
}

// What is kept of the key, which becomes the latest. NULL where the key comes for the first time
// (it is kept from now on), or where there is no memory to keep it.
static atedm_cuda_graph *find(atedm_cuda_stream *s, const void *key, size_t key_bytes)
{
    atedm_cuda_graph **place = &s->graphs.latest;
    while (*place &&
           ((*place)->key_bytes != key_bytes || memcmp((*place)->key, key, key_bytes) != 0))
        place = &(*place)->next;
    atedm_cuda_graph *known = *place, *g = known ? known : make(key, key_bytes);
    if (!g)
        return NULL;
    if (known)
        *place = known->next;
    g->next = s->graphs.latest;
    s->graphs.latest = g;
    trim(s);
    return known;
}

// ---- capture and launch

static atedm_op_counts counted_since(const atedm_op_counts *now, const atedm_op_counts *before)
{
    return (atedm_op_counts){.conv = now->conv - before->conv,
                             .linear = now->linear - before->linear,
                             .attention = now->attention - before->attention,
                             .overhead = now->overhead - before->overhead};
}

static size_t free_memory(void)
{
    size_t bytes = 0, total;
    return cudaMemGetInfo(&bytes, &total) ? 0 : bytes;
}

// Makes a graph ready to be launched, and measures the device memory that it takes, since CUDA does
// not tell. Memory that others take or give back meanwhile makes the measure wrong by as much.
static cudaError_t instantiate(cudaStream_t stream, cudaGraph_t graph, cudaGraphExec_t *ret_graph,
                               size_t *ret_bytes)
{
    cudaGraphExec_t ready = NULL;
    size_t before = free_memory();
    // With the priorities of the streams that were captured: else all nodes have that of the stream
    // that launches.
    cudaError_t error =
        cudaGraphInstantiate(&ready, graph, cudaGraphInstantiateFlagUseNodePriority);
    if (!error)
        error = cudaGraphUpload(ready, stream); // takes its memory now, not at the first launch
    if (error) {
        if (ready)
            (void)cudaGraphExecDestroy(ready);
        return error;
    }
    size_t after = free_memory();
    *ret_graph = ready;
    *ret_bytes = after < before ? before - after : 0;
    return cudaSuccess;
}

// After a capture that failed: the stream is as before it. `error` is the capture's own; a failure
// of the operations themselves will come again when they are called directly.
static void give_up(atedm_cuda_stream *s, cudaError_t error, const atedm_op_counts *before)
{
    if (error)
        refuse(s, error, "capturing a graph");
    s->head.status = ATEDM_OK;
    s->head.counts = *before;
}

// Captures the sequence into g->graph. False where there is no graph after all: then nothing has
// happened on the device, and `g` may have been freed.
static bool capture(atedm_cuda_stream *s, atedm_cuda_graph *g, atedm_enqueue_fn enqueue, void *user)
{
    const atedm_op_counts before = s->head.counts;
    cudaGraph_t graph = NULL;
    // Other threads may allocate meanwhile.
    cudaError_t error = cudaStreamBeginCapture(s->stream, cudaStreamCaptureModeThreadLocal);
    if (!error) {
        s->graphs.capturing = true;
        enqueue(user);
        s->graphs.capturing = false;
        error = cudaStreamEndCapture(s->stream, &graph);
    }
    if (!error && !s->head.status)
        error = instantiate(s->stream, graph, &g->graph, &g->bytes);
    if (graph)
        (void)cudaGraphDestroy(graph);
    if (error || s->head.status) {
        give_up(s, error, &before);
        return false;
    }
    s->head.repeats.bytes += g->bytes;
    g->counts = counted_since(&s->head.counts, &before);
    trim(s);
    return true;
}

static bool launch(atedm_cuda_stream *s, const atedm_cuda_graph *g)
{
    cudaError_t error = cudaGraphLaunch(g->graph, s->stream);
    if (!error)
        return true;
    refuse(s, error, "launching a graph");
    return false;
}

void atedm_cuda_stream_repeat(atedm_stream *head, const void *key, size_t key_bytes,
                              atedm_enqueue_fn enqueue, void *user)
{
    atedm_cuda_stream *s = atedm_cuda_stream_of(head);
    const atedm_op_counts before = head->counts;
    bool pauses = s->graphs.pause > 0;
    s->graphs.pause -= pauses;
    atedm_cuda_graph *g = s->graphs.off || pauses ? NULL : find(s, key, key_bytes);
    if (g && g->graph) {
        if (launch(s, g)) {
            atedm_op_counts_add(&head->counts, &g->counts);
            head->repeats.replayed++;
            return;
        }
        g = NULL; // it has gone, with all others
    }
    if (g && capture(s, g, enqueue, user) && launch(s, g)) {
        head->repeats.recorded++;
        head->repeats.refusal[0] = '\0';
        return;
    }
    head->counts = before;
    head->repeats.direct++;
    enqueue(user);
}
