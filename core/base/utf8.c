// UTF-8: see utf8.h.
#include "core/base/utf8.h"

#include <string.h>

// Length of the character at `s` with `left` > 0 bytes to go, 0 where it is not valid.
static size_t character(const unsigned char *s, size_t left)
{
    unsigned char lead = s[0];
    if (lead < 0x80)
        return 1;
    size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4 || left < length)
        return 0;
    // The second byte's range excludes overlong forms, surrogates and values past U+10FFFF.
    unsigned char low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    unsigned char high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (s[1] < low || s[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    return length;
}

size_t atedm_utf8_valid_prefix(const char *text, size_t size)
{
    size_t at = 0;
    while (at < size) {
        size_t length = character((const unsigned char *)text + at, size - at);
        if (!length)
            break;
        at += length;
    }
    return at;
}

bool atedm_utf8_is_valid(const char *text, size_t size)
{
    return atedm_utf8_valid_prefix(text, size) == size;
}

size_t atedm_utf8_cut(const char *text, size_t size, size_t limit)
{
    if (limit >= size)
        return size;
    while (limit > 0 && ((unsigned char)text[limit] & 0xc0) == 0x80)
        limit--;
    return limit;
}

void atedm_utf8_clean(char *text, bool cut)
{
    size_t size = strlen(text);
    size_t valid = atedm_utf8_valid_prefix(text, size);
    while (valid < size) {
        if (cut && size - valid < 4) {
            text[valid] = '\0';
            return;
        }
        text[valid++] = '?';
        valid += atedm_utf8_valid_prefix(text + valid, size - valid);
    }
}
