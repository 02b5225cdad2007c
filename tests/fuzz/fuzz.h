// What the fuzzer's targets have in common.
#ifndef ATEDM_TESTS_FUZZ_H
#define ATEDM_TESTS_FUZZ_H

#include "mutate.h"

#include "core/base/status.h"

#include <stdbool.h>

// A reader that is given damaged input. `run` draws one input from `rng`, hands it to the reader
// and checks what must hold of any answer; sanitizers watch the rest. True: the input was taken.
typedef struct fuzz_target {
    const char *name;
    void *(*setup)(void);
    bool (*run)(void *state, fuzz_rng *rng);
    void (*finish)(void *state);
} fuzz_target;

extern const fuzz_target fuzz_safetensors; // target_files.c
extern const fuzz_target fuzz_configs;     // target_configs.c
extern const fuzz_target fuzz_vocabulary;  // target_files.c
extern const fuzz_target fuzz_pruning;     // target_texts.c
extern const fuzz_target fuzz_prompt;      // target_texts.c
extern const fuzz_target fuzz_keys;        // target_keys.c

// Aborts with `what` unless it holds.
void fuzz_expect(bool holds, const char *what);
// calloc that aborts where there is no memory.
void *fuzz_allocate(size_t size);
// Whether a reader that failed left the output, filled with FUZZ_FILL bytes before, as it was.
#define FUZZ_FILL 0x5a
bool fuzz_is_untouched(const void *output, size_t size);
// A failure has a message, made of text that ends.
void fuzz_expect_message(atedm_status status, const atedm_error *err);

#endif
