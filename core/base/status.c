// Status codes and error messages: see status.h.
#include "core/base/status.h"

#include <stdio.h>
#include <string.h>

const char *atedm_status_name(atedm_status status)
{
    switch (status) {
    case ATEDM_OK:
        return "ok";
    case ATEDM_ERR_NOMEM:
        return "out of memory";
    case ATEDM_ERR_INVALID:
        return "invalid argument";
    case ATEDM_ERR_FORMAT:
        return "malformed data";
    case ATEDM_ERR_IO:
        return "input/output error";
    case ATEDM_ERR_NOT_FOUND:
        return "not found";
    case ATEDM_ERR_UNSUPPORTED:
        return "not supported";
    case ATEDM_ERR_LIMIT:
        return "over a limit";
    case ATEDM_ERR_DEVICE:
        return "device failure";
    case ATEDM_ERR_CANCELED:
        return "canceled";
    }
    return "unknown status";
}

atedm_status atedm_error_set(atedm_error *err, atedm_status status, const char *format, ...)
{
    if (err) {
        va_list args;
        va_start(args, format);
        vsnprintf(err->message, sizeof err->message, format, args);
        va_end(args);
    }
    return status;
}

atedm_status atedm_error_context(atedm_error *err, atedm_status status, const char *format, ...)
{
    if (!err || status == ATEDM_OK)
        return status;
    char inner[ATEDM_ERROR_MAX];
    memcpy(inner, err->message, sizeof inner);
    va_list args;
    va_start(args, format);
    int used = vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    if (used >= 0 && (size_t)used < sizeof err->message)
        snprintf(err->message + used, sizeof err->message - (size_t)used, ": %s", inner);
    return status;
}
