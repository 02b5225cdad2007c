// A listening socket from "ADDRESS:PORT".
#ifndef ATEDM_LISTEN_H
#define ATEDM_LISTEN_H

#include "core/base/status.h"

#include <stddef.h>

// `text`: "127.0.0.1:8080", "[::1]:8080", "localhost:8080", ":8080" (all addresses); port 0 takes a
// free one. ret_address (of `size` bytes) gets the address in the form that a URL wants.
ATEDM_MUST_CHECK atedm_status atedm_listen(const char *text, int *ret_fd, char *ret_address,
                                           size_t size, atedm_error *err);

#endif
