#include "bh/event_reader.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bh/assert.h"
#include "bh/event_line.h"
#include "bh/ledger.h"

#define PATH_MAX_LEN 4096
#define TAIL_BLOCK ((size_t)1 << 16)

struct bh_event_reader {
    int folder;
    int64_t *hours;
    size_t count, next; /* the segment after the open one */
    uint64_t id;
    uint64_t allowed;

    int segment, index; /* -1: none open */
    char name[BH_SEGMENT_NAME];
    bool by_index;
    struct bh_index_reader entries;
    struct bh_line_reader lines; /* of the scan, or of the line an entry names */
    bool scanning;
    uint64_t number;
    uint64_t after; /* the scan gives lines from here on */
    char text[BH_EVENT_LINE_MAX];
};

enum bh_status bh_event_reader_create(const struct bh_event_query *query,
                                      struct bh_event_reader **result)
{
    char path[PATH_MAX_LEN];
    if (query->folder.len >= sizeof(path)) {
        return BH_ENOTFOUND;
    }
    memcpy(path, query->folder.ptr, query->folder.len);
    path[query->folder.len] = '\0';
    struct bh_event_reader *r = calloc(1, sizeof(*r));
    if (r == NULL) {
        return BH_ENOMEM;
    }
    r->segment = r->index = -1;
    r->id = query->id;
    r->folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (r->folder < 0) {
        const enum bh_status status = errno == ENOENT ? BH_ENOTFOUND : BH_EIO;
        free(r);
        return status;
    }
    const int64_t from = query->from_unix_ms > 0 ? query->from_unix_ms / BH_SEGMENT_MS : 0;
    const enum bh_status status = bh_segment_list(r->folder, from, &r->hours, &r->count);
    if (status != BH_OK) {
        const int saved = errno;
        bh_event_reader_destroy(r);
        errno = saved;
        return status;
    }
    while (r->count > 0 && r->hours[r->count - 1] > query->to_unix_ms / BH_SEGMENT_MS) {
        r->count--;
    }
    *result = r;
    return BH_OK;
}

static void close_segment(struct bh_event_reader *r)
{
    if (r->segment >= 0) {
        close(r->segment);
        r->segment = -1;
    }
    if (r->index >= 0) {
        close(r->index);
        r->index = -1;
    }
    if (r->scanning) {
        bh_lines_close(&r->lines);
        r->scanning = false;
    }
}

void bh_event_reader_destroy(struct bh_event_reader *r)
{
    if (r != NULL) {
        close_segment(r);
        if (r->folder >= 0) {
            close(r->folder);
        }
        free(r->hours);
        free(r);
    }
}

void bh_event_reader_allow(struct bh_event_reader *r, uint64_t octets)
{
    r->allowed = octets;
}

const char *bh_event_reader_segment(const struct bh_event_reader *r)
{
    return r->name;
}

static enum bh_status scan_from(struct bh_event_reader *r, uint64_t offset)
{
    const enum bh_status status = bh_lines_open(&r->lines, r->segment, offset);
    r->scanning = status == BH_OK;
    return status;
}

static enum bh_status open_next(struct bh_event_reader *r)
{
    char index[BH_SEGMENT_NAME];
    if (r->next == r->count) {
        return BH_ENOTFOUND;
    }
    const int64_t hour = r->hours[r->next++];
    r->segment = openat(r->folder, bh_segment_name(hour, r->name), O_RDONLY | O_CLOEXEC);
    if (r->segment < 0) {
        return errno == ENOENT ? BH_OK : BH_EIO; /* its time to go came just now */
    }
    r->number = 0;
    r->after = 0;
    r->by_index = false;
    if (r->id != 0) {
        r->index = openat(r->folder, bh_index_name(hour, index), O_RDONLY | O_CLOEXEC);
        r->by_index = r->index >= 0;
        bh_index_open(&r->entries, r->index);
    }
    return r->by_index ? BH_OK : scan_from(r, 0);
}

static void spend(struct bh_event_reader *r, uint64_t octets)
{
    r->allowed = r->allowed > octets ? r->allowed - octets : 0;
}

/* The line that an entry names. @return false: it is not there, so the index is wrong */
static bool read_at(struct bh_event_reader *r, uint64_t offset, struct bh_event_line *line)
{
    struct bh_slice text;
    uint64_t id = 0;
    const ssize_t got = pread(r->segment, r->text, sizeof(r->text), (off_t)offset);
    if (got <= 0) {
        return false;
    }
    text = bh_slice(r->text, (size_t)got);
    const size_t end = bh_slice_find(text, '\n');
    text = bh_slice_take(text, end);
    if (end == (size_t)got || !bh_event_id(text, &id) || id != r->id) {
        return false;
    }
    spend(r, (uint64_t)got);
    *line =
        (struct bh_event_line){.text = text, .offset = offset, .whole = true, .first = offset == 0};
    return true;
}

/* @return BH_OK: a line; BH_MORE; BH_ENOTFOUND: the index has no more, scan the rest */
static enum bh_status next_indexed(struct bh_event_reader *r, struct bh_event_line *line)
{
    uint64_t id = 0;
    uint64_t offset = 0;
    enum bh_status status = BH_OK;
    while (r->allowed > 0) {
        status = bh_index_next(&r->entries, &id, &offset);
        if (status != BH_OK) {
            break;
        }
        spend(r, BH_INDEX_ENTRY);
        if (id == r->id) {
            if (!read_at(r, offset, line)) {
                status = BH_ECORRUPT;
                break;
            }
            r->after = offset + line->text.len + 1;
            return BH_OK;
        }
    }
    if (status == BH_OK) {
        return BH_MORE;
    }
    /* Behind the last entry nothing is indexed yet; with a wrong index nothing is sure, but what
     * was given is not given again. */
    uint64_t from = 0;
    if (status == BH_ENOTFOUND && r->entries.any) {
        from = r->entries.last;
    }
    r->by_index = false;
    status = scan_from(r, from);
    return status == BH_OK ? BH_ENOTFOUND : status;
}

static enum bh_status next_scanned(struct bh_event_reader *r, struct bh_event_line *line)
{
    while (r->allowed > 0) {
        uint64_t id = 0;
        *line = (struct bh_event_line){.text = BH_EMPTY};
        const enum bh_status status =
            bh_lines_next(&r->lines, &line->text, &line->offset, &line->whole);
        if (status != BH_OK) {
            return status;
        }
        r->number++;
        spend(r, line->text.len + 1);
        if (r->id == 0) {
            line->number = r->number;
            line->first = r->number == 1;
            return BH_OK;
        }
        if (line->offset >= r->after && line->whole && bh_event_id(line->text, &id) &&
            id == r->id) {
            return BH_OK;
        }
    }
    return BH_MORE;
}

enum bh_status bh_event_reader_next(struct bh_event_reader *r, struct bh_event_line *line)
{
    while (true) {
        enum bh_status status = BH_ENOTFOUND;
        if (r->segment >= 0 && r->by_index) {
            status = next_indexed(r, line);
        }
        if (r->segment >= 0 && !r->by_index && status == BH_ENOTFOUND) {
            status = next_scanned(r, line);
        }
        if (status == BH_OK) {
            memcpy(line->segment, r->name, sizeof(line->segment));
        }
        if (status != BH_ENOTFOUND) {
            if (status < 0) {
                close_segment(r);
            }
            return status;
        }
        close_segment(r);
        if (r->allowed == 0) {
            return BH_MORE;
        }
        status = open_next(r);
        if (status != BH_OK) {
            return status;
        }
    }
}

/* ---- the end of the chain ---- */

/* The last record in the octets. */
static bool last_in(struct bh_slice octets, bool from_start, char *text, struct bh_slice *line)
{
    struct bh_slice rest = octets;
    struct bh_ledger ledger;
    bool found = false;
    bool partial = !from_start; /* the first line may have begun before */
    while (rest.len > 0) {
        const size_t end = bh_slice_find(rest, '\n');
        const struct bh_slice one = bh_slice_take(rest, end);
        if (!partial && end > 0 && end < rest.len && one.len <= BH_EVENT_LINE_MAX &&
            bh_ledger_adopt(&ledger, one)) {
            BH_ASSERT(one.ptr != NULL);
            memcpy(text, one.ptr, one.len);
            *line = bh_slice(text, one.len);
            found = true;
        }
        partial = false;
        rest = bh_slice_skip(rest, end + 1);
    }
    return found;
}

static enum bh_status last_of_segment(int fd, char *block, char *text, struct bh_slice *line)
{
    struct stat info;
    if (fstat(fd, &info) != 0) {
        return BH_EIO;
    }
    uint64_t end = (uint64_t)info.st_size;
    while (end > 0) {
        const uint64_t start = end > TAIL_BLOCK ? end - TAIL_BLOCK : 0;
        const ssize_t got = pread(fd, block, (size_t)(end - start), (off_t)start);
        if (got < 0) {
            return BH_EIO;
        }
        if (last_in(bh_slice(block, (size_t)got), start == 0, text, line)) {
            return BH_OK;
        }
        if (start == 0) {
            break;
        }
        end = start + BH_EVENT_LINE_MAX + 1; /* a line across the border is in the next block */
    }
    return BH_ENOTFOUND;
}

enum bh_status bh_event_last_record(int folder, char *text, struct bh_slice *line)
{
    int64_t *hours = NULL;
    size_t count = 0;
    *line = BH_EMPTY;
    enum bh_status status = bh_segment_list(folder, 0, &hours, &count);
    char *block = status == BH_OK ? malloc(TAIL_BLOCK) : NULL;
    if (status == BH_OK && block == NULL) {
        status = BH_ENOMEM;
    } else if (status == BH_OK) {
        status = BH_ENOTFOUND;
    }
    for (size_t i = count; status == BH_ENOTFOUND && i > 0; i--) {
        char name[BH_SEGMENT_NAME];
        const int fd = openat(folder, bh_segment_name(hours[i - 1], name), O_RDONLY | O_CLOEXEC);
        status = fd < 0 ? BH_EIO : last_of_segment(fd, block, text, line);
        if (fd >= 0) {
            close(fd);
        }
    }
    free(block);
    free(hours);
    return status == BH_ENOTFOUND ? BH_OK : status;
}
