// Group and layer norms of the cpu backend.
#include "kernels/cpu/cpu.h"

#include <math.h>
#include <omp.h>
#include <string.h>

// Bytes of a group norm's chunk. It is read twice, and should stay in a core's cache in between.
// Chunks do not depend on the number of threads, so neither do results.
#define CHUNK_BYTES ((int64_t)128 << 10)

// Mean and sum of squared deviations of `count` values.
typedef struct moments {
    double count, mean, squares;
} moments;

// Merges the moments of two sets (Chan, Golub & LeVeque 1979).
static moments merge(moments a, moments b)
{
    moments both = {.count = a.count + b.count};
    double delta = b.mean - a.mean;
    both.mean = a.mean + delta * b.count / both.count;
    both.squares = a.squares + b.squares + delta * delta * a.count * b.count / both.count;
    return both;
}

// A thread's working memory for a chunk.
typedef struct chunk_work {
    double *sums;  // [c]
    float *center; // [c]
} chunk_work;

// Moments of each group over the chunk's rows.
static void measure_chunk(const atedm_vec_act *act, const void *x, int64_t rows, int64_t c,
                          int64_t groups, chunk_work w, moments *result)
{
    int64_t width = c / groups;
    double count = (double)(rows * width);
    memset(w.sums, 0, (size_t)c * sizeof *w.sums);
    act->column_sums(x, rows, c, NULL, w.sums);
    for (int64_t g = 0; g < groups; g++) {
        double sum = 0;
        for (int64_t j = g * width; j < (g + 1) * width; j++)
            sum += w.sums[j];
        // The deviations are relative to this rounded mean, so it counts as the mean until it is
        // corrected below.
        float mean = (float)(sum / count);
        result[g] = (moments){.count = count, .mean = sum / count};
        for (int64_t j = g * width; j < (g + 1) * width; j++)
            w.center[j] = mean;
    }
    memset(w.sums, 0, (size_t)c * sizeof *w.sums);
    act->column_sums(x, rows, c, w.center, w.sums);
    for (int64_t g = 0; g < groups; g++) {
        double sum = 0, off = (double)w.center[g * width] - result[g].mean;
        for (int64_t j = g * width; j < (g + 1) * width; j++)
            sum += w.sums[j];
        sum -= off * off * count;
        result[g].squares = sum > 0 || isnan(sum) ? sum : 0;
    }
}

// y = (x - center) * factor + shift for each channel of one sample.
typedef struct channel_map {
    float *center, *factor; // [c]
} channel_map;

static void make_channel_map(const moments *chunks, int64_t n_chunks, int64_t c, int64_t groups,
                             float epsilon, const float *scale, channel_map map)
{
    int64_t width = c / groups;
    for (int64_t g = 0; g < groups; g++) {
        moments all = chunks[g];
        for (int64_t i = 1; i < n_chunks; i++)
            all = merge(all, chunks[i * groups + g]);
        double factor = 1 / sqrt(all.squares / all.count + (double)epsilon);
        for (int64_t j = g * width; j < (g + 1) * width; j++) {
            map.center[j] = (float)all.mean;
            map.factor[j] = (float)(factor * (double)scale[j]);
        }
    }
}

void atedm_cpu_group_norm(atedm_stream *stream, const atedm_group_norm_args *args)
{
    atedm_cpu_stream *s = atedm_cpu_stream_of(stream);
    const atedm_cpu_weight *weight = atedm_cpu_weight_of(args->weight);
    int64_t c = weight->head.in, hw = args->hw, groups = args->groups;
    int64_t row_bytes = c * (int64_t)atedm_dtype_size(stream->act);
    int64_t rows = CHUNK_BYTES / row_bytes > 0 ? CHUNK_BYTES / row_bytes : 1;
    int64_t chunks = (hw + rows - 1) / rows, threads = omp_get_max_threads();
    size_t sums_bytes = (size_t)c * sizeof(double), floats_bytes = (size_t)c * sizeof(float);
    size_t chunk_bytes = (size_t)groups * sizeof(moments);
    char *memory =
        atedm_cpu_scratch_get(s, ATEDM_SCRATCH_SUMS,
                              (size_t)chunks * chunk_bytes +
                                  (size_t)threads * (sums_bytes + floats_bytes) + 2 * floats_bytes);
    if (!memory)
        return;
    moments *measured = (moments *)(void *)memory;
    char *thread_sums = memory + (size_t)chunks * chunk_bytes;
    char *thread_centers = thread_sums + (size_t)threads * sums_bytes;
    char *maps = thread_centers + (size_t)threads * floats_bytes;
    channel_map map = {(float *)(void *)maps, (float *)(void *)(maps + floats_bytes)};
    for (int64_t i = 0; i < args->n; i++) {
        const char *x = (const char *)args->x + i * hw * row_bytes;
        char *y = (char *)args->y + i * hw * row_bytes;
#pragma omp parallel for schedule(static)                                                          \
    num_threads(atedm_cpu_threads(hw *c *ATEDM_CPU_ELEMENT_WORK))
        for (int64_t k = 0; k < chunks; k++) {
            size_t thread = (size_t)omp_get_thread_num();
            chunk_work w = {(double *)(void *)(thread_sums + thread * sums_bytes),
                            (float *)(void *)(thread_centers + thread * floats_bytes)};
            int64_t n = hw - k * rows < rows ? hw - k * rows : rows;
            measure_chunk(s->act, x + k * rows * row_bytes, n, c, groups, w, measured + k * groups);
        }
        make_channel_map(measured, chunks, c, groups, args->epsilon, weight->data, map);
#pragma omp parallel for schedule(static)                                                          \
    num_threads(atedm_cpu_threads(hw *c *ATEDM_CPU_ELEMENT_WORK))
        for (int64_t k = 0; k < chunks; k++) {
            int64_t n = hw - k * rows < rows ? hw - k * rows : rows;
            s->act->normalize(x + k * rows * row_bytes, y + k * rows * row_bytes, n, c, map.center,
                              map.factor, weight->bias, args->silu);
        }
    }
}

void atedm_cpu_layer_norm(atedm_stream *stream, const atedm_layer_norm_args *args)
{
    const atedm_vec_act *act = atedm_cpu_stream_of(stream)->act;
    const atedm_cpu_weight *weight = atedm_cpu_weight_of(args->weight);
    int64_t c = weight->head.in;
    int64_t row_bytes = c * (int64_t)atedm_dtype_size(stream->act);
#pragma omp parallel for schedule(static)                                                          \
    num_threads(atedm_cpu_threads(args->rows *c *ATEDM_CPU_ELEMENT_WORK))
    for (int64_t r = 0; r < args->rows; r++)
        act->layer_norm((const char *)args->x + r * row_bytes, (char *)args->y + r * row_bytes,
                        weight->data, weight->bias, c, args->epsilon);
}
