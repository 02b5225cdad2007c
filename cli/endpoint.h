// A daemon's address and credentials: the options that all commands with a daemon share, and how
// they are passed to libcurl.
#ifndef ATEDM_CLI_ENDPOINT_H
#define ATEDM_CLI_ENDPOINT_H

#include <curl/curl.h>
#include <getopt.h>
#include <stdbool.h>
#include <stddef.h>

#define ATEDM_ENDPOINT_DEFAULT_URL "http://127.0.0.1:8080"
#define ATEDM_ENDPOINT_MAX_URL 2048   // bytes of a URL with its path, including the terminator
#define ATEDM_ENDPOINT_MAX_KEY 1024   // bytes of an API key
#define ATEDM_ENDPOINT_MAX_SOCKET 107 // bytes of a Unix socket's path: the system's limit

// All strings are borrowed.
typedef struct atedm_endpoint {
    const char *url;         // http or https, with a host, without a query
    const char *unix_socket; // connect to this socket; NULL: to the URL's host
    const char *ca_file;     // certificates that https trusts, PEM; NULL: the system's authorities
    const char *api_key;     // NULL: none
} atedm_endpoint;

// The shared options. A command's own options are numbered from ATEDM_ENDPOINT_N_OPTIONS on.
typedef enum atedm_endpoint_option {
    ATEDM_ENDPOINT_URL,
    ATEDM_ENDPOINT_UNIX_SOCKET,
    ATEDM_ENDPOINT_CA_FILE,
    ATEDM_ENDPOINT_API_KEY,
    ATEDM_ENDPOINT_N_OPTIONS,
} atedm_endpoint_option;

// Rows for getopt_long; must be the first rows of a command's table.
#define ATEDM_ENDPOINT_OPTIONS                                                                     \
    {"url", required_argument, NULL, ATEDM_ENDPOINT_URL},                                          \
        {"unix-socket", required_argument, NULL, ATEDM_ENDPOINT_UNIX_SOCKET},                      \
        {"ca-file", required_argument, NULL, ATEDM_ENDPOINT_CA_FILE},                              \
    {                                                                                              \
        "api-key", required_argument, NULL, ATEDM_ENDPOINT_API_KEY                                 \
    }

#define ATEDM_ENDPOINT_HELP                                                                        \
    "  --url URL            of the daemon; default " ATEDM_ENDPOINT_DEFAULT_URL "\n"               \
    "  --unix-socket PATH   the daemon's Unix socket; the URL's host is then only a name\n"        \
    "  --ca-file FILE       for https: certificates to trust, PEM, in place of the system's\n"     \
    "  --api-key KEY        sent as Authorization: Bearer KEY; default: ATEDM_API_KEY of the\n"    \
    "                       environment, which other users of the machine cannot see\n"

void atedm_endpoint_init(atedm_endpoint *endpoint); // sets the defaults
// Sets the option to `value`.
void atedm_endpoint_take(atedm_endpoint *endpoint, atedm_endpoint_option option, const char *value);
// Checks all options. Returns the exit status; if it is not 0, a message of `command` has said why.
int atedm_endpoint_check(atedm_endpoint *endpoint, const char *command);

// Writes the URL of `path`, which begins with "/", into ret_url of `size` bytes. Slashes at the end
// of endpoint->url are dropped. False: the result is too long, or endpoint->url is invalid.
bool atedm_endpoint_address(const atedm_endpoint *endpoint, const char *path, size_t size,
                            char *ret_url);
// Sets the libcurl options that hold for every request with `easy`, except headers.
CURLcode atedm_endpoint_apply(const atedm_endpoint *endpoint, CURL *easy);
// Appends `text` to a list of headers. False: out of memory; the list is unchanged.
bool atedm_endpoint_add_header(struct curl_slist **headers, const char *text);
// Appends the headers of every request: those for a body in JSON, and the API key.
bool atedm_endpoint_add_headers(const atedm_endpoint *endpoint, struct curl_slist **headers);

#endif
