// A model directory with one thing wrong: opening it fails with a message that names the file, or
// the parameter, and leaves nothing behind; afterwards the good model opens and draws the picture
// that it drew before.
#include "core/model.h"
#include "core/pipeline.h"
#include "core/safetensors.h"
#include "model_dir.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIDE 64
#define BYTES ((size_t)3 * SIDE * SIDE)
#define MAX_ENTRIES 1024

static char dir[MODEL_DIR_MAX];
static atedm_device *device;
static atedm_error err;
static uint8_t drawn_before[BYTES];

// ---- drawing

static atedm_status try_open(atedm_model **ret_model)
{
    err.message[0] = '\0';
    return atedm_model_open(dir, device, ATEDM_F32, ret_model, &err);
}

static void draw(const char *preset, atedm_recovery recovery, uint8_t *rgb)
{
    atedm_model *model = NULL;
    atedm_pipeline *pipeline = NULL;
    atedm_generation *g = NULL;
    atedm_timing timing;
    atedm_prune_spec spec;
    atedm_request request;
    const atedm_request_limits limits = {.native_width = SIDE,
                                         .native_height = SIDE,
                                         .size_multiple = 8,
                                         .max_area = SIDE * SIDE,
                                         .max_images = 1,
                                         .max_steps = 50};
    cr_assert_eq(try_open(&model), ATEDM_OK, "%s", err.message);
    cr_assert_eq(atedm_pipeline_create(model, &pipeline, &err), ATEDM_OK, "%s", err.message);
    cr_assert_eq(atedm_prune_preset(preset, &spec), ATEDM_OK);
    spec.recovery = recovery;
    atedm_request_init(&request, &limits, &spec);
    request.prompt = strdup("a red fox");
    request.steps = 2;
    cr_assert_eq(atedm_generation_create(pipeline, &request, NULL, NULL, NULL, &g, &err), ATEDM_OK,
                 "%s", err.message);
    cr_assert_eq(atedm_generation_run(g, NULL, NULL, &rgb, &timing, &err), ATEDM_OK, "%s",
                 err.message);
    atedm_generation_destroy(g);
    atedm_request_finish(&request);
    atedm_pipeline_destroy(pipeline);
    atedm_model_close(model);
}

static void use(const char *name)
{
    model_dir_copy(name, true, dir);
}

static void make(void)
{
    cr_assert_eq(atedm_device_create("cpu", &device, NULL), ATEDM_OK);
    use("a");
    draw("at-edm", ATEDM_RECOVER_ATTENTION, drawn_before);
}

static void clean_up(void)
{
    model_dir_remove(dir);
    atedm_device_destroy(device);
}

TestSuite(model_open, .init = make, .fini = clean_up, .timeout = 240);

static void expect_good(void)
{
    uint8_t drawn[BYTES];
    draw("at-edm", ATEDM_RECOVER_ATTENTION, drawn);
    cr_expect_arr_eq(drawn, drawn_before, BYTES, "another picture than before");
}

static void expect_refused(const char *part, const char *other_part)
{
    atedm_model *model = NULL;
    cr_expect_neq(try_open(&model), ATEDM_OK, "opens in spite of %s", part);
    cr_expect_null(model, "output touched on failure");
    cr_expect(strstr(err.message, dir) && strstr(err.message, part) &&
                  strstr(err.message, other_part),
              "\"%s\" does not name %s and %s", err.message, part, other_part);
    atedm_model_close(model);
}

// ---- editing safetensors files

// A file's tensors, to be changed and written again.
typedef struct tensors {
    atedm_safetensors *file;
    atedm_safetensors_entry entries[MAX_ENTRIES];
    size_t count;
} tensors;

static void read_tensors(const char *file, tensors *ret_tensors)
{
    char path[MODEL_DIR_MAX];
    model_dir_path(dir, file, path);
    *ret_tensors = (tensors){0};
    cr_assert_eq(atedm_safetensors_open(path, &ret_tensors->file, &err), ATEDM_OK, "%s",
                 err.message);
    ret_tensors->count = atedm_safetensors_count(ret_tensors->file);
    cr_assert_lt(ret_tensors->count, MAX_ENTRIES - 1);
    for (size_t i = 0; i < ret_tensors->count; i++)
        ret_tensors->entries[i] =
            (atedm_safetensors_entry){atedm_safetensors_name(ret_tensors->file, i),
                                      *atedm_safetensors_tensor(ret_tensors->file, i)};
}

static atedm_safetensors_entry *find(tensors *t, const char *name)
{
    for (size_t i = 0; i < t->count; i++)
        if (strcmp(t->entries[i].name, name) == 0)
            return &t->entries[i];
    cr_assert_fail("no parameter %s", name);
    return NULL;
}

// Writes the tensors over the file that they come from; those of data NULL get zeros.
static void write_tensors(tensors *t, const char *file)
{
    char path[MODEL_DIR_MAX], new_path[MODEL_DIR_MAX + 4];
    atedm_safetensors_writer *writer = NULL;
    model_dir_path(dir, file, path);
    snprintf(new_path, sizeof new_path, "%s.new", path);
    cr_assert_eq(atedm_safetensors_writer_create(new_path, t->entries, t->count, &writer, &err),
                 ATEDM_OK, "%s", err.message);
    for (size_t i = 0; i < t->count; i++) {
        const atedm_host_tensor *tensor = &t->entries[i].tensor;
        size_t bytes = (size_t)atedm_host_tensor_count(tensor) * atedm_dtype_size(tensor->dtype);
        void *zeros = calloc(1, bytes + 1);
        cr_assert_eq(
            atedm_safetensors_writer_put(writer, tensor->data ? tensor->data : zeros, bytes, &err),
            ATEDM_OK, "%s", err.message);
        free(zeros);
    }
    cr_assert_eq(atedm_safetensors_writer_finish(writer, &err), ATEDM_OK, "%s", err.message);
    cr_assert_eq(rename(new_path, path), 0);
    atedm_safetensors_close(t->file);
}

// One parameter a component.
static const struct {
    const char *file, *dir, *parameter;
} parameters[] = {
    {"text_encoder/model.safetensors", "text_encoder",
     "text_model.encoder.layers.1.self_attn.k_proj.weight"},
    {"text_encoder/model.safetensors", "text_encoder",
     "text_model.encoder.layers.2.mlp.fc1.bias"}, // of a layer that never runs
    {"text_encoder_2/model.safetensors", "text_encoder_2", "text_projection.weight"},
    {"text_encoder_2/model.safetensors", "text_encoder_2",
     "text_model.embeddings.token_embedding.weight"},
    {"unet/diffusion_pytorch_model.safetensors", "unet", "conv_in.weight"},
    {"unet/diffusion_pytorch_model.safetensors", "unet",
     "mid_block.attentions.0.transformer_blocks.0.attn2.to_v.weight"},
    {"unet/diffusion_pytorch_model.safetensors", "unet",
     "up_blocks.0.resnets.1.conv_shortcut.bias"},
    {"vae/diffusion_pytorch_model.safetensors", "vae", "decoder.conv_out.bias"},
    {"vae/diffusion_pytorch_model.safetensors", "vae", "post_quant_conv.weight"},
};
#define N_PARAMETERS (sizeof parameters / sizeof *parameters)

typedef void (*change_fn)(tensors *t, atedm_safetensors_entry *entry);

// Each parameter changed in turn, alone.
static void refuse_each(change_fn change, const char *named)
{
    for (size_t i = 0; i < N_PARAMETERS; i++) {
        static tensors t;
        size_t size = 0;
        char *good = model_dir_read(dir, parameters[i].file, &size);
        read_tensors(parameters[i].file, &t);
        change(&t, find(&t, parameters[i].parameter));
        write_tensors(&t, parameters[i].file);
        expect_refused(parameters[i].dir, named ? named : parameters[i].parameter);
        model_dir_write(dir, parameters[i].file, good, size);
        free(good);
    }
    expect_good();
}

static void drop(tensors *t, atedm_safetensors_entry *entry)
{
    *entry = t->entries[--t->count];
}

static void lengthen(tensors *t, atedm_safetensors_entry *entry)
{
    entry->tensor.shape[0]++;
    entry->tensor.data = NULL;
}

// The same elements under one dimension more.
static void wrap(tensors *t, atedm_safetensors_entry *entry)
{
    if (entry->tensor.ndim == ATEDM_MAX_DIMS) {
        entry->tensor.ndim--;
        entry->tensor.shape[2] *= entry->tensor.shape[3];
    } else {
        entry->tensor.shape[entry->tensor.ndim++] = 1;
    }
}

static void empty(tensors *t, atedm_safetensors_entry *entry)
{
    entry->tensor.shape[0] = 0;
}

static void make_integers(tensors *t, atedm_safetensors_entry *entry)
{
    entry->tensor.dtype = ATEDM_I64;
    entry->tensor.data = NULL;
}

static void add_another(tensors *t, atedm_safetensors_entry *entry)
{
    t->entries[t->count] = *entry;
    t->entries[t->count++].name = "lora.of_another_model.weight";
}

Test(model_open, missing_parameters)
{
    refuse_each(drop, NULL);
}

Test(model_open, parameters_of_another_size)
{
    refuse_each(lengthen, NULL);
}

Test(model_open, parameters_of_another_rank)
{
    refuse_each(wrap, NULL);
}

Test(model_open, empty_parameters)
{
    refuse_each(empty, NULL);
}

Test(model_open, parameters_of_integers)
{
    refuse_each(make_integers, NULL);
}

Test(model_open, parameters_that_no_one_asked_for)
{
    refuse_each(add_another, "lora.of_another_model.weight");
}

// Half of a file's parameters in another precision: legal.
Test(model_open, mixed_precision_is_taken)
{
    static tensors t;
    static uint16_t half[1 << 20];
    atedm_model *model = NULL;
    read_tensors("unet/diffusion_pytorch_model.safetensors", &t);
    atedm_safetensors_entry *entry = find(&t, "conv_in.weight");
    size_t count = (size_t)atedm_host_tensor_count(&entry->tensor);
    cr_assert_leq(count, sizeof half / sizeof *half);
    atedm_convert(entry->tensor.data, entry->tensor.dtype, half, ATEDM_BF16, count);
    entry->tensor.data = half;
    entry->tensor.dtype = ATEDM_BF16;
    write_tensors(&t, "unet/diffusion_pytorch_model.safetensors");
    cr_assert_eq(try_open(&model), ATEDM_OK, "%s", err.message);
    atedm_model_close(model);
}

// Weights that are no numbers: a picture all the same, whatever is pruned and recovered.
Test(model_open, weights_of_nan)
{
    static tensors t;
    static float nan_values[1 << 16];
    uint8_t drawn[BYTES];
    for (size_t i = 0; i < sizeof nan_values / sizeof *nan_values; i++)
        nan_values[i] = i % 3 ? NAN : -INFINITY;
    read_tensors("unet/diffusion_pytorch_model.safetensors", &t);
    atedm_safetensors_entry *entry = find(&t, "conv_in.weight");
    cr_assert_eq(entry->tensor.dtype, ATEDM_F16);
    entry->tensor.dtype = ATEDM_F32;
    entry->tensor.data = nan_values;
    write_tensors(&t, "unet/diffusion_pytorch_model.safetensors");
    for (int recovery = ATEDM_RECOVER_ATTENTION; recovery <= ATEDM_RECOVER_ZERO; recovery++)
        draw("at-edm-a", (atedm_recovery)recovery, drawn);
    atedm_device_destroy(device);
    cr_assert_eq(atedm_device_create("ref", &device, NULL), ATEDM_OK);
    draw("at-edm-a", ATEDM_RECOVER_ATTENTION, drawn);
}

// ---- whole files

Test(model_open, missing_files_and_what_is_no_file)
{
    static const char *const files[] = {
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "text_encoder_2/config.json",
        "text_encoder_2/model.safetensors",
        "tokenizer/merges.txt",
        "tokenizer/tokenizer_config.json",
        "tokenizer/vocab.json",
        "tokenizer_2/merges.txt",
        "tokenizer_2/tokenizer_config.json",
        "tokenizer_2/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char folder[MODEL_DIR_MAX], path[MODEL_DIR_MAX], *slash;
        model_dir_rename(dir, files[i], "hidden");
        // Something else in its place: a folder, and a pipe that no one writes to.
        model_dir_path(dir, files[i], path);
        cr_assert_eq(mkdir(path, 0700), 0);
        expect_refused(files[i], "not a regular file");
        cr_assert_eq(rmdir(path), 0);
        cr_assert_eq(mkfifo(path, 0600), 0);
        expect_refused(files[i], "not a regular file");
        cr_assert_eq(unlink(path), 0);
        snprintf(folder, sizeof folder, "%s", files[i]);
        slash = strchr(folder, '/');
        if (slash)
            *slash = '\0';
        // Weights may have several names: the message has the folder and the plain one.
        expect_refused(folder, slash ? slash + 1 : files[i]);
        model_dir_rename(dir, "hidden", files[i]);
    }
    expect_good();
}

Test(model_open, truncated_and_lying_weights)
{
    static const char *const files[] = {
        "text_encoder/model.safetensors", "text_encoder_2/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        size_t size = 0;
        char *data = model_dir_read(dir, files[i], &size), length[8];
        const size_t cuts[] = {0, 1, 7, 8, 9, 100, size / 2, size - 1};
        for (size_t k = 0; k < sizeof cuts / sizeof *cuts; k++) {
            model_dir_write(dir, files[i], data, cuts[k]);
            expect_refused(files[i], ".safetensors");
        }
        memcpy(length, data, 8);
        static const unsigned char lies[][8] = {{0},
                                                {1},
                                                {0xff, 0xff},
                                                {0, 0, 0, 1},
                                                {0, 0, 0, 0, 1},
                                                {255, 255, 255, 255, 255, 255, 255, 127},
                                                {255, 255, 255, 255, 255, 255, 255, 255}};
        for (size_t k = 0; k < sizeof lies / sizeof *lies; k++) {
            memcpy(data, lies[k], 8);
            model_dir_write(dir, files[i], data, size);
            expect_refused(files[i], ".safetensors");
        }
        memcpy(data, length, 8);
        data[0]++;
        model_dir_write(dir, files[i], data, size);
        expect_refused(files[i], ".safetensors");
        data[0]--;
        model_dir_write(dir, files[i], data, size);
        free(data);
    }
    expect_good();
}

Test(model_open, swapped_folders)
{
    model_dir_rename(dir, "text_encoder", "hidden");
    model_dir_rename(dir, "text_encoder_2", "text_encoder");
    model_dir_rename(dir, "hidden", "text_encoder_2");
    expect_refused("architectures", "text_encoder_2");
    model_dir_rename(dir, "text_encoder", "hidden");
    model_dir_rename(dir, "text_encoder_2", "text_encoder");
    model_dir_rename(dir, "hidden", "text_encoder_2");

    model_dir_rename(dir, "unet", "hidden");
    model_dir_rename(dir, "vae", "unet");
    model_dir_rename(dir, "hidden", "vae");
    expect_refused("unet/config.json", "is missing");
    model_dir_rename(dir, "unet", "hidden");
    model_dir_rename(dir, "vae", "unet");
    model_dir_rename(dir, "hidden", "vae");
    expect_good();
}

// ---- tokenizers

// Sets one member of a tokenizer's file; `value` is taken.
static void set_member(const char *file, const char *key, json_t *value)
{
    char *text = model_dir_read(dir, file, NULL);
    json_t *object = json_loads(text, 0, NULL);
    free(text);
    json_object_set_new(object, key, value);
    text = json_dumps(object, 0);
    model_dir_write(dir, file, text, strlen(text));
    free(text);
    json_decref(object);
}

static void restore(const char *file, char *good)
{
    model_dir_write(dir, file, good, strlen(good));
    free(good);
}

// Merges of one vocabulary beside another one's tokens. (b's merges are the first of a's.)
Test(model_open, merges_of_another_vocabulary)
{
    atedm_model *model = NULL;
    char *merges = model_dir_read(dir, "tokenizer/merges.txt", NULL);
    model_dir_remove(dir);
    use("b");
    char *good = model_dir_read(dir, "tokenizer/merges.txt", NULL);
    restore("tokenizer/merges.txt", merges);
    expect_refused("tokenizer/merges.txt:", "vocabulary");
    restore("tokenizer/merges.txt", good);
    cr_assert_eq(try_open(&model), ATEDM_OK, "%s", err.message);
    atedm_model_close(model);
}

Test(model_open, vocabulary_larger_than_the_encoders)
{
    static const char *const folders[] = {"tokenizer", "tokenizer_2"};
    for (size_t i = 0; i < 2; i++) {
        char file[64];
        snprintf(file, sizeof file, "%s/vocab.json", folders[i]);
        char *good = model_dir_read(dir, file, NULL);
        set_member(file, "one more</w>", json_integer(834));
        expect_refused(folders[i], "835 entries");
        restore(file, good);
    }
    expect_good();
}

Test(model_open, lengths_that_do_not_fit)
{
    char *good = model_dir_read(dir, "tokenizer_2/tokenizer_config.json", NULL);
    set_member("tokenizer_2/tokenizer_config.json", "model_max_length", json_integer(76));
    expect_refused("model_max_length", "tokenizer_2");
    set_member("tokenizer_2/tokenizer_config.json", "model_max_length", json_integer(78));
    expect_refused("tokenizer_2", "length 78");
    set_member("tokenizer_2/tokenizer_config.json", "model_max_length", json_real(1e30));
    expect_refused("tokenizer_2/tokenizer_config.json", "model_max_length");
    restore("tokenizer_2/tokenizer_config.json", good);
    expect_good();
}

// ---- names of weight files

static void expect_opens(const char *what)
{
    atedm_model *model = NULL;
    cr_expect_eq(try_open(&model), ATEDM_OK, "%s: %s", what, err.message);
    atedm_model_close(model);
}

Test(model_open, names_of_weight_files)
{
    uint8_t drawn[BYTES];
    model_dir_rename(dir, "unet/diffusion_pytorch_model.safetensors",
                     "unet/diffusion_pytorch_model.fp16.safetensors");
    model_dir_rename(dir, "text_encoder/model.safetensors", "text_encoder/model.fp16.safetensors");
    expect_good();
    static const char *const index_names[] = {
        "unet/diffusion_pytorch_model.safetensors.index.json",
        "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
        "unet/diffusion_pytorch_model.safetensors.fp16.index.json",
    };
    model_dir_remove(dir);
    use("b");
    draw("at-edm", ATEDM_RECOVER_ATTENTION, drawn);
    model_dir_remove(dir);
    use("c");
    draw("at-edm", ATEDM_RECOVER_ATTENTION, drawn);
    for (size_t i = 1; i < 3; i++) {
        model_dir_rename(dir, index_names[i - 1], index_names[i]);
        expect_opens(index_names[i]);
    }
    model_dir_rename(dir, "unet/diffusion_pytorch_model-00003-of-00004.safetensors", "hidden");
    expect_refused("unet", "diffusion_pytorch_model-00003-of-00004.safetensors");
}
