// core/tokenizer: equal to transformers' CLIPTokenizerFast on the oracle's strings, where texts are
// cut, how long hostile texts take, and which malformed files are refused.
#include "core/base/clock.h"
#include "core/tokenizer.h"

#include <criterion/criterion.h>
#include <ftw.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[64];
static atedm_error err;

static void make_dir(void)
{
    strcpy(dir, "/tmp/atedm-tokenizer-XXXXXX");
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

TestSuite(tokenizer, .init = make_dir, .fini = remove_dir);

static atedm_tokenizer *open_golden(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/models/a/%s", getenv("ATEDM_GOLDEN_DIR"), name);
    atedm_tokenizer *t = NULL;
    cr_assert_eq(atedm_tokenizer_open(path, &t, &err), ATEDM_OK, "%s", err.message);
    return t;
}

// ---- against the oracle

// `want`: ids neither cut nor padded.
static void check_ids(const atedm_tokenizer *t, const char *text, size_t size, const json_t *want,
                      int64_t pad)
{
    int64_t ids[77];
    size_t cut = 0, count = json_array_size(want);
    cr_assert_eq(atedm_tokenizer_encode(t, text, size, ids, &cut, &err), ATEDM_OK, "\"%s\": %s",
                 text, err.message);
    for (size_t i = 0; i < 77; i++) {
        int64_t expected = i < count ? json_integer_value(json_array_get(want, i)) : pad;
        if (i == 76 && count > 77)
            expected = json_integer_value(json_array_get(want, count - 1));
        cr_assert_eq(ids[i], expected, "\"%s\", token %zu: %lld, not %lld", text, i,
                     (long long)ids[i], (long long)expected);
    }
    if (count <= 77)
        cr_assert_eq(cut, size, "\"%s\" was cut", text);
    else
        cr_assert_lt(cut, size, "\"%s\" was not cut", text);
}

Test(tokenizer, equals_the_fast_tokenizer_of_transformers)
{
    char path[512];
    snprintf(path, sizeof path, "%s/tokens.json", getenv("ATEDM_GOLDEN_DIR"));
    json_error_t json_err;
    json_t *rows = json_load_file(path, 0, &json_err);
    cr_assert_not_null(rows, "%s: %s", path, json_err.text);
    cr_assert_gt(json_array_size(rows), 300);
    atedm_tokenizer *first = open_golden("tokenizer"), *second = open_golden("tokenizer_2");
    cr_assert_eq(atedm_tokenizer_length(first), 77);
    cr_assert_eq(atedm_tokenizer_vocab_size(first), 834);
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        const json_t *text = json_object_get(row, "text");
        const char *value = json_string_value(text);
        size_t size = json_string_length(text);
        check_ids(first, value, size, json_object_get(row, "ids"), 833);
        check_ids(second, value, size, json_object_get(row, "ids_2"), 0);
    }
    atedm_tokenizer_close(first);
    atedm_tokenizer_close(second);
    json_decref(rows);
}

// ---- where a text is cut

static size_t cut_of(const atedm_tokenizer *t, const char *text, size_t size)
{
    int64_t ids[77];
    size_t cut = SIZE_MAX;
    cr_assert_eq(atedm_tokenizer_encode(t, text, size, ids, &cut, &err), ATEDM_OK, "%s",
                 err.message);
    return cut;
}

#define TEXT_MAX 4096

// `count` times `piece`, then `tail`, into text [TEXT_MAX].
static size_t repeat(char *text, const char *piece, int count, const char *tail)
{
    size_t size = 0;
    for (int i = 0; i < count; i++)
        size += (size_t)snprintf(text + size, TEXT_MAX - size, "%s", piece);
    return size + (size_t)snprintf(text + size, TEXT_MAX - size, "%s", tail);
}

Test(tokenizer, cut_names_what_was_encoded_whole)
{
    static char text[TEXT_MAX + 1];
    atedm_tokenizer *t = open_golden("tokenizer");
    size_t size = repeat(text, "1 ", 75, "   ");
    cr_assert_eq(cut_of(t, text, size), size, "75 tokens fit, white space is no token");
    size = repeat(text, "1 ", 76, "");
    cr_assert_eq(cut_of(t, text, size), 150, "the 76th does not");
    size = repeat(text, "1 ", 75, " \t rest of it");
    cr_assert_eq(cut_of(t, text, size), 153, "what was cut begins with its first word");

    // U+4DC0 is three bytes and three tokens: 25 of them fit.
    size = repeat(text, "\u4dc0 ", 30, "");
    cr_assert_eq(cut_of(t, text, size), 25 * 4);
    // With a token before them the 25th has room for two of its three: all of it is cut.
    size = repeat(text + 1, "\u4dc0 ", 30, "") + 1;
    text[0] = '1';
    cr_assert_eq(cut_of(t, text, size), 1 + 24 * 4);
    // A base character and its marks are normalised as one, and cut as one.
    size = repeat(text, "1 ", 75, "e\u0301 x");
    cr_assert_eq(cut_of(t, text, size), 150);
    size = repeat(text, "1 ", 74, "=\u0308\u0323");
    cr_assert_eq(cut_of(t, text, size), 148);

    size = repeat(text, "1 ", 75, "<|ENDOFTEXT|> x");
    cr_assert_eq(cut_of(t, text, size), 150, "a special token");
    // Normalisation changes lengths: Kelvin sign (3 bytes) to k, U+0130 (2) to 3.
    size = repeat(text, "\u212a \u0130 ", 40, "");
    size_t cut = cut_of(t, text, size);
    cr_assert_lt(cut, size);
    cr_assert_eq(cut_of(t, text, cut), cut, "what was encoded whole fits");
    cr_assert((unsigned char)text[cut] != 0x84 && (unsigned char)text[cut] != 0xaa);

    atedm_tokenizer *second = open_golden("tokenizer_2");
    size = repeat(text, "1!", 40, "");
    cr_assert_eq(cut_of(second, text, size), 75);
    atedm_tokenizer_close(second);
    atedm_tokenizer_close(t);
}

// ---- hostile texts

Test(tokenizer, hostile_texts_take_no_time)
{
    static const char *const pieces[] = {
        "a",          "ab",       "A",      "\u0301", "\u0323\u0301", "\U0001f98a", "\u1112\u1161",
        "<|endoftex", "<|<|",     "'",      "'s",     "\u1d160",      "\u0390",     "\u3000",
        "e\u0301",    "\u0130 1", "!\u0301"};
    static char text[ATEDM_TOKENIZER_MAX_TEXT];
    int64_t ids[77];
    size_t cut;
    atedm_tokenizer *t = open_golden("tokenizer_2");
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        size_t length = strlen(pieces[i]), size = 0;
        for (; size + length <= sizeof text; size += length)
            memcpy(text + size, pieces[i], length);
        double start = atedm_clock_monotonic();
        cr_assert_eq(atedm_tokenizer_encode(t, text, size, ids, &cut, &err), ATEDM_OK, "%s",
                     err.message);
        double took = atedm_clock_monotonic() - start;
        cr_assert(took < 3, "%zu bytes of \"%s\" took %g s", size, pieces[i], took);
        cr_assert_leq(cut, size);
    }
    atedm_tokenizer_close(t);
}

Test(tokenizer, bad_texts_are_refused)
{
    atedm_tokenizer *t = open_golden("tokenizer");
    int64_t ids[77];
    memset(ids, 0x55, sizeof ids);
    size_t cut = 12345;
    cr_assert_eq(atedm_tokenizer_encode(t, "a\xff", 2, ids, &cut, &err), ATEDM_ERR_INVALID);
    cr_assert_not_null(strstr(err.message, "not UTF-8 at byte 1"), "%s", err.message);
    cr_assert_eq(atedm_tokenizer_encode(t, "a\xed\xa0\x80", 4, ids, &cut, &err), ATEDM_ERR_INVALID);
    cr_assert_eq(atedm_tokenizer_encode(t, "a\0b", 3, ids, &cut, &err), ATEDM_ERR_INVALID);
    cr_assert_not_null(strstr(err.message, "NUL"), "%s", err.message);
    char *longer = malloc(ATEDM_TOKENIZER_MAX_TEXT + 1);
    memset(longer, 'x', ATEDM_TOKENIZER_MAX_TEXT + 1);
    cr_assert_eq(atedm_tokenizer_encode(t, longer, ATEDM_TOKENIZER_MAX_TEXT + 1, ids, &cut, &err),
                 ATEDM_ERR_LIMIT);
    free(longer);
    cr_assert_eq(cut, 12345, "outputs untouched on failure");
    cr_assert_eq(ids[0], 0x5555555555555555);
    atedm_tokenizer_close(t);
    atedm_tokenizer_close(NULL);
}

// Random bytes, repaired or not, never do worse than an error.
Test(tokenizer, random_bytes_are_encoded_or_refused)
{
    atedm_tokenizer *t = open_golden("tokenizer_2");
    uint32_t state = 1;
    size_t encoded = 0;
    for (int round = 0; round < 3000; round++) {
        char text[64];
        size_t size = 0;
        while (size < 40) {
            state = state * 1664525u + 1013904223u;
            uint32_t code = (state >> 8) & (round % 2 ? 0xffff : 0x7ff);
            if (code < 0x80) {
                text[size++] = (char)code;
            } else if (code < 0x800) {
                text[size++] = (char)(0xc0 | code >> 6);
                text[size++] = (char)(0x80 | (code & 0x3f));
            } else {
                text[size++] = (char)(0xe0 | code >> 12);
                text[size++] = (char)(0x80 | (code >> 6 & 0x3f));
                text[size++] = (char)(0x80 | (code & 0x3f));
            }
        }
        int64_t ids[77];
        size_t cut = 0;
        atedm_status status = atedm_tokenizer_encode(t, text, size, ids, &cut, &err);
        if (status) {
            cr_assert_eq(status, ATEDM_ERR_INVALID);
            continue;
        }
        encoded++;
        cr_assert_leq(cut, size);
        for (size_t i = 0; i < 77; i++)
            cr_assert(ids[i] >= 0 && ids[i] < atedm_tokenizer_vocab_size(t));
    }
    cr_assert_gt(encoded, 1000);
    atedm_tokenizer_close(t);
}

// ---- files

static void write_text(const char *name, const char *text)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    fputs(text, file);
    fclose(file);
}

#define SMALL_VOCAB                                                                                \
    "{\"a\":0,\"b\":1,\"a</w>\":2,\"b</w>\":3,\"ab\":4,\"ab</w>\":5,"                              \
    "\"<|startoftext|>\":6,\"<|endoftext|>\":7}"

static void write_small(void)
{
    write_text("vocab.json", SMALL_VOCAB);
    write_text("merges.txt", "#version: 0.2\na b\na b</w>\n");
    write_text("tokenizer_config.json", "{\"model_max_length\": 8}");
}

static void expect_small_ids(const char *text, const int64_t *want)
{
    atedm_tokenizer *t = NULL;
    cr_assert_eq(atedm_tokenizer_open(dir, &t, &err), ATEDM_OK, "%s", err.message);
    cr_assert_eq(atedm_tokenizer_length(t), 8);
    int64_t ids[8];
    size_t cut = 0;
    cr_assert_eq(atedm_tokenizer_encode(t, text, strlen(text), ids, &cut, &err), ATEDM_OK);
    for (int i = 0; i < 8; i++)
        cr_assert_eq(ids[i], want[i], "\"%s\", token %d: %lld", text, i, (long long)ids[i]);
    atedm_tokenizer_close(t);
}

Test(tokenizer, small_vocabulary)
{
    write_small();
    expect_small_ids("ab aab", (int64_t[]){6, 5, 0, 5, 7, 7, 7, 7});
    expect_small_ids("axb", (int64_t[]){6, 0, 7, 3, 7, 7, 7, 7}); // x: unknown
    expect_small_ids("\u00e9", (int64_t[]){6, 7, 7, 7, 7, 7, 7, 7});
    // Blank lines at the end, other line ends, no end of the last line.
    write_text("merges.txt", "#version: 0.2\r\na b\r\na b</w>\n\n \n");
    expect_small_ids("ab", (int64_t[]){6, 5, 7, 7, 7, 7, 7, 7});
    write_text("merges.txt", "first line\na b\na b</w>");
    expect_small_ids("abb", (int64_t[]){6, 4, 3, 7, 7, 7, 7, 7});
    write_text("merges.txt", "");
    expect_small_ids("ab", (int64_t[]){6, 0, 3, 7, 7, 7, 7, 7});
}

Test(tokenizer, padding_token_in_all_its_places)
{
    write_small();
    write_text("tokenizer_config.json", "{\"model_max_length\": 8, \"pad_token\": \"b\"}");
    expect_small_ids("a b", (int64_t[]){6, 2, 1, 7, 1, 1, 1, 1}); // "b" in the text is special
    write_text("special_tokens_map.json", "{\"pad_token\": {\"content\": \"a\"}}");
    expect_small_ids("b", (int64_t[]){6, 3, 7, 0, 0, 0, 0, 0}); // goes before the config
    write_text("special_tokens_map.json", "{\"pad_token\": \"ab\"}");
    expect_small_ids("AB ab", (int64_t[]){6, 5, 4, 7, 4, 4, 4, 4}); // as it is: not "AB"
    write_text("special_tokens_map.json",
               "{\"pad_token\": {\"content\": \"ab\", \"normalized\": true}}");
    expect_small_ids("AB ab", (int64_t[]){6, 4, 4, 7, 4, 4, 4, 4});
    write_text("tokenizer_config.json",
               "{\"model_max_length\": 8, \"pad_token\": \"b\", \"added_tokens_decoder\":"
               "{\"7\": {\"content\": \"<|endoftext|>\", \"normalized\": false}}}");
    expect_small_ids("a<|endoftext|>", (int64_t[]){6, 2, 7, 7, 1, 1, 1, 1});
    expect_small_ids("<|ENDOFTEXT|>b", (int64_t[]){6, 7, 7, 7, 7, 7, 7, 7});
}

static void expect_refused(const char *file, const char *text, atedm_status status,
                           const char *message)
{
    write_small();
    write_text(file, text);
    atedm_tokenizer *t = NULL;
    err.message[0] = '\0';
    cr_assert_eq(atedm_tokenizer_open(dir, &t, &err), status, "%s: %s: %s", file, text,
                 err.message);
    cr_assert_null(t);
    cr_assert_not_null(strstr(err.message, message), "\"%s\" is not in \"%s\"", message,
                       err.message);
    cr_assert_not_null(strstr(err.message, file), "no file name in \"%s\"", err.message);
}

Test(tokenizer, malformed_vocabularies_are_refused)
{
    static const char vocab[] = "vocab.json";
    expect_refused(vocab, "", ATEDM_ERR_FORMAT, "vocab.json:1:");
    expect_refused(vocab, "[]", ATEDM_ERR_FORMAT, "not a JSON object");
    expect_refused(vocab, "{}", ATEDM_ERR_FORMAT, "0 tokens, not 1..1000000");
    expect_refused(vocab, "{\"a\":0,\"a\":1}", ATEDM_ERR_FORMAT, "duplicate");
    expect_refused(vocab, "{\"a\":0,\"b\":0}", ATEDM_ERR_FORMAT, "the id of \"b\" is not");
    expect_refused(vocab, "{\"a\":0,\"b\":2}", ATEDM_ERR_FORMAT, "the id of \"b\" is not");
    expect_refused(vocab, "{\"a\":-1}", ATEDM_ERR_FORMAT, "the id of \"a\" is not");
    expect_refused(vocab, "{\"a\":4294967296}", ATEDM_ERR_FORMAT, "the id of \"a\" is not");
    expect_refused(vocab, "{\"a\":\"0\"}", ATEDM_ERR_FORMAT, "the id of \"a\" is not");
    expect_refused(vocab, "{\"a\":0.0}", ATEDM_ERR_FORMAT, "the id of \"a\" is not");
}

Test(tokenizer, malformed_merges_are_refused)
{
    static const char merges[] = "merges.txt";
    expect_refused(merges, "#\na\n", ATEDM_ERR_FORMAT, "merges.txt:2: not two symbols");
    expect_refused(merges, "#\na b\na b c\n", ATEDM_ERR_FORMAT, "merges.txt:3: not two symbols");
    expect_refused(merges, "#\n\na b\n", ATEDM_ERR_FORMAT, "merges.txt:2: not two symbols");
    expect_refused(merges, "#\na c\n", ATEDM_ERR_FORMAT, "merges.txt:2: \"a\", \"c\"");
    expect_refused(merges, "#\nb a\n", ATEDM_ERR_FORMAT, "the two together are not");
}

Test(tokenizer, malformed_configs_are_refused)
{
    static const char config[] = "tokenizer_config.json", map[] = "special_tokens_map.json";
    expect_refused(config, "{\"model_max_length\": 2}", ATEDM_ERR_FORMAT, "not within 3..1024");
    expect_refused(config, "{\"model_max_length\": 1025}", ATEDM_ERR_FORMAT, "not within 3..1024");
    expect_refused(config, "{\"model_max_length\": \"77\"}", ATEDM_ERR_FORMAT, "not an integer");
    expect_refused(config, "{\"pad_token\": 1}", ATEDM_ERR_FORMAT,
                   "\"pad_token\" is neither a string nor an object");
    expect_refused(config, "{\"pad_token\": \"\"}", ATEDM_ERR_UNSUPPORTED,
                   "special token \"\" is not in the vocabulary");
    expect_refused(config, "{\"eos_token\": \"<end>\"}", ATEDM_ERR_UNSUPPORTED,
                   "special token \"<end>\" is not in the vocabulary");
    expect_refused(config, "{\"bos_token\": {\"content\": \"a\", \"lstrip\": true}}",
                   ATEDM_ERR_UNSUPPORTED, "\"lstrip\" is not supported");
    expect_refused(config, "{\"bos_token\": {}}", ATEDM_ERR_FORMAT, "\"content\" is missing");
    expect_refused(config, "{\"added_tokens_decoder\": []}", ATEDM_ERR_FORMAT, "is not an object");
    expect_refused(config, "{\"added_tokens_decoder\": {\"1\": {\"content\": \"a\"}}}",
                   ATEDM_ERR_FORMAT, "gives id 1 to a token that has id 0 in the vocabulary");
    expect_refused(config, "{\"added_tokens_decoder\": {\"1\": \"b\"}}", ATEDM_ERR_FORMAT,
                   "\"content\" is missing");
    expect_refused(map, "{", ATEDM_ERR_FORMAT, "special_tokens_map.json:1:");
    expect_refused(map, "{\"pad_token\": []}", ATEDM_ERR_FORMAT,
                   "\"pad_token\" is neither a string nor an object");
}

Test(tokenizer, missing_files_are_named)
{
    static const char *const names[] = {"vocab.json", "merges.txt", "tokenizer_config.json"};
    for (size_t i = 0; i < 3; i++) {
        char path[128];
        write_small();
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
        atedm_tokenizer *t = NULL;
        cr_assert_eq(atedm_tokenizer_open(dir, &t, &err), ATEDM_ERR_NOT_FOUND);
        cr_assert_not_null(strstr(err.message, names[i]), "%s", err.message);
    }
}

Test(tokenizer, limits_of_files_and_special_tokens)
{
    write_small();
    char path[128];
    atedm_tokenizer *t = NULL;
    snprintf(path, sizeof path, "%s/merges.txt", dir);
    cr_assert_eq(truncate(path, (off_t)ATEDM_TOKENIZER_MAX_FILE + 1), 0); // sparse
    cr_assert_eq(atedm_tokenizer_open(dir, &t, &err), ATEDM_ERR_LIMIT);
    cr_assert_not_null(strstr(err.message, "merges.txt: 67108865 bytes"), "%s", err.message);
    write_text("merges.txt", "#version: 0.2\na b\n");
    cr_assert_eq(truncate(path, 30), 0); // NUL bytes behind the text
    cr_assert_eq(atedm_tokenizer_open(dir, &t, &err), ATEDM_ERR_FORMAT);
    cr_assert_not_null(strstr(err.message, "contains a NUL byte"), "%s", err.message);

    write_small();
    char vocab[4096] = SMALL_VOCAB, config[8192];
    size_t v = strlen(vocab) - 1; // over the closing brace
    size_t c = (size_t)snprintf(config, sizeof config, "{\"added_tokens_decoder\": {");
    for (int i = 8; i < 8 + 65; i++) {
        v += (size_t)snprintf(vocab + v, sizeof vocab - v, ",\"t%d\":%d", i, i);
        c += (size_t)snprintf(config + c, sizeof config - c, "%s\"%d\": {\"content\": \"t%d\"}",
                              i > 8 ? ", " : "", i, i);
    }
    snprintf(vocab + v, sizeof vocab - v, "}");
    snprintf(config + c, sizeof config - c, "}}");
    write_text("vocab.json", vocab);
    write_text("tokenizer_config.json", config);
    cr_assert_eq(atedm_tokenizer_open(dir, &t, &err), ATEDM_ERR_LIMIT);
    cr_assert_not_null(strstr(err.message, "more special tokens than the limit of 64"), "%s",
                       err.message);
    cr_assert_null(t);
}

Test(tokenizer, most_tokens_of_a_vocabulary)
{
    const int most = ATEDM_TOKENIZER_MAX_VOCAB;
    char *vocab = malloc(24 * ((size_t)most + 1) + sizeof SMALL_VOCAB);
    cr_assert_not_null(vocab);
    for (int tokens = most; tokens <= most + 1; tokens++) {
        atedm_tokenizer *t = NULL;
        size_t v = (size_t)sprintf(vocab, "%s", SMALL_VOCAB) - 1; // over the closing brace
        for (int i = 8; i < tokens; i++)
            v += (size_t)sprintf(vocab + v, ",\"%X\":%d", (unsigned)i, i);
        memcpy(vocab + v, "}", 2);
        write_small();
        write_text("vocab.json", vocab);
        cr_assert_eq(atedm_tokenizer_open(dir, &t, &err),
                     tokens > most ? ATEDM_ERR_FORMAT : ATEDM_OK, "%s", err.message);
        if (tokens == most)
            cr_assert_eq(atedm_tokenizer_vocab_size(t), most);
        else
            cr_assert_not_null(strstr(err.message, "1000001 tokens, not 1..1000000"));
        atedm_tokenizer_close(t);
    }
    free(vocab);
}
