// Helps with text: base64.
#ifndef ATEDM_TEXT_H
#define ATEDM_TEXT_H

#include "core/base/memory.h"
#include "core/base/status.h"

#include <stddef.h>

// Appends `size` bytes in base64 (RFC 4648, section 4).
ATEDM_MUST_CHECK atedm_status atedm_base64_append(const void *data, size_t size,
                                                  atedm_buffer *ret_text);

#endif
