// An API key: its text, and the hash that is stored in its place. Who holds which key is the
// daemon's (server/clients.h).
#ifndef ATEDM_API_KEY_H
#define ATEDM_API_KEY_H

#include "core/base/status.h"

#include <stdbool.h>
#include <stdint.h>

#define ATEDM_API_KEY_RANDOM_BYTES 32
#define ATEDM_API_KEY_SIZE (6 + 2 * ATEDM_API_KEY_RANDOM_BYTES + 1) // "atedm_" + hex, terminator
#define ATEDM_API_KEY_HASH_BYTES 32
#define ATEDM_API_KEY_HASH_SIZE (7 + 2 * ATEDM_API_KEY_HASH_BYTES + 1) // "sha256:" + hex
#define ATEDM_CLIENT_NAME_MAX 64 // bytes of the name of a key's holder

// One SHA-256, without salt or rounds: those make guessing slow, and the 256 random bits of a key
// cannot be guessed. That holds for keys of this form only, so no others are taken.
typedef struct atedm_api_key_hash {
    uint8_t bytes[ATEDM_API_KEY_HASH_BYTES];
} atedm_api_key_hash;

// A new key from the system's random numbers.
ATEDM_MUST_CHECK atedm_status atedm_api_key_make(char ret_key[ATEDM_API_KEY_SIZE],
                                                 atedm_error *err);

// ATEDM_ERR_INVALID where `key` does not have the form of a key.
ATEDM_MUST_CHECK atedm_status atedm_api_key_hash_of(const char *key, atedm_api_key_hash *ret_hash,
                                                    atedm_error *err);
// The form of key files: "sha256:" and 64 digits, lower case. Messages never quote what was there:
// it may be a key.
ATEDM_MUST_CHECK atedm_status atedm_api_key_hash_read(const char *text,
                                                      atedm_api_key_hash *ret_hash,
                                                      atedm_error *err);
void atedm_api_key_hash_text(const atedm_api_key_hash *hash,
                             char ret_text[ATEDM_API_KEY_HASH_SIZE]);
// In a time that does not depend on where they differ.
bool atedm_api_key_hash_equal(const atedm_api_key_hash *a, const atedm_api_key_hash *b);

// 1..ATEDM_CLIENT_NAME_MAX of the characters A-Z a-z 0-9 . _ -
bool atedm_client_name_is_valid(const char *name);

#endif
