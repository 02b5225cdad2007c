// GET /: page.html, a page on which people can try the daemon. It uses only the interface that
// programs have too.
#ifndef ATEDM_PAGE_H
#define ATEDM_PAGE_H

#include <stddef.h>

extern const unsigned char atedm_page_text[]; // page.html, by embed.py
extern const size_t atedm_page_text_size;

#endif
