// Latents to a small picture, without the decoder: for looking at a request while it runs.
//
// One pixel a latent cell, RGB = W z + b (3 x channels and 3), the same map for every cell. No file
// of a model has such a map, so it is fitted to the model's own decoder: latents drawn from a fixed
// seed are decoded, each cell's pixels averaged, and W, b are the least-squares solution of the
// normal equations, in double. Latents are drawn twice, as areas of one value each, which is what
// pictures are made of: small ones, where every decoder is about linear; then those that the map so
// far takes to colours drawn evenly from the whole range, so that the scale and the proportions of
// the latents are those of this decoder's pictures. The map is of both.
//
// What it cannot show: anything finer than a cell; what the decoder makes of a cell's surroundings;
// colours where the decoder is far from linear, above all near black and white. Colours and places
// are to be recognised, no more.
#ifndef ATEDM_PREVIEW_H
#define ATEDM_PREVIEW_H

#include "core/base/status.h"
#include "core/model.h"

#include <stdint.h>

typedef struct atedm_preview {
    int64_t channels;
    // RGB in 0..255. The last column is b, whatever the channels.
    double map[3][ATEDM_VAE_MAX_LATENT_CHANNELS + 1];
} atedm_preview;

// The same for the same model, dtype and kind of device. Takes as long as decoding 24 pictures of
// 12 x 12 cells, and up to `memory` bytes of the device meanwhile: ATEDM_ERR_NOMEM where
// that does not do. ATEDM_ERR_UNSUPPORTED: latents of too many channels.
ATEDM_MUST_CHECK atedm_status atedm_preview_fit(const atedm_model *model, size_t memory,
                                                atedm_preview *ret_preview, atedm_error *err);

// Of a preview; larger ones show every second latent along both sides, or every third, and so on.
#define ATEDM_PREVIEW_MAX_PIXELS ((int64_t)1 << 18)
// Of its PNG without texts: three bytes a pixel and one a row, where zlib saves nothing; and what
// zlib and PNG put around them.
#define ATEDM_PREVIEW_MAX_BYTES (4 * ATEDM_PREVIEW_MAX_PIXELS + (64 << 10))

typedef struct atedm_preview_grid {
    int64_t stride; // every how many-th latent is shown
    int64_t h, w;   // pixels
} atedm_preview_grid;

atedm_preview_grid atedm_preview_grid_of(int64_t h, int64_t w); // latents

// latents [host] F32 [h, w, channels], scaled as the sampler leaves them; ret_rgb [grid.h, grid.w,
// 3]. NaN comes out as 0.
void atedm_preview_render(const atedm_preview *preview, const float *latents, int64_t h, int64_t w,
                          uint8_t *ret_rgb);

#endif
