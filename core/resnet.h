// The residual block of UNet and VAE (diffusers: ResnetBlock2D).
#ifndef ATEDM_RESNET_H
#define ATEDM_RESNET_H

#include "core/arena.h"
#include "core/loader.h"

typedef struct atedm_resnet {
    int64_t in, out;
    int norm_groups;
    float norm_epsilon;
    const atedm_weight *norm1, *conv1, *norm2, *conv2;
    const atedm_weight *time;     // linear layer [out, embedding]; NULL in the VAE
    const atedm_weight *shortcut; // 1x1 convolution if in != out, else NULL
} atedm_resnet;

// Loads the weights; the caller has filled in the other fields. embedding: width of the time
// embedding; 0: none.
void atedm_resnet_load(atedm_loader *l, atedm_resnet *resnet, int64_t embedding,
                       const char *prefix);

// y = shortcut(x) + conv2(silu(norm2(conv1(silu(norm1(x))) + time(embedding)))).
// x: [device] act [n, h, w, in]; embedding: [device] act [n, e] with SiLU already applied, or NULL;
// y: [device] act [n, h, w, out], must not be x.
void atedm_resnet_forward(const atedm_resnet *resnet, atedm_stream *s, atedm_arena *arena,
                          const void *x, const void *embedding, int64_t n, int64_t h, int64_t w,
                          void *y);

#endif
