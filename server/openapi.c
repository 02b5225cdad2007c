// GET /openapi.json: see openapi.h. The first request makes the document, and so does the first
// request after a reload. The limits and names in it come from the code that checks requests.
#include "server/openapi.h"

#include "core/sampler.h"
#include "server/handlers.h"
#include "server/problem.h"

#include <string.h>

#define SCHEMAS "components/schemas/"
#define BODY SCHEMAS "GenerateRequest/"
#define FIELD(name) BODY "properties/" name "/"

typedef struct filling {
    const char *place; // keys from the document's root
    json_t *value;     // NULL: there was no memory for it
} filling;

// Sets the value at `place`, and takes it. False if the document has no such place, or the value is
// NULL.
static bool fill(json_t *document, const char *place, json_t *take_value)
{
    json_t *object = document;
    const char *slash;
    for (; (slash = strchr(place, '/')); place = slash + 1)
        object = json_object_getn(object, place, (size_t)(slash - place));
    bool known = json_object_get(object, place) != NULL;
    return json_object_set_new(object, place, take_value) == 0 && known;
}

static json_t *names_json(const char *const *names, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, json_string(names[i]));
    return list;
}

static json_t *preset_names(void)
{
    size_t count;
    const char *const *names = atedm_prune_preset_names(&count);
    return names_json(names, count);
}

// The strings that "pruning" may be.
static json_t *pruning_names(const atedm_config *config)
{
    json_t *list = preset_names();
    if (config->latency_objective_s > 0)
        json_array_append_new(list, json_string("auto"));
    return list;
}

static json_t *sampler_names(void)
{
    size_t count;
    const atedm_sampler *samplers = atedm_samplers(&count);
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, json_string(samplers[i].name));
    return list;
}

// Without a key file the daemon asks for no keys.
static json_t *security(const atedm_config *config)
{
    return *config->api_keys ? json_pack("[{s:[]}, {s:[]}]", "bearer", "apiKey") : json_array();
}

static bool fill_all(json_t *document, const filling *fillings, size_t count)
{
    bool good = true;
    for (size_t i = 0; i < count; i++) // no early exit: fill() has to take every value
        good &= fill(document, fillings[i].place, fillings[i].value);
    return good;
}

json_t *atedm_openapi_json(const unsigned char *text, size_t size, const atedm_config *config,
                           const atedm_request_limits *limits)
{
    json_t *document = json_loadb((const char *)text, size, JSON_REJECT_DUPLICATES, NULL);
    atedm_request initial;
    atedm_request_init(&initial, limits, &(atedm_prune_spec){.enabled = false});
    const filling fillings[] = {
        {"info/version", json_string(ATEDM_VERSION)},
        {"security", security(config)},
        {SCHEMAS "PresetName/enum", preset_names()},
        {SCHEMAS "PruningName/enum", pruning_names(config)},
        {BODY "x-max-area", json_integer(limits->max_area)},
        {FIELD("width") "minimum", json_integer(limits->size_multiple)},
        {FIELD("width") "multipleOf", json_integer(limits->size_multiple)},
        {FIELD("width") "default", json_integer(initial.width)},
        {FIELD("height") "minimum", json_integer(limits->size_multiple)},
        {FIELD("height") "multipleOf", json_integer(limits->size_multiple)},
        {FIELD("height") "default", json_integer(initial.height)},
        {FIELD("steps") "maximum", json_integer(limits->max_steps)},
        {FIELD("steps") "default", json_integer(initial.steps)},
        {FIELD("guidance_scale") "default", json_real(initial.guidance_scale)},
        {FIELD("num_images") "maximum", json_integer(limits->max_images)},
        {FIELD("num_images") "default", json_integer(initial.num_images)},
        {FIELD("sampler") "enum", sampler_names()},
        {FIELD("sampler") "default", json_string(initial.sampler)},
        {FIELD("pruning") "default", atedm_settings_pruning_json(config->default_pruning, NULL)},
        {FIELD("priority") "default", json_integer(initial.priority)},
    };
    if (fill_all(document, fillings, sizeof fillings / sizeof *fillings))
        return document;
    json_decref(document);
    return NULL;
}

// The document as text, which is made if the daemon does not have it yet. NULL: no memory.
static const char *get_text(atedm_daemon *d)
{
    if (d->openapi)
        return d->openapi;
    json_t *document =
        atedm_openapi_json(atedm_openapi_text, atedm_openapi_text_size, d->config, &d->limits);
    d->openapi = atedm_json_text(document);
    return d->openapi;
}

void atedm_handle_openapi(void *app, atedm_exchange *x)
{
    const char *text = get_text(app);
    char *copy = text ? strdup(text) : NULL;
    if (!copy) {
        atedm_exchange_respond(x, atedm_problem_no_memory(atedm_exchange_id(x)));
        return;
    }
    atedm_response response = {
        .status = 200, .content_type = "application/json", .body = copy, .size = strlen(copy)};
    atedm_response_header(&response, "Cache-Control", "no-cache"); // limits change with a reload
    atedm_exchange_respond(x, response);
}
