// CLIP text encoder (Radford et al. 2021; transformers: CLIPTextModel,
// CLIPTextModelWithProjection).
#ifndef ATEDM_CLIP_TEXT_H
#define ATEDM_CLIP_TEXT_H

#include "core/arena.h"
#include "core/base/status.h"
#include "core/weights.h"
#include "kernels/kernels.h"

#define ATEDM_CLIP_MAX_LAYERS 64
#define ATEDM_CLIP_MAX_WIDTH 16384
#define ATEDM_CLIP_MAX_HEADS 1024
#define ATEDM_CLIP_MAX_PROMPTS 64 // in one call of atedm_clip_encode

typedef struct atedm_clip_config {
    int64_t vocab, positions, width, mlp_width, projection;
    int layers, heads;
    float layer_norm_epsilon;
    atedm_activation activation;
    bool has_projection; // CLIPTextModelWithProjection: has a pooled output and text_projection
    int64_t eos; // eos_token_id; 2, as in old configs, stands for "the position of the largest id"
} atedm_clip_config;

// Reads and checks the config.json at `path`. ATEDM_ERR_UNSUPPORTED: another architecture or
// activation. ATEDM_ERR_FORMAT: malformed or inconsistent values.
ATEDM_MUST_CHECK atedm_status atedm_clip_config_read(const char *path,
                                                     atedm_clip_config *ret_config,
                                                     atedm_error *err);

typedef struct atedm_clip atedm_clip;

// Loads the parameters from `weights`, which is borrowed for the call. The encoder must be
// destroyed before `device`.
ATEDM_MUST_CHECK atedm_status atedm_clip_create(atedm_device *device, atedm_dtype act,
                                                const atedm_clip_config *config,
                                                atedm_weights *weights, atedm_clip **ret_clip,
                                                atedm_error *err);
void atedm_clip_destroy(atedm_clip *clip);       // NULL allowed
size_t atedm_clip_bytes(const atedm_clip *clip); // device bytes of its weights

// Enqueues the encoding of n prompts on `s`; a failure makes the stream fail.
// ids: [host] [n, tokens]. hidden: [device] act [n * tokens, width], the output of the
// second-to-last layer, without the final norm. pooled: [device] act [n, projection], or NULL; the
// last layer's output at the end token, after final norm and text_projection (needs
// has_projection).
void atedm_clip_encode(const atedm_clip *clip, atedm_stream *s, atedm_arena *arena,
                       const int64_t *ids, int64_t n, int64_t tokens, void *hidden, void *pooled);

#endif
