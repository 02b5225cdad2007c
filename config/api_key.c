// Makes and hashes API keys: see api_key.h.
#include "config/api_key.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stddef.h>
#include <string.h>
#include <sys/random.h>

static const char key_prefix[] = "atedm_";
static const char hash_prefix[] = "sha256:";
static const char digits[] = "0123456789abcdef";

// Writes the bytes as 2 * size digits and a terminator.
static void write_hex(const uint8_t *bytes, size_t size, char *ret_text)
{
    for (size_t i = 0; i < size; i++) {
        ret_text[2 * i] = digits[bytes[i] >> 4];
        ret_text[2 * i + 1] = digits[bytes[i] & 15];
    }
    ret_text[2 * size] = '\0';
}

// If `text` is `prefix` followed by 2 * size digits, returns the digits; else NULL.
static const char *find_hex(const char *text, const char *prefix, size_t size)
{
    size_t prefix_size = strlen(prefix);
    if (strncmp(text, prefix, prefix_size) != 0)
        return NULL;
    const char *hex = text + prefix_size;
    return strlen(hex) == 2 * size && strspn(hex, digits) == 2 * size ? hex : NULL;
}

atedm_status atedm_api_key_make(char ret_key[ATEDM_API_KEY_SIZE], atedm_error *err)
{
    uint8_t bytes[ATEDM_API_KEY_RANDOM_BYTES];
    // Up to 256 bytes come complete or not at all (getrandom(2)); a key must not be shorter.
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        return atedm_error_set(err, ATEDM_ERR_IO, "no random numbers");
    memcpy(ret_key, key_prefix, sizeof key_prefix);
    write_hex(bytes, sizeof bytes, ret_key + sizeof key_prefix - 1);
    OPENSSL_cleanse(bytes, sizeof bytes);
    return ATEDM_OK;
}

atedm_status atedm_api_key_hash_of(const char *key, atedm_api_key_hash *ret_hash, atedm_error *err)
{
    if (!find_hex(key, key_prefix, ATEDM_API_KEY_RANDOM_BYTES))
        return atedm_error_set(err, ATEDM_ERR_INVALID, "is not an API key");
    atedm_api_key_hash hash;
    if (EVP_Digest(key, strlen(key), hash.bytes, NULL, EVP_sha256(), NULL) != 1)
        return atedm_error_set(err, ATEDM_ERR_NOMEM, "libcrypto cannot compute SHA-256");
    *ret_hash = hash;
    return ATEDM_OK;
}

atedm_status atedm_api_key_hash_read(const char *text, atedm_api_key_hash *ret_hash,
                                     atedm_error *err)
{
    const char *hex = find_hex(text, hash_prefix, ATEDM_API_KEY_HASH_BYTES);
    if (!hex)
        return atedm_error_set(err, ATEDM_ERR_INVALID, "is not \"%s\" and %d digits (0-9a-f)",
                               hash_prefix, 2 * ATEDM_API_KEY_HASH_BYTES);
    for (size_t i = 0; i < ATEDM_API_KEY_HASH_BYTES; i++) {
        ptrdiff_t high = strchr(digits, hex[2 * i]) - digits;
        ptrdiff_t low = strchr(digits, hex[2 * i + 1]) - digits;
        ret_hash->bytes[i] = (uint8_t)(high << 4 | low);
    }
    return ATEDM_OK;
}

void atedm_api_key_hash_text(const atedm_api_key_hash *hash, char ret_text[ATEDM_API_KEY_HASH_SIZE])
{
    memcpy(ret_text, hash_prefix, sizeof hash_prefix);
    write_hex(hash->bytes, sizeof hash->bytes, ret_text + sizeof hash_prefix - 1);
}

bool atedm_api_key_hash_equal(const atedm_api_key_hash *a, const atedm_api_key_hash *b)
{
    return CRYPTO_memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

bool atedm_client_name_is_valid(const char *name)
{
    size_t size = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");
    return size >= 1 && size <= ATEDM_CLIENT_NAME_MAX && name[size] == '\0';
}
