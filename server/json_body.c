// Parses bodies: see json_body.h.
#include "server/json_body.h"

#include "core/base/utf8.h"

#include <math.h>
#include <stdlib.h>

// Whether an allocation of jansson failed in this thread. Jansson's hooks get no argument that
// could hold this.
static _Thread_local bool refused;

static void *allocate(size_t size)
{
    void *memory = malloc(size);
    refused |= !memory;
    return memory;
}

void atedm_json_body_prepare(void)
{
    json_set_alloc_funcs(allocate, free);
}

// Checks the nesting without recursion, before jansson, which recurses, sees the text. Ignores
// brackets in strings. The parser reports everything else that is wrong.
static atedm_status check_depth(const char *text, size_t size, atedm_error *err)
{
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            if (++depth > ATEDM_JSON_DEPTH_MAX)
                return atedm_error_set(err, ATEDM_ERR_LIMIT,
                                       "nested deeper than %d levels at byte %zu",
                                       ATEDM_JSON_DEPTH_MAX, i);
        } else if (c == ']' || c == '}') {
            depth--;
        }
    }
    return ATEDM_OK;
}

// Turns reals that are whole 64-bit numbers back into integers.
static void restore_integers(json_t *value)
{
    size_t i;
    const char *key;
    json_t *item;
    if (json_is_array(value)) {
        json_array_foreach(value, i, item)
        {
            double real = json_real_value(item);
            if (json_is_real(item) && real == trunc(real) && fabs(real) < 0x1p63)
                json_array_set_new(value, i, json_integer((json_int_t)real));
            else
                restore_integers(item);
        }
    } else if (json_is_object(value)) {
        json_object_foreach(value, key, item)
        {
            double real = json_real_value(item);
            if (json_is_real(item) && real == trunc(real) && fabs(real) < 0x1p63)
                json_object_set_new(value, key, json_integer((json_int_t)real));
            else
                restore_integers(item);
        }
    }
}

atedm_status atedm_json_body_parse(const char *text, size_t size, json_t **ret_value,
                                   atedm_error *err)
{
    size_t valid = atedm_utf8_valid_prefix(text, size);
    if (valid < size)
        return atedm_error_set(err, ATEDM_ERR_FORMAT, "not valid UTF-8 at byte %zu", valid);
    atedm_status status = check_depth(text, size, err);
    if (status)
        return status;
    const size_t flags = JSON_REJECT_DUPLICATES | JSON_DECODE_ANY;
    json_error_t parse;
    refused = false;
    json_t *value = json_loadb(text, size, flags, &parse);
    if (!value && json_error_code(&parse) == json_error_numeric_overflow) {
        value = json_loadb(text, size, flags | JSON_DECODE_INT_AS_REAL, &parse);
        restore_integers(value);
    }
    if (refused) { // the parsed value may lack parts
        json_decref(value);
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "no memory for the body");
    }
    if (!value) {
        // Jansson's own message would name a flag that only its caller could set.
        bool nul = json_error_code(&parse) == json_error_null_character;
        return atedm_error_set(err, ATEDM_ERR_FORMAT, "%s (line %d, column %d)",
                               nul ? "\\u0000 is not allowed" : parse.text, parse.line,
                               parse.column);
    }
    *ret_value = value;
    return ATEDM_OK;
}
