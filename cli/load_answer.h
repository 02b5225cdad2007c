// The numbers that `atedm bench serve` needs of an answer of /generate. It keeps nothing else: an
// answer has megabytes of pictures, and the thread that reads it has to send other requests on
// time.
#ifndef ATEDM_CLI_LOAD_ANSWER_H
#define ATEDM_CLI_LOAD_ANSWER_H

#include "core/base/memory.h"
#include "core/base/status.h"

#include <stdbool.h>
#include <stdint.h>

#define ATEDM_LOAD_MAX_STRING 1024      // bytes of a string that is kept; longer ones become ""
#define ATEDM_LOAD_MAX_ANSWER (1 << 20) // bytes of an answer, without such strings

// Takes the JSON text of an answer, in pieces as it arrives.
typedef struct atedm_load_sieve {
    atedm_buffer kept;
    bool in_string, escaped, dropping;
    size_t string_start; // in `kept`
} atedm_load_sieve;

void atedm_load_sieve_init(atedm_load_sieve *sieve);
void atedm_load_sieve_finish(atedm_load_sieve *sieve); // NULL is allowed
void atedm_load_sieve_reset(atedm_load_sieve *sieve);  // for the next answer
// ATEDM_ERR_LIMIT above ATEDM_LOAD_MAX_ANSWER, ATEDM_ERR_NOMEM.
ATEDM_MUST_CHECK atedm_status atedm_load_sieve_write(atedm_load_sieve *sieve, const char *data,
                                                     size_t size);

#define ATEDM_LOAD_PRESET_MAX 24 // bytes of a preset's name, terminator included

typedef struct atedm_load_answer {
    double queue_s;
    double mean_batch;
    int64_t max_batch;
    double executed, baseline, overhead; // FLOPs
    char preset[ATEDM_LOAD_PRESET_MAX];  // "custom" for pruning without a preset
    int64_t images;
} atedm_load_answer;

// Reads an answer with status 200. ATEDM_ERR_FORMAT if it is not what the API promises.
ATEDM_MUST_CHECK atedm_status atedm_load_answer_parse(const char *text, size_t size,
                                                      atedm_load_answer *ret_answer);

#endif
