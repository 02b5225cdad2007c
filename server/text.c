// Helps with text: see text.h.
#include "server/text.h"

#include <stdint.h>

atedm_status atedm_base64_append(const void *data, size_t size, atedm_buffer *ret_text)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *bytes = data;
    char chunk[4096];
    size_t used = 0;
    for (size_t i = 0; i < size; i += 3) {
        size_t left = size - i;
        uint32_t bits = (uint32_t)bytes[i] << 16;
        bits |= left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0;
        bits |= left > 2 ? bytes[i + 2] : 0;
        chunk[used++] = digits[bits >> 18];
        chunk[used++] = digits[bits >> 12 & 63];
        chunk[used++] = left > 1 ? digits[bits >> 6 & 63] : '=';
        chunk[used++] = left > 2 ? digits[bits & 63] : '=';
        if (used == sizeof chunk) {
            atedm_status status = atedm_buffer_append(ret_text, chunk, used);
            if (status)
                return status;
            used = 0;
        }
    }
    return atedm_buffer_append(ret_text, chunk, used);
}
