// UTF-8 (RFC 3629): what is valid, and where text may be cut.
#ifndef ATEDM_BASE_UTF8_H
#define ATEDM_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>

// Bytes at the start of `text` that are whole valid characters; `size` where all of it is valid.
// Overlong forms, surrogates and values past U+10FFFF are not valid; U+0000 is.
size_t atedm_utf8_valid_prefix(const char *text, size_t size);
bool atedm_utf8_is_valid(const char *text, size_t size);

// Largest cut <= limit that does not fall inside a character of the valid UTF-8 `text`.
size_t atedm_utf8_cut(const char *text, size_t size, size_t limit);

// Makes a text that may quote arbitrary bytes valid UTF-8: each byte that belongs to no character
// becomes '?'. `cut`: the text was cut at its end, so an incomplete character there is removed.
void atedm_utf8_clean(char *text, bool cut);

#endif
