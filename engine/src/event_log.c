#include "event_log_private.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bh/log.h"
#include "bh/queue_id.h"

#define LINES_MAX 65536
#define BYTES_MAX ((size_t)32 << 20)
#define RECORDS_BYTES_MAX ((size_t)128 << 20) /* records that wait for the writer or the disk */
#define GATHER_MS 2                           /* lines that come within it are taken together */
#define UPKEEP_MS 600000                      /* looks at what is to go */

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
    const int64_t now = event_wall_ms();
    int64_t *hours = NULL;
    size_t count = 0;
    uint64_t total = 0;
    log->kept_ms = event_mono_ms();
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
    const uint64_t now = event_mono_ms();
    if (log->dirty && now >= log->synced_ms + RETRY_MS) {
        event_sync_records(log);
    }
    if (log->kept_ms == 0 || now >= log->kept_ms + UPKEEP_MS) {
        keep_bounds(log);
    }
    if (log->heal_count > 0) {
        heal_one(log);
    }
}

/* ---- the thread ---- */

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
    event_begin_process(log);
    for (bool stop = false; !stop;) {
        const bool busy = log->dirty || log->held != NULL || log->heal_count > 0;
        if (!bh_mailbox_wait(log->box, busy ? RETRY_MS : UPKEEP_MS)) {
            (void)event_write_held(log);
        } else {
            gather();
        }
        for (struct bh_letter *letter = bh_mailbox_take_all(log->box); letter != NULL;) {
            struct bh_letter *next = letter->next;
            if (letter->kind == LETTER_LINE || letter->kind == LETTER_RECORD) {
                event_take_line(log, (struct line *)(void *)letter);
            } else if (letter->kind == LETTER_REOPEN) {
                atomic_store(&log->reopening, false);
                event_write_gathered(log);
                event_close_segment(log);
            } else {
                stop = true;
            }
            letter = next;
        }
        event_write_gathered(log);
        event_write_index(log);
        idle(log);
        report_gaps(log, &told);
    }
    if (!event_write_held(log)) {
        for (const struct bh_letter *l = log->held; l != NULL; l = l->next) {
            atomic_fetch_add(&log->lost, 1);
        }
        report_gaps(log, &told);
    }
    event_end_process(log);
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
                              .unix_ms = event_wall_ms(),
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
