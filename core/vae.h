// The decoder of SDXL's autoencoder (diffusers: AutoencoderKL).
#ifndef ATEDM_VAE_H
#define ATEDM_VAE_H

#include "core/arena.h"
#include "core/base/status.h"
#include "core/weights.h"
#include "kernels/kernels.h"

#define ATEDM_VAE_MAX_LEVELS 8
#define ATEDM_VAE_MAX_CHANNELS 65536
#define ATEDM_VAE_MAX_LATENT_CHANNELS 64
#define ATEDM_VAE_MAX_RESNETS 8 // layers_per_block; up stages have one more

typedef struct atedm_vae_config {
    int64_t latent_channels, out_channels;
    int levels;
    int64_t channels[ATEDM_VAE_MAX_LEVELS];
    int layers_per_block; // the decoder has one more
    int norm_groups;
    double scaling_factor;
    bool post_quant_conv; // use_post_quant_conv, default true
    bool mid_attention;   // mid_block_add_attention, default true
} atedm_vae_config;

ATEDM_MUST_CHECK atedm_status atedm_vae_config_read(const char *path, atedm_vae_config *ret_config,
                                                    atedm_error *err);
int64_t atedm_vae_config_scale(const atedm_vae_config *config); // pixels a latent: 2^(levels - 1)

typedef struct atedm_vae atedm_vae;

ATEDM_MUST_CHECK atedm_status atedm_vae_create(atedm_device *device, atedm_dtype act,
                                               const atedm_vae_config *config,
                                               atedm_weights *weights, atedm_vae **ret_vae,
                                               atedm_error *err);
void atedm_vae_destroy(atedm_vae *vae);       // NULL allowed
size_t atedm_vae_bytes(const atedm_vae *vae); // of its weights on the device

// latents [device] F32 [h, w, latent_channels], as the sampler leaves them (not yet divided by
// scaling_factor); y [device] act [h * scale, w * scale, out_channels], about -1..1. One image a
// call.
void atedm_vae_decode(const atedm_vae *vae, atedm_stream *s, atedm_arena *arena,
                      const float *latents, int64_t h, int64_t w, void *y);

// The same in pieces of one residual block, attention or upsampling each, so that others' steps can
// run between them. Its feature maps stay on the arena until the last piece.
typedef struct atedm_vae_decoding {
    const atedm_vae *vae;
    atedm_stream *s;
    atedm_arena *arena;
    size_t mark;
    const float *latents;
    int64_t h, w; // of the current feature map
    // Two scratch maps take turns; each is as large as any map of the decoder.
    void *x, *y;
    int piece;
} atedm_vae_decoding;

void atedm_vae_decoding_init(atedm_vae_decoding *decoding, const atedm_vae *vae, atedm_stream *s,
                             atedm_arena *arena, const float *latents, int64_t h, int64_t w);
// Enqueues the next piece. False behind the last one: y has the picture, the arena is as before.
bool atedm_vae_decoding_advance(atedm_vae_decoding *decoding, void *y);

#endif
