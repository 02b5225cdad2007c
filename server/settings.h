// What the daemon makes of its configuration and its model: the part that can be made anew while it
// runs. Made whole before anything of it is used, so that a wrong one changes nothing.
#ifndef ATEDM_SETTINGS_H
#define ATEDM_SETTINGS_H

#include "config/config.h"
#include "core/model.h"
#include "core/plan.h"
#include "core/request.h"
#include "server/client_keys.h"
#include "server/tls.h"

#include <jansson.h>

typedef struct atedm_settings {
    atedm_request_limits limits;
    atedm_prune_spec default_prune;
    atedm_client_keys *keys; // NULL: none are asked for
    atedm_tls *tls;          // NULL: no address asks for it
} atedm_settings;

// The value of the option "default_pruning", a name or an object; NULL where it is not JSON, and
// *ret_error, which may be NULL, says why.
json_t *atedm_settings_pruning_json(const char *text, json_error_t *ret_error);

// Messages name the option.
ATEDM_MUST_CHECK atedm_status atedm_settings_read(const atedm_config *config,
                                                  const atedm_model_config *model,
                                                  atedm_settings *ret_settings, atedm_error *err);
// For settings that nobody takes; NULL allowed.
void atedm_settings_finish(atedm_settings *settings);

#endif
