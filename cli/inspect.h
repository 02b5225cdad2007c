// `atedm inspect`: what a model is made of, and what a request on it costs; nothing is computed.
#ifndef ATEDM_CLI_INSPECT_H
#define ATEDM_CLI_INSPECT_H

int atedm_cli_inspect(int argc, char **argv);

#endif
