// A request's defaults, and the validation of its fields: see request.h.
#include "core/request.h"

#include "core/base/utf8.h"
#include "core/sampler.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define DEFAULT_STEPS 30 // or max_steps, if the operator allows fewer

void atedm_request_finish(atedm_request *request)
{
    if (!request)
        return;
    free(request->prompt);
    free(request->negative_prompt);
    request->prompt = NULL;
    request->negative_prompt = NULL;
}

void atedm_request_init(atedm_request *request, const atedm_request_limits *limits,
                        const atedm_prune_spec *prune)
{
    *request = (atedm_request){
        .width = limits->native_width,
        .height = limits->native_height,
        .steps = limits->max_steps < DEFAULT_STEPS ? limits->max_steps : DEFAULT_STEPS,
        .guidance_scale = 7,
        .num_images = 1,
        .prune = *prune,
        .response_format = ATEDM_RESPONSE_B64_JSON,
        .deadline_s = NAN,
    };
    snprintf(request->sampler, sizeof request->sampler, "%s", atedm_samplers(&(size_t){0})->name);
}

atedm_status atedm_draw_seed(uint64_t *ret_seed, atedm_error *err)
{
    uint32_t seed;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
        return atedm_error_set(err, ATEDM_ERR_IO, "no random numbers for a seed");
    *ret_seed = seed;
    return ATEDM_OK;
}

// ---- what is wrong

void atedm_field_errors_add(atedm_field_errors *errors, const char *pointer, const char *format,
                            ...)
{
    if (errors->count == ATEDM_FIELD_ERRORS_MAX) {
        errors->more++;
        return;
    }
    atedm_field_error *error = &errors->items[errors->count++];
    int wanted = snprintf(error->pointer, sizeof error->pointer, "%s", pointer);
    atedm_utf8_clean(error->pointer, wanted >= (int)sizeof error->pointer);
    va_list args;
    va_start(args, format);
    wanted = vsnprintf(error->detail, sizeof error->detail, format, args);
    va_end(args);
    atedm_utf8_clean(error->detail, wanted >= (int)sizeof error->detail);
}

void atedm_field_errors_add_unknown(atedm_field_errors *errors, const char *pointer,
                                    const char *key)
{
    char whole[2 * sizeof errors->items[0].pointer]; // larger, so that add notices that it cuts
    size_t used = strnlen(pointer, sizeof errors->items[0].pointer);
    memcpy(whole, pointer, used);
    whole[used++] = '/';
    for (; *key && used + 3 < sizeof whole; key++) {
        bool is_escaped = *key == '~' || *key == '/';
        whole[used++] = is_escaped ? '~' : *key;
        if (is_escaped)
            whole[used++] = *key == '~' ? '0' : '1';
    }
    whole[used] = '\0';
    atedm_field_errors_add(errors, whole, "is not a known field");
}

void atedm_field_errors_add_sampler(atedm_field_errors *errors, const char *name)
{
    char names[160] = "";
    size_t count, used = 0;
    const atedm_sampler *samplers = atedm_samplers(&count);
    for (size_t i = 0; i < count && used < sizeof names; i++)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s\"%s\"", i ? ", " : "",
                                 samplers[i].name);
    atedm_field_errors_add(errors, "/sampler", "\"%.40s%s\" is not one of %s", name,
                           strlen(name) > 40 ? "..." : "", names);
}

bool atedm_field_errors_has(const atedm_field_errors *errors, const char *pointer)
{
    for (size_t i = 0; i < errors->count; i++) {
        if (strcmp(errors->items[i].pointer, pointer) == 0)
            return true;
    }
    return false;
}

// ---- validation

atedm_integer_range atedm_request_range(const atedm_request_limits *limits,
                                        atedm_request_integer which)
{
    switch (which) {
    case ATEDM_REQUEST_SIDE:
        return (atedm_integer_range){limits->size_multiple, ATEDM_SIZE_MAX};
    case ATEDM_REQUEST_STEPS:
        return (atedm_integer_range){1, limits->max_steps};
    case ATEDM_REQUEST_SEED:
        return (atedm_integer_range){0, ATEDM_SEED_MAX};
    case ATEDM_REQUEST_NUM_IMAGES:
        return (atedm_integer_range){1, limits->max_images};
    case ATEDM_REQUEST_PRIORITY:
        break;
    }
    return (atedm_integer_range){-ATEDM_PRIORITY_MAX, ATEDM_PRIORITY_MAX};
}

static void check_text(const char *text, const char *pointer, size_t min,
                       atedm_field_errors *errors)
{
    size_t size = strlen(text);
    if (size < min)
        atedm_field_errors_add(errors, pointer, "is empty");
    else if (size > ATEDM_PROMPT_MAX)
        atedm_field_errors_add(errors, pointer, "has %zu bytes, more than %d", size,
                               ATEDM_PROMPT_MAX);
    else if (!atedm_utf8_is_valid(text, size))
        atedm_field_errors_add(errors, pointer, "is not valid UTF-8");
}

static void add_range(int64_t value, const char *pointer, atedm_integer_range range,
                      atedm_field_errors *errors)
{
    atedm_field_errors_add(errors, pointer, "is %" PRId64 ", not within %" PRId64 "..%" PRId64,
                           value, range.min, range.max);
}

static void check_int(int64_t value, const char *pointer, atedm_integer_range range,
                      atedm_field_errors *errors)
{
    if (value < range.min || value > range.max)
        add_range(value, pointer, range, errors);
}

static bool check_side(int64_t value, const char *pointer, const atedm_request_limits *limits,
                       atedm_field_errors *errors)
{
    atedm_integer_range range = atedm_request_range(limits, ATEDM_REQUEST_SIDE);
    int64_t multiple = limits->size_multiple;
    if (value < 1 || value > range.max) {
        add_range(value, pointer, range, errors);
        return false;
    }
    if (value % multiple) {
        atedm_field_errors_add(errors, pointer, "is %" PRId64 ", not a multiple of %" PRId64, value,
                               multiple);
        return false;
    }
    return true;
}

static void check_size(const atedm_request *request, const atedm_request_limits *limits,
                       atedm_field_errors *errors)
{
    bool width = check_side(request->width, "/width", limits, errors);
    bool height = check_side(request->height, "/height", limits, errors);
    if (width && height && request->width * request->height > limits->max_area)
        atedm_field_errors_add(errors, "/width",
                               "%" PRId64 " x %" PRId64 " is more than the limit of %" PRId64
                               " pixels",
                               request->width, request->height, limits->max_area);
}

static void check_seed(const atedm_request *request, atedm_field_errors *errors)
{
    uint64_t last = ATEDM_SEED_MAX;
    if (request->seed > last) {
        atedm_field_errors_add(errors, "/seed", "is %" PRIu64 ", more than %" PRIu64, request->seed,
                               last);
        return;
    }
    // Image i has the seed `seed` + i. The last image's seed must be one that a request may have.
    int images = request->num_images;
    if (images > 1 && (uint64_t)(images - 1) > last - request->seed)
        atedm_field_errors_add(
            errors, "/seed", "the last of %d images would get a seed over %" PRIu64, images, last);
}

static void check_prune(const atedm_prune_spec *prune, atedm_field_errors *errors)
{
    if (!prune->enabled)
        return;
    double ratio = prune->ratio;
    double budget = prune->flops_budget;
    if (!isnan(budget)) {
        if (!(budget > 0 && budget <= 1))
            atedm_field_errors_add(errors, "/pruning/flops_budget",
                                   "is %.15g, not over 0 and up to 1", budget);
    } else if (!(ratio >= 0 && ratio <= ATEDM_RATIO_MAX)) {
        atedm_field_errors_add(errors, "/pruning/ratio", "is %.15g, not within 0..%g", ratio,
                               ATEDM_RATIO_MAX);
    }
}

void atedm_request_validate(const atedm_request *request, const atedm_request_limits *limits,
                            atedm_field_errors *errors)
{
    check_text(request->prompt ? request->prompt : "", "/prompt", 1, errors);
    if (request->negative_prompt)
        check_text(request->negative_prompt, "/negative_prompt", 0, errors);
    check_size(request, limits, errors);
    check_int(request->steps, "/steps", atedm_request_range(limits, ATEDM_REQUEST_STEPS), errors);
    // `!(in range)`, so that NaN fails.
    if (!(request->guidance_scale >= 0 && request->guidance_scale <= ATEDM_GUIDANCE_MAX))
        atedm_field_errors_add(errors, "/guidance_scale", "is %.15g, not within 0..%g",
                               request->guidance_scale, ATEDM_GUIDANCE_MAX);
    check_seed(request, errors);
    check_int(request->num_images, "/num_images",
              atedm_request_range(limits, ATEDM_REQUEST_NUM_IMAGES), errors);
    if (!atedm_sampler_find(request->sampler))
        atedm_field_errors_add_sampler(errors, request->sampler);
    check_prune(&request->prune, errors);
    if (request->response_format == ATEDM_RESPONSE_PNG && request->num_images > 1)
        atedm_field_errors_add(errors, "/response_format", "\"png\" answers one image, not %d",
                               request->num_images);
    double deadline = request->deadline_s;
    if (!isnan(deadline) && !(deadline > 0 && deadline <= ATEDM_DEADLINE_MAX_S))
        atedm_field_errors_add(errors, "/deadline_s", "is %.15g, not over 0 and up to %g", deadline,
                               ATEDM_DEADLINE_MAX_S);
    check_int(request->priority, "/priority", atedm_request_range(limits, ATEDM_REQUEST_PRIORITY),
              errors);
}
