// Reads /generate bodies: see generate_json.h. core/request.h checks ranges, because the command
// line needs the same checks. This file checks types and what exists only in JSON.
#include "server/generate_json.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

// The state while a body is read: the body, and what is known about it so far.
typedef struct reader {
    const json_t *body;
    const atedm_request_limits *limits;
    atedm_request *request;
    atedm_field_errors *errors;
    atedm_status status; // ATEDM_OK or ATEDM_ERR_NOMEM
} reader;

typedef struct field {
    const char *name;
    void (*read)(reader *r, const struct field *f, const char *pointer, const json_t *value);
    // For read_integer: which integer it is, and its place in atedm_request (an int or an int64_t).
    atedm_request_integer integer;
    size_t offset, size;
} field;

static char *copy_string(reader *r, const json_t *value)
{
    char *copy = strdup(json_string_value(value));
    if (!copy)
        r->status = ATEDM_ERR_NOMEM;
    return copy;
}

static void read_prompt(reader *r, const field *f, const char *pointer, const json_t *value)
{
    if (json_is_string(value))
        r->request->prompt = copy_string(r, value);
    else
        atedm_field_errors_add(r->errors, pointer, "is not a string");
}

static void read_negative_prompt(reader *r, const field *f, const char *pointer,
                                 const json_t *value)
{
    if (json_is_string(value))
        r->request->negative_prompt = copy_string(r, value);
    else if (!json_is_null(value))
        atedm_field_errors_add(r->errors, pointer, "is neither a string nor null");
}

// Adds the error of a real number. Prints whole numbers with a point too (4.0), because they are
// not integers.
static void add_real(reader *r, const char *pointer, double real, const char *wanted)
{
    atedm_field_errors_add(r->errors, pointer,
                           real == trunc(real) && fabs(real) < 1e15 ? "is %.1f, not %s"
                                                                    : "is %.15g, not %s",
                           real, wanted);
}

// Reads an integer. Refuses only what its type cannot hold; the validation checks the range.
static void read_integer(reader *r, const field *f, const char *pointer, const json_t *value)
{
    atedm_integer_range allowed = atedm_request_range(r->limits, f->integer);
    json_int_t number = json_integer_value(value);
    char wanted[64];
    snprintf(wanted, sizeof wanted, "an integer within %" PRId64 "..%" PRId64, allowed.min,
             allowed.max);
    if (json_is_real(value))
        add_real(r, pointer, json_real_value(value), wanted);
    else if (!json_is_integer(value))
        atedm_field_errors_add(r->errors, pointer, "is not an integer");
    else if (number < INT_MIN || number > INT_MAX)
        atedm_field_errors_add(r->errors, pointer, "is %" JSON_INTEGER_FORMAT ", not %s", number,
                               wanted);
    else if (f->size == sizeof(int64_t))
        *(int64_t *)(void *)((char *)r->request + f->offset) = number;
    else
        *(int *)(void *)((char *)r->request + f->offset) = (int)number;
}

static void read_guidance_scale(reader *r, const field *f, const char *pointer, const json_t *value)
{
    if (json_is_number(value))
        r->request->guidance_scale = json_number_value(value);
    else
        atedm_field_errors_add(r->errors, pointer, "is not a number");
}

static void read_deadline_s(reader *r, const field *f, const char *pointer, const json_t *value)
{
    if (json_is_number(value))
        r->request->deadline_s = json_number_value(value);
    else if (!json_is_null(value))
        atedm_field_errors_add(r->errors, pointer, "is neither a number nor null");
}

static void read_seed(reader *r, const field *f, const char *pointer, const json_t *value)
{
    if (json_is_null(value))
        return;
    json_int_t number = json_integer_value(value);
    char wanted[64];
    snprintf(wanted, sizeof wanted, "an integer within 0..%" PRId64, ATEDM_SEED_MAX);
    if (json_is_real(value))
        add_real(r, pointer, json_real_value(value), wanted);
    else if (!json_is_integer(value))
        atedm_field_errors_add(r->errors, pointer, "is neither an integer nor null");
    else if (number < 0)
        atedm_field_errors_add(r->errors, pointer,
                               "is %" JSON_INTEGER_FORMAT ", not within 0..%" PRId64, number,
                               ATEDM_SEED_MAX);
    else
        r->request->seed = (uint64_t)number;
}

static void read_sampler(reader *r, const field *f, const char *pointer, const json_t *value)
{
    if (!json_is_string(value))
        atedm_field_errors_add(r->errors, pointer, "is not a string");
    else if (json_string_length(value) >= sizeof r->request->sampler)
        atedm_field_errors_add_sampler(r->errors, json_string_value(value));
    else
        snprintf(r->request->sampler, sizeof r->request->sampler, "%s", json_string_value(value));
}

static void read_pruning(reader *r, const field *f, const char *pointer, const json_t *value)
{
    atedm_prune_spec_from_json(value, pointer, &r->request->prune, r->errors);
}

static bool find_format(const json_t *value, atedm_response_format *ret_format)
{
    static const char *const names[] = {[ATEDM_RESPONSE_B64_JSON] = "b64_json",
                                        [ATEDM_RESPONSE_PNG] = "png",
                                        [ATEDM_RESPONSE_URL] = "url"};
    const char *text = json_string_value(value);
    for (size_t i = 0; text && i < sizeof names / sizeof *names; i++) {
        if (strcmp(text, names[i]) == 0) {
            *ret_format = (atedm_response_format)i;
            return true;
        }
    }
    return false;
}

static void read_response_format(reader *r, const field *f, const char *pointer,
                                 const json_t *value)
{
    if (!find_format(value, &r->request->response_format))
        atedm_field_errors_add(r->errors, pointer, "is not one of \"b64_json\", \"png\", \"url\"");
}

#define INTEGER(member, which)                                                                     \
    .read = read_integer, .offset = offsetof(atedm_request, member),                               \
    .size = sizeof(((atedm_request *)NULL)->member), .integer = which

static const field fields[] = {
    {.name = "prompt", .read = read_prompt},
    {.name = "negative_prompt", .read = read_negative_prompt},
    {.name = "width", INTEGER(width, ATEDM_REQUEST_SIDE)},
    {.name = "height", INTEGER(height, ATEDM_REQUEST_SIDE)},
    {.name = "steps", INTEGER(steps, ATEDM_REQUEST_STEPS)},
    {.name = "guidance_scale", .read = read_guidance_scale},
    {.name = "seed", .read = read_seed},
    {.name = "num_images", INTEGER(num_images, ATEDM_REQUEST_NUM_IMAGES)},
    {.name = "sampler", .read = read_sampler},
    {.name = "pruning", .read = read_pruning},
    {.name = "response_format", .read = read_response_format},
    {.name = "deadline_s", .read = read_deadline_s},
    {.name = "priority", INTEGER(priority, ATEDM_REQUEST_PRIORITY)},
};
#define N_FIELDS (sizeof fields / sizeof *fields)

static void refuse_unknown(reader *r)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)r->body, key, value)
    {
        size_t i = 0;
        while (i < N_FIELDS && strcmp(fields[i].name, key) != 0)
            i++;
        if (i < N_FIELDS)
            continue;
        atedm_field_errors_add_unknown(r->errors, "", key);
    }
}

// Adds the range errors of fields that have no error yet. A field of the wrong type still has its
// default.
static void validate(const reader *r)
{
    atedm_field_errors found = {.count = 0};
    atedm_request_validate(r->request, r->limits, &found);
    for (size_t i = 0; i < found.count; i++) {
        if (!atedm_field_errors_has(r->errors, found.items[i].pointer))
            atedm_field_errors_add(r->errors, found.items[i].pointer, "%s", found.items[i].detail);
    }
    r->errors->more += found.more;
}

atedm_status atedm_generate_json_read(const json_t *body, const atedm_request_limits *limits,
                                      const atedm_prune_spec *default_prune, bool png_wanted,
                                      uint64_t seed, atedm_request *ret_request,
                                      atedm_field_errors *errors)
{
    reader r = {.body = body, .limits = limits, .request = ret_request, .errors = errors};
    atedm_request_init(ret_request, limits, default_prune);
    ret_request->seed = seed;
    if (png_wanted)
        ret_request->response_format = ATEDM_RESPONSE_PNG;
    if (!json_is_object(body)) {
        atedm_field_errors_add(errors, "", "is not an object");
        return ATEDM_OK;
    }
    for (size_t i = 0; i < N_FIELDS; i++) {
        const json_t *value = json_object_get(body, fields[i].name);
        char pointer[64];
        snprintf(pointer, sizeof pointer, "/%s", fields[i].name);
        if (value)
            fields[i].read(&r, &fields[i], pointer, value);
    }
    if (r.status)
        return r.status;
    if (!json_object_get(body, "prompt"))
        atedm_field_errors_add(errors, "/prompt", "is missing");
    refuse_unknown(&r);
    validate(&r);
    return ATEDM_OK;
}

bool atedm_generate_json_format(const json_t *body, bool png_wanted,
                                atedm_response_format *ret_format)
{
    const json_t *value = json_object_get(body, "response_format");
    const json_t *images = json_object_get(body, "num_images");
    atedm_response_format format = png_wanted ? ATEDM_RESPONSE_PNG : ATEDM_RESPONSE_B64_JSON;
    if (!json_is_object(body) || (value && !find_format(value, &format)))
        return false;
    if (format == ATEDM_RESPONSE_PNG && images && json_integer_value(images) != 1)
        return false;
    *ret_format = format;
    return true;
}

// ---- Accept

// Returns the quality of `type/subtype` in the header: that of the most specific range that
// matches.
static double quality(const char *accept, const char *type, const char *subtype)
{
    double best = 0;
    int best_rank = 0;
    char range[2][64];
    snprintf(range[0], sizeof range[0], "%s/%s", type, subtype);
    snprintf(range[1], sizeof range[1], "%s/*", type);
    const char *const ranges[] = {"*/*", range[1], range[0]};
    while (*accept) {
        accept += strspn(accept, ", \t");
        size_t size = strcspn(accept, ",");
        size_t name = strcspn(accept, ";, \t");
        double q = 1;
        for (size_t i = name; i + 2 < size; i++) {
            if (accept[i] == ';' || accept[i] == ' ') {
                if (strncasecmp(accept + i + 1, "q=", 2) == 0)
                    q = strtod(accept + i + 3, NULL);
            }
        }
        for (int rank = 1; rank <= 3; rank++) {
            const char *candidate = ranges[rank - 1];
            if (rank > best_rank && strlen(candidate) == name &&
                strncasecmp(accept, candidate, name) == 0) {
                best_rank = rank;
                best = q;
            }
        }
        accept += size;
    }
    return best;
}

bool atedm_accept_prefers_png(const char *accept)
{
    return accept && quality(accept, "image", "png") > quality(accept, "application", "json");
}
