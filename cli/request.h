// `atedm request`: gets a picture from a running daemon.
#ifndef ATEDM_CLI_REQUEST_H
#define ATEDM_CLI_REQUEST_H

int atedm_cli_request(int argc, char **argv);

#endif
