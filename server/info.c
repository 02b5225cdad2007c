// Answers what the daemon offers (models, samplers, pruning schedules), and whether it is alive and
// ready.
#include "core/plan_json.h"
#include "core/sampler.h"
#include "server/daemon.h"
#include "server/handlers.h"
#include "server/problem.h"
#include "server/refuse.h"

#include <string.h>

static void respond(atedm_exchange *x, json_t *take_value)
{
    atedm_exchange_respond(x, atedm_json_response(200, atedm_exchange_id(x), take_value));
}

void atedm_handle_models(void *app, atedm_exchange *x)
{
    const atedm_daemon *d = app;
    const atedm_request_limits *limits = &d->limits;
    json_t *model = json_pack(
        "{s:s, s:b, s:I, s:I, s:I, s:s, s:o, s:{s:I, s:i, s:i, s:i}}", "name", d->model.name,
        "loaded", d->loaded, "native_width", (json_int_t)limits->native_width, "native_height",
        (json_int_t)limits->native_height, "size_multiple", (json_int_t)limits->size_multiple,
        "device", d->devices.items[0].name, "devices", atedm_devices_json(&d->devices), "limits",
        "max_area", (json_int_t)limits->max_area, "max_images", limits->max_images, "max_steps",
        limits->max_steps, "max_prompt_bytes", ATEDM_PROMPT_MAX);
    if (d->loaded) {
        json_t *facts = json_pack("{s:s, s:s, s:s, s:I, s:I}", "backend", d->facts.backend, "dtype",
                                  atedm_dtype_name(d->facts.dtype), "storage_dtype",
                                  atedm_dtype_name(d->facts.storage_dtype), "parameters",
                                  (json_int_t)d->facts.parameters, "file_bytes",
                                  (json_int_t)d->facts.file_bytes);
        json_object_update(model, facts);
        json_decref(facts);
    }
    respond(x, json_pack("{s:[o]}", "models", model));
}

void atedm_handle_samplers(void *app, atedm_exchange *x)
{
    size_t count;
    const atedm_sampler *samplers = atedm_samplers(&count);
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list,
                              json_pack("{s:s, s:b}", "name", samplers[i].name, "default", i == 0));
    respond(x, json_pack("{s:o}", "samplers", list));
}

void atedm_handle_schedules(void *app, atedm_exchange *x)
{
    const atedm_daemon *d = app;
    size_t count;
    const char *const *names = atedm_prune_preset_names(&count);
    json_t *presets = json_array();
    for (size_t i = 0; i < count; i++) {
        atedm_prune_spec spec;
        if (atedm_prune_preset(names[i], &spec))
            continue;
        if (spec.enabled)
            json_array_append_new(presets, atedm_prune_spec_json(&spec));
        else
            json_array_append_new(presets, json_pack("{s:s}", "preset", names[i]));
    }
    json_t *schedules = json_pack(
        "[{s:s, s:s}, {s:s, s:s}, {s:s, s:s}]", "name", "dsap", "summary",
        "the first tau of the steps leave the first attention block of each down stage and the "
        "last of each up stage alone",
        "name", "uniform", "summary", "every step prunes alike", "name", "phases", "summary",
        "a list of phases in place of schedule and tau");
    json_t *initial = strcmp(d->config->default_pruning, "auto") == 0
                          ? json_pack("{s:s}", "preset", "auto")
                      : d->default_prune.enabled ? atedm_prune_spec_json(&d->default_prune)
                                                 : json_pack("{s:s}", "preset", "off");
    respond(x, json_pack("{s:o, s:o, s:o}", "schedules", schedules, "presets", presets, "default",
                         initial));
}

void atedm_handle_health(void *app, atedm_exchange *x)
{
    respond(x, json_pack("{s:s}", "status", "alive"));
}

void atedm_handle_ready(void *app, atedm_exchange *x)
{
    atedm_daemon *d = app;
    if (atedm_dispatch_get_state(d->dispatch).ready && !d->draining) {
        respond(x, json_pack("{s:s}", "status", "ready"));
        return;
    }
    atedm_exchange_respond(x, atedm_refuse_busy(d, atedm_exchange_id(x), ATEDM_BUSY_NO_WORKER));
}
