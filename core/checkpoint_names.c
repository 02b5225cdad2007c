// Translates diffusers' parameter names to those of a checkpoint: see checkpoint_names.h.
#include "core/checkpoint_names.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NUMBERS 2 // "#" in a pattern

// The beginning of a name in diffusers, and in checkpoints. {NULL, NULL} ends a table of them.
typedef struct beginning {
    const char *from, *to;
} beginning;

static const beginning same[] = {{NULL, NULL}};

static const beginning resnet[] = {
    {"norm1.", "in_layers.0."},
    {"conv1.", "in_layers.2."},
    {"time_emb_proj.", "emb_layers.1."},
    {"norm2.", "out_layers.0."},
    {"conv2.", "out_layers.3."},
    {"conv_shortcut.", "skip_connection."},
    {NULL, NULL},
};

static const beginning unet[] = {
    {"conv_in.", "input_blocks.0.0."},
    {"time_embedding.linear_1.", "time_embed.0."},
    {"time_embedding.linear_2.", "time_embed.2."},
    {"add_embedding.linear_1.", "label_emb.0.0."},
    {"add_embedding.linear_2.", "label_emb.0.2."},
    {"mid_block.attentions.0.", "middle_block.1."},
    {"conv_norm_out.", "out.0."},
    {"conv_out.", "out.2."},
    {NULL, NULL},
};

static const beginning vae_resnet[] = {{"conv_shortcut.", "nin_shortcut."}, {NULL, NULL}};

static const beginning vae_attention[] = {
    {"group_norm.", "norm."},   {"to_q.", "q."}, {"to_k.", "k."}, {"to_v.", "v."},
    {"to_out.0.", "proj_out."}, {NULL, NULL},
};

static const beginning vae[] = {{"decoder.conv_norm_out.", "decoder.norm_out."}, {NULL, NULL}};

static const beginning clip_layer[] = {
    {"layer_norm1.", "ln_1."},
    {"layer_norm2.", "ln_2."},
    {"mlp.fc1.", "mlp.c_fc."},
    {"mlp.fc2.", "mlp.c_proj."},
    {"self_attn.out_proj.", "attn.out_proj."},
    {NULL, NULL},
};

static const beginning clip[] = {
    {"text_model.embeddings.token_embedding.", "token_embedding."},
    {"text_model.embeddings.position_embedding.weight", "positional_embedding"},
    {"text_model.final_layer_norm.", "ln_final."},
    {"text_projection.weight", "text_projection"},
    {NULL, NULL},
};

// If `name` begins with the pattern, in which "#" stands for a number, returns the rest of the name
// and stores the numbers; else returns NULL.
static const char *match(const char *name, const char *pattern, int ret_numbers[MAX_NUMBERS])
{
    for (int n = 0; *pattern; pattern++) {
        if (*pattern == '#') {
            char *end;
            if (!isdigit((unsigned char)*name))
                return NULL;
            ret_numbers[n++] = (int)strtol(name, &end, 10);
            name = end;
        } else if (*name++ != *pattern) {
            return NULL;
        }
    }
    return name;
}

// Appends `name` to the stored name. If the table has its beginning, replaces that.
static void put(atedm_stored *stored, const beginning *table, const char *name)
{
    const char *to = "";
    for (; table->from; table++) {
        size_t length = strlen(table->from);
        if (strncmp(name, table->from, length) == 0) {
            to = table->to;
            name += length;
            break;
        }
    }
    size_t size = strlen(stored->name);
    snprintf(stored->name + size, sizeof stored->name - size, "%s%s", to, name);
}

// The same, but appends the formatted text first.
static void put_at(atedm_stored *stored, const beginning *table, const char *name,
                   const char *format, ...) ATEDM_PRINTF(4, 5);
static void put_at(atedm_stored *stored, const beginning *table, const char *name,
                   const char *format, ...)
{
    size_t size = strlen(stored->name);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(stored->name + size, sizeof stored->name - size, format, arguments);
    va_end(arguments);
    put(stored, table, name);
}

// A checkpoint numbers the UNet's blocks through all stages. There is a block for each ResNet with
// the attention after it, and one for a stage's downsampling; upsampling is in the last block of
// its stage.
static void unet_name(const void *user, const char *name, atedm_stored *stored)
{
    const atedm_unet_config *config = user;
    const int blocks = config->layers_per_block + 1; // in a stage
    int at[MAX_NUMBERS];
    const char *rest;
    if ((rest = match(name, "down_blocks.#.resnets.#.", at)))
        put_at(stored, resnet, rest, "input_blocks.%d.0.", 1 + at[0] * blocks + at[1]);
    else if ((rest = match(name, "down_blocks.#.attentions.#.", at)))
        put_at(stored, same, rest, "input_blocks.%d.1.", 1 + at[0] * blocks + at[1]);
    else if ((rest = match(name, "down_blocks.#.downsamplers.0.conv.", at)))
        put_at(stored, same, rest, "input_blocks.%d.0.op.", (at[0] + 1) * blocks);
    else if ((rest = match(name, "mid_block.resnets.#.", at)))
        put_at(stored, resnet, rest, "middle_block.%d.", 2 * at[0]);
    else if ((rest = match(name, "up_blocks.#.resnets.#.", at)))
        put_at(stored, resnet, rest, "output_blocks.%d.0.", at[0] * blocks + at[1]);
    else if ((rest = match(name, "up_blocks.#.attentions.#.", at)))
        put_at(stored, same, rest, "output_blocks.%d.1.", at[0] * blocks + at[1]);
    else if ((rest = match(name, "up_blocks.#.upsamplers.0.conv.", at)) && at[0] < config->levels)
        put_at(stored, same, rest, "output_blocks.%d.%d.conv.", (at[0] + 1) * blocks - 1,
               config->attention[config->levels - 1 - at[0]] ? 2 : 1);
    else
        put(stored, unet, name);
}

// A checkpoint numbers the decoder's stages from the picture to the latents, and stores the linear
// layers of its attention as 1x1 convolutions.
static void vae_name(const void *user, const char *name, atedm_stored *stored)
{
    const atedm_vae_config *config = user;
    const int last = config->levels - 1;
    int at[MAX_NUMBERS];
    const char *rest;
    if ((rest = match(name, "decoder.up_blocks.#.resnets.#.", at)))
        put_at(stored, vae_resnet, rest, "decoder.up.%d.block.%d.", last - at[0], at[1]);
    else if ((rest = match(name, "decoder.up_blocks.#.upsamplers.0.", at)))
        put_at(stored, same, rest, "decoder.up.%d.upsample.", last - at[0]);
    else if ((rest = match(name, "decoder.mid_block.resnets.#.", at)))
        put_at(stored, vae_resnet, rest, "decoder.mid.block_%d.", at[0] + 1);
    else if ((rest = match(name, "decoder.mid_block.attentions.0.", at))) {
        put_at(stored, vae_attention, rest, "decoder.mid.attn_1.");
        stored->form = ATEDM_STORED_POINTWISE;
    } else
        put(stored, vae, name);
}

// OpenCLIP stores a layer's queries, keys and values in one tensor, and the projection transposed.
static void clip_name(const void *user, const char *name, atedm_stored *stored)
{
    (void)user;
    static const char *const thirds[] = {"self_attn.q_proj.", "self_attn.k_proj.",
                                         "self_attn.v_proj."};
    int at[MAX_NUMBERS];
    const char *rest = match(name, "text_model.encoder.layers.#.", at);
    if (!rest) {
        put(stored, clip, name);
        if (strcmp(name, "text_projection.weight") == 0)
            stored->form = ATEDM_STORED_TRANSPOSED;
        return;
    }
    for (int i = 0; i < 3; i++) {
        size_t length = strlen(thirds[i]);
        if (strncmp(rest, thirds[i], length) == 0) {
            put_at(stored, same, rest + length, "transformer.resblocks.%d.attn.in_proj_", at[0]);
            stored->form = (atedm_stored_form)(ATEDM_STORED_FIRST_THIRD + i);
            return;
        }
    }
    put_at(stored, clip_layer, rest, "transformer.resblocks.%d.", at[0]);
}

atedm_renaming atedm_checkpoint_renaming(const atedm_model_configs *configs,
                                         atedm_component component)
{
    switch (component) {
    case ATEDM_TEXT_ENCODER:
        return (atedm_renaming){.prefix = "conditioner.embedders.0.transformer.", .find = NULL};
    case ATEDM_TEXT_ENCODER_2:
        return (atedm_renaming){.prefix = "conditioner.embedders.1.model.", .find = clip_name};
    case ATEDM_UNET:
        return (atedm_renaming){ATEDM_CHECKPOINT_UNET, unet_name, &configs->unet};
    case ATEDM_VAE:
        break;
    }
    return (atedm_renaming){"first_stage_model.", vae_name, &configs->vae};
}
