// Byte-level byte-pair encoding of one word (Sennrich et al. 2016; Radford et al. 2021): the bytes
// of a word become symbols, and the adjacent pair with the lowest rank is merged, until no pair has
// a rank.
#ifndef ATEDM_TOKENIZER_BPE_H
#define ATEDM_TOKENIZER_BPE_H

#include "core/base/status.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

typedef struct atedm_bpe atedm_bpe;

// vocab: {"token": id}, borrowed for the call; the caller has checked that ids are 0..2^31-1.
// merges_path: a text file with a comment line, then one "LEFT RIGHT" a line, lowest rank first.
// unknown: id for bytes whose symbol is not in the vocabulary.
ATEDM_MUST_CHECK atedm_status atedm_bpe_create(const json_t *vocab, uint32_t unknown,
                                               const char *merges_path, atedm_bpe **ret_bpe,
                                               atedm_error *err);
void atedm_bpe_destroy(atedm_bpe *bpe); // NULL allowed

// Buffers for encoding words of up to `max_bytes` bytes.
typedef struct atedm_bpe_work atedm_bpe_work;
ATEDM_MUST_CHECK atedm_status atedm_bpe_work_create(size_t max_bytes, atedm_bpe_work **ret_work);
void atedm_bpe_work_destroy(atedm_bpe_work *work); // NULL allowed

typedef struct atedm_bpe_token {
    uint32_t id;
    uint32_t begin; // index of its first byte in the word
} atedm_bpe_token;

// Encodes a word of size >= 1 bytes in O(size log size). Returns *ret_count tokens, which stay
// valid until the next use of `work`.
const atedm_bpe_token *atedm_bpe_encode(const atedm_bpe *bpe, const unsigned char *word,
                                        size_t size, atedm_bpe_work *work, size_t *ret_count);

#endif
