// API keys: their text, and the hash that is stored in its place. server/clients.h knows which
// client has which key.
#ifndef ATEDM_API_KEY_H
#define ATEDM_API_KEY_H

#include "core/base/status.h"

#include <stdbool.h>
#include <stdint.h>

#define ATEDM_API_KEY_RANDOM_BYTES 32
#define ATEDM_API_KEY_SIZE (6 + 2 * ATEDM_API_KEY_RANDOM_BYTES + 1) // "atedm_", digits, NUL
#define ATEDM_API_KEY_HASH_BYTES 32
#define ATEDM_API_KEY_HASH_SIZE (7 + 2 * ATEDM_API_KEY_HASH_BYTES + 1) // "sha256:", digits, NUL
#define ATEDM_CLIENT_NAME_MAX 64                                       // bytes of a client's name

// One SHA-256 of the key, without salt or rounds. Those serve to make guessing slow, and nobody can
// guess the 256 random bits of a key. That holds only for keys of this form, so others are refused.
typedef struct atedm_api_key_hash {
    uint8_t bytes[ATEDM_API_KEY_HASH_BYTES];
} atedm_api_key_hash;

// Makes a new key from the system's random numbers. ATEDM_ERR_IO: the system gives none.
ATEDM_MUST_CHECK atedm_status atedm_api_key_make(char ret_key[ATEDM_API_KEY_SIZE],
                                                 atedm_error *err);

// Hashes a key. ATEDM_ERR_INVALID: `key` does not have the form of a key.
ATEDM_MUST_CHECK atedm_status atedm_api_key_hash_of(const char *key, atedm_api_key_hash *ret_hash,
                                                    atedm_error *err);
// Reads a hash as key files have it: "sha256:" and 64 lower-case digits. ATEDM_ERR_INVALID: another
// form. The message never quotes `text`, because it may be a key.
ATEDM_MUST_CHECK atedm_status atedm_api_key_hash_read(const char *text,
                                                      atedm_api_key_hash *ret_hash,
                                                      atedm_error *err);
// Writes a hash in that form.
void atedm_api_key_hash_text(const atedm_api_key_hash *hash,
                             char ret_text[ATEDM_API_KEY_HASH_SIZE]);
// Takes a time that does not depend on where the hashes differ.
bool atedm_api_key_hash_equal(const atedm_api_key_hash *a, const atedm_api_key_hash *b);

// Whether the name consists of 1..ATEDM_CLIENT_NAME_MAX of the characters A-Z a-z 0-9 . _ -
bool atedm_client_name_is_valid(const char *name);

#endif
