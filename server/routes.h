// The table of routes: which handler answers which path and method.
#ifndef ATEDM_ROUTES_H
#define ATEDM_ROUTES_H

#include "server/http.h"

extern const atedm_route atedm_routes[]; // ends with a path of NULL

#endif
