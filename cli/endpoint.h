// Where a daemon is and how to get in: the options that commands which talk to one share, and what
// they come to in libcurl.
#ifndef ATEDM_CLI_ENDPOINT_H
#define ATEDM_CLI_ENDPOINT_H

#include <curl/curl.h>
#include <getopt.h>
#include <stdbool.h>
#include <stddef.h>

#define ATEDM_ENDPOINT_DEFAULT_URL "http://127.0.0.1:8080"
#define ATEDM_ENDPOINT_MAX_URL 2048   // bytes of an address with its path, terminator included
#define ATEDM_ENDPOINT_MAX_KEY 1024   // bytes of an API key
#define ATEDM_ENDPOINT_MAX_SOCKET 107 // bytes of a Unix socket's path, as the system has it

// All borrowed.
typedef struct atedm_endpoint {
    const char *url;         // http or https, with a host, without a query
    const char *unix_socket; // where the URL's host is to be found; NULL: by its name
    const char *ca_file;     // whom to trust for https; NULL: the system's authorities
    const char *api_key;     // NULL: none
} atedm_endpoint;

// A command's own options come behind these.
typedef enum atedm_endpoint_option {
    ATEDM_ENDPOINT_URL,
    ATEDM_ENDPOINT_UNIX_SOCKET,
    ATEDM_ENDPOINT_CA_FILE,
    ATEDM_ENDPOINT_API_KEY,
    ATEDM_ENDPOINT_N_OPTIONS,
} atedm_endpoint_option;

// The first rows of a table for getopt_long.
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

void atedm_endpoint_init(atedm_endpoint *endpoint); // the defaults
// Takes an option's value.
void atedm_endpoint_take(atedm_endpoint *endpoint, atedm_endpoint_option option, const char *value);
// Checks them all. Returns the exit status; where it is not 0, `command` has told why.
int atedm_endpoint_check(atedm_endpoint *endpoint, const char *command);

// url with `path` (from its "/" on) in place of slashes at its end, into `size` bytes of ret_url.
// False where that is too long, or url is wrong.
bool atedm_endpoint_address(const atedm_endpoint *endpoint, const char *path, size_t size,
                            char *ret_url);
// What holds for every request over `easy`; headers are none of it.
CURLcode atedm_endpoint_apply(const atedm_endpoint *endpoint, CURL *easy);
// Appends `text` to a list of headers. False where memory ran out, and the list is as it was.
bool atedm_endpoint_add_header(struct curl_slist **headers, const char *text);
// Those that every request has: with a body in JSON, and the key.
bool atedm_endpoint_add_headers(const atedm_endpoint *endpoint, struct curl_slist **headers);

#endif
