// The host's side of conv_hopper.cu: which convolutions it takes, and how it cuts their images.
#include "kernels/cuda/cuda.h"

#include <math.h>

// Parts are rectangles, and at the image's edges some of their pixels lie outside. Where these are
// more than half as many as the image has, the convolution is left to others.
#define MOST_OUTSIDE 0.5
// What a part of 256 pixels takes in place of one of 128: not twice as long, since weights are read
// for twice the pixels. By the bytes that each loads, not measured.
#define LARGE_COST 1.5

// How images are cut.
typedef struct cut {
    int32_t pixels, log_width, down, across;
} cut;

static int32_t parts_of(int64_t size, int64_t part)
{
    return (int32_t)((size + part - 1) / part);
}

// Parts of one row, where there is just one and windows are single pixels; else narrow rectangles,
// or wider ones: a slab has room for those and the rows that a window's height takes more.
static cut cut_images(const atedm_cuda_conv_call *conv, int32_t pixels, int narrow)
{
    bool is_row = conv->h == 1 && conv->kernel == 1;
    int32_t log_width = is_row ? (pixels == 256 ? 8 : 7) : 4 - narrow;
    return (cut){.pixels = pixels,
                 .log_width = log_width,
                 .down = parts_of(conv->h, pixels >> log_width),
                 .across = parts_of(conv->w, (int64_t)1 << log_width)};
}

// Whichever takes the fewest rounds of blocks. It may depend on the number of samples: sums do not
// depend on the cut.
static cut choose_cut(const atedm_cuda_hopper *hopper, const atedm_cuda_conv_call *conv,
                      int64_t columns)
{
    cut best = {0};
    double least = INFINITY;
    for (int i = 0; i < 4; i++) {
        const cut c = cut_images(conv, i < 2 ? 256 : 128, i % 2);
        int64_t parts = conv->n * c.down * c.across * columns;
        double rounds = ceil((double)parts / hopper->multiprocessors);
        double cost = rounds * (c.pixels == 256 ? LARGE_COST : 1);
        if (cost < least) {
            best = c;
            least = cost;
        }
    }
    return best;
}

// Of the smallest parts.
static bool is_mostly_inside(const atedm_cuda_conv_call *conv)
{
    const double most = (1 + MOST_OUTSIDE) * (double)(conv->h * conv->w);
    for (int narrow = 0; narrow < 2; narrow++) {
        const cut c = cut_images(conv, 128, narrow);
        if ((double)c.pixels * c.down * c.across <= most)
            return true;
    }
    return false;
}

// Decided by the layer and the image's size, whatever the number of samples.
static bool is_taken(const atedm_cuda_conv_call *conv)
{
    uintptr_t rows = (uintptr_t)conv->x | (uintptr_t)conv->y | (uintptr_t)conv->residual;
    return conv->stride == 1 && conv->in % ATEDM_CUDA_HOPPER_CHANNELS == 0 && conv->out % 8 == 0 &&
           conv->out >= ATEDM_CUDA_HOPPER_FEW_OUTPUTS && conv->activation == ATEDM_ACT_NONE &&
           rows % 16 == 0 && (uintptr_t)conv->channel_add % 4 == 0 && is_mostly_inside(conv);
}

static bool encode_conv(const atedm_cuda_hopper *hopper, atedm_dtype act,
                        const atedm_cuda_conv_call *conv, atedm_cuda_conv_hopper *call)
{
    const cuuint64_t element = atedm_dtype_size(act), pixel = (cuuint64_t)conv->in * element,
                     row = (cuuint64_t)conv->w * pixel, image = (cuuint64_t)conv->h * row;
    const cuuint64_t x_dims[] = {(cuuint64_t)conv->in, (cuuint64_t)conv->w, (cuuint64_t)conv->h,
                                 (cuuint64_t)conv->n};
    const cuuint64_t x_strides[] = {pixel, row, image};
    const cuuint32_t x_box[] = {ATEDM_CUDA_HOPPER_CHANNELS, (cuuint32_t)1 << call->log_width,
                                (cuuint32_t)((call->pixels >> call->log_width) + conv->kernel - 1),
                                1};
    const cuuint64_t w_dims[] = {(cuuint64_t)conv->kernel * (cuuint64_t)conv->kernel *
                                     (cuuint64_t)conv->in,
                                 (cuuint64_t)conv->out};
    const cuuint64_t w_row = (cuuint64_t)conv->weight_stride * element;
    const cuuint32_t w_box[] = {ATEDM_CUDA_HOPPER_CHANNELS, (cuuint32_t)call->outputs};
    return atedm_cuda_hopper_encode(hopper->encode, act, conv->x, 4, x_dims, x_strides, x_box,
                                    &call->x) &&
           atedm_cuda_hopper_encode(hopper->encode, act, conv->weight, 2, w_dims, &w_row, w_box,
                                    &call->weight);
}

// Where windows are single pixels, all images are one row: nothing is cut off at their edges.
static atedm_cuda_conv_call flatten(const atedm_cuda_conv_call *conv)
{
    atedm_cuda_conv_call flat = *conv;
    if (conv->kernel == 1 && !conv->channel_add &&
        conv->n * conv->h * conv->w <= ATEDM_CUDA_HOPPER_MOST_ROWS) {
        flat.w = conv->n * conv->h * conv->w;
        flat.n = flat.h = 1;
    }
    return flat;
}

bool atedm_cuda_hopper_conv(atedm_stream *s, const atedm_cuda_conv_call *images,
                            cudaStream_t stream)
{
    const atedm_cuda_hopper *hopper = &((const atedm_cuda_device *)s->device)->hopper;
    if (!hopper->conv || s->act == ATEDM_F32 || images->h > ATEDM_CUDA_HOPPER_MOST_ROWS ||
        images->w > ATEDM_CUDA_HOPPER_MOST_ROWS || !is_taken(images))
        return false;
    const atedm_cuda_conv_call conv = flatten(images);
    int32_t outputs = conv.out % ATEDM_CUDA_HOPPER_OUTPUTS ? ATEDM_CUDA_HOPPER_FEW_OUTPUTS
                                                           : ATEDM_CUDA_HOPPER_OUTPUTS;
    int32_t columns = parts_of(conv.out, outputs);
    const cut c = choose_cut(hopper, &conv, columns);
    int64_t parts = conv.n * c.down * c.across * columns; // 2^28 at most, by ATEDM_MAX_ELEMENTS
    atedm_cuda_conv_hopper call = {
        .bias = conv.bias,
        .channel_add = conv.channel_add,
        .residual = conv.residual,
        .y = conv.y,
        .in = conv.in,
        .out = conv.out,
        .kernel = conv.kernel,
        .h = (int32_t)conv.h,
        .w = (int32_t)conv.w,
        .log_width = c.log_width,
        .pixels = c.pixels,
        .outputs = outputs,
        .down = c.down,
        .across = c.across,
        .columns = columns,
        .parts = (int32_t)parts,
    };
    unsigned blocks = (unsigned)(parts < hopper->multiprocessors ? parts : hopper->multiprocessors);
    atedm_cuda_check(s,
                     encode_conv(hopper, s->act, &conv, &call)
                         ? atedm_cuda_launch_conv_hopper(s->act, &call, blocks, stream)
                         : cudaErrorInvalidValue,
                     "conv");
    return true;
}
