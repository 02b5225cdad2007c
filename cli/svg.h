// Panels of a plot as SVG: a frame with axes, a scale, text. What is drawn in them is the caller's.
// A failed write shows in ferror() at the end.
#ifndef ATEDM_CLI_SVG_H
#define ATEDM_CLI_SVG_H

#include "core/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

// Where numbers go. Both axes start at 0.
typedef struct atedm_svg_panel {
    double left, top, width, height; // of the area inside the frame, pixels
    double x_max, y_max;             // values at the right and upper edge, > 0
    double y_last;                   // where the ticks of y end: room for text above; 0: y_max
} atedm_svg_panel;

double atedm_svg_x(const atedm_svg_panel *panel, double value);
double atedm_svg_y(const atedm_svg_panel *panel, double value);
// 1, 2 or 5 times a power of ten: so far apart that about `n` of them make up `span`. For y axes
// whose top shall be a tick, atedm_svg_ceil rounds up to one.
double atedm_svg_step(double span, int n);
double atedm_svg_ceil(double span, int n);

void atedm_svg_begin(FILE *file, int width, int height);
void atedm_svg_end(FILE *file);

// Text as it is meant; what XML gives a meaning is escaped, and what XML forbids becomes '?'.
// style: attributes, as 'text-anchor="end"'.
void atedm_svg_text(FILE *file, double x, double y, const char *style, const char *format, ...)
    ATEDM_PRINTF(5, 6);

// A frame with a title above, ticks, grid lines and both axes' names.
void atedm_svg_axes(FILE *file, const atedm_svg_panel *panel, const char *title, const char *x_name,
                    const char *y_name);
// Ticks at the right edge for another quantity, which is `last` where the panel's ticks end.
void atedm_svg_right_axis(FILE *file, const atedm_svg_panel *panel, double last, const char *name);

typedef struct atedm_svg_key {
    const char *mark; // a character that looks like what it stands for
    const char *color, *name;
} atedm_svg_key;
// In the line of the title, from the right edge.
void atedm_svg_legend(FILE *file, const atedm_svg_panel *panel, const atedm_svg_key *keys,
                      size_t n);
void atedm_svg_cross(FILE *file, double x, double y); // as a piece of a path

#endif
