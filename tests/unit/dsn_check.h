/* dsn_check.h - a small strict reader of reports for tests and fuzzing: it knows only what RFC
 * 2045, 6522 and 3464 demand of any report, not how ours are written. */
#pragma once

#include <stdio.h>

#include "bh/slice.h"

struct dsn_parts {
    struct bh_slice header;
    struct bh_slice parts[3]; /* each with its own header */
    const char *wrong;        /* NULL: well-formed */
};

/* The next line with its CRLF, or an empty slice. */
static inline struct bh_slice dsn_line(struct bh_slice *rest)
{
    const size_t end = bh_slice_find(*rest, '\n');
    const struct bh_slice line = bh_slice_take(*rest, end + 1);
    *rest = bh_slice_skip(*rest, line.len);
    return line;
}

/* Every line ends in CRLF, none is too long, no CR, LF or NUL anywhere else. */
static inline const char *dsn_check_lines(struct bh_slice report)
{
    while (report.len > 0) {
        const struct bh_slice line = dsn_line(&report);
        if (line.len < 2 || line.ptr[line.len - 1] != '\n' || line.ptr[line.len - 2] != '\r') {
            return "a line without CRLF";
        }
        if (line.len > 1000) {
            return "a line over 998";
        }
        for (size_t i = 0; i + 2 < line.len; i++) {
            if (line.ptr[i] == '\r' || line.ptr[i] == 0) {
                return "a bare CR or a NUL";
            }
        }
    }
    return NULL;
}

/* Fields "Name: value" and their continuations only, up to the empty line, which is taken too. */
static inline const char *dsn_check_fields(struct bh_slice *rest)
{
    bool first = true;
    while (rest->len > 0) {
        const struct bh_slice line = dsn_line(rest);
        if (bh_slice_eq(line, BH_LIT("\r\n"))) {
            return first ? "no field at all" : NULL;
        }
        const bool continues = line.ptr[0] == ' ' || line.ptr[0] == '\t';
        if (continues && (first || bh_slice_trim(bh_slice_take(line, line.len - 2)).len == 0)) {
            return "an empty or early continuation";
        }
        const size_t colon = bh_slice_find(line, ':');
        for (size_t i = 0; i < colon && !continues; i++) {
            if (line.ptr[i] <= ' ' || line.ptr[i] > '~') {
                return "a field without a name";
            }
        }
        if (!continues && (colon == 0 || colon == line.len)) {
            return "a line that is no field";
        }
        first = false;
    }
    return NULL;
}

static inline bool dsn_delimiter(struct bh_slice line, struct bh_slice boundary, bool last)
{
    const struct bh_slice end = last ? BH_LIT("--\r\n") : BH_LIT("\r\n");
    return bh_slice_starts(line, BH_LIT("--")) &&
           bh_slice_starts(bh_slice_skip(line, 2), boundary) &&
           bh_slice_eq(bh_slice_skip(line, 2 + boundary.len), end);
}

static inline struct bh_slice dsn_boundary(struct bh_slice header)
{
    const struct bh_slice key = BH_LIT("\r\n boundary=\"");
    const struct bh_slice from = bh_slice_skip(header, bh_slice_find_slice(header, key) + key.len);
    return bh_slice_take(from, bh_slice_find(from, '"'));
}

static inline struct dsn_parts dsn_parse(struct bh_slice report)
{
    struct dsn_parts p = {.wrong = dsn_check_lines(report)};
    struct bh_slice rest = report;
    if (p.wrong == NULL) {
        p.wrong = dsn_check_fields(&rest);
    }
    if (p.wrong != NULL) {
        return p;
    }
    p.header = bh_slice(report.ptr, report.len - rest.len);
    const struct bh_slice boundary = dsn_boundary(p.header);
    size_t seen = 0;
    const char *start = rest.ptr;
    bool closed = false;
    while (rest.len > 0 && !closed) {
        const struct bh_slice line = dsn_line(&rest);
        closed = dsn_delimiter(line, boundary, true);
        if (!closed && !dsn_delimiter(line, boundary, false)) {
            continue;
        }
        if (seen > 0 && seen <= 3) {
            /* The CRLF before a delimiter belongs to it. */
            p.parts[seen - 1] = bh_slice(start, (size_t)(line.ptr - start) - 2);
        }
        start = rest.ptr;
        seen++;
    }
    if (seen != 4 || !closed || rest.len > 0) {
        p.wrong = "not exactly three parts";
    }
    return p;
}

/* The body of the status part is groups of fields; as many as recipients, and one. */
static inline const char *dsn_check_status(struct bh_slice part, size_t recipients)
{
    const char *wrong = dsn_check_fields(&part); /* its MIME header */
    size_t groups = 0;
    while (wrong == NULL && part.len > 0) {
        wrong = dsn_check_fields(&part);
        groups++;
    }
    return wrong != NULL ? wrong : groups == recipients + 1 ? NULL : "groups and recipients differ";
}
