// Every limit of a model's configs, at its bound: one more is refused with the key and the limit,
// the limit itself is not. (Its own limit, that is: alone, it mostly is at odds with other keys.)
#include "core/clip_text.h"
#include "core/model.h"
#include "core/sampler.h"
#include "core/tokenizer.h"
#include "core/unet.h"
#include "core/vae.h"
#include "model_dir.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNET "unet/config.json"
#define VAE "vae/config.json"
#define TEXT "text_encoder/config.json"
#define SCHEDULER "scheduler/scheduler_config.json"

static char dir[MODEL_DIR_MAX];
static atedm_error err;

static void make(void)
{
    model_dir_copy("a", false, dir);
}

static void clean_up(void)
{
    model_dir_remove(dir);
}

TestSuite(model_limits, .init = make, .fini = clean_up, .timeout = 120);

typedef struct limit {
    const char *file, *key, *before; // of a list whose last item it is; "": a number
    int64_t most;
} limit;

// Every integer of every config, but for those whose range follows from other keys.
static const limit limits[] = {
    {UNET, "in_channels", "", ATEDM_VAE_MAX_LATENT_CHANNELS},
    {UNET, "out_channels", "", ATEDM_VAE_MAX_LATENT_CHANNELS},
    {UNET, "layers_per_block", "", ATEDM_UNET_MAX_RESNETS},
    {UNET, "block_out_channels", "[8, 16, ", ATEDM_UNET_MAX_CHANNELS},
    {UNET, "cross_attention_dim", "", ATEDM_UNET_MAX_CHANNELS},
    {UNET, "norm_num_groups", "", ATEDM_UNET_MAX_CHANNELS},
    {UNET, "attention_head_dim", "[1, 1, ", ATEDM_UNET_MAX_CHANNELS},
    {UNET, "transformer_layers_per_block", "[1, 1, ", ATEDM_UNET_MAX_LAYERS},
    {UNET, "addition_time_embed_dim", "", ATEDM_UNET_MAX_CHANNELS},
    {UNET, "projection_class_embeddings_input_dim", "", ATEDM_UNET_MAX_CHANNELS},
    {UNET, "sample_size", "", ATEDM_UNET_MAX_SAMPLE_SIZE},
    {VAE, "block_out_channels", "[8, 8, 8, ", ATEDM_VAE_MAX_CHANNELS},
    {VAE, "latent_channels", "", ATEDM_VAE_MAX_LATENT_CHANNELS},
    {VAE, "layers_per_block", "", ATEDM_VAE_MAX_RESNETS},
    {VAE, "norm_num_groups", "", ATEDM_VAE_MAX_CHANNELS},
    {TEXT, "vocab_size", "", ATEDM_TOKENIZER_MAX_VOCAB},
    {TEXT, "eos_token_id", "", ATEDM_TOKENIZER_MAX_VOCAB},
    {TEXT, "max_position_embeddings", "", ATEDM_TOKENIZER_MAX_LENGTH},
    {TEXT, "hidden_size", "", ATEDM_CLIP_MAX_WIDTH},
    {TEXT, "intermediate_size", "", (int64_t)4 * ATEDM_CLIP_MAX_WIDTH},
    {TEXT, "projection_dim", "", ATEDM_CLIP_MAX_WIDTH},
    {TEXT, "num_hidden_layers", "", ATEDM_CLIP_MAX_LAYERS},
    {TEXT, "num_attention_heads", "", ATEDM_CLIP_MAX_HEADS},
    {SCHEDULER, "num_train_timesteps", "", ATEDM_MAX_TRAIN_TIMESTEPS},
};

// Whether the value is refused for being over the limit.
static bool is_over(const limit *l, int64_t value)
{
    atedm_model_config config;
    char number[24], raw[64], range[48], key[64];
    snprintf(number, sizeof number, "%" PRId64, value);
    snprintf(raw, sizeof raw, "%s%s%s", l->before, number, *l->before ? "]" : "");
    snprintf(range, sizeof range, "..%" PRId64, l->most);
    snprintf(key, sizeof key, "\"%s\"", l->key);
    char *good = model_dir_read(dir, l->file, NULL);
    char *text = model_dir_edit(dir, l->file, l->key, raw);
    model_dir_write(dir, l->file, text, strlen(text));
    err.message[0] = '\0';
    atedm_status status = atedm_model_config_read(dir, &config, &err);
    model_dir_write(dir, l->file, good, strlen(good));
    free(good);
    free(text);
    return status == ATEDM_ERR_FORMAT && strstr(err.message, key) && strstr(err.message, number) &&
           strstr(err.message, range);
}

Test(model_limits, each_at_its_bound)
{
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        const limit *l = &limits[i];
        cr_expect(is_over(l, l->most + 1), "%s: %s: \"%s\"", l->file, l->key, err.message);
        cr_expect_not(is_over(l, l->most), "%s: %s: \"%s\"", l->file, l->key, err.message);
    }
}
