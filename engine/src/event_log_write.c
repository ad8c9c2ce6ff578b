/* The lines of the event log, on their way into a segment and its index.
 *
 * Lines that come together are gathered and written in one call; a line is in the file whole or not
 * at all. When the disk takes less than that, each line goes on by itself: records are held, in
 * order, until it takes them; other events are dropped and counted in the next record. */
#include "event_log_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bh/log.h"

int64_t event_wall_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

uint64_t event_mono_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---- octets ---- */

static void failed(struct event_log *log, const char *what)
{
    if (!log->failing) {
        log->failing = true;
        bh_log(BH_LOG_ERROR, "evt=event_log_failed what=\"%s\" error=\"%s\"", what,
               strerror(errno));
    }
}

void event_sync_records(struct event_log *log)
{
    if (log->dirty && log->fd >= 0) {
        (void)fdatasync(
            log->fd); /* a power cut may take the last second; the chain still ends whole */
    }
    log->dirty = false;
    log->synced_ms = event_mono_ms();
}

/* Readers go on without what is not written of it, and it is made whole at the next start. */
void event_write_index(struct event_log *log)
{
    if (log->index >= 0 && log->entries_len > 0 &&
        write(log->index, log->entries, log->entries_len) != (ssize_t)log->entries_len) {
        close(log->index);
        log->index = -1;
    }
    log->entries_len = 0;
}

void event_close_segment(struct event_log *log)
{
    event_write_index(log);
    event_sync_records(log);
    if (log->fd >= 0) {
        close(log->fd);
        log->fd = -1;
    }
    if (log->index >= 0) {
        close(log->index);
        log->index = -1;
    }
}

/* A line with its LF, whole or not at all. */
static bool put_octets(struct event_log *log, const char *text, size_t len)
{
    if (log->broken_off) {
        if (write(log->fd, "\n", 1) != 1) {
            failed(log, "write");
            return false;
        }
        log->broken_off = false;
        log->size++;
    }
    const ssize_t done = write(log->fd, text, len);
    if (done == (ssize_t)len) {
        log->size += len;
        log->failing = false;
        return true;
    }
    errno = done < 0 ? errno : ENOSPC;
    failed(log, "write");
    if (done > 0 && ftruncate(log->fd, (off_t)log->size) != 0) {
        log->broken_off = true;
        log->size += (size_t)done;
    }
    return false;
}

static void put_index(struct event_log *log, struct bh_slice line, uint64_t offset)
{
    uint64_t id = 0;
    if (log->index < 0 || !bh_event_id(line, &id)) {
        return;
    }
    bh_index_entry(log->entries + log->entries_len, id, offset);
    log->entries_len += BH_INDEX_ENTRY;
    if (log->entries_len == sizeof(log->entries)) {
        event_write_index(log);
    }
}

/* ---- records ---- */

static struct bh_json begin_line(struct event_log *log, const char *what)
{
    struct bh_json json = {.buf = bh_buf(log->text, EVENT_MAX)};
    bh_json_begin_object(&json);
    bh_json_key(&json, "time");
    bh_json_i64(&json, event_wall_ms());
    bh_json_key(&json, "evt");
    bh_json_cstr(&json, "ledger");
    bh_json_key(&json, "what");
    bh_json_cstr(&json, what);
    return json;
}

/* What is missing before the record stands in it. */
static void add_gap(struct bh_buf *line, const char *key, unsigned long long count)
{
    if (count > 0) {
        line->len--; /* the closing brace */
        const enum bh_status status = bh_buf_printf(line, ",\"%s\":%llu}", key, count);
        BH_ASSERT(status == BH_OK);
    }
}

/* The object in log->text, sealed and written. The chain goes on only if it was. */
static bool put_record(struct event_log *log, size_t len)
{
    struct bh_buf line = {log->text, len, sizeof(log->text) - 1};
    struct bh_ledger next = log->ledger;
    const unsigned long long lost = atomic_load(&log->lost);
    const unsigned long long dropped = atomic_load(&log->dropped);
    add_gap(&line, "lost", lost);
    add_gap(&line, "dropped", dropped);
    const enum bh_status status = bh_ledger_seal(&next, &line);
    BH_ASSERT(status == BH_OK);
    const struct bh_slice record = bh_buf_slice(&line);
    const uint64_t offset = log->size + (log->broken_off ? 1 : 0);
    log->text[line.len] = '\n';
    if (!put_octets(log, log->text, line.len + 1)) {
        return false;
    }
    put_index(log, record, offset);
    log->ledger = next;
    log->dirty = true;
    atomic_fetch_sub(&log->lost, lost);
    atomic_fetch_sub(&log->dropped, dropped);
    return true;
}

static bool put_note(struct event_log *log, struct bh_json *json)
{
    bh_json_end_object(json);
    BH_ASSERT(!json->overflow);
    return put_record(log, json->buf.len);
}

/* ---- segments ---- */

static int open_index(struct event_log *log)
{
    char name[BH_SEGMENT_NAME];
    const int flags = O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC;
    const int fd = openat(log->folder, bh_index_name(log->hour, name), flags, 0640);
    if (fd >= 0 && bh_index_heal(log->fd, fd) != BH_OK) {
        close(fd);
        return -1;
    }
    return fd;
}

static bool open_segment(struct event_log *log)
{
    char name[BH_SEGMENT_NAME];
    char head[BH_LEDGER_HEX];
    struct stat info;
    const int64_t hour = event_wall_ms() / BH_SEGMENT_MS;
    log->hour = hour > log->hour ? hour : log->hour;
    log->fd = openat(log->folder, bh_segment_name(log->hour, name),
                     O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    if (log->fd < 0 || fstat(log->fd, &info) != 0) {
        failed(log, name);
        event_close_segment(log);
        return false;
    }
    log->size = (uint64_t)info.st_size;
    char last = '\n';
    log->broken_off =
        log->size > 0 && pread(log->fd, &last, 1, info.st_size - 1) == 1 && last != '\n';
    log->index = open_index(log);
    if (log->size == 0) {
        struct bh_json json = begin_line(log, "segment");
        bh_json_key(&json, "prev");
        bh_json_cstr(&json, bh_ledger_head_text(&log->ledger, head));
        if (!put_note(log, &json)) {
            event_close_segment(log);
            return false;
        }
    }
    return true;
}

static bool ready(struct event_log *log, int64_t unix_ms)
{
    if (log->fd >= 0 && unix_ms / BH_SEGMENT_MS > log->hour) {
        event_close_segment(log);
        log->kept_ms = 0; /* a good time to look at what is to go */
    }
    return log->fd >= 0 || open_segment(log);
}

/* Does the last segment end within a line? Then that line gets its LF and is accounted for. */
static void mark_torn(struct event_log *log, struct bh_json *json)
{
    struct stat info;
    struct bh_line_reader lines;
    struct bh_slice line;
    char name[BH_SEGMENT_NAME];
    uint64_t at = 0;
    bool whole = true;
    const int fd =
        openat(log->folder, bh_segment_name(log->hour, name), O_RDWR | O_APPEND | O_CLOEXEC);
    if (fd < 0) {
        return;
    }
    char last = '\n';
    if (fstat(fd, &info) == 0 && info.st_size > 0 && pread(fd, &last, 1, info.st_size - 1) == 1 &&
        last != '\n') {
        const off_t back = info.st_size > BH_EVENT_LINE_MAX ? info.st_size - BH_EVENT_LINE_MAX : 0;
        if (bh_lines_open(&lines, fd, (uint64_t)back) == BH_OK) {
            while (bh_lines_next(&lines, &line, &at, &whole) == BH_OK && whole) {
            }
            bh_lines_close(&lines);
        }
        if (!whole && write(fd, "\n", 1) == 1) {
            bh_json_key(json, "torn_in");
            bh_json_cstr(json, name);
            bh_json_key(json, "torn_at");
            bh_json_u64(json, at);
            bh_log(BH_LOG_WARN, "evt=event_log_torn segment=%s at=%llu", name,
                   (unsigned long long)at);
        }
    }
    close(fd);
}

/* The first record of a process. */
void event_begin_process(struct event_log *log)
{
    struct bh_json json = begin_line(log, "begin");
    char text[EVENT_MAX];
    if (log->hour > 0) {
        mark_torn(log, &json);
    }
    /* Opening a segment writes a record of its own, by the same room. */
    const struct bh_slice object = bh_buf_slice(&json.buf);
    memcpy(text, object.ptr, object.len);
    if (!ready(log, event_wall_ms())) {
        atomic_fetch_add(&log->lost, 1);
        return;
    }
    memcpy(log->text, text, object.len);
    json.buf = (struct bh_buf){log->text, object.len, EVENT_MAX};
    if (!put_note(log, &json)) {
        atomic_fetch_add(&log->lost, 1);
    }
}

void event_end_process(struct event_log *log)
{
    if (ready(log, 0)) {
        struct bh_json json = begin_line(log, "end");
        (void)put_note(log, &json);
    }
    event_close_segment(log);
}

/* ---- lines ---- */

static bool write_record(struct event_log *log, struct line *line)
{
    if (!ready(log, line->unix_ms)) {
        return false;
    }
    memcpy(log->text, line->text, line->len);
    if (!put_record(log, line->len)) {
        return false;
    }
    atomic_fetch_sub(&log->waiting_bytes, line->bytes);
    free(line);
    return true;
}

static void hold(struct event_log *log, struct line *line)
{
    line->letter.next = NULL;
    *log->held_end = &line->letter;
    log->held_end = &line->letter.next;
}

/* @return false: the disk does not take them yet */
bool event_write_held(struct event_log *log)
{
    while (log->held != NULL) {
        struct line *line = (struct line *)(void *)log->held;
        struct bh_letter *next = log->held->next;
        if (!write_record(log, line)) {
            return false;
        }
        log->held = next;
    }
    log->held_end = &log->held;
    return true;
}

static void on_record(struct event_log *log, struct line *line)
{
    if (!event_write_held(log) || !write_record(log, line)) {
        hold(log, line);
    }
}

static void on_line(struct event_log *log, struct line *line)
{
    bool done = log->held == NULL && ready(log, line->unix_ms);
    if (done) {
        const uint64_t offset = log->size + (log->broken_off ? 1 : 0);
        const struct bh_slice text = bh_slice(line->text, line->len);
        line->text[line->len] = '\n';
        done = put_octets(log, line->text, line->len + 1);
        if (done) {
            put_index(log, text, offset);
        }
    }
    if (!done) {
        atomic_fetch_add(&log->dropped, 1);
    }
    free(line);
}

/* ---- many lines in one write: each by itself cost the CPU of a tenth of a message ---- */

/* The first `done` octets of what was gathered are in the file: so are the lines that are whole in
 * them. @return octets of those */
static size_t take_written(struct event_log *log, size_t done)
{
    size_t at = 0;
    while (log->gathered_first != NULL) {
        struct line *line = (struct line *)(void *)log->gathered_first;
        if (at + line->written > done) {
            break;
        }
        put_index(log, bh_slice(line->text, line->len), log->size);
        if (line->letter.kind == LETTER_RECORD) {
            const bool good =
                bh_ledger_adopt(&log->ledger, bh_slice(log->gathered + at, line->written - 1));
            BH_ASSERT(good);
            log->dirty = true;
            atomic_fetch_sub(&log->waiting_bytes, line->bytes);
        }
        at += line->written;
        log->size += line->written;
        log->gathered_first = line->letter.next;
        free(line);
    }
    return at;
}

static void write_alone(struct event_log *log, struct line *line)
{
    if (line->letter.kind == LETTER_RECORD) {
        on_record(log, line);
    } else {
        on_line(log, line);
    }
}

/* What the disk did not take goes on one by one, and is held or dropped there. */
void event_write_gathered(struct event_log *log)
{
    if (log->gathered_len == 0) {
        return;
    }
    const ssize_t got = write(log->fd, log->gathered, log->gathered_len);
    const size_t done = got > 0 ? (size_t)got : 0;
    const size_t whole = take_written(log, done);
    log->gathered_len = 0;
    struct bh_letter *letter = log->gathered_first;
    if (letter == NULL) {
        log->failing = false;
        return;
    }
    errno = got < 0 ? errno : ENOSPC; /* a short write does not say why */
    failed(log, "write");
    if (done > whole && ftruncate(log->fd, (off_t)log->size) != 0) {
        log->broken_off = true;
        log->size += done - whole;
    }
    while (letter != NULL) {
        struct bh_letter *next = letter->next;
        write_alone(log, (struct line *)(void *)letter);
        letter = next;
    }
}

/* @return false: not now, it is to be written alone, behind those that are gathered */
static bool gather_line(struct event_log *log, struct line *line)
{
    const size_t most = line->len + BH_LEDGER_SEAL + 1;
    if (log->gathered_len + most > sizeof(log->gathered)) {
        event_write_gathered(log);
    }
    if (log->fd < 0 || line->unix_ms / BH_SEGMENT_MS > log->hour || log->broken_off ||
        log->held != NULL || atomic_load(&log->lost) > 0 || atomic_load(&log->dropped) > 0) {
        return false;
    }
    if (log->gathered_len == 0) {
        log->gathered_end = &log->gathered_first;
        log->gathered_ledger = log->ledger;
    }
    struct bh_buf out = bh_buf(log->gathered + log->gathered_len, most);
    bh_buf_put(&out, bh_slice(line->text, line->len));
    if (line->letter.kind == LETTER_RECORD) {
        const enum bh_status status = bh_ledger_seal(&log->gathered_ledger, &out);
        BH_ASSERT(status == BH_OK);
    }
    bh_buf_put_char(&out, '\n');
    line->written = out.len;
    line->letter.next = NULL;
    log->gathered_len += out.len;
    *log->gathered_end = &line->letter;
    log->gathered_end = &line->letter.next;
    return true;
}

void event_take_line(struct event_log *log, struct line *line)
{
    if (!gather_line(log, line)) {
        event_write_gathered(log);
        write_alone(log, line);
    }
}
