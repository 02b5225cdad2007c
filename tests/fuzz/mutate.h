// Random damage, the same for the same seed: bytes of any file, values of a JSON document.
#ifndef ATEDM_TESTS_MUTATE_H
#define ATEDM_TESTS_MUTATE_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

// SplitMix64 (Steele et al. 2014).
typedef struct fuzz_rng {
    uint64_t state;
} fuzz_rng;

uint64_t fuzz_next(fuzz_rng *rng);
size_t fuzz_below(fuzz_rng *rng, size_t n); // 0 .. n - 1, n >= 1

typedef struct fuzz_bytes {
    unsigned char *data; // malloc'ed, NUL-terminated past `size`
    size_t size;
} fuzz_bytes;

// A damaged copy of data[0, size); the caller frees its data.
fuzz_bytes fuzz_mutate_bytes(fuzz_rng *rng, const void *data, size_t size);

// Changes a few members or elements of the document, at any depth: other values, dropped, added,
// moved. Objects and arrays only.
void fuzz_mutate_json(fuzz_rng *rng, json_t *root);

// A JSON text with either kind of damage; `good` is JSON.
fuzz_bytes fuzz_mutate_json_text(fuzz_rng *rng, const char *good);

// Text of up to max_bytes bytes: valid UTF-8 of any characters, or (one time of four) any bytes.
fuzz_bytes fuzz_text(fuzz_rng *rng, size_t max_bytes);

#endif
