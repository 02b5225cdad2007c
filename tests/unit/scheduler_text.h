// A scheduler_config.json out of a string.
#ifndef ATEDM_TESTS_SCHEDULER_TEXT_H
#define ATEDM_TESTS_SCHEDULER_TEXT_H

#include "core/sampler.h"

ATEDM_MUST_CHECK atedm_status scheduler_text_read(const char *text,
                                                  atedm_scheduler_config *ret_config,
                                                  atedm_error *err);

#endif
