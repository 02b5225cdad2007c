// Element-wise and row-copying operations of the cpu backend.
#include "kernels/cpu/cpu.h"

#include <string.h>

#define PIECE ((int64_t)8192) // elements that a thread processes at a time

// Fewer elements than this do not wake other threads.
#define FEW ((int64_t)4 * PIECE)

static int64_t piece_length(int64_t count, int64_t first)
{
    return count - first < PIECE ? count - first : PIECE;
}

#define COPY_PIECE ((size_t)64 << 10) // bytes that a thread copies at a time

void atedm_cpu_copy(const void *from, void *to, size_t bytes)
{
    int64_t pieces = (int64_t)((bytes + COPY_PIECE - 1) / COPY_PIECE);
#pragma omp parallel for schedule(static) if (pieces > 4)
    for (int64_t i = 0; i < pieces; i++) {
        size_t first = (size_t)i * COPY_PIECE;
        size_t length = bytes - first < COPY_PIECE ? bytes - first : COPY_PIECE;
        memcpy((char *)to + first, (const char *)from + first, length);
    }
}

void atedm_cpu_geglu(atedm_stream *stream, const void *x, void *y, int64_t rows, int64_t f)
{
    const atedm_vec_act *act = atedm_cpu_stream_of(stream)->act;
    int64_t bytes = f * (int64_t)atedm_dtype_size(stream->act);
#pragma omp parallel for schedule(static) if (rows * f > FEW)
    for (int64_t r = 0; r < rows; r++)
        act->geglu((const char *)x + 2 * r * bytes, (char *)y + r * bytes, f);
}

void atedm_cpu_activate(atedm_stream *stream, atedm_activation activation, const void *x, void *y,
                        int64_t count)
{
    const atedm_vec_act *act = atedm_cpu_stream_of(stream)->act;
    int64_t size = (int64_t)atedm_dtype_size(stream->act);
#pragma omp parallel for schedule(static) if (count > FEW)
    for (int64_t i = 0; i < count; i += PIECE)
        act->activate(activation, (const char *)x + i * size, (char *)y + i * size,
                      piece_length(count, i));
}

void atedm_cpu_add(atedm_stream *stream, const void *a, const void *b, void *y, int64_t count)
{
    const atedm_vec_act *act = atedm_cpu_stream_of(stream)->act;
    int64_t size = (int64_t)atedm_dtype_size(stream->act);
#pragma omp parallel for schedule(static) if (count > FEW)
    for (int64_t i = 0; i < count; i += PIECE)
        act->add((const char *)a + i * size, (const char *)b + i * size, (char *)y + i * size,
                 piece_length(count, i));
}

void atedm_cpu_upsample2(atedm_stream *stream, const void *x, void *y, int64_t n, int64_t h,
                         int64_t w, int64_t c)
{
    size_t pixel = (size_t)c * atedm_dtype_size(stream->act);
    size_t x_row = (size_t)((w + 1) / 2) * pixel, y_row = (size_t)w * pixel;
    int64_t x_rows = (h + 1) / 2;
#pragma omp parallel for schedule(static) if (n * h * w * c > FEW)
    for (int64_t r = 0; r < n * x_rows; r++) {
        int64_t sample = r / x_rows, i = r % x_rows;
        const char *from = (const char *)x + (size_t)r * x_row;
        char *to = (char *)y + (size_t)(sample * h + 2 * i) * y_row;
        for (size_t j = 0; j < (size_t)w; j++)
            memcpy(to + j * pixel, from + j / 2 * pixel, pixel);
        if (2 * i + 1 < h)
            memcpy(to + y_row, to, y_row);
    }
}

void atedm_cpu_concat(atedm_stream *stream, const void *a, int64_t ca, const void *b, int64_t cb,
                      void *y, int64_t rows)
{
    size_t a_bytes = (size_t)ca * atedm_dtype_size(stream->act);
    size_t b_bytes = (size_t)cb * atedm_dtype_size(stream->act);
#pragma omp parallel for schedule(static) if (rows * (ca + cb) > FEW)
    for (int64_t r = 0; r < rows; r++) {
        char *to = (char *)y + (size_t)r * (a_bytes + b_bytes);
        memcpy(to, (const char *)a + (size_t)r * a_bytes, a_bytes);
        memcpy(to + a_bytes, (const char *)b + (size_t)r * b_bytes, b_bytes);
    }
}

void atedm_cpu_gather_rows(atedm_stream *stream, const void *x, const int32_t *index, void *y,
                           size_t row_bytes, const atedm_gather_span *spans, int64_t n_spans)
{
    for (int64_t i = 0; i < n_spans; i++) {
        const char *from = (const char *)x + (size_t)spans[i].from * row_bytes;
        char *to = (char *)y + (size_t)spans[i].to * row_bytes;
        const int32_t *list = index + spans[i].index_first;
#pragma omp parallel for schedule(static) if (spans[i].n * (int64_t)row_bytes > FEW)
        for (int64_t r = 0; r < spans[i].n; r++) {
            if (list[r] < 0)
                memset(to + (size_t)r * row_bytes, 0, row_bytes);
            else
                memcpy(to + (size_t)r * row_bytes, from + (size_t)list[r] * row_bytes, row_bytes);
        }
    }
}

void atedm_cpu_add_rows(atedm_stream *stream, const void *x, const int32_t *index, float factor,
                        void *y, int64_t c, const atedm_gather_span *spans, int64_t n_spans)
{
    const atedm_vec_act *act = atedm_cpu_stream_of(stream)->act;
    int64_t row = c * (int64_t)atedm_dtype_size(stream->act);
    for (int64_t i = 0; i < n_spans; i++) {
        const char *from = (const char *)x + spans[i].from * row;
        char *to = (char *)y + spans[i].to * row;
        const int32_t *list = index + spans[i].index_first;
#pragma omp parallel for schedule(static) if (spans[i].n * c > FEW)
        for (int64_t r = 0; r < spans[i].n; r++)
            if (list[r] >= 0)
                act->accumulate(from + list[r] * row, factor, to + r * row, c);
    }
}
