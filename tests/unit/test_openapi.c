// The document of GET /openapi.json is filled in, whole or not at all.
#include "server/openapi.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const atedm_request_limits limits = {.native_width = 96,
                                            .native_height = 96,
                                            .size_multiple = 16,
                                            .max_area = 1 << 20,
                                            .max_images = 3,
                                            .max_steps = 40};
static const atedm_config config = {.default_pruning = "{\"ratio\": 0.25}",
                                    .latency_objective_s = 1};

static json_t *field_of(json_t *document, const char *name)
{
    json_t *schemas = json_object_get(json_object_get(document, "components"), "schemas");
    json_t *body = json_object_get(schemas, "GenerateRequest");
    return json_object_get(json_object_get(body, "properties"), name);
}

static json_int_t number(json_t *document, const char *name, const char *key)
{
    return json_integer_value(json_object_get(field_of(document, name), key));
}

Test(openapi, filled_in)
{
    json_t *document =
        atedm_openapi_json(atedm_openapi_text, atedm_openapi_text_size, &config, &limits);
    cr_assert(document != NULL);
    cr_assert(eq(int, (int)number(document, "width", "default"), 96));
    cr_assert(eq(int, (int)number(document, "height", "multipleOf"), 16));
    cr_assert(eq(int, (int)number(document, "steps", "maximum"), 40));
    cr_assert(eq(int, (int)number(document, "num_images", "maximum"), 3));
    json_t *pruning = json_object_get(field_of(document, "pruning"), "default");
    cr_assert(json_real_value(json_object_get(pruning, "ratio")) == 0.25);
    json_decref(document);
}

// A place that the text lacks must not be made up: the document would say it where nobody looks.
Test(openapi, misplaced)
{
    char *text = malloc(atedm_openapi_text_size + 1);
    cr_assert(text != NULL);
    const char *const places[] = {"\"PruningName\": {", "\"x-max-area\"", "\"security\": [{",
                                  "\"num_images\": {\"type\"", "\"version\""};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        memcpy(text, atedm_openapi_text, atedm_openapi_text_size);
        text[atedm_openapi_text_size] = '\0';
        char *found = strstr(text, places[i]);
        cr_assert(found != NULL, "%s", places[i]);
        found[1] = '_';
        json_t *document = atedm_openapi_json((const unsigned char *)text, atedm_openapi_text_size,
                                              &config, &limits);
        cr_assert(document == NULL, "%s", places[i]);
    }
    free(text);
}

Test(openapi, not_json)
{
    const char *const texts[] = {"", "{", "[]", "{\"info\": 1}", "{\"info\": {}, \"info\": {}}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        cr_assert(atedm_openapi_json((const unsigned char *)texts[i], strlen(texts[i]), &config,
                                     &limits) == NULL);
}
