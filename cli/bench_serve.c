// `atedm bench serve`: options, load, results. load_*.h are its parts; load_run.h is the central
// one.
#include "cli/bench_serve.h"

#include "cli/cli.h"
#include "cli/load_options.h"
#include "cli/load_plot.h"
#include "cli/load_report.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Whether the file can be written: an error is better reported before the run than after it. The
// file's content stays until then.
static bool can_write(const char *path)
{
    FILE *file = path ? fopen(path, "ae") : NULL;
    if (file)
        fclose(file);
    else if (path)
        fprintf(stderr, "atedm bench serve: %s: %s\n", path, strerror(errno));
    return file || !path;
}

static atedm_status write_json(const char *path, const json_t *report, atedm_error *err)
{
    FILE *file = fopen(path, "we");
    int failed = !file || json_dumpf(report, file, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    failed = failed || fputc('\n', file) == EOF;
    if (file)
        failed |= fclose(file);
    return failed ? atedm_error_set(err, ATEDM_ERR_IO, "%s: cannot be written", path) : ATEDM_OK;
}

// Writes every report that was asked for, as far as possible. Returns the exit status.
static int report(const atedm_load_options *options, const atedm_load_record *record,
                  const atedm_load_stats *stats)
{
    atedm_error err = {""};
    json_t *json = atedm_load_report_json(&options->plan, record, stats);
    int result = 0;
    if (!options->json)
        atedm_load_report_table(&options->plan, record, stats);
    if (!json)
        result = atedm_cli_failed("bench serve", &(atedm_error){"no memory for the report"});
    else if (options->output && write_json(options->output, json, &err))
        result = atedm_cli_failed("bench serve", &err);
    if (options->plot && atedm_load_plot_write(options->plot, &options->plan, record, stats, &err))
        result = atedm_cli_failed("bench serve", &err);
    if (options->json && json && atedm_cli_print_json("bench serve", json_incref(json)))
        result = ATEDM_EXIT_FAILED;
    if (!options->json && fflush(stdout))
        result = atedm_cli_failed("bench serve", &(atedm_error){"the report was not written"});
    json_decref(json);
    if (!stats->ok || (options->fail_on_errors && stats->failed))
        result = ATEDM_EXIT_FAILED;
    return result;
}

int atedm_bench_serve(int argc, char **argv)
{
    atedm_error err = {""};
    int result = ATEDM_EXIT_FAILED;
    atedm_load_record record = {.n = 0};
    atedm_load_options *options = calloc(1, sizeof *options);
    atedm_load_stats *stats = calloc(1, sizeof *stats);
    if (!options || !stats)
        result = atedm_cli_failed("bench serve", &(atedm_error){"no memory"});
    else if (atedm_load_options_parse(argc, argv, options, &result)) {
        if (!can_write(options->output) || !can_write(options->plot))
            result = ATEDM_EXIT_FAILED;
        else if (atedm_load_run(&options->plan, &record, &err))
            result = atedm_cli_failed("bench serve", &err);
        else if (atedm_load_stats_make(&options->plan, &record, stats))
            result = atedm_cli_failed("bench serve", &(atedm_error){"no memory for the report"});
        else
            result = report(options, &record, stats);
        atedm_load_options_finish(options);
    }
    atedm_load_record_finish(&record);
    free(stats);
    free(options);
    return result;
}
