#include "event_log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bh/log.h"
#include "bh/mailbox.h"
#include "bh/queue_id.h"

#define LINES_MAX 65536
#define BYTES_MAX ((size_t)32 << 20)
#define SEGMENT_SECONDS 3600

enum { LETTER_LINE, LETTER_REOPEN, LETTER_STOP };

struct line {
    struct bh_letter letter;
    int64_t unix_ms;
    size_t len;
    char text[];
};

struct event_log {
    char *dir;
    struct bh_mailbox *box;
    pthread_t thread;
    atomic_ullong dropped;
    struct bh_letter reopen, stop;
    atomic_bool reopening;
    int fd;          /* of the writer */
    int64_t segment; /* hours since 1970 */
};

static void close_segment(struct event_log *log)
{
    if (log->fd >= 0) {
        close(log->fd);
        log->fd = -1;
    }
}

static void open_segment(struct event_log *log, int64_t unix_ms)
{
    const time_t seconds = (time_t)(unix_ms / 1000);
    struct tm utc;
    char path[4096];
    gmtime_r(&seconds, &utc);
    const int len = snprintf(path, sizeof(path), "%s/events-%04d%02d%02d%02d.jsonl", log->dir,
                             utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday, utc.tm_hour);
    if (len < 0 || (size_t)len >= sizeof(path)) {
        return;
    }
    log->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    log->segment = seconds / SEGMENT_SECONDS;
    if (log->fd < 0) {
        bh_log(BH_LOG_ERROR, "evt=event_log_failed path=%s error=\"%s\"", path, strerror(errno));
    }
}

static void write_line(struct event_log *log, const struct line *line)
{
    const int64_t segment = line->unix_ms / 1000 / SEGMENT_SECONDS;
    if (log->fd >= 0 && segment != log->segment) {
        close_segment(log);
    }
    if (log->fd < 0) {
        open_segment(log, line->unix_ms);
    }
    if (log->fd < 0 || write(log->fd, line->text, line->len) != (ssize_t)line->len) {
        atomic_fetch_add(&log->dropped, 1);
    }
}

static void report_dropped(struct event_log *log)
{
    const unsigned long long dropped = atomic_exchange(&log->dropped, 0);
    if (dropped > 0) {
        bh_log(BH_LOG_WARN, "evt=events_dropped count=%llu", dropped);
    }
}

static void *run(void *arg)
{
    struct event_log *log = arg;
    for (bool stop = false; !stop;) {
        bh_mailbox_wait(log->box, UINT64_MAX);
        for (struct bh_letter *letter = bh_mailbox_take_all(log->box); letter != NULL;) {
            struct bh_letter *next = letter->next;
            if (letter->kind == LETTER_LINE) {
                struct line *line = (struct line *)(void *)letter;
                write_line(log, line);
                free(line);
            } else if (letter->kind == LETTER_REOPEN) {
                atomic_store(&log->reopening, false);
                close_segment(log);
            } else {
                stop = true;
            }
            letter = next;
        }
        report_dropped(log);
    }
    close_segment(log);
    return NULL;
}

enum bh_status event_log_create(const char *dir, struct event_log **result)
{
    *result = NULL;
    if (dir == NULL) {
        return BH_OK;
    }
    if (mkdir(dir, 0750) != 0 && errno != EEXIST) {
        return BH_EIO;
    }
    struct event_log *log = calloc(1, sizeof(*log));
    if (log == NULL) {
        return BH_ENOMEM;
    }
    log->fd = -1;
    log->reopen.kind = LETTER_REOPEN;
    log->stop.kind = LETTER_STOP;
    log->dir = strdup(dir);
    log->box = bh_mailbox_create(LINES_MAX, BYTES_MAX, NULL, NULL);
    if (log->dir == NULL || log->box == NULL || pthread_create(&log->thread, NULL, run, log) != 0) {
        bh_mailbox_destroy(log->box);
        free(log->dir);
        free(log);
        return BH_ENOMEM;
    }
    *result = log;
    return BH_OK;
}

void event_log_destroy(struct event_log *log)
{
    if (log == NULL) {
        return;
    }
    bh_mailbox_post_always(log->box, &log->stop);
    pthread_join(log->thread, NULL);
    bh_mailbox_destroy(log->box);
    free(log->dir);
    free(log);
}

void event_log_reopen(struct event_log *log)
{
    if (log != NULL && !atomic_exchange(&log->reopening, true)) {
        bh_mailbox_post_always(log->box, &log->reopen);
    }
}

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

void event_end(struct event_log *log, struct event *event)
{
    bh_json_end_object(&event->json);
    if (log == NULL) {
        return;
    }
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    const size_t len = event->json.buf.len;
    struct line *line = event->json.overflow ? NULL : malloc(sizeof(*line) + len + 1);
    if (line == NULL) {
        atomic_fetch_add(&log->dropped, 1);
        return;
    }
    *line = (struct line){.letter = {.kind = LETTER_LINE, .bytes = sizeof(*line) + len},
                          .unix_ms = (int64_t)now.tv_sec * 1000,
                          .len = len + 1};
    memcpy(line->text, event->text, len);
    line->text[len] = '\n';
    if (bh_mailbox_post(log->box, &line->letter) != BH_OK) {
        free(line);
        atomic_fetch_add(&log->dropped, 1);
    }
}
