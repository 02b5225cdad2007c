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
#define ATEDM_VAE_MAX_RESNETS 8 // largest layers_per_block; up stages have one block more

typedef struct atedm_vae_config {
    int64_t latent_channels, out_channels;
    int levels;
    int64_t channels[ATEDM_VAE_MAX_LEVELS];
    int layers_per_block; // of the encoder; the decoder has one more
    int norm_groups;
    double scaling_factor;
    bool post_quant_conv; // use_post_quant_conv, default true
    bool mid_attention;   // mid_block_add_attention, default true
} atedm_vae_config;

// Reads and checks the config.json at `path`.
ATEDM_MUST_CHECK atedm_status atedm_vae_config_read(const char *path, atedm_vae_config *ret_config,
                                                    atedm_error *err);
// Pixels of an image's side for each latent: 2^(levels - 1).
int64_t atedm_vae_config_scale(const atedm_vae_config *config);

typedef struct atedm_vae atedm_vae;

// Loads the parameters from `weights`, which is borrowed for the call. The VAE must be destroyed
// before `device`.
ATEDM_MUST_CHECK atedm_status atedm_vae_create(atedm_device *device, atedm_dtype act,
                                               const atedm_vae_config *config,
                                               atedm_weights *weights, atedm_vae **ret_vae,
                                               atedm_error *err);
void atedm_vae_destroy(atedm_vae *vae);       // NULL allowed
size_t atedm_vae_bytes(const atedm_vae *vae); // device bytes of its weights

// Enqueues the decoding of one image; a failure makes the stream fail. latents: [device] F32
// [h, w, latent_channels], as the sampler leaves them (not yet divided by scaling_factor). y:
// [device] act [h * scale, w * scale, out_channels], about -1..1.
void atedm_vae_decode(const atedm_vae *vae, atedm_stream *s, atedm_arena *arena,
                      const float *latents, int64_t h, int64_t w, void *y);

// The same in pieces, of one residual block, attention or upsampling each, so that steps of other
// requests can run between the pieces. The feature maps stay on the arena until the last piece.
typedef struct atedm_vae_decoding {
    const atedm_vae *vae;
    atedm_stream *s;
    atedm_arena *arena;
    size_t mark;
    const float *latents;
    int64_t h, w; // of the current feature map
    // The current feature map and a buffer for the next one. Each is as large as the decoder's
    // largest map.
    void *x, *y;
    int piece;
} atedm_vae_decoding;

void atedm_vae_decoding_init(atedm_vae_decoding *decoding, const atedm_vae *vae, atedm_stream *s,
                             atedm_arena *arena, const float *latents, int64_t h, int64_t w);
// Enqueues the next piece. Returns whether there are more pieces. After the last one, y gets the
// image, and the arena is released to its state before init.
bool atedm_vae_decoding_advance(atedm_vae_decoding *decoding, void *y);

#endif
