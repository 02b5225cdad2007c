// Detects requests that a proxy and libmicrohttpd may read differently: where they end, or which
// host they are for. If the two disagree about the end, one takes as a body what the other takes as
// the next request. The answer to that request would go to another client of the proxy (request
// smuggling).
#include "server/http_private.h"

#include <microhttpd.h>
#include <string.h>
#include <strings.h>

typedef struct framing {
    int hosts, lengths, encodings;
    bool is_chunked;    // the last Transfer-Encoding is exactly "chunked"
    bool has_odd_names; // a name contains a blank: to libmicrohttpd, "Content-Length : 5" is not
                        // the header Content-Length
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
