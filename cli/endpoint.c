// A daemon's address: see endpoint.h.
#include "cli/endpoint.h"

#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void atedm_endpoint_init(atedm_endpoint *endpoint)
{
    const char *key = getenv("ATEDM_API_KEY");
    *endpoint =
        (atedm_endpoint){.url = ATEDM_ENDPOINT_DEFAULT_URL, .api_key = key && *key ? key : NULL};
}

void atedm_endpoint_take(atedm_endpoint *endpoint, atedm_endpoint_option option, const char *value)
{
    const char **const places[] = {
        [ATEDM_ENDPOINT_URL] = &endpoint->url,
        [ATEDM_ENDPOINT_UNIX_SOCKET] = &endpoint->unix_socket,
        [ATEDM_ENDPOINT_CA_FILE] = &endpoint->ca_file,
        [ATEDM_ENDPOINT_API_KEY] = &endpoint->api_key,
    };
    *places[option] = value;
}

static bool is_key(const char *text)
{
    size_t length = strlen(text);
    for (size_t i = 0; i < length; i++)
        if (text[i] <= ' ' || text[i] > '~') // a line break would begin another header
            return false;
    return length > 0 && length <= ATEDM_ENDPOINT_MAX_KEY;
}

int atedm_endpoint_check(atedm_endpoint *e, const char *command)
{
    char url[ATEDM_ENDPOINT_MAX_URL];
    if (!atedm_endpoint_address(e, "/jobs/0123456789abcdef/images/255", sizeof url, url))
        return atedm_cli_usage(command,
                               "--url: \"%s\" is not an http:// or https:// URL with a host and "
                               "without a query",
                               e->url);
    if (e->unix_socket && (!*e->unix_socket || strlen(e->unix_socket) > ATEDM_ENDPOINT_MAX_SOCKET))
        return atedm_cli_usage(command, "--unix-socket: \"%s\" is not 1..%d bytes", e->unix_socket,
                               ATEDM_ENDPOINT_MAX_SOCKET);
    if (e->ca_file && access(e->ca_file, R_OK))
        return atedm_cli_usage(command, "--ca-file: \"%s\" is not a file that can be read",
                               e->ca_file);
    if (e->api_key && !is_key(e->api_key))
        return atedm_cli_usage(command, "%s is not 1..%d visible ASCII characters",
                               e->api_key == getenv("ATEDM_API_KEY") ? "ATEDM_API_KEY"
                                                                     : "--api-key: the key",
                               ATEDM_ENDPOINT_MAX_KEY);
    return 0;
}

bool atedm_endpoint_address(const atedm_endpoint *endpoint, const char *path, size_t size,
                            char *ret_url)
{
    CURLU *url = curl_url();
    char *scheme = NULL, *query = NULL, *fragment = NULL;
    bool good = url && !curl_url_set(url, CURLUPART_URL, endpoint->url, 0) &&
                !curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) &&
                (strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0) &&
                curl_url_get(url, CURLUPART_QUERY, &query, 0) == CURLUE_NO_QUERY &&
                curl_url_get(url, CURLUPART_FRAGMENT, &fragment, 0) == CURLUE_NO_FRAGMENT;
    curl_free(scheme);
    curl_free(query);
    curl_free(fragment);
    curl_url_cleanup(url);
    size_t length = strlen(endpoint->url);
    while (length && endpoint->url[length - 1] == '/')
        length--;
    if (!good || length + strlen(path) >= size)
        return false;
    snprintf(ret_url, size, "%.*s%s", (int)length, endpoint->url, path);
    return true;
}

CURLcode atedm_endpoint_apply(const atedm_endpoint *endpoint, CURL *easy)
{
    CURLcode code = curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    code = code ? code : curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, endpoint->unix_socket);
    if (endpoint->ca_file) { // also switch off libcurl's default folder, which it would use as well
        code = code ? code : curl_easy_setopt(easy, CURLOPT_CAINFO, endpoint->ca_file);
        code = code ? code : curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
    }
    code = code ? code : curl_easy_setopt(easy, CURLOPT_PROXY, ""); // none from the environment
    code = code ? code : curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    code = code ? code : curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    return code ? code : curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
}

bool atedm_endpoint_add_header(struct curl_slist **headers, const char *text)
{
    struct curl_slist *longer = curl_slist_append(*headers, text);
    if (longer)
        *headers = longer;
    return longer != NULL;
}

bool atedm_endpoint_add_headers(const atedm_endpoint *endpoint, struct curl_slist **headers)
{
    char text[sizeof "Authorization: Bearer " + ATEDM_ENDPOINT_MAX_KEY];
    if (endpoint->api_key)
        snprintf(text, sizeof text, "Authorization: Bearer %s", endpoint->api_key);
    return atedm_endpoint_add_header(headers, "Content-Type: application/json") &&
           atedm_endpoint_add_header(headers, "Expect:") && // removes it: bodies are small
           (!endpoint->api_key || atedm_endpoint_add_header(headers, text));
}
