// `atedm bench serve`: load on a running daemon.
#ifndef ATEDM_CLI_BENCH_SERVE_H
#define ATEDM_CLI_BENCH_SERVE_H

int atedm_bench_serve(int argc, char **argv); // returns the exit status

#endif
