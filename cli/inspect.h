// `atedm inspect`: the parts of a model, and the cost of a request on it. It computes nothing.
#ifndef ATEDM_CLI_INSPECT_H
#define ATEDM_CLI_INSPECT_H

int atedm_cli_inspect(int argc, char **argv);

#endif
