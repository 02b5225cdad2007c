// Finds the handler of a path and a method. A segment of a route's path in braces, as in
// "/jobs/{id}", stands for any one segment.
#include "server/http_private.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

const char *atedm_route_path(const char *target)
{
    static const char *const schemes[] = {"http://", "https://"};
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        size_t size = strlen(schemes[i]);
        if (strncasecmp(target, schemes[i], size) == 0) {
            const char *path = strchr(target + size, '/');
            return path ? path : "/";
        }
    }
    return target;
}

// Takes one segment of a path, which starts after a slash. Moves *path to the next slash or to the
// end.
static size_t take_segment(const char **path)
{
    size_t size = strcspn(*path, "/");
    *path += size;
    return size;
}

static bool matches(const char *pattern, const char *path,
                    char ret_parameters[][ATEDM_ROUTE_PARAMETER_MAX])
{
    size_t parameters = 0;
    while (*pattern == '/' && *path == '/') {
        const char *wanted = ++pattern, *given = ++path;
        size_t wanted_size = take_segment(&pattern), size = take_segment(&path);
        if (*wanted == '{') {
            if (size == 0 || size >= ATEDM_ROUTE_PARAMETER_MAX ||
                parameters == ATEDM_ROUTE_PARAMETERS)
                return false;
            memcpy(ret_parameters[parameters], given, size);
            ret_parameters[parameters++][size] = '\0';
        } else if (size != wanted_size || memcmp(wanted, given, size) != 0) {
            return false;
        }
    }
    return *pattern == '\0' && *path == '\0';
}

const atedm_route *atedm_route_find(const atedm_route *routes, const char *path,
                                    char ret_parameters[][ATEDM_ROUTE_PARAMETER_MAX])
{
    for (; routes->path; routes++) {
        if (matches(routes->path, path, ret_parameters))
            return routes;
    }
    return NULL;
}

atedm_handler atedm_route_handler(const atedm_route *route, const char *method)
{
    if (strcmp(method, MHD_HTTP_METHOD_GET) == 0 || strcmp(method, MHD_HTTP_METHOD_HEAD) == 0)
        return route->get;
    if (strcmp(method, MHD_HTTP_METHOD_POST) == 0)
        return route->post;
    return strcmp(method, MHD_HTTP_METHOD_DELETE) == 0 ? route->remove : NULL;
}

void atedm_route_allowed(const atedm_route *route, char ret_text[ATEDM_ALLOWED_SIZE])
{
    const char *const methods[] = {route->get ? "GET, HEAD" : NULL, route->post ? "POST" : NULL,
                                   route->remove ? "DELETE" : NULL};
    size_t used = 0;
    ret_text[0] = '\0';
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        if (methods[i])
            used += (size_t)snprintf(ret_text + used, ATEDM_ALLOWED_SIZE - used, "%s%s",
                                     used ? ", " : "", methods[i]);
    }
}

void atedm_exchange_allowed(const atedm_exchange *x, char ret_text[ATEDM_ALLOWED_SIZE])
{
    atedm_route_allowed(x->route, ret_text);
}

// Whether a parameter's value is "utf-8", with or without quotes.
static bool is_utf8(const char *value)
{
    static const char utf8[] = "utf-8";
    bool quoted = *value == '"';
    value += quoted;
    if (strncasecmp(value, utf8, sizeof utf8 - 1) != 0)
        return false;
    value += sizeof utf8 - 1;
    if (quoted && *value++ != '"')
        return false;
    value += strspn(value, " \t");
    return *value == '\0' || *value == ';';
}

bool atedm_content_type_is_json(const char *content_type)
{
    static const char json[] = "application/json";
    if (!content_type || strncasecmp(content_type, json, sizeof json - 1) != 0)
        return false;
    const char *rest = content_type + sizeof json - 1;
    rest += strspn(rest, " \t");
    if (*rest != ';')
        return *rest == '\0';
    // JSON gives no meaning to parameters other than charset.
    for (; *rest == ';'; rest += strcspn(rest, ";")) {
        rest += 1 + strspn(rest + 1, " \t");
        if (strncasecmp(rest, "charset=", 8) == 0 && !is_utf8(rest + 8))
            return false;
    }
    return true;
}
