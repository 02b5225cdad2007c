// Failing a stream. On its own, since backends that are shared objects hold a copy of it.
#include "kernels/backend.h"

#include <stdio.h>

void atedm_stream_fail(atedm_stream *stream, atedm_status status, const char *format, ...)
{
    if (stream->status)
        return;
    va_list args;
    va_start(args, format);
    // NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): it is; the checker errs in small files.
    vsnprintf(stream->error.message, sizeof stream->error.message, format, args);
    va_end(args);
    stream->status = status;
}
