#include "event_log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bh/event_line.h"
#include "bh/event_reader.h"
#include "bh/ledger.h"
#include "bh/log.h"
#include "bh/mailbox.h"
#include "bh/queue_id.h"

#define LINES_MAX 65536
#define BYTES_MAX ((size_t)32 << 20)
#define RECORDS_BYTES_MAX ((size_t)128 << 20) /* records that wait for the writer or the disk */
#define RETRY_MS 1000                         /* a full disk; and how long a sync may wait */
#define GATHER_MS 2                           /* lines that come within it are taken together */
#define UPKEEP_MS 600000                      /* looks at what is to go */

enum { LETTER_LINE, LETTER_RECORD, LETTER_REOPEN, LETTER_STOP };

struct line {
    struct bh_letter letter;
    int64_t unix_ms;
    size_t len; /* of the object, without LF */
    size_t bytes;
    char text[];
};

struct event_log {
    struct bh_mailbox *box;
    pthread_t thread;
    atomic_ullong dropped;       /* ordinary events, since the last record */
    atomic_ullong lost;          /* records, likewise */
    atomic_size_t waiting_bytes; /* of records */
    atomic_ullong keep_ms, size_max;
    struct bh_letter reopen, stop;
    atomic_bool reopening;

    /* The writer's. */
    int folder;
    int fd, index;   /* of the segment; -1: none open */
    int64_t hour;    /* of the segment: never earlier than one that was written */
    uint64_t size;   /* octets in it */
    bool broken_off; /* it ends within a line: a write failed halfway */
    bool dirty;      /* records that are not synced */
    bool failing;    /* told that it can't write */
    uint64_t synced_ms, kept_ms;
    struct bh_ledger ledger;
    struct bh_letter *held, **held_end; /* records that met a full disk, in order */
    int64_t *heal;                      /* segments whose indexes are to be looked at */
    size_t heal_count;
    char entries[256 * BH_INDEX_ENTRY]; /* of the index, written with the last line at hand */
    size_t entries_len;
    char text[EVENT_MAX + 256 + BH_LEDGER_SEAL];
};

static int64_t wall_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static uint64_t mono_ms(void)
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

static void sync_records(struct event_log *log)
{
    if (log->dirty && log->fd >= 0) {
        (void)fdatasync(
            log->fd); /* a power cut may take the last second; the chain still ends whole */
    }
    log->dirty = false;
    log->synced_ms = mono_ms();
}

/* Readers go on without what is not written of it, and it is made whole at the next start. */
static void write_index(struct event_log *log)
{
    if (log->index >= 0 && log->entries_len > 0 &&
        write(log->index, log->entries, log->entries_len) != (ssize_t)log->entries_len) {
        close(log->index);
        log->index = -1;
    }
    log->entries_len = 0;
}

static void close_segment(struct event_log *log)
{
    write_index(log);
    sync_records(log);
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
        write_index(log);
    }
}

/* ---- records ---- */

static struct bh_json begin_line(struct event_log *log, const char *what)
{
    struct bh_json json = {.buf = bh_buf(log->text, EVENT_MAX)};
    bh_json_begin_object(&json);
    bh_json_key(&json, "time");
    bh_json_i64(&json, wall_ms());
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
    const int64_t hour = wall_ms() / BH_SEGMENT_MS;
    log->hour = hour > log->hour ? hour : log->hour;
    log->fd = openat(log->folder, bh_segment_name(log->hour, name),
                     O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    if (log->fd < 0 || fstat(log->fd, &info) != 0) {
        failed(log, name);
        close_segment(log);
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
            close_segment(log);
            return false;
        }
    }
    return true;
}

static bool ready(struct event_log *log, int64_t unix_ms)
{
    if (log->fd >= 0 && unix_ms / BH_SEGMENT_MS > log->hour) {
        close_segment(log);
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
static void begin_process(struct event_log *log)
{
    struct bh_json json = begin_line(log, "begin");
    char text[EVENT_MAX];
    if (log->hour > 0) {
        mark_torn(log, &json);
    }
    /* Opening a segment writes a record of its own, by the same room. */
    const struct bh_slice object = bh_buf_slice(&json.buf);
    memcpy(text, object.ptr, object.len);
    if (!ready(log, wall_ms())) {
        atomic_fetch_add(&log->lost, 1);
        return;
    }
    memcpy(log->text, text, object.len);
    json.buf = (struct bh_buf){log->text, object.len, EVENT_MAX};
    if (!put_note(log, &json)) {
        atomic_fetch_add(&log->lost, 1);
    }
}

static void end_process(struct event_log *log)
{
    if (ready(log, 0)) {
        struct bh_json json = begin_line(log, "end");
        (void)put_note(log, &json);
    }
    close_segment(log);
}

/* ---- upkeep ---- */

static uint64_t size_of(const struct event_log *log, const char *name)
{
    struct stat info;
    return fstatat(log->folder, name, &info, 0) == 0 ? (uint64_t)info.st_size : 0;
}

static void remove_segment(struct event_log *log, int64_t hour)
{
    char name[BH_SEGMENT_NAME];
    unlinkat(log->folder, bh_index_name(hour, name), 0);
    if (unlinkat(log->folder, bh_segment_name(hour, name), 0) == 0) {
        bh_log(BH_LOG_INFO, "evt=event_log_removed segment=%s", name);
    }
}

/* The oldest segments go, by age, then by the size of all; the current one never. */
static void keep_bounds(struct event_log *log)
{
    const uint64_t keep = atomic_load(&log->keep_ms);
    const uint64_t most = atomic_load(&log->size_max);
    const int64_t now = wall_ms();
    int64_t *hours = NULL;
    size_t count = 0;
    uint64_t total = 0;
    log->kept_ms = mono_ms();
    if ((keep == 0 && most == 0) || bh_segment_list(log->folder, 0, &hours, &count) != BH_OK) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        char name[BH_SEGMENT_NAME];
        total += size_of(log, bh_segment_name(hours[i], name));
    }
    for (size_t i = 0; i < count && hours[i] < log->hour; i++) {
        char name[BH_SEGMENT_NAME];
        const int64_t end = (hours[i] + 1) * BH_SEGMENT_MS;
        const bool old = keep > 0 && now > end && (uint64_t)(now - end) > keep;
        if (!old && (most == 0 || total <= most)) {
            break;
        }
        total -= size_of(log, bh_segment_name(hours[i], name));
        remove_segment(log, hours[i]);
    }
    free(hours);
}

/* One index of an earlier segment, when there is nothing else to do. */
static void heal_one(struct event_log *log)
{
    char name[BH_SEGMENT_NAME];
    const int64_t hour = log->heal[--log->heal_count];
    const int segment = openat(log->folder, bh_segment_name(hour, name), O_RDONLY | O_CLOEXEC);
    const int index = openat(log->folder, bh_index_name(hour, name),
                             O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    if (segment >= 0 && index >= 0 && hour != log->hour && bh_index_heal(segment, index) != BH_OK) {
        bh_log(BH_LOG_WARN, "evt=event_index_failed index=%s error=\"%s\"", name, strerror(errno));
    }
    if (segment >= 0) {
        close(segment);
    } else if (index >= 0) {
        unlinkat(log->folder, name, 0); /* the segment went meanwhile */
    }
    if (index >= 0) {
        close(index);
    }
}

static void idle(struct event_log *log)
{
    const uint64_t now = mono_ms();
    if (log->dirty && now >= log->synced_ms + RETRY_MS) {
        sync_records(log);
    }
    if (log->kept_ms == 0 || now >= log->kept_ms + UPKEEP_MS) {
        keep_bounds(log);
    }
    if (log->heal_count > 0) {
        heal_one(log);
    }
}

/* ---- the thread ---- */

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
static bool write_held(struct event_log *log)
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
    if (!write_held(log) || !write_record(log, line)) {
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

static void report_gaps(struct event_log *log, unsigned long long *told)
{
    const unsigned long long dropped = atomic_load(&log->dropped);
    const unsigned long long lost = atomic_load(&log->lost);
    if (dropped + lost > *told) {
        bh_log(BH_LOG_WARN, "evt=events_dropped count=%llu ledger_records_lost=%llu", dropped,
               lost);
    }
    *told = dropped + lost;
}

/* Lines come in swarms. Who posts one wakes us only while we wait for it: to be woken for each cost
 * a tenth of the CPU of a message. */
static void gather(void)
{
    const struct timespec nap = {.tv_nsec = GATHER_MS * 1000000};
    (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
}

static void *run(void *arg)
{
    struct event_log *log = arg;
    unsigned long long told = 0;
    begin_process(log);
    for (bool stop = false; !stop;) {
        const bool busy = log->dirty || log->held != NULL || log->heal_count > 0;
        if (!bh_mailbox_wait(log->box, busy ? RETRY_MS : UPKEEP_MS)) {
            (void)write_held(log);
        } else {
            gather();
        }
        for (struct bh_letter *letter = bh_mailbox_take_all(log->box); letter != NULL;) {
            struct bh_letter *next = letter->next;
            if (letter->kind == LETTER_LINE) {
                on_line(log, (struct line *)(void *)letter);
            } else if (letter->kind == LETTER_RECORD) {
                on_record(log, (struct line *)(void *)letter);
            } else if (letter->kind == LETTER_REOPEN) {
                atomic_store(&log->reopening, false);
                close_segment(log);
            } else {
                stop = true;
            }
            letter = next;
        }
        write_index(log);
        idle(log);
        report_gaps(log, &told);
    }
    if (!write_held(log)) {
        for (const struct bh_letter *l = log->held; l != NULL; l = l->next) {
            atomic_fetch_add(&log->lost, 1);
        }
        report_gaps(log, &told);
    }
    end_process(log);
    return NULL;
}

/* ---- life ---- */

static void destroy(struct event_log *log)
{
    while (log->held != NULL) {
        struct bh_letter *next = log->held->next;
        free(log->held);
        log->held = next;
    }
    bh_mailbox_destroy(log->box);
    if (log->folder >= 0) {
        close(log->folder);
    }
    free(log->heal);
    free(log);
}

/* Where the last process left the chain, and which segments there are. */
static enum bh_status take_up(struct event_log *log)
{
    char text[BH_EVENT_LINE_MAX];
    struct bh_slice line = BH_EMPTY;
    enum bh_status status = bh_segment_list(log->folder, 0, &log->heal, &log->heal_count);
    if (status == BH_OK) {
        status = bh_event_last_record(log->folder, text, &line);
    }
    if (status == BH_OK && line.len > 0) {
        const bool good = bh_ledger_adopt(&log->ledger, line);
        BH_ASSERT(good);
    }
    log->hour = log->heal_count > 0 ? log->heal[log->heal_count - 1] : 0;
    return status;
}

enum bh_status event_log_create(const struct event_log_options *options, struct event_log **result)
{
    *result = NULL;
    if (options->folder == NULL) {
        return BH_OK;
    }
    if (mkdir(options->folder, 0750) != 0 && errno != EEXIST) {
        return BH_EIO;
    }
    struct event_log *log = calloc(1, sizeof(*log));
    if (log == NULL) {
        return BH_ENOMEM;
    }
    log->fd = log->index = -1;
    log->held_end = &log->held;
    log->reopen.kind = LETTER_REOPEN;
    log->stop.kind = LETTER_STOP;
    atomic_store(&log->keep_ms, options->keep_ms);
    atomic_store(&log->size_max, options->size_max);
    log->folder = open(options->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum bh_status status = BH_EIO;
    if (log->folder >= 0) {
        /* Two writers would break each other's chain. */
        status = flock(log->folder, LOCK_EX | LOCK_NB) == 0 ? BH_OK
                 : errno == EWOULDBLOCK                     ? BH_EBUSY
                                                            : BH_EIO;
    }
    if (status == BH_OK) {
        status = take_up(log);
    }
    if (status == BH_OK) {
        log->box = bh_mailbox_create(LINES_MAX, BYTES_MAX, NULL, NULL);
        status = log->box != NULL && pthread_create(&log->thread, NULL, run, log) == 0 ? BH_OK
                                                                                       : BH_ENOMEM;
    }
    if (status != BH_OK) {
        const int saved = errno;
        destroy(log);
        errno = saved;
        return status;
    }
    *result = log;
    return BH_OK;
}

void event_log_destroy(struct event_log *log)
{
    if (log != NULL) {
        bh_mailbox_post_always(log->box, &log->stop);
        pthread_join(log->thread, NULL);
        destroy(log);
    }
}

void event_log_reopen(struct event_log *log)
{
    if (log != NULL && !atomic_exchange(&log->reopening, true)) {
        bh_mailbox_post_always(log->box, &log->reopen);
    }
}

void event_log_keep(struct event_log *log, uint64_t keep_ms, uint64_t size_max)
{
    if (log != NULL) {
        atomic_store(&log->keep_ms, keep_ms);
        atomic_store(&log->size_max, size_max);
    }
}

/* ---- events ---- */

void event_begin(struct event *event, int64_t unix_ms, const char *name)
{
    event->json = (struct bh_json){.buf = bh_buf(event->text, sizeof(event->text) - 1)};
    bh_json_begin_object(&event->json);
    bh_json_key(&event->json, "time");
    bh_json_i64(&event->json, unix_ms);
    bh_json_key(&event->json, "evt");
    bh_json_cstr(&event->json, name);
}

void event_id(struct event *event, uint64_t id)
{
    char text[BH_QUEUE_ID_TEXT];
    bh_json_key(&event->json, "msg");
    bh_json_cstr(&event->json, bh_queue_id_text(id, text));
}

static struct line *make_line(struct event *event, uint32_t kind)
{
    bh_json_end_object(&event->json);
    const size_t len = event->json.buf.len;
    struct line *line = event->json.overflow ? NULL : malloc(sizeof(*line) + len + 1);
    if (line != NULL) {
        const size_t bytes = sizeof(*line) + len + 1;
        *line = (struct line){.letter = {.kind = kind, .bytes = bytes},
                              .unix_ms = wall_ms(),
                              .len = len,
                              .bytes = bytes};
        memcpy(line->text, event->text, len);
    }
    return line;
}

void event_end(struct event_log *log, struct event *event)
{
    struct line *line = log != NULL ? make_line(event, LETTER_LINE) : NULL;
    if (log != NULL && (line == NULL || bh_mailbox_post(log->box, &line->letter) != BH_OK)) {
        free(line);
        atomic_fetch_add(&log->dropped, 1);
    }
}

void event_record(struct event_log *log, struct event *event)
{
    struct line *line = log != NULL ? make_line(event, LETTER_RECORD) : NULL;
    if (log == NULL) {
        return;
    }
    if (line == NULL ||
        atomic_fetch_add(&log->waiting_bytes, line->bytes) + line->bytes > RECORDS_BYTES_MAX) {
        if (line != NULL) {
            atomic_fetch_sub(&log->waiting_bytes, line->bytes);
        }
        free(line);
        atomic_fetch_add(&log->lost, 1);
        return;
    }
    bh_mailbox_post_always(log->box, &line->letter); /* bounded above, apart from events */
}
