// Random damage: see mutate.h.
#include "mutate.h"

#include <stdlib.h>
#include <string.h>

#define MAX_GROWTH 256 // bytes that one mutation adds

uint64_t fuzz_next(fuzz_rng *rng)
{
    uint64_t z = rng->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

size_t fuzz_below(fuzz_rng *rng, size_t n)
{
    return (size_t)(fuzz_next(rng) % n);
}

static void *allocate(size_t size)
{
    void *memory = malloc(size);
    if (!memory)
        abort();
    return memory;
}

// ---- bytes

static void insert(fuzz_bytes *b, size_t at, const void *data, size_t size)
{
    unsigned char *copy = allocate(size + 1);
    memcpy(copy, data, size); // may lie in b->data
    b->data = realloc(b->data, b->size + size + 1);
    if (!b->data)
        abort();
    memmove(b->data + at + size, b->data + at, b->size - at);
    memcpy(b->data + at, copy, size);
    b->size += size;
    free(copy);
}

// What parsers of our formats look at.
static const char *const words[] = {"0",
                                    "-1",
                                    "1e999",
                                    "18446744073709551615",
                                    "9223372036854775807",
                                    "4294967296",
                                    "2147483648",
                                    "null",
                                    "true",
                                    "[]",
                                    "{}",
                                    "[[[[[[[[",
                                    "{\"a\":",
                                    "\"",
                                    "\\u0000",
                                    "\\ud800",
                                    "\xff",
                                    "\xc3\xa9",
                                    "\xf0\x9f\x98\x80",
                                    "</w>",
                                    "\n",
                                    " ",
                                    "\"F16\"",
                                    "\"I64\"",
                                    "\"dtype\":",
                                    "\"shape\":",
                                    "\"data_offsets\":",
                                    ",",
                                    ":",
                                    "-",
                                    ".",
                                    "\t"};

static void mutate_once(fuzz_rng *rng, fuzz_bytes *b)
{
    size_t at = fuzz_below(rng, b->size + 1), length;
    size_t left = b->size - at;
    const char *word = words[fuzz_below(rng, sizeof words / sizeof *words)];
    switch (fuzz_below(rng, 7)) {
    case 0: // flip a bit
        if (left)
            b->data[at] ^= (unsigned char)(1u << fuzz_below(rng, 8));
        break;
    case 1: // another byte
        if (left)
            b->data[at] = (unsigned char)fuzz_next(rng);
        break;
    case 2: // cut out
        length = left ? fuzz_below(rng, left < MAX_GROWTH ? left : MAX_GROWTH) + 1 : 0;
        memmove(b->data + at, b->data + at + length, left - length);
        b->size -= length;
        break;
    case 3: // repeat
        length = left ? fuzz_below(rng, left < MAX_GROWTH ? left : MAX_GROWTH) + 1 : 0;
        insert(b, fuzz_below(rng, b->size + 1), b->data + at, length);
        break;
    case 4: // cut off
        if (fuzz_below(rng, 4) == 0)
            b->size = at;
        break;
    case 5:
        insert(b, at, word, strlen(word));
        break;
    default: // write over
        length = strlen(word) < left ? strlen(word) : left;
        memcpy(b->data + at, word, length);
        break;
    }
}

fuzz_bytes fuzz_mutate_bytes(fuzz_rng *rng, const void *data, size_t size)
{
    fuzz_bytes b = {allocate(size + 1), size};
    memcpy(b.data, data, size);
    for (size_t n = 1 + fuzz_below(rng, 8); n > 0; n--)
        mutate_once(rng, &b);
    b.data = realloc(b.data, b.size + 1);
    if (!b.data)
        abort();
    b.data[b.size] = '\0';
    return b;
}

// ---- JSON

static json_t *interesting_number(fuzz_rng *rng)
{
    static const json_int_t integers[] = {
        0,    1,     2,     3,      4,       7,          8,          16,        64,        255,
        1024, 65535, 65536, 100000, 1000000, 2147483647, 4294967296, 1ll << 53, INT64_MAX, -1};
    static const double reals[] = {0.0, -0.0, 0.5, 0.3, 1.0, 1e-300, 1e300, -1e300, 2147483648.5};
    if (fuzz_below(rng, 4) == 0)
        return json_real(reals[fuzz_below(rng, sizeof reals / sizeof *reals)]);
    json_int_t value = integers[fuzz_below(rng, sizeof integers / sizeof *integers)];
    return json_integer(fuzz_below(rng, 8) ? value : value / -2);
}

static json_t *interesting_value(fuzz_rng *rng)
{
    static const char *const names[] = {"",
                                        "gelu",
                                        "silu",
                                        "CrossAttnDownBlock2D",
                                        "UpBlock2D",
                                        "DownBlock2D",
                                        "epsilon",
                                        "linspace",
                                        "v_prediction",
                                        "log_linear",
                                        "at-edm",
                                        "phases",
                                        "uniform",
                                        "down.first",
                                        "mid",
                                        "cosine",
                                        "F32",
                                        "NaN"};
    json_t *list;
    switch (fuzz_below(rng, 8)) {
    case 0:
        return json_null();
    case 1:
        return json_boolean(fuzz_below(rng, 2));
    case 2:
        return json_string(names[fuzz_below(rng, sizeof names / sizeof *names)]);
    case 3:
        return json_object();
    case 4:
        list = json_array();
        for (size_t n = fuzz_below(rng, 12); n > 0; n--)
            json_array_append_new(list, interesting_number(rng));
        return list;
    default:
        return interesting_number(rng);
    }
}

static const char *key_at(json_t *object, size_t index)
{
    void *it = json_object_iter(object);
    for (; it && index > 0; index--)
        it = json_object_iter_next(object, it);
    return it ? json_object_iter_key(it) : NULL;
}

static void mutate_object(fuzz_rng *rng, json_t *object)
{
    size_t count = json_object_size(object);
    const char *key = count ? key_at(object, fuzz_below(rng, count)) : NULL;
    json_t *value = key ? json_object_get(object, key) : NULL;
    size_t how = fuzz_below(rng, 8);
    if (key && how == 0)
        json_object_del(object, key);
    else if (key && how == 1) // another member's value
        json_object_set(object, key,
                        json_object_get(object, key_at(object, fuzz_below(rng, count))));
    else if (!key || how == 2)
        json_object_set_new(object, "another", interesting_value(rng));
    else if (how < 6 && (json_object_size(value) || json_array_size(value)))
        fuzz_mutate_json(rng, value);
    else
        json_object_set_new(object, key, interesting_value(rng));
}

static void mutate_array(fuzz_rng *rng, json_t *array)
{
    size_t count = json_array_size(array), i = count ? fuzz_below(rng, count) : 0;
    json_t *value = json_array_get(array, i);
    size_t how = fuzz_below(rng, 6);
    if (how == 0)
        json_array_remove(array, i);
    else if (!value || how == 1)
        json_array_append_new(array, interesting_value(rng));
    else if (how == 2)
        json_array_insert_new(array, i, json_deep_copy(value));
    else if (how < 5 && (json_object_size(value) || json_array_size(value)))
        fuzz_mutate_json(rng, value);
    else
        json_array_set_new(array, i, interesting_value(rng));
}

void fuzz_mutate_json(fuzz_rng *rng, json_t *root)
{
    for (size_t n = 1 + fuzz_below(rng, 3); n > 0; n--) {
        if (json_is_object(root))
            mutate_object(rng, root);
        else if (json_is_array(root))
            mutate_array(rng, root);
    }
}

fuzz_bytes fuzz_mutate_json_text(fuzz_rng *rng, const char *good)
{
    if (fuzz_below(rng, 4) == 0)
        return fuzz_mutate_bytes(rng, good, strlen(good));
    json_t *root = json_loads(good, JSON_DECODE_ANY, NULL);
    fuzz_mutate_json(rng, root);
    char *text = json_dumps(root, JSON_ENCODE_ANY);
    json_decref(root);
    if (!text)
        abort();
    return (fuzz_bytes){(unsigned char *)text, strlen(text)};
}

// ---- text

static size_t put_utf8(uint32_t code, unsigned char *to)
{
    if (code < 0x80) {
        to[0] = (unsigned char)code;
        return 1;
    }
    if (code < 0x800) {
        to[0] = (unsigned char)(0xc0 | code >> 6);
        to[1] = (unsigned char)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        to[0] = (unsigned char)(0xe0 | code >> 12);
        to[1] = (unsigned char)(0x80 | (code >> 6 & 0x3f));
        to[2] = (unsigned char)(0x80 | (code & 0x3f));
        return 3;
    }
    to[0] = (unsigned char)(0xf0 | code >> 18);
    to[1] = (unsigned char)(0x80 | (code >> 12 & 0x3f));
    to[2] = (unsigned char)(0x80 | (code >> 6 & 0x3f));
    to[3] = (unsigned char)(0x80 | (code & 0x3f));
    return 4;
}

static uint32_t any_character(fuzz_rng *rng)
{
    // First and last of a range: all, ASCII, letters, combining marks, jamo, Hangul, joiners,
    // emoji, Arabic, CJK compatibility, mathematical letters.
    static const uint32_t ranges[][2] = {{1, 0x10ffff},    {1, 0x7f},          {'a', 'z'},
                                         {0x300, 0x36f},   {0x1100, 0x11ff},   {0xac00, 0xd7a3},
                                         {0x200b, 0x200f}, {0x1f600, 0x1f64f}, {0x600, 0x6ff},
                                         {0xf900, 0xfaff}, {0x1d400, 0x1d7ff}, {' ', '!'}};
    const uint32_t *range = ranges[fuzz_below(rng, sizeof ranges / sizeof *ranges)];
    uint32_t code = range[0] + (uint32_t)fuzz_below(rng, range[1] - range[0] + 1);
    return code >= 0xd800 && code < 0xe000 ? 0xfffd : code;
}

fuzz_bytes fuzz_text(fuzz_rng *rng, size_t max_bytes)
{
    fuzz_bytes b = {allocate(max_bytes + 1), 0};
    // Short ones mostly.
    size_t size = fuzz_below(rng, fuzz_below(rng, 16) ? max_bytes / 64 + 1 : max_bytes + 1);
    if (fuzz_below(rng, 4) == 0) {
        while (b.size < size)
            b.data[b.size++] = (unsigned char)fuzz_next(rng);
    } else {
        uint32_t code = any_character(rng);
        while (b.size + 4 <= size) {
            if (fuzz_below(rng, 8) < 5) // the same one goes on at times
                code = any_character(rng);
            b.size += put_utf8(code, b.data + b.size);
        }
    }
    b.data[b.size] = '\0';
    return b;
}
