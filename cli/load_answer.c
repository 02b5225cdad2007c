// Reads answers for `atedm bench serve`: see load_answer.h.
#include "cli/load_answer.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>

// ---- the sieve

void atedm_load_sieve_init(atedm_load_sieve *sieve)
{
    *sieve = (atedm_load_sieve){.in_string = false};
    atedm_buffer_init(&sieve->kept, ATEDM_LOAD_MAX_ANSWER);
}

void atedm_load_sieve_finish(atedm_load_sieve *sieve)
{
    if (sieve)
        atedm_buffer_finish(&sieve->kept);
}

void atedm_load_sieve_reset(atedm_load_sieve *sieve)
{
    sieve->in_string = sieve->escaped = sieve->dropping = false;
    sieve->kept.size = 0;
}

// Processes one byte. Returns whether to keep it.
static bool pass(atedm_load_sieve *s, char byte)
{
    if (!s->in_string) {
        s->in_string = byte == '"';
        s->string_start = s->kept.size + 1;
        return true;
    }
    if (s->escaped) {
        s->escaped = false;
    } else if (byte == '\\') {
        s->escaped = true;
    } else if (byte == '"') {
        s->in_string = s->dropping = false;
        return true;
    }
    if (!s->dropping && s->kept.size - s->string_start >= ATEDM_LOAD_MAX_STRING) {
        s->dropping = true;
        s->kept.size = s->string_start;
    }
    return !s->dropping;
}

atedm_status atedm_load_sieve_write(atedm_load_sieve *sieve, const char *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        atedm_status status = ATEDM_OK;
        if (pass(sieve, data[i]))
            status = atedm_buffer_append(&sieve->kept, &data[i], 1);
        if (status)
            return status;
    }
    return ATEDM_OK;
}

// ---- the fields

// False if `object` has no number `name`.
static bool number(const json_t *object, const char *name, double *ret_value)
{
    const json_t *value = json_object_get(object, name);
    if (!json_is_number(value))
        return false;
    *ret_value = json_number_value(value);
    return true;
}

atedm_status atedm_load_answer_parse(const char *text, size_t size, atedm_load_answer *ret_answer)
{
    json_error_t parse;
    json_t *root = json_loadb(text, size, 0, &parse);
    const json_t *flops = json_object_get(root, "flops");
    const json_t *batch = json_object_get(root, "batch");
    const json_t *preset = json_object_get(json_object_get(root, "pruning"), "preset");
    atedm_load_answer answer = {.images =
                                    (int64_t)json_array_size(json_object_get(root, "images"))};
    double max_batch = 0;
    bool good = number(json_object_get(root, "latency"), "queue_s", &answer.queue_s) &&
                number(flops, "executed", &answer.executed) &&
                number(flops, "baseline", &answer.baseline) &&
                number(flops, "overhead", &answer.overhead) &&
                number(batch, "mean_size", &answer.mean_batch) &&
                number(batch, "max_size", &max_batch) && fabs(max_batch) < 1e9 &&
                answer.images > 0 && (json_is_string(preset) || json_is_null(preset));
    answer.max_batch = (int64_t)max_batch;
    snprintf(answer.preset, sizeof answer.preset, "%s",
             json_is_string(preset) ? json_string_value(preset) : "custom");
    json_decref(root);
    if (!good)
        return ATEDM_ERR_FORMAT;
    *ret_answer = answer;
    return ATEDM_OK;
}
