// GET /: a page on which a person can try the daemon, page.html. It asks nothing that programs
// could not ask.
#ifndef ATEDM_PAGE_H
#define ATEDM_PAGE_H

#include <stddef.h>

extern const unsigned char atedm_page_text[]; // of embed.py
extern const size_t atedm_page_text_size;

#endif
