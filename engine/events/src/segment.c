#define _GNU_SOURCE /* fdopendir's folder is not ours to close */
#include "bh/event_segment.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bh/date.h"
#include "bh/event_line.h"
#include "bh/wire.h"

#define BLOCK_LEN ((size_t)1 << 16)
#define MAGIC "BHEVIDX1"
#define MAGIC_LEN 8
_Static_assert(BLOCK_LEN > BH_EVENT_LINE_MAX, "a line fits a block");

/* ---- names ---- */

static const char *name_of(int64_t hour, const char *ending, char text[BH_SEGMENT_NAME])
{
    const struct bh_date d = bh_date_of(hour * BH_SEGMENT_MS);
    snprintf(text, BH_SEGMENT_NAME, "events-%04d%02d%02d%02d%.8s", d.year % 10000, d.month % 100,
             d.day % 100, d.hour % 100, ending);
    return text;
}

const char *bh_segment_name(int64_t hour, char text[BH_SEGMENT_NAME])
{
    return name_of(hour, ".jsonl", text);
}

const char *bh_index_name(int64_t hour, char text[BH_SEGMENT_NAME])
{
    return name_of(hour, ".idx", text);
}

static bool number_of(struct bh_slice text, size_t at, size_t len, int *value)
{
    uint64_t number = 0;
    const bool good = bh_slice_u64(bh_slice_take(bh_slice_skip(text, at), len), 9999, &number);
    *value = (int)number;
    return good;
}

bool bh_segment_parse(const char *name, int64_t *hour)
{
    const struct bh_slice text = bh_slice_str(name);
    char again[BH_SEGMENT_NAME];
    struct bh_date d = {0};
    if (text.len != strlen("events-2026112322.jsonl") || !number_of(text, 7, 4, &d.year) ||
        !number_of(text, 11, 2, &d.month) || !number_of(text, 13, 2, &d.day) ||
        !number_of(text, 15, 2, &d.hour)) {
        return false;
    }
    *hour = bh_date_unix_ms(&d) / BH_SEGMENT_MS;
    return strcmp(bh_segment_name(*hour, again), name) == 0;
}

static int by_hour(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a;
    const int64_t y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

enum bh_status bh_segment_list(int folder, int64_t from_hour, int64_t **hours, size_t *count)
{
    const int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    size_t cap = 0;
    *hours = NULL;
    *count = 0;
    if (dir == NULL) {
        const enum bh_status status = errno == ENOENT ? BH_ENOTFOUND : BH_EIO;
        if (fd >= 0) {
            close(fd);
        }
        return status;
    }
    for (const struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        int64_t hour = 0;
        if (!bh_segment_parse(e->d_name, &hour) || hour < from_hour) {
            continue;
        }
        if (*count == cap) {
            cap = cap > 0 ? cap * 2 : 64;
            int64_t *more = realloc(*hours, cap * sizeof(*more));
            if (more == NULL) {
                closedir(dir);
                free(*hours);
                *hours = NULL;
                return BH_ENOMEM;
            }
            *hours = more;
        }
        (*hours)[(*count)++] = hour;
    }
    closedir(dir);
    if (*count > 0) {
        qsort(*hours, *count, sizeof(**hours), by_hour);
    }
    return BH_OK;
}

/* ---- lines ---- */

enum bh_status bh_lines_open(struct bh_line_reader *r, int fd, uint64_t offset)
{
    *r = (struct bh_line_reader){.fd = fd, .offset = offset, .block = malloc(BLOCK_LEN)};
    return r->block != NULL ? BH_OK : BH_ENOMEM;
}

void bh_lines_close(struct bh_line_reader *r)
{
    free(r->block);
    r->block = NULL;
}

/* @return BH_OK, BH_ENOTFOUND: no more octets, BH_EIO */
static enum bh_status fill(struct bh_line_reader *r)
{
    memmove(r->block, r->block + r->start, r->len - r->start);
    r->offset += r->start;
    r->len -= r->start;
    r->start = 0;
    const ssize_t got =
        pread(r->fd, r->block + r->len, BLOCK_LEN - r->len, (off_t)(r->offset + r->len));
    if (got < 0) {
        return errno == EINTR ? BH_OK : BH_EIO;
    }
    r->len += (size_t)got;
    return got > 0 ? BH_OK : BH_ENOTFOUND;
}

enum bh_status bh_lines_next(struct bh_line_reader *r, struct bh_slice *line, uint64_t *offset,
                             bool *whole)
{
    while (true) {
        const struct bh_slice rest = bh_slice(r->block + r->start, r->len - r->start);
        const size_t end = bh_slice_find(rest, '\n');
        const bool found = end < rest.len;
        if (found || rest.len > BH_EVENT_LINE_MAX) {
            const size_t len = end < BH_EVENT_LINE_MAX ? end : BH_EVENT_LINE_MAX;
            const bool given = r->skipping; /* its beginning was */
            *line = bh_slice_take(rest, len);
            *offset = r->offset + r->start;
            *whole = found && end <= BH_EVENT_LINE_MAX;
            r->start += found ? end + 1 : rest.len;
            r->skipping = !found;
            if (!given) {
                return BH_OK;
            }
            continue;
        }
        const enum bh_status status = fill(r);
        if (status == BH_ENOTFOUND && r->len > r->start && !r->skipping) {
            *line = bh_slice(r->block + r->start, r->len - r->start);
            *offset = r->offset + r->start;
            *whole = false;
            r->start = r->len;
            return BH_OK;
        }
        if (status != BH_OK) {
            return status;
        }
    }
}

/* ---- indexes ---- */

void bh_index_entry(char out[BH_INDEX_ENTRY], uint64_t id, uint64_t offset)
{
    bh_put_be64(out, id);
    bh_put_be64(out + 8, offset);
}

void bh_index_open(struct bh_index_reader *r, int fd)
{
    *r = (struct bh_index_reader){.fd = fd};
}

enum bh_status bh_index_next(struct bh_index_reader *r, uint64_t *id, uint64_t *offset)
{
    if (r->at == 0) {
        char magic[MAGIC_LEN];
        const ssize_t got = pread(r->fd, magic, sizeof(magic), 0);
        if (got != (ssize_t)sizeof(magic) || memcmp(magic, MAGIC, sizeof(magic)) != 0) {
            return BH_ECORRUPT;
        }
        r->at = MAGIC_LEN;
    }
    if (r->next + BH_INDEX_ENTRY > r->have) {
        const ssize_t got = pread(r->fd, r->block, sizeof(r->block), (off_t)r->at);
        r->next = 0;
        r->have = got > 0 ? (size_t)got / BH_INDEX_ENTRY * BH_INDEX_ENTRY : 0;
        if (r->have == 0) {
            return got == 0 ? BH_ENOTFOUND : BH_ECORRUPT; /* half an entry */
        }
        r->at += r->have;
    }
    const char *entry = r->block + r->next;
    *id = bh_get_be64(entry);
    *offset = bh_get_be64(entry + 8);
    r->next += BH_INDEX_ENTRY;
    if (r->any && *offset <= r->last) {
        return BH_ECORRUPT;
    }
    r->any = true;
    r->last = *offset;
    return BH_OK;
}

static bool write_all(int fd, const char *octets, size_t len)
{
    while (len > 0) {
        const ssize_t done = write(fd, octets, len);
        if (done <= 0 && errno != EINTR) {
            return false;
        }
        octets += done > 0 ? done : 0;
        len -= done > 0 ? (size_t)done : 0;
    }
    return true;
}

/* Is there a line of this id? Then *offset moves behind it. */
static bool line_has(int segment, uint64_t id, uint64_t *offset)
{
    struct bh_line_reader lines;
    struct bh_slice line = BH_EMPTY;
    uint64_t found = 0;
    uint64_t at = 0;
    bool whole = false;
    if (bh_lines_open(&lines, segment, *offset) != BH_OK) {
        return false;
    }
    const bool right = bh_lines_next(&lines, &line, &at, &whole) == BH_OK && whole &&
                       bh_event_id(line, &found) && found == id;
    *offset += line.len + 1;
    bh_lines_close(&lines);
    return right;
}

/* Entries that are not what they say end the index; the last is looked at, since the index may be
 * that of another file, or longer than its segment.
 * @param offset  where the lines behind those indexed begin
 * @return the length of what is good of it */
static uint64_t check_index(int segment, int index, uint64_t *offset)
{
    struct bh_index_reader r;
    uint64_t id = 0;
    uint64_t last_id = 0;
    uint64_t at = 0;
    uint64_t good = 0;
    bh_index_open(&r, index);
    *offset = 0;
    while (bh_index_next(&r, &id, &at) == BH_OK) {
        last_id = id;
        *offset = at;
        good = r.at - (r.have - r.next);
    }
    return good > 0 && line_has(segment, last_id, offset) ? good : 0;
}

enum bh_status bh_index_heal(int segment, int index)
{
    uint64_t offset = 0;
    uint64_t good = check_index(segment, index, &offset);
    if (good == 0) {
        offset = 0;
    }
    if (ftruncate(index, (off_t)good) != 0 || (good == 0 && !write_all(index, MAGIC, MAGIC_LEN))) {
        return BH_EIO;
    }
    struct bh_line_reader lines;
    enum bh_status status = bh_lines_open(&lines, segment, offset);
    while (status == BH_OK) {
        struct bh_slice line;
        uint64_t at = 0;
        uint64_t id = 0;
        bool whole = false;
        status = bh_lines_next(&lines, &line, &at, &whole);
        if (status == BH_OK && whole && bh_event_id(line, &id)) {
            char entry[BH_INDEX_ENTRY];
            bh_index_entry(entry, id, at);
            status = write_all(index, entry, sizeof(entry)) ? BH_OK : BH_EIO;
        }
    }
    bh_lines_close(&lines);
    return status == BH_ENOTFOUND ? BH_OK : status;
}
