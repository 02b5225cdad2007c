// `atedm bench`: picks what is to be timed, and runs it.
#include "cli/bench_options.h"
#include "cli/bench_report.h"
#include "cli/bench_serve.h"
#include "cli/bench_step.h"
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int bench_step(int argc, char **argv)
{
    atedm_bench_options options;
    atedm_error err = {""};
    atedm_model_config config;
    int result;
    if (!atedm_bench_options_parse(argc, argv, &options, &result))
        return result;
    atedm_status status = options.model ? atedm_model_config_read(options.model, &config, &err)
                                        : atedm_model_config_from_arch(options.arch, &config, &err);
    if (status)
        return atedm_cli_failed("bench step", &err);
    if (!atedm_bench_options_check_sizes(&options, &config))
        return ATEDM_EXIT_USAGE;
    atedm_device *device = NULL;
    atedm_dtype dtype;
    status = options.dry
                 ? atedm_cli_open_dry(options.dtype, &device, &dtype, &err)
                 : atedm_cli_open_device(options.backend, options.dtype, &device, &dtype, &err);
    if (status)
        return atedm_cli_failed("bench step", &err);
    atedm_bench_report *report = calloc(1, sizeof *report);
    if (report) {
        report->options = &options;
        report->config = &config;
        report->backend = atedm_device_backend(device);
        report->dtype = dtype;
        report->vae_dtype = dtype == ATEDM_F16 ? ATEDM_F32 : dtype; // as atedm_model_open has it
        status = atedm_bench_step_run(report, device, &err);
    } else {
        status = atedm_error_set(&err, ATEDM_ERR_NOMEM, "no memory for a report");
    }
    result = status ? atedm_cli_failed("bench step", &err) : atedm_bench_report_print(report);
    free(report);
    atedm_device_destroy(device);
    return result;
}

int atedm_cli_bench(int argc, char **argv)
{
    static char step_title[] = "atedm bench step"; // what getopt puts before its messages
    static char serve_title[] = "atedm bench serve";
    if (argc > 1 && strcmp(argv[1], "step") == 0) {
        argv[1] = step_title;
        return bench_step(argc - 1, argv + 1);
    }
    if (argc > 1 && strcmp(argv[1], "serve") == 0) {
        argv[1] = serve_title;
        return atedm_bench_serve(argc - 1, argv + 1);
    }
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        puts("usage: atedm bench step [OPTION...]\n"
             "       atedm bench serve [OPTION...]\n\n"
             "  step   time stages and denoising steps in this process\n"
             "  serve  put load on a running daemon");
        return 0;
    }
    if (argc > 1 && strcmp(argv[1], "--version") == 0) {
        atedm_cli_print_version();
        return 0;
    }
    return atedm_cli_usage("bench", argc > 1 ? "there is no benchmark \"%s\"" : "which benchmark?",
                           argc > 1 ? argv[1] : "");
}
