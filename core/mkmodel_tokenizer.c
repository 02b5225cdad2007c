// Writes a made-up CLIP vocabulary: see mkmodel_files.h.
//
// Each merge makes a string of letters: first all strings of two letters, then all of three, and so
// on. Of the strings of one length those with frequent letters come first. Each string comes twice,
// inside a word and at its end. A merge joins the string without its last letter, which is a token
// already, and that letter.
#include "core/mkmodel_files.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LETTERS "etaoinshrdlcumwfgypbvkjxqz" // of English, most frequent first
#define N_LETTERS 26
#define END_OF_WORD "</w>"
#define START_TOKEN "<|startoftext|>"
#define END_TOKEN "<|endoftext|>"
#define MAX_STRING 8 // letters of a string; ATEDM_TOKENIZER_MAX_VOCAB needs only 5

// An iterator over the strings, in the order of the merges.
typedef struct string_walk {
    int length;
    int sum;               // of `place`
    int place[MAX_STRING]; // index of each letter in LETTERS
} string_walk;

// Sets the letters from `at` on so that the indexes of all letters add up to `sum`, as the first
// such string in lexical order of indexes. False: impossible.
static bool fill(string_walk *w, int at)
{
    int rest = w->sum;
    for (int i = 0; i < at; i++)
        rest -= w->place[i];
    if (rest < 0 || rest > (w->length - at) * (N_LETTERS - 1))
        return false;
    for (int i = w->length - 1; i >= at; i--) {
        w->place[i] = rest < N_LETTERS - 1 ? rest : N_LETTERS - 1;
        rest -= w->place[i];
    }
    return true;
}

static void next_string(string_walk *w)
{
    for (int i = w->length - 2; i >= 0; i--) {
        w->place[i]++;
        if (w->place[i] < N_LETTERS && fill(w, i + 1))
            return;
    }
    w->sum++;
    if (w->sum > w->length * (N_LETTERS - 1)) {
        w->length++;
        w->sum = 0;
    }
    fill(w, 0);
}

static void string_text(const string_walk *w, char text[MAX_STRING + 1])
{
    for (int i = 0; i < w->length; i++)
        text[i] = LETTERS[w->place[i]];
    text[w->length] = '\0';
}

// GPT-2's character for the n-th byte symbol, in the order of CLIP's ids: first the printable
// Latin-1 characters, then the others, from U+0100 on.
static unsigned symbol_code(unsigned n)
{
    if (n < 94)
        return 0x21 + n;
    if (n < 94 + 12)
        return 0xa1 + n - 94;
    if (n < 94 + 12 + 82)
        return 0xae + n - 106;
    return 0x100 + n - 188;
}

static void write_symbol(FILE *file, unsigned code)
{
    if (code == '"' || code == '\\')
        fprintf(file, "\\%c", (char)code);
    else if (code < 0x80)
        fprintf(file, "%c", (char)code);
    else
        fprintf(file, "%c%c", (char)(0xc0 | code >> 6), (char)(0x80 | (code & 0x3f)));
}

static void write_vocab(FILE *file, int64_t merges)
{
    int64_t id = 0;
    fputc('{', file);
    for (int end = 0; end < 2; end++) {
        for (unsigned n = 0; n < 256; n++) {
            fputs(id ? ", \"" : "\"", file);
            write_symbol(file, symbol_code(n));
            fprintf(file, "%s\": %lld", end ? END_OF_WORD : "", (long long)id++);
        }
    }
    string_walk walk = {.length = 2};
    for (int64_t i = 0; i < merges; i++) {
        char text[MAX_STRING + 1];
        string_text(&walk, text);
        fprintf(file, ", \"%s%s\": %lld", text, i % 2 ? END_OF_WORD : "", (long long)id++);
        if (i % 2)
            next_string(&walk);
    }
    fprintf(file, ", \"" START_TOKEN "\": %lld, \"" END_TOKEN "\": %lld}", (long long)id,
            (long long)id + 1);
}

static void write_merges(FILE *file, int64_t merges)
{
    fputs("#version: 0.2\n", file);
    string_walk walk = {.length = 2};
    for (int64_t i = 0; i < merges; i++) {
        char text[MAX_STRING + 1];
        string_text(&walk, text);
        size_t last = strlen(text) - 1;
        fprintf(file, "%.*s %c%s\n", (int)last, text, text[last], i % 2 ? END_OF_WORD : "");
        if (i % 2)
            next_string(&walk);
    }
}

static void write_token(FILE *file, const char *role, const char *token, bool typed)
{
    fprintf(file,
            "  \"%s\": {%s\"content\": \"%s\", \"lstrip\": false, \"normalized\": true, "
            "\"rstrip\": false, \"single_word\": false},\n",
            role, typed ? "\"__type\": \"AddedToken\", " : "", token);
}

// Writes the fields that both config files have, in the form of SDXL's own files.
static void write_roles(FILE *file, const char *pad, bool typed)
{
    write_token(file, "bos_token", START_TOKEN, typed);
    write_token(file, "eos_token", END_TOKEN, typed);
    write_token(file, "unk_token", END_TOKEN, typed);
    fprintf(file, "  \"pad_token\": \"%s\"", pad);
}

static void write_config(FILE *file, const char *pad)
{
    fputs("{\n  \"add_prefix_space\": false,\n  \"do_lower_case\": true,\n  \"errors\": "
          "\"replace\",\n  \"model_max_length\": 77,\n  \"tokenizer_class\": \"CLIPTokenizer\",\n",
          file);
    write_roles(file, pad, true);
    fputs("\n}\n", file);
}

static void write_map(FILE *file, const char *pad)
{
    fputs("{\n", file);
    write_roles(file, pad, false);
    fputs("\n}\n", file);
}

atedm_status atedm_mkmodel_write_tokenizer(int64_t vocab, const char *pad, const char *dir,
                                           atedm_error *err)
{
    static const char *const names[] = {"vocab.json", "merges.txt", "tokenizer_config.json",
                                        "special_tokens_map.json"};
    int64_t merges = vocab - 512 - 2;
    if (merges < 0)
        return atedm_error_set(err, ATEDM_ERR_INVALID,
                               "%s: a vocabulary of %lld tokens is too small", dir,
                               (long long)vocab);
    for (int i = 0; i < 4; i++) {
        char path[PATH_MAX];
        if (snprintf(path, sizeof path, "%s/%s", dir, names[i]) >= (int)sizeof path)
            return atedm_error_set(err, ATEDM_ERR_LIMIT, "%.200s: path too long", dir);
        FILE *file = fopen(path, "w");
        if (!file)
            return atedm_error_set(err, ATEDM_ERR_IO, "%s: %s", path, strerror(errno));
        if (i == 0)
            write_vocab(file, merges);
        else if (i == 1)
            write_merges(file, merges);
        else if (i == 2)
            write_config(file, pad);
        else
            write_map(file, pad);
        bool failed = ferror(file);
        if (fclose(file) != 0 || failed)
            return atedm_error_set(err, ATEDM_ERR_IO, "%s: %s", path, strerror(errno));
    }
    return ATEDM_OK;
}
