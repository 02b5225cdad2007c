// The report of `atedm request`: a job's result, or a problem.
#ifndef ATEDM_CLI_REQUEST_REPORT_H
#define ATEDM_CLI_REQUEST_REPORT_H

#include <jansson.h>

// Prints a job's result, whose images have been given a "file" each. Returns the exit status.
int atedm_request_report_print(const json_t *result);
// Prints a problem (RFC 9457) to standard error, with a line for each wrong field. status: HTTP
// status, for an answer that is no problem document. retry_after_s: seconds; not shown if 0.
// Returns the exit status, which is that of wrong usage if a field is wrong.
int atedm_request_report_problem(const json_t *problem, int status, double retry_after_s);

#endif
