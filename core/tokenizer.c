// CLIP's tokenizer: see tokenizer.h. Follows transformers' CLIPTokenizerFast, and the `tokenizers`
// library that it uses, in three steps:
//   1. Cut out the special tokens that are searched for in the original text ("!" of SDXL's second
//      tokenizer).
//   2. Normalise the text between them (tokenizer_text.h), and cut out the special tokens that are
//      searched for in normalised text (start and end, in any case).
//   3. Split the text between those into words (tokenizer_text.h), and encode each word as tokens
//      (tokenizer_bpe.h).
// Letters, numbers and case are those of Unicode 15 (utf8proc). For newer characters, and for the
// order of combining marks newer than Unicode 9, the `tokenizers` library may give other tokens.
#include "core/tokenizer.h"

#include "core/base/utf8.h"
#include "core/json_read.h"
#include "core/tokenizer_bpe.h"
#include "core/tokenizer_text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SPECIAL 64 // most special tokens of a tokenizer
#define DEFAULT_START "<|startoftext|>"
#define DEFAULT_END "<|endoftext|>" // also the default for unknown and padding
#define DEFAULT_LENGTH 77

typedef struct special_token {
    char *text; // owned; what to search for, not NUL-terminated
    size_t size;
    bool normalized; // search in normalised text, else in the original text
    uint32_t id;
} special_token;

struct atedm_tokenizer {
    atedm_bpe *bpe;
    special_token special[MAX_SPECIAL];
    size_t n_special;
    int64_t vocab_size, length;
    uint32_t start, end, padding;
};

// ---- loading

// What is in hand while a tokenizer is loaded.
typedef struct loader {
    atedm_tokenizer *t;
    char *vocab_path, *merges_path, *config_path, *map_path;
    json_t *vocab, *config;
    json_t *map; // special_tokens_map.json; NULL: the file does not exist
    atedm_error *err;
} loader;

static atedm_status no_memory(const loader *l)
{
    return atedm_error_set(l->err, ATEDM_ERR_NOMEM, "%s: no memory", l->vocab_path);
}

// Checks that the ids number the tokens from 0 without a gap.
static atedm_status check_vocab(const loader *l)
{
    size_t count = json_object_size(l->vocab);
    if (count == 0 || count > ATEDM_TOKENIZER_MAX_VOCAB)
        return atedm_error_set(l->err, ATEDM_ERR_FORMAT, "%s: %zu tokens, not 1..%d", l->vocab_path,
                               count, ATEDM_TOKENIZER_MAX_VOCAB);
    bool *seen = calloc(count, sizeof *seen);
    if (!seen)
        return no_memory(l);
    atedm_status status = ATEDM_OK;
    for (void *it = json_object_iter(l->vocab); it && !status;
         it = json_object_iter_next(l->vocab, it)) {
        const json_t *value = json_object_iter_value(it);
        json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || (size_t)id >= count || seen[id])
            status = atedm_error_set(l->err, ATEDM_ERR_FORMAT,
                                     "%s: the id of \"%.60s\" is not a number from 0 to %zu that "
                                     "no other token has",
                                     l->vocab_path, json_object_iter_key(it), count - 1);
        else
            seen[id] = true;
    }
    free(seen);
    l->t->vocab_size = (int64_t)count;
    return status;
}

// Sets the token's text: `content`, in normalised form if it is to be searched for in normalised
// text.
static atedm_status search_form(const loader *l, const char *content, bool normalized,
                                special_token *token)
{
    if (!normalized) {
        token->text = strdup(content);
        token->size = strlen(content);
        return token->text ? ATEDM_OK : no_memory(l);
    }
    atedm_normal_text text = {0};
    atedm_status status = atedm_normal_text_append(&text, content, 0, strlen(content), l->err);
    if (status) {
        atedm_normal_text_finish(&text);
        return status;
    }
    token->text = (char *)text.bytes;
    token->size = text.size;
    free(text.source);
    return ATEDM_OK;
}

// Registers a special token unless it is registered already. *ret_id gets its id.
static atedm_status add_special(loader *l, const char *path, const char *content, bool normalized,
                                uint32_t *ret_id)
{
    atedm_tokenizer *t = l->t;
    const json_t *id = json_object_get(l->vocab, content);
    if (!content[0] || !id)
        return atedm_error_set(l->err, ATEDM_ERR_UNSUPPORTED,
                               "%s: special token \"%.60s\" is not in the vocabulary", path,
                               content);
    *ret_id = (uint32_t)json_integer_value(id);
    for (size_t i = 0; i < t->n_special; i++)
        if (t->special[i].id == *ret_id)
            return ATEDM_OK;
    if (t->n_special == MAX_SPECIAL)
        return atedm_error_set(l->err, ATEDM_ERR_LIMIT,
                               "%s: more special tokens than the limit of %d", path, MAX_SPECIAL);
    special_token *token = &t->special[t->n_special];
    atedm_status status = search_form(l, content, normalized, token);
    if (status)
        return status;
    token->normalized = normalized;
    token->id = *ret_id;
    t->n_special++;
    return ATEDM_OK;
}

// Registers a token that is an object: {"content": "...", "normalized": true, ...}.
static atedm_status add_token_object(loader *l, const char *path, const json_t *object,
                                     uint32_t *ret_id)
{
    static const char *const unsupported[] = {"lstrip", "rstrip", "single_word"};
    const char *content = NULL;
    bool normalized = false;
    atedm_status status = atedm_json_string(object, path, "content", false, &content, l->err);
    if (!status)
        status = atedm_json_bool(object, path, "normalized", true, &normalized, l->err);
    for (size_t i = 0; i < 3 && !status; i++) {
        bool set = false;
        status = atedm_json_bool(object, path, unsupported[i], true, &set, l->err);
        if (!status && set)
            status = atedm_error_set(l->err, ATEDM_ERR_UNSUPPORTED,
                                     "%s: special token \"%.60s\": \"%s\" is not supported", path,
                                     content, unsupported[i]);
    }
    return status ? status : add_special(l, path, content, normalized, ret_id);
}

// Registers the tokens that tokenizer_config.json lists by id.
static atedm_status add_listed_tokens(loader *l, json_t *list)
{
    const char *key;
    json_t *value;
    json_object_foreach(list, key, value)
    {
        uint32_t id = 0;
        char number[16];
        atedm_status status = add_token_object(l, l->config_path, value, &id);
        if (status)
            return status;
        snprintf(number, sizeof number, "%" PRIu32, id);
        if (strcmp(number, key) != 0)
            return atedm_error_set(l->err, ATEDM_ERR_FORMAT,
                                   "%s: \"added_tokens_decoder\" gives id %.20s to a token that "
                                   "has id %s in the vocabulary",
                                   l->config_path, key, number);
    }
    return ATEDM_OK;
}

// Registers the token with a role such as "bos_token"; `otherwise` is its text if no config names
// it. Newer configs list all tokens ("added_tokens_decoder") and name one of them for each role.
// With older configs, special_tokens_map.json takes precedence over tokenizer_config.json. If a
// config has only the token's name, padding is searched for in the original text, and the other
// roles' tokens in normalised text.
static atedm_status named_token(loader *l, const char *role, bool listed, const char *otherwise,
                                uint32_t *ret_id)
{
    const char *path = l->config_path;
    const json_t *value = listed ? NULL : json_object_get(l->map, role);
    if (value && !json_is_null(value))
        path = l->map_path;
    else
        value = json_object_get(l->config, role);
    if (json_is_object(value))
        return add_token_object(l, path, value, ret_id);
    if (value && !json_is_string(value) && !json_is_null(value))
        return atedm_error_set(l->err, ATEDM_ERR_FORMAT,
                               "%s: \"%s\" is neither a string nor an object", path, role);
    const char *content = json_is_string(value) ? json_string_value(value) : otherwise;
    return add_special(l, path, content, strcmp(role, "pad_token") != 0, ret_id);
}

static atedm_status load_special_tokens(loader *l, uint32_t *ret_unknown)
{
    atedm_tokenizer *t = l->t;
    json_t *list = json_object_get(l->config, "added_tokens_decoder");
    if (list && !json_is_object(list))
        return atedm_error_set(l->err, ATEDM_ERR_FORMAT,
                               "%s: \"added_tokens_decoder\" is not an object", l->config_path);
    bool listed = json_object_size(list) > 0;
    atedm_status status = ATEDM_OK;
    if (listed)
        status = add_listed_tokens(l, list);
    if (!status)
        status = named_token(l, "bos_token", listed, DEFAULT_START, &t->start);
    if (!status)
        status = named_token(l, "eos_token", listed, DEFAULT_END, &t->end);
    if (!status)
        status = named_token(l, "unk_token", listed, DEFAULT_END, ret_unknown);
    if (!status)
        status = named_token(l, "pad_token", listed, DEFAULT_END, &t->padding);
    return status;
}

static atedm_status load(loader *l)
{
    atedm_tokenizer *t = l->t;
    uint32_t unknown = 0;
    t->length = DEFAULT_LENGTH;
    atedm_status status = atedm_json_load(l->vocab_path, &l->vocab, l->err);
    if (!status)
        status = check_vocab(l);
    if (!status)
        status = atedm_json_load(l->config_path, &l->config, l->err);
    if (!status)
        status = atedm_json_int(l->config, l->config_path, "model_max_length", true, 3,
                                ATEDM_TOKENIZER_MAX_LENGTH, &t->length, l->err);
    if (status)
        return status;
    status = atedm_json_load(l->map_path, &l->map, l->err);
    if (status && status != ATEDM_ERR_NOT_FOUND)
        return status;
    status = load_special_tokens(l, &unknown);
    if (status)
        return status;
    return atedm_bpe_create(l->vocab, unknown, l->merges_path, &t->bpe, l->err);
}

static char *join(const char *dir, const char *name)
{
    char *path = NULL;
    return asprintf(&path, "%s/%s", dir, name) < 0 ? NULL : path;
}

atedm_status atedm_tokenizer_open(const char *dir, atedm_tokenizer **ret_tokenizer,
                                  atedm_error *err)
{
    atedm_status status;
    loader l = {.t = calloc(1, sizeof *l.t),
                .vocab_path = join(dir, "vocab.json"),
                .merges_path = join(dir, "merges.txt"),
                .config_path = join(dir, "tokenizer_config.json"),
                .map_path = join(dir, "special_tokens_map.json"),
                .err = err};
    if (l.t && l.vocab_path && l.merges_path && l.config_path && l.map_path)
        status = load(&l);
    else
        status = atedm_error_set(err, ATEDM_ERR_NOMEM, "%s: no memory", dir);
    json_decref(l.vocab);
    json_decref(l.config);
    json_decref(l.map);
    free(l.vocab_path);
    free(l.merges_path);
    free(l.config_path);
    free(l.map_path);
    if (status) {
        atedm_tokenizer_close(l.t);
        return status;
    }
    *ret_tokenizer = l.t;
    return ATEDM_OK;
}

void atedm_tokenizer_close(atedm_tokenizer *tokenizer)
{
    if (!tokenizer)
        return;
    for (size_t i = 0; i < tokenizer->n_special; i++)
        free(tokenizer->special[i].text);
    atedm_bpe_destroy(tokenizer->bpe);
    free(tokenizer);
}

int64_t atedm_tokenizer_vocab_size(const atedm_tokenizer *tokenizer)
{
    return tokenizer->vocab_size;
}

int64_t atedm_tokenizer_length(const atedm_tokenizer *tokenizer)
{
    return tokenizer->length;
}

// ---- encoding

typedef struct encoder {
    const atedm_tokenizer *t;
    const char *text;
    size_t size;
    atedm_normal_text normal; // of the present part of the text
    atedm_bpe_work *work;
    size_t work_bytes; // longest word that `work` has room for
    uint32_t ids[ATEDM_TOKENIZER_MAX_LENGTH];
    size_t count, limit;
    bool cut;         // more tokens came than `limit`
    size_t cut_place; // byte of the text at which the first such token begins
    atedm_error *err;
} encoder;

// Appends a token. `place`: byte of the text at which the token begins, or the piece that it is a
// part of (tokenizer_text.h).
static void put(encoder *e, uint32_t id, size_t place)
{
    if (e->count < e->limit) {
        e->ids[e->count++] = id;
    } else if (!e->cut) {
        e->cut = true;
        e->cut_place = place;
    }
}

// The longest special token at the start of text[0, size); NULL: none. `normalized`: whether the
// text is; considers only the tokens that are searched for in such text.
static const special_token *special_at(const atedm_tokenizer *t, const char *text, size_t size,
                                       bool normalized)
{
    const special_token *found = NULL;
    for (size_t i = 0; i < t->n_special; i++) {
        const special_token *s = &t->special[i];
        if (s->normalized == normalized && s->size <= size && (!found || s->size > found->size) &&
            memcmp(text, s->text, s->size) == 0)
            found = s;
    }
    return found;
}

static atedm_status encode_words(encoder *e, size_t begin, size_t end)
{
    const atedm_normal_text *n = &e->normal;
    size_t at = begin, word = 0;
    while (!e->cut && atedm_next_word(n->bytes, end, &at, &word)) {
        size_t size = at - word, count = 0;
        if (size > e->work_bytes) {
            atedm_bpe_work_destroy(e->work);
            e->work = NULL;
            e->work_bytes = 2 * size + 64;
            if (atedm_bpe_work_create(e->work_bytes, &e->work) != ATEDM_OK)
                return atedm_error_set(e->err, ATEDM_ERR_NOMEM, "no memory to encode a prompt");
        }
        const atedm_bpe_token *tokens =
            atedm_bpe_encode(e->t->bpe, n->bytes + word, size, e->work, &count);
        for (size_t i = 0; i < count; i++)
            put(e, tokens[i].id, n->source[word + tokens[i].begin]);
    }
    return ATEDM_OK;
}

// Encodes text[begin, end), which has none of the special tokens searched for in the original text.
static atedm_status encode_part(encoder *e, size_t begin, size_t end)
{
    atedm_normal_text *n = &e->normal;
    n->size = 0;
    atedm_status status = atedm_normal_text_append(n, e->text, begin, end, e->err);
    size_t plain = 0; // start of the text after the last special token
    for (size_t at = 0; at < n->size && !e->cut && !status;) {
        const special_token *s = special_at(e->t, (const char *)n->bytes + at, n->size - at, true);
        if (!s) {
            at++;
            continue;
        }
        status = encode_words(e, plain, at);
        put(e, s->id, n->source[at]);
        at += s->size;
        plain = at;
    }
    return status ? status : encode_words(e, plain, n->size);
}

static atedm_status encode_text(encoder *e)
{
    size_t plain = 0;
    for (size_t at = 0; at < e->size && !e->cut;) {
        const special_token *s = special_at(e->t, e->text + at, e->size - at, false);
        if (!s) {
            at++;
            continue;
        }
        atedm_status status = encode_part(e, plain, at);
        if (status)
            return status;
        put(e, s->id, at);
        at += s->size;
        plain = at;
    }
    return e->cut ? ATEDM_OK : encode_part(e, plain, e->size);
}

atedm_status atedm_tokenizer_encode(const atedm_tokenizer *tokenizer, const char *text, size_t size,
                                    int64_t *ret_ids, size_t *ret_cut, atedm_error *err)
{
    if (size > ATEDM_TOKENIZER_MAX_TEXT)
        return atedm_error_set(err, ATEDM_ERR_LIMIT,
                               "a prompt of %zu bytes is longer than the limit of %d", size,
                               ATEDM_TOKENIZER_MAX_TEXT);
    size_t valid = atedm_utf8_valid_prefix(text, size);
    if (valid < size)
        return atedm_error_set(err, ATEDM_ERR_INVALID, "the prompt is not UTF-8 at byte %zu",
                               valid);
    if (size && memchr(text, '\0', size))
        return atedm_error_set(err, ATEDM_ERR_INVALID, "the prompt contains a NUL character");
    encoder e = {.t = tokenizer,
                 .text = text,
                 .size = size,
                 .limit = (size_t)tokenizer->length - 2, // room for start and end
                 .err = err};
    atedm_status status = encode_text(&e);
    atedm_normal_text_finish(&e.normal);
    atedm_bpe_work_destroy(e.work);
    if (status)
        return status;
    size_t length = (size_t)tokenizer->length, n = 0;
    ret_ids[n++] = tokenizer->start;
    for (size_t i = 0; i < e.count; i++)
        ret_ids[n++] = e.ids[i];
    ret_ids[n++] = tokenizer->end;
    while (n < length)
        ret_ids[n++] = tokenizer->padding;
    *ret_cut = e.cut ? e.cut_place : size;
    return ATEDM_OK;
}
