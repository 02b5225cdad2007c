// Panels of a plot as SVG: see svg.h.
#include "cli/svg.h"

#include "core/base/utf8.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

#define INK "#24292f"
#define GRAY "#6e7781"
#define GRID "#e4e7eb"
#define TICKS_X 10
#define TICKS_Y 5

double atedm_svg_x(const atedm_svg_panel *panel, double value)
{
    return panel->left + value / panel->x_max * panel->width;
}

double atedm_svg_y(const atedm_svg_panel *panel, double value)
{
    return panel->top + panel->height - value / panel->y_max * panel->height;
}

double atedm_svg_step(double span, int n)
{
    double raw = span / n;
    double power = pow(10, floor(log10(raw)));
    double digit = raw / power; // 1..10
    return (digit < 1.5 ? 1 : digit < 3.5 ? 2 : digit < 7.5 ? 5 : 10) * power;
}

double atedm_svg_ceil(double span, int n)
{
    double step = atedm_svg_step(span, n);
    return ceil(span / step - 1e-9) * step;
}

void atedm_svg_begin(FILE *file, int width, int height)
{
    fprintf(file,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
            "viewBox=\"0 0 %d %d\" font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\" "
            "font-size=\"12\" fill=\"" INK "\">\n"
            "<rect width=\"%d\" height=\"%d\" fill=\"white\"/>\n",
            width, height, width, height, width, height);
}

void atedm_svg_end(FILE *file)
{
    fputs("</svg>\n", file);
}

static void put_escaped(FILE *file, const char *text)
{
    size_t size = strlen(text), valid = atedm_utf8_valid_prefix(text, size);
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '&')
            fputs("&amp;", file);
        else if (text[i] == '<')
            fputs("&lt;", file);
        else if (text[i] == '>')
            fputs("&gt;", file);
        else
            fputc(i < valid && (unsigned char)text[i] >= ' ' ? text[i] : '?', file);
    }
}

void atedm_svg_text(FILE *file, double x, double y, const char *style, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(file, "<text x=\"%.1f\" y=\"%.1f\" %s>", x, y, style);
    put_escaped(file, text);
    fputs("</text>\n", file);
}

static void line(FILE *file, double x1, double y1, double x2, double y2, const char *color)
{
    fprintf(file, "<path d=\"M%.1f %.1fL%.1f %.1f\" stroke=\"%s\" fill=\"none\"/>\n", x1, y1, x2,
            y2, color);
}

void atedm_svg_axes(FILE *file, const atedm_svg_panel *panel, const char *title, const char *x_name,
                    const char *y_name)
{
    double bottom = panel->top + panel->height, right = panel->left + panel->width;
    double x_step = atedm_svg_step(panel->x_max, TICKS_X);
    double y_last = panel->y_last > 0 ? panel->y_last : panel->y_max;
    double y_step = atedm_svg_step(y_last, TICKS_Y);
    for (int i = 0; i * x_step <= panel->x_max * (1 + 1e-9); i++) {
        double x = atedm_svg_x(panel, i * x_step);
        line(file, x, panel->top, x, bottom, GRID);
        atedm_svg_text(file, x, bottom + 16, "text-anchor=\"middle\" fill=\"" GRAY "\"", "%.6g",
                       i * x_step);
    }
    for (int i = 0; i * y_step <= y_last * (1 + 1e-9); i++) {
        double y = atedm_svg_y(panel, i * y_step);
        line(file, panel->left, y, right, y, GRID);
        atedm_svg_text(file, panel->left - 8, y + 4, "text-anchor=\"end\" fill=\"" GRAY "\"",
                       "%.6g", i * y_step);
    }
    line(file, panel->left, bottom, right, bottom, GRAY);
    line(file, panel->left, panel->top, panel->left, bottom, GRAY);
    atedm_svg_text(file, panel->left, panel->top - 12, "font-size=\"14\" font-weight=\"bold\"",
                   "%s", title);
    atedm_svg_text(file, right, bottom + 34, "text-anchor=\"end\" fill=\"" GRAY "\"", "%s", x_name);
    char turn[96];
    double x = panel->left - 48, y = panel->top + panel->height / 2;
    snprintf(turn, sizeof turn,
             "text-anchor=\"middle\" fill=\"" GRAY "\" transform=\"rotate(-90 %.1f %.1f)\"", x, y);
    atedm_svg_text(file, x, y, turn, "%s", y_name);
}

void atedm_svg_right_axis(FILE *file, const atedm_svg_panel *panel, double last, const char *name)
{
    double right = panel->left + panel->width, step = atedm_svg_step(last, TICKS_Y);
    double scale = (panel->y_last > 0 ? panel->y_last : panel->y_max) / last;
    for (int i = 0; i * step <= last * (1 + 1e-9); i++)
        atedm_svg_text(file, right + 8, atedm_svg_y(panel, i * step * scale) + 4,
                       "fill=\"" GRAY "\"", "%.6g", i * step);
    line(file, right, panel->top, right, panel->top + panel->height, GRAY);
    char turn[96];
    double x = right + 48, y = panel->top + panel->height / 2;
    snprintf(turn, sizeof turn,
             "text-anchor=\"middle\" fill=\"" GRAY "\" transform=\"rotate(90 %.1f %.1f)\"", x, y);
    atedm_svg_text(file, x, y, turn, "%s", name);
}

void atedm_svg_cross(FILE *file, double x, double y)
{
    fprintf(file, "M%.1f %.1fl6 6m0 -6l-6 6", x - 3, y - 3);
}

void atedm_svg_legend(FILE *file, const atedm_svg_panel *panel, const atedm_svg_key *keys, size_t n)
{
    // One text: whatever the font, nothing overlaps.
    fprintf(file, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">", panel->left + panel->width,
            panel->top - 12);
    for (size_t i = 0; i < n; i++)
        fprintf(file,
                "<tspan dx=\"%d\" fill=\"%s\" font-weight=\"bold\">%s</tspan>"
                "<tspan dx=\"6\">%s</tspan>",
                i ? 18 : 0, keys[i].color, keys[i].mark, keys[i].name);
    fputs("</text>\n", file);
}
