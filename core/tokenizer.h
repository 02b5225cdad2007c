// CLIP's byte-pair tokenizer (Radford et al. 2021), from a diffusers tokenizer directory:
// `vocab.json`, `merges.txt`, `tokenizer_config.json`, `special_tokens_map.json`.
#ifndef ATEDM_TOKENIZER_H
#define ATEDM_TOKENIZER_H

#include "core/base/status.h"

#include <stddef.h>
#include <stdint.h>

#define ATEDM_TOKENIZER_MAX_VOCAB 1000000
#define ATEDM_TOKENIZER_MAX_FILE (64u * 1024 * 1024) // bytes of each of its files
#define ATEDM_TOKENIZER_MAX_LENGTH 1024              // model_max_length
#define ATEDM_TOKENIZER_MAX_TEXT 32768               // bytes of a prompt

typedef struct atedm_tokenizer atedm_tokenizer;

ATEDM_MUST_CHECK atedm_status atedm_tokenizer_open(const char *dir, atedm_tokenizer **ret_tokenizer,
                                                   atedm_error *err);
void atedm_tokenizer_close(atedm_tokenizer *tokenizer); // NULL allowed

int64_t atedm_tokenizer_vocab_size(const atedm_tokenizer *tokenizer);
int64_t atedm_tokenizer_length(const atedm_tokenizer *tokenizer); // model_max_length: 77

// Encodes UTF-8 `text` (size bytes) to exactly atedm_tokenizer_length ids in `ret_ids`: start,
// tokens, end, padding with the tokenizer's pad token. Special tokens that are spelled out in the
// text count as such. Too long a text is cut; *ret_cut then gets the number of bytes of `text` that
// were encoded whole, so that text + *ret_cut is what was cut: it begins where the first token that
// had no room begins, or, where that is a part of a character (or of a character with its combining
// marks), with that character. Otherwise *ret_cut is `size`. ATEDM_ERR_INVALID for text that is not
// UTF-8 or contains NUL, ATEDM_ERR_LIMIT past ATEDM_TOKENIZER_MAX_TEXT.
ATEDM_MUST_CHECK atedm_status atedm_tokenizer_encode(const atedm_tokenizer *tokenizer,
                                                     const char *text, size_t size,
                                                     int64_t *ret_ids, size_t *ret_cut,
                                                     atedm_error *err);

#endif
