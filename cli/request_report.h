// What `atedm request` says in the end: of a job's result, and of problems.
#ifndef ATEDM_CLI_REQUEST_REPORT_H
#define ATEDM_CLI_REQUEST_REPORT_H

#include <jansson.h>

// `result` is a job's, each of its images with its `file`. Returns the exit status.
int atedm_request_report_print(const json_t *result);
// A problem (RFC 9457), with a line for each field that it names; `retry_after_s` where it is over
// 0. Returns the exit status: that of wrong usage where a field is wrong.
int atedm_request_report_problem(const json_t *problem, int status, double retry_after_s);

#endif
