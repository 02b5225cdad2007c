// Reading the bodies of /generate and /v1/estimate: see generate_json.h. The pruning object's
// fields are read by core/prune_json.c, ranges are checked by core/request.c.
#include "server/generate_json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

// ---- parsing
// ---------------------------------------------------------------------------------------

// Deepest nesting of brackets outside strings, without recursion.
static size_t nesting(const char *body, size_t size)
{
    size_t depth = 0, deepest = 0;
    bool in_string = false;
    for (size_t i = 0; i < size; i++) {
        char c = body[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            depth++;
            deepest = depth > deepest ? depth : deepest;
        } else if ((c == '}' || c == ']') && depth) {
            depth--;
        }
    }
    return deepest;
}

atedm_status atedm_body_parse(const char *body, size_t size, json_t **ret_object, atedm_error *err)
{
    if (nesting(body, size) > ATEDM_BODY_MAX_DEPTH)
        return atedm_error_set(err, ATEDM_ERR_FORMAT, "nested deeper than %d levels",
                               ATEDM_BODY_MAX_DEPTH);
    json_error_t parse_error;
    json_t *object = json_loadb(body, size, JSON_REJECT_DUPLICATES, &parse_error);
    if (!object)
        return atedm_error_set(err, ATEDM_ERR_FORMAT, "line %d, column %d: %s", parse_error.line,
                               parse_error.column, parse_error.text);
    if (!json_is_object(object)) {
        json_decref(object);
        return atedm_error_set(err, ATEDM_ERR_FORMAT, "the body is not a JSON object");
    }
    *ret_object = object;
    return ATEDM_OK;
}

// ---- fields
// ----------------------------------------------------------------------------------------

typedef struct body_reader {
    const json_t *body;
    const atedm_request_limits *limits;
    atedm_request *request;
    atedm_field_errors *errors;
} body_reader;

static void read_text(const body_reader *r, const json_t *value, const char *pointer,
                      char **ret_text)
{
    if (!json_is_string(value)) {
        atedm_field_errors_add(r->errors, pointer, "is not a string");
        return;
    }
    *ret_text = strdup(json_string_value(value));
    if (!*ret_text)
        atedm_field_errors_add(r->errors, pointer, "no memory for it");
}

static bool read_integer(const body_reader *r, const json_t *value, const char *pointer,
                         int64_t *ret_value)
{
    if (json_is_integer(value)) {
        *ret_value = json_integer_value(value);
        return true;
    }
    atedm_field_errors_add(r->errors, pointer, "is not an integer");
    return false;
}

// An integer of the contract that is an int here: values outside int are out of every range anyway.
static void read_int(const body_reader *r, const json_t *value, const char *pointer, int *ret_value)
{
    int64_t wide;
    if (!read_integer(r, value, pointer, &wide))
        return;
    if (wide < INT32_MIN || wide > INT32_MAX)
        atedm_field_errors_add(r->errors, pointer, "is %" PRId64 ", which is out of range", wide);
    else
        *ret_value = (int)wide;
}

static void read_number(const body_reader *r, const json_t *value, const char *pointer,
                        double *ret_value)
{
    if (json_is_number(value))
        *ret_value = json_number_value(value);
    else
        atedm_field_errors_add(r->errors, pointer, "is not a number");
}

static void read_prompt(const body_reader *r, const json_t *value)
{
    read_text(r, value, "/prompt", &r->request->prompt);
}

static void read_negative_prompt(const body_reader *r, const json_t *value)
{
    if (!json_is_null(value))
        read_text(r, value, "/negative_prompt", &r->request->negative_prompt);
}

static void read_width(const body_reader *r, const json_t *value)
{
    read_integer(r, value, "/width", &r->request->width);
}

static void read_height(const body_reader *r, const json_t *value)
{
    read_integer(r, value, "/height", &r->request->height);
}

static void read_steps(const body_reader *r, const json_t *value)
{
    read_int(r, value, "/steps", &r->request->steps);
}

static void read_guidance(const body_reader *r, const json_t *value)
{
    read_number(r, value, "/guidance_scale", &r->request->guidance_scale);
}

static void read_seed(const body_reader *r, const json_t *value)
{
    int64_t seed;
    if (json_is_null(value) || !read_integer(r, value, "/seed", &seed))
        return;
    if (seed < 0)
        atedm_field_errors_add(r->errors, "/seed", "is %" PRId64 ", not within 0..%" PRId64, seed,
                               (int64_t)ATEDM_SEED_MAX);
    else
        r->request->seed = (uint64_t)seed;
}

static void read_num_images(const body_reader *r, const json_t *value)
{
    read_int(r, value, "/num_images", &r->request->num_images);
}

static void read_sampler(const body_reader *r, const json_t *value)
{
    if (!json_is_string(value))
        atedm_field_errors_add(r->errors, "/sampler", "is not a string");
    else
        snprintf(r->request->sampler, sizeof r->request->sampler, "%s", json_string_value(value));
}

static void read_pruning(const body_reader *r, const json_t *value)
{
    atedm_prune_spec_from_json(value, "/pruning", &r->request->prune, r->errors);
}

static void read_format(const body_reader *r, const json_t *value)
{
    const char *name = json_string_value(value);
    if (name && !strcmp(name, "b64_json"))
        r->request->response_format = ATEDM_RESPONSE_B64_JSON;
    else if (name && !strcmp(name, "png"))
        r->request->response_format = ATEDM_RESPONSE_PNG;
    else
        atedm_field_errors_add(r->errors, "/response_format",
                               "is not one of \"b64_json\", \"png\"");
}

static void read_deadline(const body_reader *r, const json_t *value)
{
    if (!json_is_null(value))
        read_number(r, value, "/deadline_s", &r->request->deadline_s);
}

static void read_priority(const body_reader *r, const json_t *value)
{
    read_int(r, value, "/priority", &r->request->priority);
}

static const struct {
    const char *name;
    void (*read)(const body_reader *r, const json_t *value);
} fields[] = {
    {"prompt", read_prompt},
    {"negative_prompt", read_negative_prompt},
    {"width", read_width},
    {"height", read_height},
    {"steps", read_steps},
    {"guidance_scale", read_guidance},
    {"seed", read_seed},
    {"num_images", read_num_images},
    {"sampler", read_sampler},
    {"pruning", read_pruning},
    {"response_format", read_format},
    {"deadline_s", read_deadline},
    {"priority", read_priority},
};

// A seed that leaves room for the seeds of further images.
static uint64_t draw_seed(void)
{
    uint64_t seed = 0;
    if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed)
        seed = 0;
    return seed >> 2;
}

static void read_field(const body_reader *r, const char *key, const json_t *value)
{
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (!strcmp(fields[i].name, key)) {
            fields[i].read(r, value);
            return;
        }
    char pointer[64];
    snprintf(pointer, sizeof pointer, "/%.48s", key);
    atedm_field_errors_add(r->errors, pointer, "is not a field of this request");
}

void atedm_generate_read(const json_t *body, const atedm_request_limits *limits,
                         atedm_request *request, atedm_field_errors *errors)
{
    body_reader r = {.body = body, .limits = limits, .request = request, .errors = errors};
    const char *key;
    json_t *value;
    if (!json_is_integer(json_object_get(body, "seed")))
        request->seed = draw_seed();
    json_object_foreach((json_t *)body, key, value)
    {
        read_field(&r, key, value);
    }
    if (!json_object_get(body, "prompt"))
        atedm_field_errors_add(errors, "/prompt", "is missing");
    // Ranges, of the fields that were read: one complaint a field.
    atedm_field_errors ranges = {0};
    atedm_request_validate(request, limits, &ranges);
    for (size_t i = 0; i < ranges.count; i++) {
        bool known = false;
        for (size_t k = 0; k < errors->count; k++)
            known |= !strcmp(errors->items[k].pointer, ranges.items[i].pointer);
        if (!known)
            atedm_field_errors_add(errors, ranges.items[i].pointer, "%s", ranges.items[i].detail);
    }
}
