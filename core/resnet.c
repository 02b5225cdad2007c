// Residual block: see resnet.h.
#include "core/resnet.h"

void atedm_resnet_load(atedm_loader *l, atedm_resnet *resnet, int64_t embedding, const char *prefix)
{
    int64_t in = resnet->in, out = resnet->out;
    resnet->norm1 = atedm_load_norm(l, in, "%s.norm1", prefix);
    resnet->conv1 = atedm_load_conv(l, out, in, 3, 1, "%s.conv1", prefix);
    if (embedding)
        resnet->time = atedm_load_linear(l, out, embedding, true, "%s.time_emb_proj", prefix);
    resnet->norm2 = atedm_load_norm(l, out, "%s.norm2", prefix);
    resnet->conv2 = atedm_load_conv(l, out, out, 3, 1, "%s.conv2", prefix);
    if (in != out)
        resnet->shortcut = atedm_load_conv(l, out, in, 1, 1, "%s.conv_shortcut", prefix);
}

void atedm_resnet_forward(const atedm_resnet *resnet, atedm_stream *s, atedm_arena *arena,
                          const void *x, const void *embedding, int64_t n, int64_t h, int64_t w,
                          void *y)
{
    size_t mark = atedm_arena_mark(arena);
    size_t element = atedm_dtype_size(atedm_stream_dtype(s));
    size_t pixels = (size_t)(n * h * w);
    void *normed = atedm_arena_take(arena, s, pixels * (size_t)resnet->in * element);
    void *hidden = atedm_arena_take(arena, s, pixels * (size_t)resnet->out * element);
    void *time = NULL;
    if (resnet->time) {
        time = atedm_arena_take(arena, s, (size_t)(n * resnet->out) * element);
        atedm_linear(
            s, &(atedm_linear_args){.weight = resnet->time, .x = embedding, .y = time, .rows = n});
    }
    atedm_group_norm_args norm = {.weight = resnet->norm1,
                                  .x = x,
                                  .y = normed,
                                  .n = n,
                                  .hw = h * w,
                                  .groups = resnet->norm_groups,
                                  .epsilon = resnet->norm_epsilon,
                                  .silu = true};
    atedm_group_norm(s, &norm);
    atedm_conv(s, &(atedm_conv_args){.weight = resnet->conv1,
                                     .x = normed,
                                     .channel_add = time,
                                     .y = hidden,
                                     .n = n,
                                     .h = h,
                                     .w = w});
    norm.weight = resnet->norm2;
    norm.x = norm.y = hidden;
    atedm_group_norm(s, &norm);
    const void *residual = x;
    if (resnet->shortcut) {
        atedm_conv(s, &(atedm_conv_args){
                          .weight = resnet->shortcut, .x = x, .y = y, .n = n, .h = h, .w = w});
        residual = y;
    }
    atedm_conv(s, &(atedm_conv_args){.weight = resnet->conv2,
                                     .x = hidden,
                                     .residual = residual,
                                     .y = y,
                                     .n = n,
                                     .h = h,
                                     .w = w});
    atedm_arena_release(arena, mark);
}
