// Makes models with seeded random weights: see mkmodel.h. This file makes the weights. Names and
// shapes come from the modules' own loaders, run on the dry device with a recorder as source, so
// that they are defined in one place only. Therefore the VAE's files hold only the decoder.
//
// A tensor's values come from a counter and a key made of the seed, the component and the tensor's
// name. So no value depends on another value, or on the order of the tensors. Their scale depends
// on the tensor's role: activations keep their size through any depth, also in bf16 and f16, and
// attention is neither uniform nor concentrated on one token.
#include "core/mkmodel.h"

#include "core/base/splitmix.h"
#include "core/mkmodel_files.h"
#include "core/safetensors.h"
#include "core/weights.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define CHUNK 262144 // values that are made and written at a time

typedef enum component_kind {
    KIND_CLIP_1,
    KIND_CLIP_2,
    KIND_UNET,
    KIND_VAE,
    N_KINDS
} component_kind;

static const struct {
    const char *folder, *file;
} components[N_KINDS] = {
    {"text_encoder", "model.safetensors"},
    {"text_encoder_2", "model.safetensors"},
    {"unet", "diffusion_pytorch_model.safetensors"},
    {"vae", "diffusion_pytorch_model.safetensors"},
};

typedef struct maker {
    const char *dir;
    atedm_model_config config;
    uint64_t seed;
    atedm_dtype dtype;
    atedm_device *device; // a dry one
    atedm_recorder *recorders[N_KINDS];
    float *values;        // [CHUNK]
    void *bytes;          // [CHUNK] in dtype
    uint64_t done, total; // bytes of weights
    atedm_mkmodel_progress_fn progress;
    void *user;
    atedm_error *err;
} maker;

static atedm_status no_memory(const maker *m)
{
    return atedm_error_set(m->err, ATEDM_ERR_NOMEM, "%s: no memory", m->dir);
}

// ---- values

static uint64_t add_text(uint64_t key, const char *text)
{
    for (; *text; text++)
        key = atedm_splitmix(key ^ (unsigned char)*text, 0);
    return atedm_splitmix(key, 0);
}

// Makes values first..first + count - 1 of the tensor: sums of four uniform 16-bit numbers, which
// are nearly normal (within 3.5 deviations), with the given mean and deviation. Computed with
// integers and one single-precision product and sum, so that every machine gets the same values.
static void make_values(uint64_t key, uint64_t first, size_t count, float mean, float deviation,
                        float *out)
{
    const float scale = deviation / 37837.2266F; // sqrt(4 (65536^2 - 1) / 12)
    for (size_t i = 0; i < count; i++) {
        uint64_t z = atedm_splitmix(key + first + i, 0);
        int32_t sum = (int32_t)((z & 0xffff) + (z >> 16 & 0xffff) + (z >> 32 & 0xffff) + (z >> 48));
        float value = (float)(sum - 2 * 65535) * scale;
        out[i] = mean + value;
    }
}

// Factors of the scale 1 / sqrt(fan in). A parameter gets that of the first part that its name
// contains.
static const struct {
    const char *part;
    float gain;
} gains[] = {
    {"attn2.to_k", 1.0F}, // its input, the text, has no norm and is larger than 1
    {"attn2.to_v", 0.5F},
    {"to_q", 1.5F},
    {"to_k", 1.5F},
    {"q_proj", 1.5F},
    {"k_proj", 1.5F},
    // The last layers of residual branches: keeps the sum of many branches about as large as one.
    {"to_out", 0.5F},
    {"ff.net.2", 0.5F},
    {"proj_out", 0.5F},
    {"conv2", 0.5F},
    {"out_proj", 0.5F},
    {"fc2", 0.5F},
    {"decoder.conv_out", 0.6F}, // puts most pixels within -1..1
};

static void scale_of(const atedm_recorded *entry, float *ret_mean, float *ret_deviation)
{
    const char *name = entry->name;
    *ret_mean = 0;
    if (entry->ndim == 1 && strstr(name, "norm")) {
        const char *end = strrchr(name, '.');
        *ret_mean = end && strcmp(end, ".weight") == 0 ? 1.0F : 0.0F;
        *ret_deviation = 0;
    } else if (entry->ndim == 1) {
        *ret_deviation = 0.02F; // biases
    } else if (strstr(name, "embedding.weight")) {
        *ret_deviation = strstr(name, "position") ? 0.1F : 0.5F;
    } else {
        float fan_in = 1;
        for (int i = 1; i < entry->ndim; i++)
            fan_in *= (float)entry->shape[i];
        *ret_deviation = 1.0F / sqrtf(fan_in);
        for (size_t i = 0; i < sizeof gains / sizeof gains[0]; i++) {
            if (strstr(name, gains[i].part)) {
                *ret_deviation *= gains[i].gain;
                break;
            }
        }
    }
}

// ---- names and shapes

static atedm_status record(maker *m, component_kind kind)
{
    const atedm_model_configs *parts = &m->config.parts;
    atedm_status status = atedm_recorder_create(&m->recorders[kind]);
    if (status)
        return no_memory(m);
    atedm_weights *weights = atedm_recorder_weights(m->recorders[kind]);
    if (kind == KIND_UNET) {
        atedm_unet *unet = NULL;
        status = atedm_unet_create(m->device, ATEDM_F32, &parts->unet, weights, &unet, m->err);
        atedm_unet_destroy(unet);
    } else if (kind == KIND_VAE) {
        atedm_vae *vae = NULL;
        status = atedm_vae_create(m->device, ATEDM_F32, &parts->vae, weights, &vae, m->err);
        atedm_vae_destroy(vae);
    } else {
        atedm_clip *clip = NULL;
        status =
            atedm_clip_create(m->device, ATEDM_F32, &parts->clip[kind], weights, &clip, m->err);
        atedm_clip_destroy(clip);
    }
    return status;
}

static uint64_t count_values(const atedm_recorded *entry)
{
    uint64_t count = 1;
    for (int i = 0; i < entry->ndim; i++)
        count *= (uint64_t)entry->shape[i];
    return count;
}

static atedm_status record_all(maker *m)
{
    atedm_status status = atedm_device_create("dry", &m->device, m->err);
    for (int kind = 0; kind < N_KINDS && !status; kind++) {
        status = record(m, (component_kind)kind);
        size_t count = 0;
        const atedm_recorded *entries =
            status ? NULL : atedm_recorder_entries(m->recorders[kind], &count);
        for (size_t i = 0; i < count; i++)
            m->total += count_values(&entries[i]) * atedm_dtype_size(m->dtype);
    }
    return status;
}

// ---- files

static atedm_status put_tensor(maker *m, component_kind kind, const atedm_recorded *entry,
                               atedm_safetensors_writer *writer)
{
    uint64_t key =
        add_text(add_text(atedm_splitmix(m->seed, 0), components[kind].folder), entry->name);
    uint64_t count = count_values(entry);
    float mean = 0, deviation = 0;
    scale_of(entry, &mean, &deviation);
    for (uint64_t at = 0; at < count; at += CHUNK) {
        size_t n = count - at < CHUNK ? (size_t)(count - at) : CHUNK;
        size_t size = n * atedm_dtype_size(m->dtype);
        make_values(key, at, n, mean, deviation, m->values);
        atedm_convert(m->values, ATEDM_F32, m->bytes, m->dtype, n);
        atedm_status status = atedm_safetensors_writer_put(writer, m->bytes, size, m->err);
        if (status)
            return status;
        m->done += size;
        if (m->progress)
            m->progress(m->user, m->done, m->total);
    }
    return ATEDM_OK;
}

static atedm_status write_weights(maker *m, component_kind kind)
{
    char path[PATH_MAX];
    size_t count = 0;
    const atedm_recorded *recorded = atedm_recorder_entries(m->recorders[kind], &count);
    if (snprintf(path, sizeof path, "%s/%s/%s", m->dir, components[kind].folder,
                 components[kind].file) >= (int)sizeof path)
        return atedm_error_set(m->err, ATEDM_ERR_LIMIT, "%.200s: path too long", m->dir);
    atedm_safetensors_entry *entries = calloc(count, sizeof *entries);
    if (!entries)
        return no_memory(m);
    for (size_t i = 0; i < count; i++) {
        entries[i].name = recorded[i].name;
        entries[i].tensor = (atedm_host_tensor){.dtype = m->dtype, .ndim = recorded[i].ndim};
        memcpy(entries[i].tensor.shape, recorded[i].shape, sizeof recorded[i].shape);
    }
    atedm_safetensors_writer *writer = NULL;
    atedm_status status = atedm_safetensors_writer_create(path, entries, count, &writer, m->err);
    free(entries);
    if (status)
        return status;
    for (size_t i = 0; i < count; i++) {
        status = put_tensor(m, kind, &recorded[i], writer);
        if (status) {
            atedm_safetensors_writer_abort(writer);
            return status;
        }
    }
    return atedm_safetensors_writer_finish(writer, m->err);
}

static atedm_status make_folder(const maker *m, const char *name)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s%s%s", m->dir, name[0] ? "/" : "", name) >= (int)sizeof path)
        return atedm_error_set(m->err, ATEDM_ERR_LIMIT, "%.200s: path too long", m->dir);
    if (mkdir(path, 0777) != 0 && errno != EEXIST)
        return atedm_error_set(m->err, ATEDM_ERR_IO, "%s: %s", path, strerror(errno));
    return ATEDM_OK;
}

static atedm_status write_tokenizer(const maker *m, const char *folder, const char *pad)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/%s", m->dir, folder) >= (int)sizeof path)
        return atedm_error_set(m->err, ATEDM_ERR_LIMIT, "%.200s: path too long", m->dir);
    return atedm_mkmodel_write_tokenizer(m->config.parts.clip[0].vocab, pad, path, m->err);
}

static atedm_status make(maker *m)
{
    static const char *const folders[] = {
        "",     "scheduler", "tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2",
        "unet", "vae"};
    m->values = malloc(CHUNK * sizeof *m->values);
    m->bytes = malloc(CHUNK * sizeof(float));
    if (!m->values || !m->bytes)
        return no_memory(m);
    atedm_status status = record_all(m);
    for (size_t i = 0; i < sizeof folders / sizeof folders[0] && !status; i++)
        status = make_folder(m, folders[i]);
    if (!status)
        status = atedm_mkmodel_write_configs(&m->config, m->dtype, m->dir, m->err);
    // As in SDXL: the first tokenizer pads with the end token, the second with token 0.
    if (!status)
        status = write_tokenizer(m, "tokenizer", "<|endoftext|>");
    if (!status)
        status = write_tokenizer(m, "tokenizer_2", "!");
    for (int kind = 0; kind < N_KINDS && !status; kind++)
        status = write_weights(m, (component_kind)kind);
    if (status)
        return status;
    atedm_model_config written; // checks that the configs can be read
    return atedm_model_config_read(m->dir, &written, m->err);
}

atedm_status atedm_mkmodel(const char *arch, uint64_t seed, atedm_dtype dtype, const char *dir,
                           atedm_mkmodel_progress_fn progress, void *user, atedm_error *err)
{
    if (dtype != ATEDM_F32 && dtype != ATEDM_F16 && dtype != ATEDM_BF16)
        return atedm_error_set(err, ATEDM_ERR_INVALID, "dtype %s is not f32, f16 or bf16",
                               atedm_dtype_name(dtype));
    maker m = {
        .dir = dir, .seed = seed, .dtype = dtype, .progress = progress, .user = user, .err = err};
    atedm_status status = atedm_model_config_from_arch(arch, &m.config, err);
    if (!status)
        status = make(&m);
    for (int kind = 0; kind < N_KINDS; kind++)
        atedm_recorder_destroy(m.recorders[kind]);
    atedm_device_destroy(m.device);
    free(m.values);
    free(m.bytes);
    return status;
}
