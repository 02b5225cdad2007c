// The parts of atedm_mkmodel that write small files: configs and tokenizers.
#ifndef ATEDM_MKMODEL_FILES_H
#define ATEDM_MKMODEL_FILES_H

#include "core/base/status.h"
#include "core/base/tensor.h"
#include "core/model.h"

// model_index.json and every component's config, as diffusers and transformers write them. The
// folders are there already.
ATEDM_MUST_CHECK atedm_status atedm_mkmodel_write_configs(const atedm_model_config *config,
                                                          atedm_dtype dtype, const char *dir,
                                                          atedm_error *err);

// A CLIP tokenizer of `vocab` tokens in the folder `dir`: 256 byte symbols, the same at the end of
// a word, one token a merge, start and end. Merges are made up: strings of letters, frequent ones
// first, so that prompts become about as many tokens as with a learned vocabulary. pad: the padding
// token.
ATEDM_MUST_CHECK atedm_status atedm_mkmodel_write_tokenizer(int64_t vocab, const char *pad,
                                                            const char *dir, atedm_error *err);

#endif
