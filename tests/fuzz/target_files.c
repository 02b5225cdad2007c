// Damaged safetensors files and tokenizer files.
#include "fuzz.h"

#include "core/safetensors.h"
#include "core/tokenizer.h"
#include "tests/unit/model_dir.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct model_state {
    char dir[MODEL_DIR_MAX];
} model_state;

static void *setup_model(void)
{
    model_state *state = fuzz_allocate(sizeof *state);
    model_dir_copy("a", false, state->dir);
    return state;
}

static void finish_model(void *user)
{
    model_state *state = user;
    model_dir_remove(state->dir);
    free(state);
}

// ---- safetensors

static const char header[] =
    "{\"__metadata__\": {\"format\": \"pt\"},"
    "\"a\": {\"dtype\": \"F32\", \"shape\": [2, 3], \"data_offsets\": [0, 24]},"
    "\"b\": {\"dtype\": \"F16\", \"shape\": [4], \"data_offsets\": [24, 32]},"
    "\"c\": {\"dtype\": \"I64\", \"shape\": [], \"data_offsets\": [32, 40]},"
    "\"d\": {\"dtype\": \"BF16\", \"shape\": [0, 7], \"data_offsets\": [40, 40]},"
    "\"e\": {\"dtype\": \"U8\", \"shape\": [1, 1, 3, 1], \"data_offsets\": [40, 43]}}";
#define DATA_BYTES 43

// Length, header and data, one after the other.
static fuzz_bytes join(const void *head, size_t head_size, size_t data_size)
{
    fuzz_bytes file = {fuzz_allocate(8 + head_size + data_size + 1), 8 + head_size + data_size};
    for (int i = 0; i < 8; i++)
        file.data[i] = (unsigned char)((uint64_t)head_size >> (8 * i));
    memcpy(file.data + 8, head, head_size);
    for (size_t i = 0; i < data_size; i++)
        file.data[8 + head_size + i] = (unsigned char)i;
    return file;
}

// Every tensor of a file that is taken can be read from end to end and is found by its name.
static void use_tensors(const atedm_safetensors *file)
{
    for (size_t i = 0; i < atedm_safetensors_count(file); i++) {
        const atedm_host_tensor *t = atedm_safetensors_tensor(file, i);
        int64_t count = atedm_host_tensor_count(t);
        const volatile unsigned char *bytes = t->data;
        fuzz_expect(count >= 0 && t->ndim >= 0 && t->ndim <= ATEDM_MAX_DIMS, "shapes are valid");
        for (size_t k = 0; k < (size_t)count * atedm_dtype_size(t->dtype); k++)
            (void)bytes[k];
        fuzz_expect(atedm_safetensors_find(file, atedm_safetensors_name(file, i)) == t,
                    "tensors are found");
        atedm_safetensors_drop(file, t);
    }
}

static bool run_safetensors(void *user, fuzz_rng *rng)
{
    const model_state *state = user;
    char path[MODEL_DIR_MAX];
    atedm_safetensors *file = NULL;
    atedm_error err = {.message = ""};
    fuzz_bytes damaged;
    if (fuzz_below(rng, 3) == 0) {
        fuzz_bytes good = join(header, sizeof header - 1, DATA_BYTES);
        damaged = fuzz_mutate_bytes(rng, good.data, good.size);
        free(good.data);
    } else { // the length fits, so that the header is looked at
        fuzz_bytes text = fuzz_mutate_json_text(rng, header);
        damaged = join(text.data, text.size, DATA_BYTES);
        free(text.data);
    }
    model_dir_write(state->dir, "weights", damaged.data, damaged.size);
    model_dir_path(state->dir, "weights", path);
    atedm_status status = atedm_safetensors_open(path, &file, &err);
    fuzz_expect_message(status, &err);
    fuzz_expect(!status == (file != NULL), "output only where it is taken");
    if (file)
        use_tensors(file);
    atedm_safetensors_close(file);
    free(damaged.data);
    return !status;
}

const fuzz_target fuzz_safetensors = {"safetensors", setup_model, run_safetensors, finish_model};

// ---- tokenizers

static void use_tokenizer(const atedm_tokenizer *tokenizer, fuzz_rng *rng)
{
    int64_t ids[ATEDM_TOKENIZER_MAX_LENGTH];
    size_t cut = 0;
    atedm_error err = {.message = ""};
    fuzz_bytes text = fuzz_text(rng, 2048);
    atedm_status status =
        atedm_tokenizer_encode(tokenizer, (const char *)text.data, text.size, ids, &cut, &err);
    fuzz_expect_message(status, &err);
    fuzz_expect(cut <= text.size, "the cut is in the text");
    for (int64_t i = 0; i < atedm_tokenizer_length(tokenizer) && !status; i++)
        fuzz_expect(ids[i] >= 0 && ids[i] < atedm_tokenizer_vocab_size(tokenizer),
                    "ids are in the vocabulary");
    free(text.data);
}

static bool run_vocabulary(void *user, fuzz_rng *rng)
{
    static const char *const files[] = {"tokenizer_2/vocab.json", "tokenizer_2/merges.txt",
                                        "tokenizer_2/tokenizer_config.json",
                                        "tokenizer_2/special_tokens_map.json"};
    const model_state *state = user;
    const char *file = files[fuzz_below(rng, sizeof files / sizeof *files)];
    char path[MODEL_DIR_MAX];
    size_t size = 0;
    atedm_tokenizer *tokenizer = NULL;
    atedm_error err = {.message = ""};
    char *good = model_dir_read(state->dir, file, &size);
    fuzz_bytes damaged = strstr(file, ".json") ? fuzz_mutate_json_text(rng, good)
                                               : fuzz_mutate_bytes(rng, good, size);
    model_dir_write(state->dir, file, damaged.data, damaged.size);
    model_dir_path(state->dir, "tokenizer_2", path);
    atedm_status status = atedm_tokenizer_open(path, &tokenizer, &err);
    fuzz_expect_message(status, &err);
    fuzz_expect(!status == (tokenizer != NULL), "output only where it is taken");
    fuzz_expect(!status || strstr(err.message, path), "the message names the file");
    if (tokenizer)
        use_tokenizer(tokenizer, rng);
    atedm_tokenizer_close(tokenizer);
    model_dir_write(state->dir, file, good, size);
    free(good);
    free(damaged.data);
    return !status;
}

const fuzz_target fuzz_vocabulary = {"vocabulary", setup_model, run_vocabulary, finish_model};
