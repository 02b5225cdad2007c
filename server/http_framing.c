// Requests of which a proxy and libmicrohttpd may think differently where they end, or whom they
// are for. What one takes for a body is the next request to the other: somebody else's connection
// to the proxy would get the answer.
#include "server/http_private.h"

#include <microhttpd.h>
#include <string.h>
#include <strings.h>

typedef struct framing {
    int hosts, lengths, encodings;
    bool is_chunked;    // the last encoding is just that
    bool has_odd_names; // "Content-Length : 5" is none to libmicrohttpd
} framing;

static enum MHD_Result count(void *user, enum MHD_ValueKind kind, const char *name,
                             const char *value)
{
    framing *f = user;
    (void)kind;
    f->has_odd_names |= strpbrk(name, " \t") != NULL;
    if (strcasecmp(name, MHD_HTTP_HEADER_HOST) == 0) {
        f->hosts++;
    } else if (strcasecmp(name, MHD_HTTP_HEADER_CONTENT_LENGTH) == 0) {
        f->lengths++;
    } else if (strcasecmp(name, MHD_HTTP_HEADER_TRANSFER_ENCODING) == 0) {
        f->encodings++;
        f->is_chunked = value && strcasecmp(value, "chunked") == 0;
    }
    return MHD_YES;
}

// RFC 9112, sections 3.2 (Host), 5.1 (names), 6.1 and 6.3 (lengths).
bool atedm_framing_is_clear(struct MHD_Connection *connection, const char *version)
{
    framing f = {0};
    MHD_get_connection_values(connection, MHD_HEADER_KIND, count, &f);
    bool is_old = strcmp(version, MHD_HTTP_VERSION_1_0) == 0;
    bool host = f.hosts == 1 || (is_old && f.hosts == 0);
    bool encoding = f.encodings == 0 || (f.encodings == 1 && f.is_chunked && !is_old);
    return host && encoding && !f.has_odd_names && f.lengths + f.encodings <= 1;
}
