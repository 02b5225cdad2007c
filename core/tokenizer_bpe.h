// Byte-level byte-pair encoding of one word (Sennrich et al. 2016; Radford et al. 2021): a word's
// bytes become symbols, and the pair with the lowest rank is merged until no pair has one.
#ifndef ATEDM_TOKENIZER_BPE_H
#define ATEDM_TOKENIZER_BPE_H

#include "core/base/status.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

typedef struct atedm_bpe atedm_bpe;

// vocab: {"token": id}, ids checked by the caller to lie in 0..2^31-1; borrowed during the call.
// merges_path: a line of comment, then "LEFT RIGHT" a line, best first. `unknown` stands for bytes
// whose symbol the vocabulary lacks.
ATEDM_MUST_CHECK atedm_status atedm_bpe_create(const json_t *vocab, uint32_t unknown,
                                               const char *merges_path, atedm_bpe **ret_bpe,
                                               atedm_error *err);
void atedm_bpe_destroy(atedm_bpe *bpe); // NULL allowed

// Memory to encode words of up to `max_bytes` bytes with.
typedef struct atedm_bpe_work atedm_bpe_work;
ATEDM_MUST_CHECK atedm_status atedm_bpe_work_create(size_t max_bytes, atedm_bpe_work **ret_work);
void atedm_bpe_work_destroy(atedm_bpe_work *work); // NULL allowed

typedef struct atedm_bpe_token {
    uint32_t id;
    uint32_t begin; // its first byte in the word
} atedm_bpe_token;

// Encodes a word of size >= 1 bytes, in O(size log size). Returns the tokens, *ret_count of them,
// which stay in `work` until its next use.
const atedm_bpe_token *atedm_bpe_encode(const atedm_bpe *bpe, const unsigned char *word,
                                        size_t size, atedm_bpe_work *work, size_t *ret_count);

#endif
