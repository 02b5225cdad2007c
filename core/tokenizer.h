// CLIP's byte-pair tokenizer (Radford et al. 2021), from a diffusers tokenizer directory:
// `vocab.json`, `merges.txt`, `tokenizer_config.json`, `special_tokens_map.json`.
#ifndef ATEDM_TOKENIZER_H
#define ATEDM_TOKENIZER_H

#include "core/base/status.h"

#include <stddef.h>
#include <stdint.h>

#define ATEDM_TOKENIZER_MAX_VOCAB 1000000
#define ATEDM_TOKENIZER_MAX_FILE (64u * 1024 * 1024) // bytes of each file
#define ATEDM_TOKENIZER_MAX_LENGTH 1024              // largest model_max_length
#define ATEDM_TOKENIZER_MAX_TEXT 32768               // bytes of a prompt

typedef struct atedm_tokenizer atedm_tokenizer;

// Reads the tokenizer in folder `dir`. ATEDM_ERR_NOT_FOUND: a file is missing
// (special_tokens_map.json may be). ATEDM_ERR_FORMAT, ATEDM_ERR_UNSUPPORTED, ATEDM_ERR_LIMIT: a
// file is malformed, asks for what is not implemented, or exceeds a limit.
ATEDM_MUST_CHECK atedm_status atedm_tokenizer_open(const char *dir, atedm_tokenizer **ret_tokenizer,
                                                   atedm_error *err);
void atedm_tokenizer_close(atedm_tokenizer *tokenizer); // NULL allowed

int64_t atedm_tokenizer_vocab_size(const atedm_tokenizer *tokenizer);
int64_t atedm_tokenizer_length(const atedm_tokenizer *tokenizer); // model_max_length, 77 for SDXL

// Encodes UTF-8 `text`, `size` bytes, to ret_ids, [host] [atedm_tokenizer_length]: start, tokens,
// end, then padding tokens. The text of a special token is encoded as that token.
// A text with too many tokens is cut. *ret_cut gets the number of bytes that were encoded:
// text + *ret_cut is where the first token without room begins, or, if that token is only a part of
// a character (or of a character with combining marks), where that character begins. *ret_cut is
// `size` if the text was not cut.
// ATEDM_ERR_INVALID: the text is not UTF-8, or contains NUL. ATEDM_ERR_LIMIT: it is longer than
// ATEDM_TOKENIZER_MAX_TEXT.
ATEDM_MUST_CHECK atedm_status atedm_tokenizer_encode(const atedm_tokenizer *tokenizer,
                                                     const char *text, size_t size,
                                                     int64_t *ret_ids, size_t *ret_cut,
                                                     atedm_error *err);

#endif
