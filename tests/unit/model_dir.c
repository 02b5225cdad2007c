// Scratch copies of the golden models: see model_dir.h.
#include "model_dir.h"

#include "core/base/file.h"

#include <ftw.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HOLE "@@value@@"            // where an edit's own text goes
#define FILE_MAX ((size_t)64 << 20) // bytes of a file of a golden model

static const char *const components[] = {
    "scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "vae"};
static const char *const configs[] = {
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder_2/config.json",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "tokenizer_2/merges.txt",
    "tokenizer_2/special_tokens_map.json",
    "tokenizer_2/tokenizer_config.json",
    "tokenizer_2/vocab.json",
    "unet/config.json",
    "vae/config.json",
};
// Those that the model has are copied.
static const char *const weights_files[] = {
    "text_encoder/model.safetensors",
    "text_encoder/model.fp16.safetensors",
    "text_encoder_2/model.safetensors",
    "text_encoder_2/model.fp16.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.safetensors.index.json",
    "unet/diffusion_pytorch_model-00001-of-00004.safetensors",
    "unet/diffusion_pytorch_model-00002-of-00004.safetensors",
    "unet/diffusion_pytorch_model-00003-of-00004.safetensors",
    "unet/diffusion_pytorch_model-00004-of-00004.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.fp16.safetensors",
};

static void die(const char *what)
{
    perror(what);
    abort();
}

void model_dir_path(const char *dir, const char *file, char ret_path[MODEL_DIR_MAX])
{
    int length = snprintf(ret_path, MODEL_DIR_MAX, "%s/%s", dir, file);
    if (length < 0 || length >= MODEL_DIR_MAX)
        die(file);
}

char *model_dir_read(const char *dir, const char *file, size_t *ret_size)
{
    char path[MODEL_DIR_MAX], *data = NULL;
    size_t size = 0;
    model_dir_path(dir, file, path);
    if (atedm_file_read(path, FILE_MAX, &data, &size, NULL) != ATEDM_OK)
        die(path);
    if (ret_size)
        *ret_size = size;
    return data;
}

void model_dir_write(const char *dir, const char *file, const void *data, size_t size)
{
    char path[MODEL_DIR_MAX];
    model_dir_path(dir, file, path);
    FILE *stream = fopen(path, "wb");
    if (!stream)
        die(path);
    size_t written = fwrite(data, 1, size, stream);
    if (fclose(stream) != 0 || written != size)
        die(path);
}

char *model_dir_edit(const char *dir, const char *file, const char *key, const char *raw)
{
    char *text = model_dir_read(dir, file, NULL), *edited = NULL;
    json_t *object = json_loads(text, 0, NULL);
    free(text);
    if (!raw)
        json_object_del(object, key);
    else
        json_object_set_new(object, key, json_string(HOLE));
    text = json_dumps(object, JSON_INDENT(1));
    json_decref(object);
    if (!text)
        die(file);
    if (!raw)
        return text;
    char *hole = strstr(text, "\"" HOLE "\"");
    *hole = '\0';
    if (asprintf(&edited, "%s%s%s", text, raw, hole + strlen(HOLE) + 2) < 0)
        die(file);
    free(text);
    return edited;
}

void model_dir_rename(const char *dir, const char *from, const char *to)
{
    char from_path[MODEL_DIR_MAX], to_path[MODEL_DIR_MAX];
    model_dir_path(dir, from, from_path);
    model_dir_path(dir, to, to_path);
    if (rename(from_path, to_path) != 0)
        die(from_path);
}

static void copy(const char *from, const char *to, const char *file, bool optional)
{
    char path[MODEL_DIR_MAX];
    model_dir_path(from, file, path);
    if (optional && access(path, F_OK) != 0)
        return;
    size_t size = 0;
    char *data = model_dir_read(from, file, &size);
    model_dir_write(to, file, data, size);
    free(data);
}

void model_dir_copy(const char *name, bool weights, char ret_dir[MODEL_DIR_MAX])
{
    const char *goldens = getenv("ATEDM_GOLDEN_DIR");
    char from[MODEL_DIR_MAX], path[MODEL_DIR_MAX];
    if (!goldens)
        die("ATEDM_GOLDEN_DIR");
    int length = snprintf(from, sizeof from, "%s/models/%s", goldens, name);
    if (length < 0 || length >= MODEL_DIR_MAX)
        die(goldens);
    snprintf(ret_dir, MODEL_DIR_MAX, "/tmp/atedm-model-XXXXXX");
    if (!mkdtemp(ret_dir))
        die(ret_dir);
    for (size_t i = 0; i < sizeof components / sizeof *components; i++) {
        model_dir_path(ret_dir, components[i], path);
        if (mkdir(path, 0700) != 0)
            die(path);
    }
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++)
        copy(from, ret_dir, configs[i], false);
    for (size_t i = 0; weights && i < sizeof weights_files / sizeof *weights_files; i++)
        copy(from, ret_dir, weights_files[i], true);
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *place)
{
    return remove(path);
}

void model_dir_remove(const char *dir)
{
    if (nftw(dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS) != 0)
        die(dir);
}
