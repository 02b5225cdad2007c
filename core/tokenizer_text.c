// Normalisation and word splitting of CLIP's tokenizer: see tokenizer_text.h.
//
// Follows what the `tokenizers` library does for CLIPTokenizerFast: composes characters (NFC),
// replaces each run of white space by one space, then lower-cases each character (with Unicode's
// simple and unconditional special mappings; so without a final sigma).
#include "core/tokenizer_text.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define CAPITAL_I_WITH_DOT 0x130 // the only character whose lower case has two characters
#define COMBINING_DOT_ABOVE 0x307
#define NFC_OPTIONS (UTF8PROC_STABLE | UTF8PROC_COMPOSE)

typedef enum char_class { CLASS_SPACE, CLASS_LETTER, CLASS_NUMBER, CLASS_OTHER } char_class;

void atedm_normal_text_finish(atedm_normal_text *text)
{
    if (!text)
        return;
    free(text->bytes);
    free(text->source);
    *text = (atedm_normal_text){0};
}

static atedm_status append_bytes(atedm_normal_text *text, const unsigned char *bytes, size_t size,
                                 uint32_t source, atedm_error *err)
{
    if (text->capacity - text->size < size) {
        size_t capacity = 2 * text->capacity + size + 256;
        unsigned char *grown = realloc(text->bytes, capacity);
        if (grown)
            text->bytes = grown;
        uint32_t *sources = realloc(text->source, capacity * sizeof *sources);
        if (sources)
            text->source = sources;
        if (!grown || !sources)
            return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory to normalise a prompt");
        text->capacity = capacity;
    }
    memcpy(text->bytes + text->size, bytes, size);
    for (size_t i = 0; i < size; i++)
        text->source[text->size + i] = source;
    text->size += size;
    return ATEDM_OK;
}

// Unicode's White_Space property.
static bool is_space(utf8proc_int32_t c)
{
    return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

static atedm_status append_char(atedm_normal_text *text, utf8proc_int32_t c, uint32_t source,
                                atedm_error *err)
{
    unsigned char bytes[8];
    if (is_space(c)) {
        if (text->size && text->bytes[text->size - 1] == ' ')
            return ATEDM_OK;
        return append_bytes(text, (const unsigned char *)" ", 1, source, err);
    }
    utf8proc_int32_t lower = c == CAPITAL_I_WITH_DOT ? 'i' : utf8proc_tolower(c);
    utf8proc_ssize_t size = utf8proc_encode_char(lower, bytes);
    if (c == CAPITAL_I_WITH_DOT)
        size += utf8proc_encode_char(COMBINING_DOT_ABOVE, bytes + size);
    return append_bytes(text, bytes, (size_t)size, source, err);
}

// The character at text[at] of valid UTF-8; *ret_size gets its number of bytes.
static utf8proc_int32_t char_at(const void *text, size_t size, size_t at, size_t *ret_size)
{
    utf8proc_int32_t c = 0;
    utf8proc_ssize_t n =
        utf8proc_iterate((const unsigned char *)text + at, (utf8proc_ssize_t)(size - at), &c);
    *ret_size = n > 0 ? (size_t)n : 1;
    return c;
}

// Whether the character may combine with the one before it: marks, and the vowels and final
// consonants of Hangul.
static bool may_join(utf8proc_int32_t c)
{
    if (c < 0x300)
        return false;
    utf8proc_category_t category = utf8proc_category(c);
    return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC ||
           category == UTF8PROC_CATEGORY_ME || (c >= 0x1160 && c <= 0x11ff);
}

// End of the piece that begins at `begin`: a character and all after it that may join it.
static size_t piece_end(const char *original, size_t begin, size_t end)
{
    size_t size;
    char_at(original, end, begin, &size);
    size_t at = begin + size;
    while (at < end && may_join(char_at(original, end, at, &size)))
        at += size;
    return at;
}

static atedm_status append_piece(atedm_normal_text *text, const char *original, size_t begin,
                                 size_t end, atedm_error *err)
{
    if (end - begin == 1)
        return append_char(text, (unsigned char)original[begin], (uint32_t)begin, err);
    // Each character has at least one byte and decomposes to at most 4 characters. Normalising may
    // write one more after the last.
    utf8proc_int32_t few[64], *chars = few;
    size_t capacity = 4 * (end - begin) + 1;
    if (capacity > sizeof few / sizeof few[0])
        chars = malloc(capacity * sizeof *chars);
    if (!chars)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory to normalise a prompt");
    atedm_status status = ATEDM_OK;
    utf8proc_ssize_t count =
        utf8proc_decompose((const unsigned char *)original + begin, (utf8proc_ssize_t)(end - begin),
                           chars, (utf8proc_ssize_t)capacity - 1, NFC_OPTIONS);
    if (count >= 0 && (size_t)count < capacity)
        count = utf8proc_normalize_utf32(chars, count, NFC_OPTIONS);
    if (count < 0 || (size_t)count >= capacity)
        status = atedm_error_set(err, ATEDM_ERR_INVALID, "a prompt cannot be normalised");
    for (utf8proc_ssize_t i = 0; i < count && !status; i++)
        status = append_char(text, chars[i], (uint32_t)begin, err);
    if (chars != few)
        free(chars);
    return status;
}

atedm_status atedm_normal_text_append(atedm_normal_text *text, const char *original, size_t begin,
                                      size_t end, atedm_error *err)
{
    while (begin < end) {
        size_t next = piece_end(original, begin, end);
        atedm_status status = append_piece(text, original, begin, next, err);
        if (status)
            return status;
        begin = next;
    }
    return ATEDM_OK;
}

static char_class class_of(utf8proc_int32_t c)
{
    if (is_space(c))
        return CLASS_SPACE;
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
        return CLASS_LETTER;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return CLASS_NUMBER;
    default:
        return CLASS_OTHER;
    }
}

// Number of bytes of the contraction at the start of `text`; 0: none.
static size_t contraction(const unsigned char *text, size_t size)
{
    static const char *const known[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        size_t length = strlen(known[i]);
        if (length <= size && memcmp(text, known[i], length) == 0)
            return length;
    }
    return 0;
}

bool atedm_next_word(const unsigned char *bytes, size_t size, size_t *at, size_t *ret_begin)
{
    size_t place = *at, length = 0;
    char_class class = CLASS_SPACE;
    while (place < size) {
        class = class_of(char_at(bytes, size, place, &length));
        if (class != CLASS_SPACE)
            break;
        place += length;
    }
    *at = place;
    if (place == size)
        return false;
    *ret_begin = place;
    size_t short_form = contraction(bytes + place, size - place);
    if (short_form) {
        *at = place + short_form;
        return true;
    }
    place += length;
    while (class != CLASS_NUMBER && place < size &&
           class_of(char_at(bytes, size, place, &length)) == class)
        place += length;
    *at = place;
    return true;
}
