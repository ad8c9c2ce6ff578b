/* event_log_private.h - the log's own: what its two halves share. event_log.c has the thread, its
 * life and how events are made; event_log_write.c makes them lines of a segment. All of it but what
 * is atomic belongs to the log's thread. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "bh/event_line.h"
#include "bh/event_reader.h"
#include "bh/ledger.h"
#include "bh/mailbox.h"
#include "event_log.h"

#define RETRY_MS 1000                   /* a full disk; and how long a sync may wait */
#define GATHERED_MAX ((size_t)64 << 10) /* octets of lines that are written together */

enum { LETTER_LINE, LETTER_RECORD, LETTER_REOPEN, LETTER_STOP };

struct line {
    struct bh_letter letter;
    int64_t unix_ms;
    size_t len;     /* of the object, without LF */
    size_t written; /* octets of it in the file: with its seal, and LF */
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
    char gathered[GATHERED_MAX]; /* as they will be in the file */
    size_t gathered_len;
    struct bh_letter *gathered_first, **gathered_end; /* the lines of it */
    struct bh_ledger gathered_ledger;                 /* behind the last of them */
};

/** Wall and monotonic time in ms. */
int64_t event_wall_ms(void);
uint64_t event_mono_ms(void);
/** The first record of a process, and the last. */
void event_begin_process(struct event_log *log);
void event_end_process(struct event_log *log);
/** Take a line or a record: it is written with others by event_write_gathered, or at once, or it is
 * held for a better time (records) or dropped. Its storage is the log's from here on. */
void event_take_line(struct event_log *log, struct line *line);
/** What was gathered goes into the segment, in one write. */
void event_write_gathered(struct event_log *log);
/** The entries that belong to what was written. */
void event_write_index(struct event_log *log);
/** Records that met a full disk. @return false: the disk does not take them yet */
bool event_write_held(struct event_log *log);
/** Records on disk. */
void event_sync_records(struct event_log *log);
/** The segment and its index are closed, with all that was written synced. */
void event_close_segment(struct event_log *log);
