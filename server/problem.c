// Error answers: see problem.h.
#include "server/problem.h"

static const struct {
    unsigned status;
    const char *title;
} titles[] = {
    {400, "Bad Request"},           {404, "Not Found"},
    {405, "Method Not Allowed"},    {406, "Not Acceptable"},
    {413, "Content Too Large"},     {415, "Unsupported Media Type"},
    {422, "Unprocessable Content"}, {500, "Internal Server Error"},
    {503, "Service Unavailable"},   {504, "Gateway Timeout"},
};

const char *atedm_problem_title(unsigned status)
{
    for (size_t i = 0; i < sizeof titles / sizeof *titles; i++)
        if (titles[i].status == status)
            return titles[i].title;
    return "Error";
}

json_t *atedm_problem_json(unsigned status, const char *detail, const char *request_id,
                           const atedm_field_errors *errors)
{
    json_t *problem = json_pack("{s:s, s:s, s:i, s:s, s:s}", "type", "about:blank", "title",
                                atedm_problem_title(status), "status", (int)status, "detail",
                                detail, "request_id", request_id);
    if (!problem || !errors || !errors->count)
        return problem;
    json_t *list = json_array();
    for (size_t i = 0; i < errors->count; i++)
        json_array_append_new(list, json_pack("{s:s, s:s}", "pointer", errors->items[i].pointer,
                                              "detail", errors->items[i].detail));
    json_object_set_new(problem, "errors", list);
    return problem;
}
