/* Any octets as a segment: reading, auditing and checking the chain never read past a line; what is
 * read in pieces is what is read at once; and a record sealed behind it all follows. */
#define _GNU_SOURCE /* memfd_create */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bh/audit.h"
#include "bh/event_line.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool good)
{
    if (!good) {
        abort();
    }
}

static uint64_t audit(struct bh_slice input, struct bh_audit *a)
{
    struct bh_slice rest = input;
    uint64_t offset = 0;
    struct bh_audit_finding finding;
    for (uint64_t number = 1; rest.len > 0; number++) {
        const size_t end = bh_slice_find(rest, '\n');
        const struct bh_event_line line = {.text = bh_slice_take(rest, end),
                                           .offset = offset,
                                           .number = number,
                                           .whole = end < rest.len,
                                           .segment = "events-2026101205.jsonl"};
        check(bh_audit_line(a, &line, &finding) == BH_OK);
        offset += end + 1;
        rest = bh_slice_skip(rest, end + 1);
    }
    bh_audit_end(a, &finding);
    return a->records;
}

/* The same lines come from a file, but for those that are too long. */
static void read_file(struct bh_slice input, int fd)
{
    struct bh_line_reader lines;
    struct bh_slice line;
    uint64_t at = 0;
    bool whole = false;
    check(bh_lines_open(&lines, fd, 0) == BH_OK);
    while (bh_lines_next(&lines, &line, &at, &whole) == BH_OK) {
        check(at + line.len <= input.len && line.len <= BH_EVENT_LINE_MAX);
        check(memcmp(input.ptr + at, line.ptr, line.len) == 0);
        check(!whole || input.ptr[at + line.len] == '\n');
    }
    bh_lines_close(&lines);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct bh_slice input = bh_slice(data, size);
    struct bh_audit a;
    bh_audit_init(&a, BH_EMPTY, 0, UINT64_MAX);
    const uint64_t records = audit(input, &a);
    check(a.breaks <= size);
    if (records > 0) {
        char text[256] = "{\"evt\":\"ledger\",\"what\":\"end\"}";
        struct bh_buf line = {text, strlen(text), sizeof(text)};
        struct bh_ledger writer = a.ledger;
        const uint64_t breaks = a.breaks;
        check(writer.seq == UINT64_MAX || bh_ledger_seal(&writer, &line) == BH_OK);
        const struct bh_event_line one = {.text = bh_buf_slice(&line), .whole = true};
        struct bh_audit_finding finding;
        check(writer.seq == UINT64_MAX || bh_audit_line(&a, &one, &finding) == BH_OK);
        check(a.breaks == breaks);
    }
    bh_audit_fini(&a);

    const int segment = memfd_create("segment", 0);
    const int index = memfd_create("index", 0);
    check(segment >= 0 && index >= 0);
    check(write(segment, data, size) == (ssize_t)size);
    /* The octets as an index of themselves, too. */
    check(write(index, data, size) == (ssize_t)size);
    check(fcntl(index, F_SETFL, O_APPEND) == 0);
    read_file(input, segment);
    check(bh_index_heal(segment, index) == BH_OK);
    struct bh_index_reader reader;
    uint64_t id = 0;
    uint64_t offset = 0;
    bh_index_open(&reader, index);
    enum bh_status status = BH_OK;
    while (status == BH_OK) {
        status = bh_index_next(&reader, &id, &offset);
    }
    check(status == BH_ENOTFOUND); /* healed is whole */
    close(segment);
    close(index);
    return 0;
}
