// Latents to a small picture, without the decoder: shows a request while it runs.
//
// Each latent cell becomes one pixel, RGB = W z + b (W is 3 x channels, b has 3 values), with the
// same map for every cell. No model's files contain such a map, so it is fitted to the model's own
// decoder: random latents from a fixed seed are decoded, the pixels of each cell are averaged, and
// W, b are the least-squares solution of the normal equations, in double. The latents form areas of
// one value each, like the areas of pictures. They are drawn twice. First small ones, for which
// every decoder is about linear. Then those that the first map takes to colours drawn uniformly
// from almost the whole range, so that scale and proportions are those of latents of this decoder's
// pictures. The final map is fitted to both.
//
// It cannot show anything finer than a cell, nor what the decoder derives from a cell's
// neighbours, nor colours for which the decoder is far from linear, above all near black and white.
// A preview only has to make colours and places recognisable.
#ifndef ATEDM_PREVIEW_H
#define ATEDM_PREVIEW_H

#include "core/base/status.h"
#include "core/model.h"

#include <stdint.h>

typedef struct atedm_preview {
    int64_t channels;
    // RGB in 0..255. The last column is b, for any number of channels.
    double map[3][ATEDM_VAE_MAX_LATENT_CHANNELS + 1];
} atedm_preview;

// Fits the map. The result depends only on the model, the dtype and the kind of device. Takes as
// long as decoding 24 pictures of 12 x 12 cells, and up to `memory` bytes of the device meanwhile.
// ATEDM_ERR_NOMEM: it needs more than that, or an allocation failed. ATEDM_ERR_UNSUPPORTED: the
// latents have too many channels.
ATEDM_MUST_CHECK atedm_status atedm_preview_fit(const atedm_model *model, size_t memory,
                                                atedm_preview *ret_preview, atedm_error *err);

// The most pixels of a preview. For larger latents it shows every second, third, ... latent along
// both sides.
#define ATEDM_PREVIEW_MAX_PIXELS ((int64_t)1 << 18)
// The most bytes of a preview's PNG without texts: three a pixel and one a row, uncompressed, plus
// what zlib and PNG add. (4 a pixel is enough even for one-pixel rows.)
#define ATEDM_PREVIEW_MAX_BYTES (4 * ATEDM_PREVIEW_MAX_PIXELS + (64 << 10))

// The grid of the latents that a preview shows.
typedef struct atedm_preview_grid {
    int64_t stride; // shows every stride-th latent along both sides
    int64_t h, w;   // pixels
} atedm_preview_grid;

// The grid for h x w latents.
atedm_preview_grid atedm_preview_grid_of(int64_t h, int64_t w);

// Draws a preview. latents: [host] F32 [h, w, channels], scaled as the sampler leaves them.
// ret_rgb: [host] uint8 [grid.h, grid.w, 3]. A pixel's NaN becomes 0.
void atedm_preview_render(const atedm_preview *preview, const float *latents, int64_t h, int64_t w,
                          uint8_t *ret_rgb);

#endif
