// Derives the daemon's settings from its configuration: see settings.h.
#include "server/settings.h"

#include "core/pipeline.h"
#include "server/address.h"
#include "server/frames.h"

#include <inttypes.h>
#include <string.h>

json_t *atedm_settings_pruning_json(const char *text, json_error_t *ret_error)
{
    return *text == '{' ? json_loads(text, JSON_REJECT_DUPLICATES, ret_error) : json_string(text);
}

// Reads the option "default_pruning". It has to be well-formed, and possible with the model.
static atedm_status read_default_prune(const char *text, const atedm_model_config *model,
                                       const atedm_request_limits *limits,
                                       atedm_prune_spec *ret_spec, atedm_error *err)
{
    if (strcmp(text, "auto") == 0)
        text = "off"; // the valve picks the preset, so the spec is not used
    json_error_t parse = {.text = "not valid UTF-8"};
    json_t *value = atedm_settings_pruning_json(text, &parse);
    if (!value)
        return atedm_error_set(err, ATEDM_ERR_INVALID, "%s", parse.text);
    atedm_field_errors errors = {.count = 0};
    atedm_prune_spec spec;
    atedm_prune_spec_from_json(value, "/pruning", &spec, &errors);
    json_decref(value);
    if (errors.count)
        return atedm_error_set(err, ATEDM_ERR_INVALID, "%s %s", errors.items[0].pointer,
                               errors.items[0].detail);
    atedm_request request;
    atedm_request_init(&request, limits, &spec);
    atedm_plan *plan = NULL;
    atedm_request_cost cost;
    atedm_status status = atedm_estimate(model, &request, &plan, &cost, err);
    atedm_plan_destroy(plan);
    if (!status)
        *ret_spec = spec;
    return status;
}

static atedm_status check_valve(const atedm_config *config, atedm_error *err)
{
    atedm_prune_spec floor;
    if (atedm_prune_preset(config->auto_floor, &floor))
        return atedm_error_set(err, ATEDM_ERR_INVALID, "auto_floor: is not a preset");
    if (strcmp(config->default_pruning, "auto") == 0 && config->latency_objective_s == 0)
        return atedm_error_set(err, ATEDM_ERR_INVALID,
                               "default_pruning: auto needs latency_objective_s");
    return ATEDM_OK;
}

// Reads the certificate, and checks it against the addresses. New addresses need a restart, but a
// new certificate does not. A certificate that no address uses is refused, so that nobody believes
// that the daemon speaks TLS.
static atedm_status read_tls(const atedm_config *config, atedm_tls **ret_tls, atedm_error *err)
{
    atedm_addresses addresses;
    unsigned mode;
    atedm_status status = atedm_addresses_parse(config->listen, &addresses, err);
    if (status)
        return atedm_error_context(err, status, "listen");
    status = atedm_socket_mode_parse(config->socket_mode, &mode, err);
    if (status)
        return atedm_error_context(err, status, "socket_mode");
    bool cert = *config->tls_cert, key = *config->tls_key;
    bool wanted = atedm_addresses_have_tls(&addresses);
    if (cert != key)
        return atedm_error_set(err, ATEDM_ERR_INVALID, "%s",
                               cert ? "tls_key: tls_cert needs it" : "tls_cert: tls_key needs it");
    if (wanted && !cert)
        return atedm_error_set(err, ATEDM_ERR_INVALID,
                               "tls_cert: listen has an https:// address, which needs it");
    if (cert && !wanted && !atedm_addresses_have_passed(&addresses))
        return atedm_error_set(err, ATEDM_ERR_INVALID,
                               "tls_cert: no address of listen begins with https://");
    return cert ? atedm_tls_load(config->tls_cert, config->tls_key, ret_tls, err) : ATEDM_OK;
}

// Checks that all pictures of a request fit into one frame, in which the worker sends them.
static atedm_status check_area(const atedm_config *config, int64_t native, atedm_error *err)
{
    if (native * native > config->max_area)
        return atedm_error_set(err, ATEDM_ERR_INVALID,
                               "max_area: %" PRId64 " pixels are less than the model's own %" PRId64
                               " x %" PRId64,
                               config->max_area, native, native);
    int64_t bytes = config->max_images * atedm_worker_image_max(config->max_area);
    if (bytes > (int64_t)ATEDM_FRAME_MAX)
        return atedm_error_set(err, ATEDM_ERR_INVALID,
                               "max_images: %" PRId64 " pictures of max_area, %" PRId64
                               " pixels, may have %" PRId64 " bytes, more than %" PRId64,
                               config->max_images, config->max_area, bytes,
                               (int64_t)ATEDM_FRAME_MAX);
    return ATEDM_OK;
}

atedm_status atedm_settings_read(const atedm_config *config, const atedm_model_config *model,
                                 atedm_settings *ret_settings, atedm_error *err)
{
    int64_t native = atedm_model_config_native_size(model);
    atedm_settings settings = {
        .limits = {.native_width = native,
                   .native_height = native,
                   .size_multiple = atedm_model_config_scale(model),
                   .max_area = config->max_area,
                   .max_images = (int)config->max_images,
                   .max_steps = (int)config->max_steps},
    };
    atedm_status status = check_area(config, native, err);
    if (!status)
        status = check_valve(config, err);
    if (status)
        return status;
    status = read_default_prune(config->default_pruning, model, &settings.limits,
                                &settings.default_prune, err);
    if (status)
        return atedm_error_context(err, status, "default_pruning");
    status = atedm_client_keys_read(config->api_keys, &settings.keys, err);
    if (status)
        return atedm_error_context(err, status, "api_keys");
    status = read_tls(config, &settings.tls, err);
    if (status) {
        atedm_settings_finish(&settings);
        return status;
    }
    *ret_settings = settings;
    return ATEDM_OK;
}

void atedm_settings_finish(atedm_settings *settings)
{
    if (!settings)
        return;
    atedm_client_keys_destroy(settings->keys);
    atedm_tls_unref(settings->tls);
}
