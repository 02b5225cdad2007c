// GET /: see page.h.
#include "server/page.h"

#include "server/handlers.h"
#include "server/problem.h"

#include <stdlib.h>
#include <string.h>

void atedm_handle_page(void *app, atedm_exchange *x)
{
    char *copy = malloc(atedm_page_text_size);
    if (!copy) {
        atedm_exchange_respond(x, atedm_problem_no_memory(atedm_exchange_id(x)));
        return;
    }
    memcpy(copy, atedm_page_text, atedm_page_text_size);
    atedm_response response = {.status = 200,
                               .content_type = "text/html; charset=utf-8",
                               .body = copy,
                               .size = atedm_page_text_size};
    // A daemon of another version at the same address has another page.
    atedm_response_header(&response, "Cache-Control", "no-cache");
    // The page needs no other files, and talks only to the daemon that it came from.
    atedm_response_header(&response, "Content-Security-Policy",
                          "default-src 'self' 'unsafe-inline' data: blob:; frame-ancestors 'none'");
    atedm_exchange_respond(x, response);
}
