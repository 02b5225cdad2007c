// Reads /generate bodies: see generate_json.h. Ranges are checked by core/request.h, which the
// command line uses as well; here are types and what only JSON has.
#include "server/generate_json.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

// A field being read: where it comes from and what is known about the body so far.
typedef struct reader {
    const json_t *body;
    atedm_request *request;
    atedm_field_errors *errors;
    atedm_status status; // ATEDM_ERR_NOMEM
} reader;

typedef struct field {
    const char *name;
    void (*read)(reader *r, const char *pointer, const json_t *value);
} field;

static char *copy_string(reader *r, const json_t *value)
{
    char *copy = strdup(json_string_value(value));
    if (!copy)
        r->status = ATEDM_ERR_NOMEM;
    return copy;
}

static void read_prompt(reader *r, const char *pointer, const json_t *value)
{
    if (json_is_string(value))
        r->request->prompt = copy_string(r, value);
    else
        atedm_field_errors_add(r->errors, pointer, "is not a string");
}

static void read_negative_prompt(reader *r, const char *pointer, const json_t *value)
{
    if (json_is_string(value))
        r->request->negative_prompt = copy_string(r, value);
    else if (!json_is_null(value))
        atedm_field_errors_add(r->errors, pointer, "is neither a string nor null");
}

// Whole numbers with a point, too: 4.0 is none.
static void add_real(reader *r, const char *pointer, double real, const char *wanted)
{
    atedm_field_errors_add(r->errors, pointer,
                           real == trunc(real) && fabs(real) < 1e15 ? "is %.1f, not %s"
                                                                    : "is %.15g, not %s",
                           real, wanted);
}

// An integer that an int holds; what else is wrong with it is for the validation to say.
static bool get_int(reader *r, const char *pointer, const json_t *value, int *ret_value)
{
    if (!json_is_integer(value)) {
        if (json_is_real(value))
            add_real(r, pointer, json_real_value(value), "an integer that is allowed");
        else
            atedm_field_errors_add(r->errors, pointer, "is not an integer");
        return false;
    }
    json_int_t number = json_integer_value(value);
    if (number < INT_MIN || number > INT_MAX) {
        atedm_field_errors_add(r->errors, pointer, "is %" JSON_INTEGER_FORMAT ", out of range",
                               number);
        return false;
    }
    *ret_value = (int)number;
    return true;
}

static void read_width(reader *r, const char *pointer, const json_t *value)
{
    int number;
    if (get_int(r, pointer, value, &number))
        r->request->width = number;
}

static void read_height(reader *r, const char *pointer, const json_t *value)
{
    int number;
    if (get_int(r, pointer, value, &number))
        r->request->height = number;
}

static void read_steps(reader *r, const char *pointer, const json_t *value)
{
    int number;
    if (get_int(r, pointer, value, &number))
        r->request->steps = number;
}

static void read_num_images(reader *r, const char *pointer, const json_t *value)
{
    int number;
    if (get_int(r, pointer, value, &number))
        r->request->num_images = number;
}

static void read_priority(reader *r, const char *pointer, const json_t *value)
{
    int number;
    if (get_int(r, pointer, value, &number))
        r->request->priority = number;
}

static void read_guidance_scale(reader *r, const char *pointer, const json_t *value)
{
    if (json_is_number(value))
        r->request->guidance_scale = json_number_value(value);
    else
        atedm_field_errors_add(r->errors, pointer, "is not a number");
}

static void read_deadline_s(reader *r, const char *pointer, const json_t *value)
{
    if (json_is_number(value))
        r->request->deadline_s = json_number_value(value);
    else if (!json_is_null(value))
        atedm_field_errors_add(r->errors, pointer, "is neither a number nor null");
}

static void read_seed(reader *r, const char *pointer, const json_t *value)
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

static void read_sampler(reader *r, const char *pointer, const json_t *value)
{
    if (!json_is_string(value))
        atedm_field_errors_add(r->errors, pointer, "is not a string");
    else if (json_string_length(value) >= sizeof r->request->sampler)
        atedm_field_errors_add(r->errors, pointer, "is not known");
    else
        snprintf(r->request->sampler, sizeof r->request->sampler, "%s", json_string_value(value));
}

static void read_pruning(reader *r, const char *pointer, const json_t *value)
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

static void read_response_format(reader *r, const char *pointer, const json_t *value)
{
    if (!find_format(value, &r->request->response_format))
        atedm_field_errors_add(r->errors, pointer, "is not one of \"b64_json\", \"png\", \"url\"");
}

static const field fields[] = {
    {"prompt", read_prompt},
    {"negative_prompt", read_negative_prompt},
    {"width", read_width},
    {"height", read_height},
    {"steps", read_steps},
    {"guidance_scale", read_guidance_scale},
    {"seed", read_seed},
    {"num_images", read_num_images},
    {"sampler", read_sampler},
    {"pruning", read_pruning},
    {"response_format", read_response_format},
    {"deadline_s", read_deadline_s},
    {"priority", read_priority},
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

static bool has_error(const atedm_field_errors *errors, const char *pointer)
{
    for (size_t i = 0; i < errors->count; i++) {
        if (strcmp(errors->items[i].pointer, pointer) == 0)
            return true;
    }
    return false;
}

// Range errors of fields that have no error yet: a field of the wrong type still has its default.
static void validate(const reader *r, const atedm_request_limits *limits)
{
    atedm_field_errors found = {.count = 0};
    atedm_request_validate(r->request, limits, &found);
    for (size_t i = 0; i < found.count; i++) {
        if (!has_error(r->errors, found.items[i].pointer))
            atedm_field_errors_add(r->errors, found.items[i].pointer, "%s", found.items[i].detail);
    }
    r->errors->more += found.more;
}

atedm_status atedm_generate_json_read(const json_t *body, const atedm_request_limits *limits,
                                      const atedm_prune_spec *default_prune, bool png_wanted,
                                      uint64_t seed, atedm_request *ret_request,
                                      atedm_field_errors *errors)
{
    reader r = {.body = body, .request = ret_request, .errors = errors};
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
            fields[i].read(&r, pointer, value);
    }
    if (r.status)
        return r.status;
    if (!json_object_get(body, "prompt"))
        atedm_field_errors_add(errors, "/prompt", "is missing");
    refuse_unknown(&r);
    validate(&r, limits);
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

// Quality of `type/subtype` in the header: that of the most specific range that matches it.
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
