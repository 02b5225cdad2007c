// What the daemon derives from its configuration and its model, as far as a reload can renew it. It
// is complete before any of it is put into force, so a wrong configuration changes nothing.
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
    atedm_client_keys *keys; // owned; NULL: there is no key file
    atedm_tls *tls;          // owned; NULL: no certificate is configured
} atedm_settings;

// The value of the option "default_pruning" as JSON: a string with a preset's name, or an object.
// The caller releases it. NULL: an object is not valid JSON, and `ret_error`, unless it is NULL,
// says why; or a name is not valid UTF-8, and `ret_error` is untouched.
json_t *atedm_settings_pruning_json(const char *text, json_error_t *ret_error);

// Checks the configuration against the model, and reads the key file and the certificate.
// *ret_settings is the caller's. Messages name the option. ATEDM_ERR_INVALID: a value is wrong;
// other errors are those of reading default_pruning, the key file, the addresses or the
// certificate.
ATEDM_MUST_CHECK atedm_status atedm_settings_read(const atedm_config *config,
                                                  const atedm_model_config *model,
                                                  atedm_settings *ret_settings, atedm_error *err);
// Frees settings whose members nobody has taken. NULL allowed.
void atedm_settings_finish(atedm_settings *settings);

#endif
