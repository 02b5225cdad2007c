// The parts of atedm_mkmodel that write small files: configs and tokenizers. They fail with
// ATEDM_ERR_IO if a file cannot be written.
#ifndef ATEDM_MKMODEL_FILES_H
#define ATEDM_MKMODEL_FILES_H

#include "core/base/status.h"
#include "core/base/tensor.h"
#include "core/model.h"

// Writes model_index.json and every component's config, as diffusers and transformers write them.
// The folders must exist.
ATEDM_MUST_CHECK atedm_status atedm_mkmodel_write_configs(const atedm_model_config *config,
                                                          atedm_dtype dtype, const char *dir,
                                                          atedm_error *err);

// Writes a CLIP tokenizer of `vocab` tokens to the folder `dir`: 256 byte symbols, the same symbols
// for the end of a word, one token for each merge, start and end. The merges are made up: strings
// of letters, frequent letters first, so that a prompt has about as many tokens as with a learned
// vocabulary. pad: the padding token.
ATEDM_MUST_CHECK atedm_status atedm_mkmodel_write_tokenizer(int64_t vocab, const char *pad,
                                                            const char *dir, atedm_error *err);

#endif
