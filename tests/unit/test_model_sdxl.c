// The public configs of stabilityai/stable-diffusion-xl-base-1.0, key by key as the repository has
// them and as newer versions of diffusers and transformers write them again: both are read, and say
// what the built-in architecture "sdxl-base" says.
#include "core/model.h"
#include "model_dir.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static char dir[MODEL_DIR_MAX];

static void make(void)
{
    model_dir_copy("a", false, dir);
}

static void clean_up(void)
{
    model_dir_remove(dir);
}

TestSuite(model_sdxl, .init = make, .fini = clean_up);

typedef struct config_file {
    const char *name;
    const char *text;  // all but the closing brace
    const char *newer; // what newer versions add
} config_file;

static const config_file files[] = {
    {"model_index.json",
     "{\"_class_name\": \"StableDiffusionXLPipeline\", \"_diffusers_version\": \"0.19.0.dev0\","
     "\"force_zeros_for_empty_prompt\": true, \"add_watermarker\": null,"
     "\"scheduler\": [\"diffusers\", \"EulerDiscreteScheduler\"],"
     "\"text_encoder\": [\"transformers\", \"CLIPTextModel\"],"
     "\"text_encoder_2\": [\"transformers\", \"CLIPTextModelWithProjection\"],"
     "\"tokenizer\": [\"transformers\", \"CLIPTokenizer\"],"
     "\"tokenizer_2\": [\"transformers\", \"CLIPTokenizer\"],"
     "\"unet\": [\"diffusers\", \"UNet2DConditionModel\"],"
     "\"vae\": [\"diffusers\", \"AutoencoderKL\"]",
     "\"feature_extractor\": [null, null], \"image_encoder\": [null, null]"},
    {"scheduler/scheduler_config.json",
     "{\"_class_name\": \"EulerDiscreteScheduler\", \"_diffusers_version\": \"0.19.0.dev0\","
     "\"beta_end\": 0.012, \"beta_schedule\": \"scaled_linear\", \"beta_start\": 0.00085,"
     "\"clip_sample\": false, \"interpolation_type\": \"linear\", \"num_train_timesteps\": 1000,"
     "\"prediction_type\": \"epsilon\", \"sample_max_value\": 1.0, \"set_alpha_to_one\": false,"
     "\"skip_prk_steps\": true, \"steps_offset\": 1, \"timestep_spacing\": \"leading\","
     "\"trained_betas\": null, \"use_karras_sigmas\": false",
     "\"final_sigmas_type\": \"zero\", \"rescale_betas_zero_snr\": false, \"sigma_max\": null,"
     "\"sigma_min\": null, \"timestep_type\": \"discrete\", \"use_beta_sigmas\": false,"
     "\"use_exponential_sigmas\": false"},
    {"text_encoder/config.json",
     "{\"architectures\": [\"CLIPTextModel\"], \"attention_dropout\": 0.0, \"bos_token_id\": 0,"
     "\"dropout\": 0.0, \"eos_token_id\": 2, \"hidden_act\": \"quick_gelu\","
     "\"hidden_size\": 768, \"initializer_factor\": 1.0, \"initializer_range\": 0.02,"
     "\"intermediate_size\": 3072, \"layer_norm_eps\": 1e-05, \"max_position_embeddings\": 77,"
     "\"model_type\": \"clip_text_model\", \"num_attention_heads\": 12,"
     "\"num_hidden_layers\": 12, \"pad_token_id\": 1, \"projection_dim\": 768,"
     "\"torch_dtype\": \"float16\", \"transformers_version\": \"4.32.0.dev0\","
     "\"vocab_size\": 49408",
     "\"dtype\": \"float16\", \"output_attentions\": null, \"tie_word_embeddings\": true"},
    {"text_encoder_2/config.json",
     "{\"architectures\": [\"CLIPTextModelWithProjection\"], \"attention_dropout\": 0.0,"
     "\"bos_token_id\": 0, \"dropout\": 0.0, \"eos_token_id\": 2, \"hidden_act\": \"gelu\","
     "\"hidden_size\": 1280, \"initializer_factor\": 1.0, \"initializer_range\": 0.02,"
     "\"intermediate_size\": 5120, \"layer_norm_eps\": 1e-05, \"max_position_embeddings\": 77,"
     "\"model_type\": \"clip_text_model\", \"num_attention_heads\": 20,"
     "\"num_hidden_layers\": 32, \"pad_token_id\": 1, \"projection_dim\": 1280,"
     "\"torch_dtype\": \"float16\", \"transformers_version\": \"4.32.0.dev0\","
     "\"vocab_size\": 49408",
     "\"dtype\": \"float16\", \"output_attentions\": null, \"tie_word_embeddings\": true"},
    {"unet/config.json",
     "{\"_class_name\": \"UNet2DConditionModel\", \"_diffusers_version\": \"0.19.0.dev0\","
     "\"act_fn\": \"silu\", \"addition_embed_type\": \"text_time\","
     "\"addition_embed_type_num_heads\": 64, \"addition_time_embed_dim\": 256,"
     "\"attention_head_dim\": [5, 10, 20], \"block_out_channels\": [320, 640, 1280],"
     "\"center_input_sample\": false, \"class_embed_type\": null,"
     "\"class_embeddings_concat\": false, \"conv_in_kernel\": 3, \"conv_out_kernel\": 3,"
     "\"cross_attention_dim\": 2048, \"cross_attention_norm\": null, \"down_block_types\":"
     "[\"DownBlock2D\", \"CrossAttnDownBlock2D\", \"CrossAttnDownBlock2D\"],"
     "\"downsample_padding\": 1, \"dual_cross_attention\": false, \"encoder_hid_dim\": null,"
     "\"encoder_hid_dim_type\": null, \"flip_sin_to_cos\": true, \"freq_shift\": 0,"
     "\"in_channels\": 4, \"layers_per_block\": 2, \"mid_block_only_cross_attention\": null,"
     "\"mid_block_scale_factor\": 1, \"mid_block_type\": \"UNetMidBlock2DCrossAttn\","
     "\"norm_eps\": 1e-05, \"norm_num_groups\": 32, \"num_attention_heads\": null,"
     "\"num_class_embeds\": null, \"only_cross_attention\": false, \"out_channels\": 4,"
     "\"projection_class_embeddings_input_dim\": 2816, \"resnet_out_scale_factor\": 1.0,"
     "\"resnet_skip_time_act\": false, \"resnet_time_scale_shift\": \"default\","
     "\"sample_size\": 128, \"time_cond_proj_dim\": null, \"time_embedding_act_fn\": null,"
     "\"time_embedding_dim\": null, \"time_embedding_type\": \"positional\","
     "\"timestep_post_act\": null, \"transformer_layers_per_block\": [1, 2, 10],"
     "\"up_block_types\": [\"CrossAttnUpBlock2D\", \"CrossAttnUpBlock2D\", \"UpBlock2D\"],"
     "\"upcast_attention\": null, \"use_linear_projection\": true",
     "\"attention_type\": \"default\", \"dropout\": 0.0,"
     "\"reverse_transformer_layers_per_block\": null"},
    {"vae/config.json",
     "{\"_class_name\": \"AutoencoderKL\", \"_diffusers_version\": \"0.20.0.dev0\","
     "\"_name_or_path\": \"../sdxl-vae/\", \"act_fn\": \"silu\","
     "\"block_out_channels\": [128, 256, 512, 512], \"down_block_types\":"
     "[\"DownEncoderBlock2D\", \"DownEncoderBlock2D\", \"DownEncoderBlock2D\","
     "\"DownEncoderBlock2D\"], \"force_upcast\": true, \"in_channels\": 3,"
     "\"latent_channels\": 4, \"layers_per_block\": 2, \"norm_num_groups\": 32,"
     "\"out_channels\": 3, \"sample_size\": 1024, \"scaling_factor\": 0.13025,"
     "\"up_block_types\": [\"UpDecoderBlock2D\", \"UpDecoderBlock2D\", \"UpDecoderBlock2D\","
     "\"UpDecoderBlock2D\"]",
     "\"latents_mean\": null, \"latents_std\": null, \"shift_factor\": null,"
     "\"mid_block_add_attention\": true, \"use_post_quant_conv\": true,"
     "\"use_quant_conv\": true"},
};

static void check_clip(const atedm_clip_config *a, const atedm_clip_config *b)
{
    cr_expect_eq(a->vocab, b->vocab);
    cr_expect_eq(a->positions, b->positions);
    cr_expect_eq(a->width, b->width);
    cr_expect_eq(a->mlp_width, b->mlp_width);
    cr_expect_eq(a->projection, b->projection);
    cr_expect_eq(a->layers, b->layers);
    cr_expect_eq(a->heads, b->heads);
    cr_expect_eq(a->layer_norm_epsilon, b->layer_norm_epsilon);
    cr_expect_eq(a->activation, b->activation);
    cr_expect_eq(a->has_projection, b->has_projection);
    cr_expect_eq(a->eos, b->eos);
}

static void check_unet(const atedm_unet_config *a, const atedm_unet_config *b)
{
    cr_expect_eq(a->in_channels, b->in_channels);
    cr_expect_eq(a->out_channels, b->out_channels);
    cr_assert_eq(a->levels, b->levels);
    for (int i = 0; i < a->levels; i++) {
        cr_expect_eq(a->channels[i], b->channels[i]);
        cr_expect_eq(a->attention[i], b->attention[i]);
        cr_expect_eq(a->transformer_layers[i], b->transformer_layers[i]);
        cr_expect_eq(a->heads[i], b->heads[i]);
    }
    cr_expect_eq(a->layers_per_block, b->layers_per_block);
    cr_expect_eq(a->cross_attention_dim, b->cross_attention_dim);
    cr_expect_eq(a->norm_groups, b->norm_groups);
    cr_expect_eq(a->norm_epsilon, b->norm_epsilon);
    cr_expect_eq(a->linear_projection, b->linear_projection);
    cr_expect_eq(a->addition_time_embed_dim, b->addition_time_embed_dim);
    cr_expect_eq(a->projection_input_dim, b->projection_input_dim);
    cr_expect_eq(a->sample_size, b->sample_size);
}

static void check_vae(const atedm_vae_config *a, const atedm_vae_config *b)
{
    cr_expect_eq(a->latent_channels, b->latent_channels);
    cr_expect_eq(a->out_channels, b->out_channels);
    cr_assert_eq(a->levels, b->levels);
    for (int i = 0; i < a->levels; i++)
        cr_expect_eq(a->channels[i], b->channels[i]);
    cr_expect_eq(a->layers_per_block, b->layers_per_block);
    cr_expect_eq(a->norm_groups, b->norm_groups);
    cr_expect_eq(a->scaling_factor, b->scaling_factor);
    cr_expect_eq(a->post_quant_conv, b->post_quant_conv);
    cr_expect_eq(a->mid_attention, b->mid_attention);
}

static void check_scheduler(const atedm_scheduler_config *a, const atedm_scheduler_config *b)
{
    cr_expect_eq(a->train_timesteps, b->train_timesteps);
    cr_expect_eq(a->beta_start, b->beta_start);
    cr_expect_eq(a->beta_end, b->beta_end);
    cr_expect_eq(a->betas, b->betas);
    cr_expect_eq(a->prediction, b->prediction);
    cr_expect_eq(a->spacing, b->spacing);
    cr_expect_eq(a->steps_offset, b->steps_offset);
    cr_expect_eq(a->karras_sigmas, b->karras_sigmas);
    cr_expect_eq(a->rescale_zero_snr, b->rescale_zero_snr);
    cr_expect_eq(a->interpolation_log_linear, b->interpolation_log_linear);
    cr_expect_eq(a->final_sigma_min, b->final_sigma_min);
}

static void check_read(bool newer)
{
    atedm_model_config read, built_in;
    atedm_error err = {0};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char text[4096];
        int size = snprintf(text, sizeof text, "%s%s%s}", files[i].text, newer ? ", " : "",
                            newer ? files[i].newer : "");
        model_dir_write(dir, files[i].name, text, (size_t)size);
    }
    cr_assert_eq(atedm_model_config_read(dir, &read, &err), ATEDM_OK, "%s", err.message);
    cr_assert_eq(atedm_model_config_from_arch("sdxl-base", &built_in, &err), ATEDM_OK, "%s",
                 err.message);
    check_clip(&read.parts.clip[0], &built_in.parts.clip[0]);
    check_clip(&read.parts.clip[1], &built_in.parts.clip[1]);
    check_unet(&read.parts.unet, &built_in.parts.unet);
    check_vae(&read.parts.vae, &built_in.parts.vae);
    check_scheduler(&read.scheduler, &built_in.scheduler);
    cr_expect(read.force_zeros_for_empty_prompt);
    cr_expect_eq(atedm_model_config_scale(&read), 8);
    cr_expect_eq(atedm_model_config_native_size(&read), 1024);
}

Test(model_sdxl, public_configs_are_read)
{
    check_read(false);
}

Test(model_sdxl, keys_of_newer_versions_change_nothing)
{
    check_read(true);
}
