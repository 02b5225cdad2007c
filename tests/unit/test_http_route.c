// Routes: which one a path has and what stands in it for names; the methods that it allows; the
// daemon's table.
#include "server/http_private.h"
#include "server/routes.h"

#include <criterion/criterion.h>
#include <string.h>

static void handle(void *app, atedm_exchange *exchange)
{
}

static char parameters[ATEDM_ROUTE_PARAMETERS + 1][ATEDM_ROUTE_PARAMETER_MAX];

static const char *find(const atedm_route *routes, const char *path)
{
    memset(parameters, 'x', sizeof parameters);
    const atedm_route *route = atedm_route_find(routes, path, parameters);
    for (size_t i = 0; i < ATEDM_ROUTE_PARAMETER_MAX; i++)
        cr_assert_eq(parameters[ATEDM_ROUTE_PARAMETERS][i], 'x', "written past the end by %s",
                     path);
    return route ? route->path : NULL;
}

Test(http_route, names_stand_for_segments)
{
    static const atedm_route routes[] = {
        {.path = "/a"}, {.path = "/a/{x}"}, {.path = "/a/{x}/{y}"}, {.path = NULL}};
    cr_assert_str_eq(find(routes, "/a"), "/a");
    cr_assert_str_eq(find(routes, "/a/12"), "/a/{x}");
    cr_assert_str_eq(parameters[0], "12");
    cr_assert_str_eq(find(routes, "/a/b/cd"), "/a/{x}/{y}");
    cr_assert_str_eq(parameters[0], "b");
    cr_assert_str_eq(parameters[1], "cd");
    cr_assert_null(find(routes, "/a/"));
    cr_assert_null(find(routes, "/a/b/"));
    cr_assert_null(find(routes, "/b"));
    char path[ATEDM_ROUTE_PARAMETER_MAX + 4] = "/a/";
    memset(path + 3, 'b', ATEDM_ROUTE_PARAMETER_MAX);
    cr_assert_null(find(routes, path));
    path[3 + ATEDM_ROUTE_PARAMETER_MAX - 1] = '\0';
    cr_assert_str_eq(find(routes, path), "/a/{x}");
}

Test(http_route, more_names_than_there_is_room_for)
{
    static const atedm_route routes[] = {{.path = "/a/{x}/{y}/{z}"}, {.path = NULL}};
    cr_assert_null(find(routes, "/a/1/2/3"));
}

Test(http_route, the_table_has_no_more_names)
{
    for (const atedm_route *route = atedm_routes; route->path; route++) {
        size_t names = 0;
        for (const char *c = route->path; *c; c++)
            names += *c == '{';
        cr_assert_leq(names, ATEDM_ROUTE_PARAMETERS, "%s", route->path);
        cr_assert(route->get || route->post || route->remove, "%s", route->path);
    }
}

Test(http_route, allowed_methods)
{
    static const char *const expected[] = {
        "",       "GET, HEAD",         "POST",         "GET, HEAD, POST",
        "DELETE", "GET, HEAD, DELETE", "POST, DELETE", "GET, HEAD, POST, DELETE",
    };
    for (unsigned bits = 0; bits < 8; bits++) {
        const atedm_route route = {.path = "/",
                                   .get = bits & 1 ? handle : NULL,
                                   .post = bits & 2 ? handle : NULL,
                                   .remove = bits & 4 ? handle : NULL};
        char text[ATEDM_ALLOWED_SIZE];
        atedm_route_allowed(&route, text);
        cr_assert_str_eq(text, expected[bits]);
    }
}
