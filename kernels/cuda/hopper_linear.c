// The host's side of linear_hopper.cu: which linear layers it takes, how their results are cut into
// tiles, and the calls.
#include "kernels/cuda/linear.h"

#include <math.h>

// Rates that cuts are compared by, from a multiprocessor's sheet and from what is known of its
// second-level cache (5.5 TB/s of all): for each cycle. Only for which cuts come first: trials time
// them.
#define SHARED_BYTES 128.0 // read or written in shared memory
#define PORT_BYTES 64.0    // loaded, of one multiprocessor
#define CACHE_BYTES 3100.0 // loaded from the cache, of all; once for a cluster
#define PRODUCTS 2048.0    // multiplied and added
// What a round of blocks takes beside its products: until the first tile is there, and the
// epilogue.
#define ROUND_CYCLES 1200.0

#define STEP_BYTES 32 // of a row in a product: 16 elements

static int64_t divide_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

// Tiles in y and in x, of whole clusters.
static int64_t count_down(const atedm_cuda_linear_cut *c, int64_t rows)
{
    return divide_up(rows, c->rows * c->down) * c->down;
}

static int64_t count_across(const atedm_cuda_linear_cut *c, int64_t out)
{
    return divide_up(out, c->outputs * c->across) * c->across;
}

// A step of 16 columns, with so many blocks at once: whatever it has to wait for.
static double step_cycles(const atedm_cuda_linear_cut *c, double blocks)
{
    double rows = c->rows, outputs = c->outputs;
    double loaded = (rows + outputs) * STEP_BYTES;
    // Each 64 rows read all outputs' weights.
    double read = (rows + rows / 64 * outputs) * STEP_BYTES;
    double own = (rows / c->across + outputs / c->down) * STEP_BYTES;
    double most = fmax(rows * outputs * 16 / PRODUCTS, (loaded + read) / SHARED_BYTES);
    return fmax(most, fmax(loaded / PORT_BYTES, own * blocks / CACHE_BYTES));
}

// How many blocks run at once; 0 on a device, or a part of one, that has no room for such a
// cluster.
static int64_t count_fit(const atedm_cuda_hopper *hopper, const atedm_cuda_linear_cut *c)
{
    int cluster = c->down * c->across;
    return (int64_t)hopper->linear_clusters[cluster / 2] * cluster;
}

static double cut_cycles(const atedm_cuda_hopper *hopper, const atedm_cuda_plan_key *key,
                         const atedm_cuda_linear_cut *c)
{
    int64_t blocks = count_down(c, key->rows) * count_across(c, key->out),
            fit = count_fit(hopper, c);
    double steps = (double)divide_up(key->in, STEP_BYTES / 2);
    return (double)divide_up(blocks, fit) *
           (steps * step_cycles(c, (double)(blocks < fit ? blocks : fit)) + ROUND_CYCLES);
}

int atedm_cuda_linear_cuts(const atedm_cuda_stream *s, const atedm_cuda_plan_key *key, int wanted,
                           atedm_cuda_linear_cut *ret_cuts)
{
    static const int32_t tiles[][2] = {{64, 64}, {64, 128}, {128, 128}, {128, 160}};
    static const int32_t clusters[][2] = {{1, 1}, {1, 2}, {2, 1}, {2, 2}, {1, 4}, {4, 1}};
    const atedm_cuda_hopper *hopper = &((const atedm_cuda_device *)s->head.device)->hopper;
    int n = 0;
    for (size_t t = 0; t < sizeof tiles / sizeof *tiles; t++)
        for (size_t i = 0; i < sizeof clusters / sizeof *clusters; i++) {
            const atedm_cuda_linear_cut cut = {.rows = tiles[t][0],
                                               .outputs = tiles[t][1],
                                               .down = clusters[i][0],
                                               .across = clusters[i][1]};
            if (!count_fit(hopper, &cut))
                continue;
            double cycles = cut_cycles(hopper, key, &cut);
            int at = n < wanted ? n++ : wanted; // the last one has to go
            for (; at > 0 && cycles < cut_cycles(hopper, key, &ret_cuts[at - 1]); at--)
                if (at < wanted)
                    ret_cuts[at] = ret_cuts[at - 1];
            if (at < wanted)
                ret_cuts[at] = cut;
        }
    return n;
}

bool atedm_cuda_hopper_takes_linear(const atedm_cuda_stream *s, const atedm_cuda_plan_key *key)
{
    const size_t whole = ATEDM_CUDA_LINEAR_ALIGN;
    return s->head.act != ATEDM_F32 && key->out % 8 == 0 && key->out <= INT32_MAX &&
           key->in <= INT32_MAX && key->weight_align >= whole && key->x_align >= whole &&
           key->y_align >= whole && key->residual_align >= whole;
}

// The map of a matrix of which a block loads boxes of so many rows.
static bool encode(const atedm_cuda_stream *s, const void *at, int64_t rows, int64_t columns,
                   int64_t stride, int32_t box_rows, CUtensorMap *ret_map)
{
    const atedm_cuda_hopper *hopper = &((const atedm_cuda_device *)s->head.device)->hopper;
    const cuuint64_t dims[] = {(cuuint64_t)columns, (cuuint64_t)rows};
    const cuuint64_t row_bytes = (cuuint64_t)stride * atedm_dtype_size(s->head.act);
    const cuuint32_t box[] = {ATEDM_CUDA_HOPPER_CHANNELS, (cuuint32_t)box_rows};
    return atedm_cuda_hopper_encode(hopper->encode, s->head.act, at, 2, dims, &row_bytes, box,
                                    ret_map);
}

cublasStatus_t atedm_cuda_hopper_linear(atedm_cuda_stream *s, const atedm_cuda_plan_key *key,
                                        const atedm_cuda_linear_cut *cut,
                                        const atedm_cuda_operands *operands)
{
    int64_t across = count_across(cut, key->out), blocks = count_down(cut, operands->rows) * across;
    atedm_cuda_linear_hopper call = {
        .bias = key->bias ? operands->bias : NULL,
        .residual = key->residual ? operands->residual : NULL,
        .y = operands->y,
        .rows = operands->rows,
        .out = (int32_t)key->out,
        .steps = (int32_t)divide_up(key->in, ATEDM_CUDA_HOPPER_CHANNELS),
        .sums = key->sums,
        .is_bias_first = cut->is_bias_first,
        .tile_rows = cut->rows,
        .tile_outputs = cut->outputs,
        .down = cut->down,
        .across = cut->across,
        .clusters_across = (int32_t)(across / cut->across),
    };
    if (operands->rows > ATEDM_CUDA_HOPPER_MOST_ROWS || blocks > INT32_MAX ||
        !encode(s, operands->x, operands->rows, key->in, key->in, cut->rows / cut->across,
                &call.x) ||
        !encode(s, operands->weight, key->out, key->in, key->weight_stride,
                cut->outputs / cut->down, &call.weight))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    return atedm_cuda_launch_linear_hopper(s->head.act, &call, (unsigned)blocks, s->stream)
               ? CUBLAS_STATUS_EXECUTION_FAILED
               : CUBLAS_STATUS_SUCCESS;
}
