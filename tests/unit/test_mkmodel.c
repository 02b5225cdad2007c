// core/mkmodel and core/model_arch: architectures are SDXL's or a file's, made models are complete,
// readable and reproducible.
#include "core/mkmodel.h"
#include "core/model.h"
#include "core/safetensors.h"

#include <criterion/criterion.h>
#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64];
static atedm_error err;

static void make_dir(void)
{
    strcpy(dir, "/tmp/atedm-mkmodel-XXXXXX");
    cr_assert_not_null(mkdtemp(dir));
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *ftw)
{
    (void)info;
    (void)kind;
    (void)ftw;
    return remove(path);
}

static void remove_dir(void)
{
    nftw(dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

TestSuite(mkmodel, .init = make_dir, .fini = remove_dir);

// A path in the source tree, static storage.
static const char *source_path(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/../../../%s", getenv("ATEDM_GOLDEN_DIR"), name);
    return path;
}

static const char *dir_path(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static void make_tiny(uint64_t seed, atedm_dtype dtype, const char *name)
{
    cr_assert_eq(atedm_mkmodel(source_path("config/arch-tiny.json"), seed, dtype, dir_path(name),
                               NULL, NULL, &err),
                 ATEDM_OK, "%s", err.message);
}

// ---- architectures

Test(mkmodel, sdxl_base_has_the_public_numbers)
{
    atedm_model_config c;
    cr_assert_eq(atedm_model_config_from_arch("sdxl-base", &c, &err), ATEDM_OK);
    cr_assert_str_eq(c.name, "sdxl-base");
    cr_assert_eq(atedm_model_config_native_size(&c), 1024);
    cr_assert_eq(atedm_model_config_scale(&c), 8);
    cr_assert_eq(c.parts.unet.cross_attention_dim, 2048);
    cr_assert_eq(c.parts.vae.scaling_factor, 0.13025);
    cr_assert(c.force_zeros_for_empty_prompt);
    atedm_model *model = NULL;
    cr_assert_eq(atedm_model_open_dry(&c, ATEDM_BF16, ATEDM_BF16, &model, &err), ATEDM_OK, "%s",
                 err.message);
    // As published: both text encoders, the UNet, the decoder half of the VAE.
    cr_assert_eq(model->parameters, 123060480ull + 694659840 + 2567463684 + 49490199);
    atedm_model_close(model);
}

static void write_arch(const char *text)
{
    FILE *file = fopen(dir_path("arch.json"), "w");
    cr_assert_not_null(file);
    fputs(text, file);
    fclose(file);
}

#define CLIP                                                                                       \
    "\"hidden_size\":32,\"intermediate_size\":96,\"num_hidden_layers\":3,"                         \
    "\"num_attention_heads\":2,\"hidden_act\":\"gelu\""
#define CLIPS "\"text_encoder\":{" CLIP "},\"text_encoder_2\":{" CLIP ",\"projection_dim\":24}"
#define UNET_END                                                                                   \
    "\"layers_per_block\":1,\"norm_num_groups\":8,\"addition_time_embed_dim\":16,"                 \
    "\"sample_size\":16"
#define UNET                                                                                       \
    "\"unet\":{\"block_out_channels\":[16,32],\"attention\":[false,true],"                         \
    "\"transformer_layers_per_block\":[1,2],\"attention_heads\":[1,2]," UNET_END "}"
#define VAE "\"vae\":{\"block_out_channels\":[8,16],\"layers_per_block\":1,\"norm_num_groups\":8}"

Test(mkmodel, architecture_file)
{
    write_arch("{\"vocab_size\":600," CLIPS "," UNET "," VAE "}");
    atedm_model_config c;
    cr_assert_eq(atedm_model_config_from_arch(dir_path("arch.json"), &c, &err), ATEDM_OK, "%s",
                 err.message);
    cr_assert_str_eq(c.name, "arch");
    cr_assert_eq(c.parts.clip[0].vocab, 600);
    cr_assert_eq(c.parts.clip[1].projection, 24);
    cr_assert_not(c.parts.clip[0].has_projection);
    cr_assert(c.parts.clip[1].has_projection);
    cr_assert_eq(c.parts.unet.levels, 2);
    cr_assert_eq(c.parts.unet.cross_attention_dim, 64);
    cr_assert_eq(c.parts.unet.projection_input_dim, 24 + 6 * 16);
    cr_assert_eq(atedm_model_config_native_size(&c), 32);
}

static void expect_refused(const char *text, atedm_status status, const char *message)
{
    write_arch(text);
    atedm_model_config c;
    err.message[0] = '\0';
    cr_assert_eq(atedm_model_config_from_arch(dir_path("arch.json"), &c, &err), status,
                 "for \"%s\": %s", message, err.message);
    cr_assert_not_null(strstr(err.message, message), "\"%s\" is not in \"%s\"", message,
                       err.message);
    cr_assert_not_null(strstr(err.message, "arch.json"), "%s", err.message);
}

Test(mkmodel, malformed_architectures_are_refused)
{
    const atedm_status bad = ATEDM_ERR_FORMAT;
    expect_refused("{", bad, "arch.json:1:");
    expect_refused("[]", bad, "not a JSON object");
    expect_refused("{}", bad, "\"vocab_size\" is missing");
    expect_refused("{\"vocab_size\":513}", bad, "513, not within 514..1000000");
    expect_refused("{\"vocab_size\":600}", bad, "\"text_encoder\" is missing or not an object");
    expect_refused("{\"vocab_size\":600,\"clip\":{}}", bad, "\"clip\" is not a known field");
    expect_refused("{\"vocab_size\":600,\"text_encoder\":{" CLIP ",\"projection_dim\":24}}", bad,
                   "\"text_encoder\": \"projection_dim\" is not a known field");
    expect_refused("{\"vocab_size\":600,\"text_encoder\":{" CLIP "},\"text_encoder_2\":{" CLIP "}}",
                   bad, "\"text_encoder_2\": \"projection_dim\" is missing");
    expect_refused("{\"vocab_size\":600,\"text_encoder\":{\"hidden_size\":33,"
                   "\"intermediate_size\":96,\"num_hidden_layers\":3,\"num_attention_heads\":2,"
                   "\"hidden_act\":\"gelu\"}}",
                   bad, "\"hidden_size\" is not a multiple of \"num_attention_heads\"");
    expect_refused("{\"vocab_size\":600,\"text_encoder\":{\"hidden_size\":32,"
                   "\"intermediate_size\":96,\"num_hidden_layers\":3,\"num_attention_heads\":2,"
                   "\"hidden_act\":\"relu\"}}",
                   ATEDM_ERR_UNSUPPORTED, "\"relu\", not quick_gelu or gelu");
    expect_refused("{\"vocab_size\":600," CLIPS "," UNET "}", bad, "\"vae\" is missing");
    expect_refused("{\"vocab_size\":600," CLIPS "," UNET ",\"vae\":{\"block_out_channels\":[8,12],"
                   "\"layers_per_block\":1,\"norm_num_groups\":8}}",
                   bad, "not multiples of \"norm_num_groups\"");

    static const struct {
        const char *unet, *message;
    } cases[] = {
        {"\"block_out_channels\":[],", "\"block_out_channels\" has 0 entries"},
        {"\"block_out_channels\":[16,-32],", "-32, not within 1.."},
        {"\"block_out_channels\":[16,99999999],", "99999999, not within 1.."},
        {"\"block_out_channels\":[16,32],\"transformer_layers_per_block\":[1],",
         "\"transformer_layers_per_block\" has 1 entries"},
        {"\"block_out_channels\":[16,32],\"transformer_layers_per_block\":[1,2],"
         "\"attention_heads\":[0,2],",
         "\"attention_heads\" holds 0"},
        {"\"block_out_channels\":[16,32],\"transformer_layers_per_block\":[1,2],"
         "\"attention_heads\":[1,2],\"attention\":[true],",
         "\"attention\" is missing or not an array of 2"},
        {"\"block_out_channels\":[16,32],\"transformer_layers_per_block\":[1,2],"
         "\"attention_heads\":[1,2],\"attention\":[1,0],",
         "values other than true and false"},
        {"\"block_out_channels\":[16,36],\"transformer_layers_per_block\":[1,2],"
         "\"attention_heads\":[1,2],\"attention\":[true,true],",
         "are not multiples of \"norm_num_groups\""},
        {"\"block_out_channels\":[16,32],\"transformer_layers_per_block\":[1,2],"
         "\"attention_heads\":[1,3],\"attention\":[true,true],",
         "are not multiples of \"attention_heads\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[2048];
        snprintf(text, sizeof text,
                 "{\"vocab_size\":600," CLIPS ",\"unet\":{%s" UNET_END "}," VAE "}", cases[i].unet);
        expect_refused(text, bad, cases[i].message);
    }
}

Test(mkmodel, unknown_architecture)
{
    atedm_model_config c;
    cr_assert_eq(atedm_model_config_from_arch("sdxl-bass", &c, &err), ATEDM_ERR_NOT_FOUND);
    cr_assert_not_null(strstr(err.message, "\"sdxl-bass\" is neither \"sdxl-base\" nor a file"));
}

// ---- made models

Test(mkmodel, made_model_is_what_the_architecture_says)
{
    make_tiny(5, ATEDM_F16, "m");
    atedm_model_config made, arch;
    cr_assert_eq(atedm_model_config_read(dir_path("m"), &made, &err), ATEDM_OK, "%s", err.message);
    cr_assert_eq(atedm_model_config_from_arch(source_path("config/arch-tiny.json"), &arch, &err),
                 ATEDM_OK);
    for (int i = 0; i < 2; i++) {
        const atedm_clip_config *a = &made.parts.clip[i], *b = &arch.parts.clip[i];
        cr_assert(a->vocab == b->vocab && a->positions == b->positions && a->width == b->width &&
                  a->mlp_width == b->mlp_width && a->projection == b->projection &&
                  a->layers == b->layers && a->heads == b->heads && a->eos == b->eos &&
                  a->activation == b->activation && a->has_projection == b->has_projection &&
                  a->layer_norm_epsilon == b->layer_norm_epsilon);
    }
    const atedm_unet_config *u = &made.parts.unet, *v = &arch.parts.unet;
    cr_assert_eq(u->levels, v->levels);
    for (int i = 0; i < u->levels; i++)
        cr_assert(u->channels[i] == v->channels[i] && u->attention[i] == v->attention[i] &&
                  u->transformer_layers[i] == v->transformer_layers[i] &&
                  u->heads[i] == v->heads[i]);
    cr_assert(u->in_channels == v->in_channels && u->out_channels == v->out_channels &&
              u->layers_per_block == v->layers_per_block && u->norm_groups == v->norm_groups &&
              u->norm_epsilon == v->norm_epsilon && u->sample_size == v->sample_size &&
              u->cross_attention_dim == v->cross_attention_dim &&
              u->linear_projection == v->linear_projection &&
              u->addition_time_embed_dim == v->addition_time_embed_dim &&
              u->projection_input_dim == v->projection_input_dim);
    const atedm_vae_config *p = &made.parts.vae, *q = &arch.parts.vae;
    cr_assert_eq(p->levels, q->levels);
    for (int i = 0; i < p->levels; i++)
        cr_assert_eq(p->channels[i], q->channels[i]);
    cr_assert(p->latent_channels == q->latent_channels && p->out_channels == q->out_channels &&
              p->layers_per_block == q->layers_per_block && p->norm_groups == q->norm_groups &&
              p->scaling_factor == q->scaling_factor && p->post_quant_conv == q->post_quant_conv &&
              p->mid_attention == q->mid_attention);
    const atedm_scheduler_config *s = &made.scheduler, *t = &arch.scheduler;
    cr_assert(s->train_timesteps == t->train_timesteps && s->beta_start == t->beta_start &&
              s->beta_end == t->beta_end && s->betas == t->betas &&
              s->prediction == t->prediction && s->spacing == t->spacing &&
              s->steps_offset == t->steps_offset && s->karras_sigmas == t->karras_sigmas &&
              s->rescale_zero_snr == t->rescale_zero_snr &&
              s->interpolation_log_linear == t->interpolation_log_linear &&
              s->final_sigma_min == t->final_sigma_min);
    cr_assert_eq(made.force_zeros_for_empty_prompt, arch.force_zeros_for_empty_prompt);
}

// Opening checks that every parameter is there, and no other.
Test(mkmodel, made_models_open_in_every_dtype)
{
    static const atedm_dtype dtypes[] = {ATEDM_F32, ATEDM_F16, ATEDM_BF16};
    atedm_device *device = NULL;
    cr_assert_eq(atedm_device_create("ref", &device, &err), ATEDM_OK);
    for (size_t i = 0; i < 3; i++) {
        make_tiny(1, dtypes[i], "m"); // over the one before
        atedm_model *model = NULL;
        cr_assert_eq(atedm_model_open(dir_path("m"), device, ATEDM_F32, &model, &err), ATEDM_OK,
                     "%s", err.message);
        cr_assert_eq(model->file_bytes, model->parameters * atedm_dtype_size(dtypes[i]));
        cr_assert_eq(atedm_tokenizer_vocab_size(model->tokenizer[0]), 1024);
        int64_t ids[77];
        size_t cut = 0;
        cr_assert_eq(atedm_tokenizer_encode(model->tokenizer[1], "he!", 3, ids, &cut, &err),
                     ATEDM_OK);
        cr_assert_eq(ids[0], 1022); // start
        cr_assert(ids[1] >= 512 && ids[1] < 1022, "a merged token, not %lld", (long long)ids[1]);
        cr_assert_eq(ids[76], 0); // padding: "!"
        atedm_model_close(model);
    }
    atedm_device_destroy(device);
}

static char *read_bytes(const char *path, size_t *ret_size)
{
    FILE *file = fopen(path, "rb");
    cr_assert_not_null(file, "%s", path);
    struct stat info;
    cr_assert_eq(fstat(fileno(file), &info), 0);
    char *bytes = malloc((size_t)info.st_size + 1);
    *ret_size = fread(bytes, 1, (size_t)info.st_size, file);
    cr_assert_eq(*ret_size, (size_t)info.st_size);
    fclose(file);
    return bytes;
}

static const char *const files[] = {
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "text_encoder_2/config.json",
    "text_encoder_2/model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "tokenizer_2/merges.txt",
    "tokenizer_2/special_tokens_map.json",
    "tokenizer_2/tokenizer_config.json",
    "tokenizer_2/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
};
#define N_FILES (sizeof files / sizeof files[0])

// Number of files that differ.
static size_t count_differences(const char *a, const char *b)
{
    size_t differences = 0;
    for (size_t i = 0; i < N_FILES; i++) {
        char path[1024];
        size_t size_a = 0, size_b = 0;
        snprintf(path, sizeof path, "%s/%s", a, files[i]);
        char *bytes_a = read_bytes(path, &size_a);
        snprintf(path, sizeof path, "%s/%s", b, files[i]);
        char *bytes_b = read_bytes(path, &size_b);
        differences += size_a != size_b || memcmp(bytes_a, bytes_b, size_a) != 0;
        free(bytes_a);
        free(bytes_b);
    }
    return differences;
}

// A level that begins narrower than it ends makes its largest feature map itself, and two channels
// are less than a latent has. An operation whose output lies over its input fails.
Test(mkmodel, decoders_of_any_widths)
{
    static const char *const widths[] = {"8,16,32", "32,16,8", "32,8,8",
                                         "8,64,8",  "64,8,64", "4,4,2"};
    const size_t pixels = (size_t)20 * 28;
    atedm_device *device = NULL;
    cr_assert_eq(atedm_device_create("ref", &device, &err), ATEDM_OK);
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        char text[1024];
        snprintf(text, sizeof text,
                 "{\"vocab_size\":600," CLIPS "," UNET
                 ",\"vae\":{\"block_out_channels\":[%s],\"layers_per_block\":1,"
                 "\"norm_num_groups\":2}}",
                 widths[i]);
        write_arch(text);
        char arch[512];
        snprintf(arch, sizeof arch, "%s", dir_path("arch.json"));
        cr_assert_eq(atedm_mkmodel(arch, 1, ATEDM_F32, dir_path("m"), NULL, NULL, &err), ATEDM_OK,
                     "%s", err.message);
        atedm_model *model = NULL;
        cr_assert_eq(atedm_model_open(dir_path("m"), device, ATEDM_F32, &model, &err), ATEDM_OK,
                     "%s", err.message);
        atedm_stream *s = NULL;
        atedm_arena arena;
        cr_assert_eq(atedm_stream_create(device, ATEDM_F32, &s, &err), ATEDM_OK);
        cr_assert_eq(atedm_arena_init(&arena, device, (size_t)16 << 20, &err), ATEDM_OK);
        const float zeros[4 * 5 * 7] = {0};
        float *latents = atedm_arena_take(&arena, s, sizeof zeros);
        float *image = atedm_arena_take(&arena, s, 3 * pixels * sizeof *image);
        atedm_upload(s, zeros, latents, sizeof zeros);
        atedm_vae_decode(model->vae, s, &arena, latents, 5, 7, image);
        cr_expect_eq(atedm_stream_sync(s, &err), ATEDM_OK, "%s: %s", widths[i], err.message);
        atedm_arena_finish(&arena);
        atedm_stream_destroy(s);
        atedm_model_close(model);
    }
    atedm_device_destroy(device);
}

Test(mkmodel, same_seed_same_bytes)
{
    char a[128], b[128];
    snprintf(a, sizeof a, "%s/a", dir);
    snprintf(b, sizeof b, "%s/b", dir);
    make_tiny(7, ATEDM_F16, "a");
    make_tiny(7, ATEDM_F16, "b");
    cr_assert_eq(count_differences(a, b), 0);
    make_tiny(8, ATEDM_F16, "b");
    cr_assert_eq(count_differences(a, b), 4, "the weights of every component");
}

// Of all files, in order: 64-bit FNV-1a (Fowler, Noll, Vo).
static uint64_t fingerprint(const char *model)
{
    uint64_t hash = 0xcbf29ce484222325;
    for (size_t i = 0; i < N_FILES; i++) {
        char path[1024];
        size_t size = 0;
        snprintf(path, sizeof path, "%s/%s", model, files[i]);
        char *bytes = read_bytes(path, &size);
        for (size_t k = 0; k < size; k++)
            hash = (hash ^ (unsigned char)bytes[k]) * 0x100000001b3;
        free(bytes);
    }
    return hash;
}

Test(mkmodel, same_bytes_on_every_machine_and_in_every_version)
{
    char made[128];
    snprintf(made, sizeof made, "%s/m", dir);
    make_tiny(1, ATEDM_F16, "m");
    cr_assert_eq(fingerprint(made), 0xa32acc8e5f2cd10a);
}

static void moments(const atedm_host_tensor *t, double *ret_mean, double *ret_deviation)
{
    double sum = 0, squares = 0;
    int64_t count = atedm_host_tensor_count(t);
    for (int64_t i = 0; i < count; i++) {
        double value = ((const float *)t->data)[i];
        sum += value;
        squares += value * value;
    }
    *ret_mean = sum / (double)count;
    *ret_deviation = sqrt(squares / (double)count - *ret_mean * *ret_mean);
}

static void expect_moments(const atedm_safetensors *file, const char *name, double mean,
                           double deviation)
{
    const atedm_host_tensor *t = atedm_safetensors_find(file, name);
    cr_assert_not_null(t, "%s", name);
    double m = 0, d = 0;
    moments(t, &m, &d);
    double tolerance = 4 / sqrt((double)atedm_host_tensor_count(t)); // four standard errors
    cr_assert(fabs(m - mean) <= tolerance * deviation, "%s: mean %g", name, m);
    cr_assert(fabs(d - deviation) <= tolerance * deviation, "%s: deviation %g", name, d);
}

Test(mkmodel, weights_are_scaled_by_role)
{
    make_tiny(3, ATEDM_F32, "m");
    atedm_safetensors *file = NULL;
    cr_assert_eq(
        atedm_safetensors_open(dir_path("m/unet/diffusion_pytorch_model.safetensors"), &file, &err),
        ATEDM_OK, "%s", err.message);
    expect_moments(file, "conv_in.weight", 0, 1 / sqrt(4 * 9));
    expect_moments(file, "conv_in.bias", 0, 0.02);
    expect_moments(file, "mid_block.resnets.0.conv1.weight", 0, 1 / sqrt(48 * 9));
    expect_moments(file, "mid_block.resnets.0.conv2.weight", 0, 0.5 / sqrt(48 * 9));
    expect_moments(file, "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight", 0,
                   1.5 / sqrt(48));
    expect_moments(file, "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight", 0,
                   1 / sqrt(64));
    expect_moments(file, "mid_block.attentions.0.transformer_blocks.0.norm1.weight", 1, 0);
    expect_moments(file, "mid_block.attentions.0.transformer_blocks.0.norm1.bias", 0, 0);
    expect_moments(file, "mid_block.attentions.0.norm.weight", 1, 0);
    expect_moments(file, "conv_norm_out.weight", 1, 0);
    // Tensors of one shape are not copies of each other.
    const atedm_host_tensor *a = atedm_safetensors_find(file, "mid_block.resnets.0.conv1.weight");
    const atedm_host_tensor *b = atedm_safetensors_find(file, "mid_block.resnets.1.conv1.weight");
    size_t equal = 0, count = (size_t)atedm_host_tensor_count(a);
    for (size_t i = 0; i < count; i++)
        equal += ((const float *)a->data)[i] == ((const float *)b->data)[i];
    cr_assert_lt(equal, count / 100);
    atedm_safetensors_close(file);
}

typedef struct progress_log {
    uint64_t calls, last, total;
} progress_log;

static void log_progress(void *user, uint64_t done, uint64_t total)
{
    progress_log *log = user;
    cr_assert_gt(done, log->last);
    cr_assert_leq(done, total);
    log->calls++;
    log->last = done;
    log->total = total;
}

Test(mkmodel, progress_reaches_the_end)
{
    progress_log log = {0};
    cr_assert_eq(atedm_mkmodel(source_path("config/arch-tiny.json"), 1, ATEDM_F16, dir_path("m"),
                               log_progress, &log, &err),
                 ATEDM_OK);
    cr_assert_gt(log.calls, 100);
    cr_assert_eq(log.last, log.total);
}

Test(mkmodel, failures_are_named)
{
    const char *arch = strdup(source_path("config/arch-tiny.json"));
    cr_assert_eq(atedm_mkmodel(arch, 1, ATEDM_I64, dir_path("m"), NULL, NULL, &err),
                 ATEDM_ERR_INVALID);
    cr_assert_eq(atedm_mkmodel("none", 1, ATEDM_F16, dir_path("m"), NULL, NULL, &err),
                 ATEDM_ERR_NOT_FOUND);
    cr_assert_neq(access(dir_path("m"), F_OK), 0, "nothing is made before all is known");
    cr_assert_eq(atedm_mkmodel(arch, 1, ATEDM_F16, dir_path("no/m"), NULL, NULL, &err),
                 ATEDM_ERR_IO);
    cr_assert_not_null(strstr(err.message, "no/m: No such file or directory"), "%s", err.message);
    FILE *file = fopen(dir_path("file"), "w");
    fclose(file);
    cr_assert_eq(atedm_mkmodel(arch, 1, ATEDM_F16, dir_path("file"), NULL, NULL, &err),
                 ATEDM_ERR_IO);
    free((char *)arch);
}
