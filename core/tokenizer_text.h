// What CLIP's tokenizer does with text before byte-pair encoding: normalises it (NFC, white space,
// lower case), remembering where every byte came from, and splits it into words.
#ifndef ATEDM_TOKENIZER_TEXT_H
#define ATEDM_TOKENIZER_TEXT_H

#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Normalised UTF-8, owned. source[i] is the offset, in the original text, of the piece from which
// byte i was made. A piece is what normalisation may change as a whole: a character and the
// combining marks after it.
typedef struct atedm_normal_text {
    unsigned char *bytes;
    uint32_t *source;
    size_t size, capacity;
} atedm_normal_text;

void atedm_normal_text_finish(atedm_normal_text *text); // NULL allowed

// Appends the normalised form of original[begin, end), which must be valid UTF-8.
ATEDM_MUST_CHECK atedm_status atedm_normal_text_append(atedm_normal_text *text,
                                                       const char *original, size_t begin,
                                                       size_t end, atedm_error *err);

// Finds the next word of bytes[*at, size), normalised UTF-8: a contraction ('s 't 're 've 'm 'll
// 'd), a run of letters, one number character, or a run of other characters that are not white
// space. Sets *ret_begin to its first byte and *at to the byte after it. False: there is no word.
bool atedm_next_word(const unsigned char *bytes, size_t size, size_t *at, size_t *ret_begin);

#endif
