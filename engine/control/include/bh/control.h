/* control.h - what bhctl and the daemon say to each other over the control socket. One JSON object
 * a line, UTF-8. Request: {"verb":"hold","args":{...}}. Answer: any number of {"row":{...}}, then
 * exactly one {"end":{...}} or {"error":{"what":"..","hint":".."}}. One request at a time on a
 * connection; a client may send the next after the end of the answer.
 *
 * Arguments, where a verb takes them: the selection (ids, destination, connector, sender,
 * recipient, older_ms, younger_ms, state, all), reason, since_unix_ms, until_unix_ms, dry_run,
 * plan, allow_weaken, content, matrix, address, name, size, top, limit, require. Times end in
 * _unix_ms, spans in _ms.
 *
 * This file parses and checks requests and writes answers; it has no socket. */
#pragma once

#include "bh/buf.h"
#include "bh/json_write.h"
#include "bh/selection.h"
#include "bh/status.h"

#define BH_CONTROL_LINE_MAX ((size_t)64 * 1024) /* octets of a request, its LF included */
#define BH_CONTROL_ROW_MAX ((size_t)64 * 1024)  /* octets of an answer line, its LF included */

enum bh_control_verb {
    /* Views: rows from the queue and the configuration; see view.h. */
    BH_VERB_STATUS,
    BH_VERB_QUEUE,
    BH_VERB_LIST,
    BH_VERB_SHOW,
    BH_VERB_WHY,
    BH_VERB_CONNECTORS,
    BH_VERB_EXPLAIN,
    BH_VERB_VERIFY,
    BH_VERB_AUDIT,
    BH_VERB_POLICY,
    /* Actions: carried out by the daemon. */
    BH_VERB_FLUSH,
    BH_VERB_HOLD,
    BH_VERB_RELEASE,
    BH_VERB_CANCEL,
    BH_VERB_BOUNCE,
    BH_VERB_REQUEUE,
    BH_VERB_PAUSE,
    BH_VERB_RESUME,
    BH_VERB_RELOAD,
    BH_VERB_JOBS,
    BH_VERB_PROBE,
    BH_VERB_COUNT, /* how many there are; not a verb */
};

/** "status", "queue", ...; static storage. */
const char *bh_control_verb_name(enum bh_control_verb verb);
/** @return false if there is no such verb */
bool bh_control_verb_find(struct bh_slice name, enum bh_control_verb *verb);
/** Whether it is a view (can be answered without the daemon). */
bool bh_control_verb_is_view(enum bh_control_verb verb);

/** What `audit` is to find every delivery to be. */
enum bh_require { BH_REQUIRE_NOTHING, BH_REQUIRE_TLS, BH_REQUIRE_AUTHENTICATED };

/* A request, checked. Slices are borrowed from `json` until bh_control_request_fini. */
struct bh_control_request {
    enum bh_control_verb verb;
    struct bh_selection selection; /* everything, if the verb takes none */
    bool all;                      /* "all" was given: a selection of everything is meant */
    bool selected;                 /* any condition was given */
    struct bh_slice reason;
    int64_t since_unix_ms;   /* audit: deliveries from then on; 0: from the first */
    int64_t until_unix_ms;   /* hold: when it ends by itself; audit: up to then; 0: not */
    enum bh_require require; /* audit */
    bool dry_run;            /* count only */
    bool plan;               /* reload: print what would change */
    bool allow_weaken;       /* reload: a lower TLS demand is meant */
    bool content;            /* show: the content too */
    bool matrix;             /* connectors: one row for each domain of their address spaces */
    struct bh_slice address; /* explain; probe, policy: an address or a domain */
    struct bh_slice name;    /* connectors NAME */
    struct bh_slice sender;  /* explain: for which sender; empty: <> is not meant, but any;
                                probe: of MAIL */
    uint64_t size;           /* explain: likewise, octets */
    uint64_t top;            /* queue: how many rows; 0: the default */
    uint64_t limit;          /* list: how many rows; 0: all */
    void *json;              /* private */
};

/* Why a request was refused, in words for its sender. */
struct bh_control_error {
    char what[200];
    char hint[200]; /* what is allowed, or what to do; may be empty */
};

/** Parse and check one line (without its LF). Unknown verbs, unknown arguments and arguments of the
 * wrong type are refused with the names that are allowed; so are bulk verbs without any selection
 * unless "all" is true.
 *
 * @param now_unix_ms  what ages in a selection count back from
 * @return BH_OK (call fini), BH_EPROTO (error says why), or BH_ENOMEM */
BH_MUST_USE enum bh_status bh_control_parse(struct bh_slice line, int64_t now_unix_ms,
                                            struct bh_control_request *request,
                                            struct bh_control_error *error);
void bh_control_request_fini(struct bh_control_request *request);
/** Whether it is for those who may change things: every action but the list of jobs, and what only
 * counts or plans. `probe` is one: it opens connections to partners, with our credentials. */
bool bh_control_needs_act(const struct bh_control_request *request);

/* ---- Serving: the daemon fills one of these; every callback answers by the functions below. ----
 */

/* One answer under way, the daemon's own struct: it keeps the connection, and its letters. */
struct bh_control_reply;

struct bh_control_ops {
    /** All views. Make a view (view.h), step it on a store reader, send its rows. The request is
     * borrowed for the call; the views keep copies of what they need. */
    void (*view)(void *ctx, const struct bh_control_request *request,
                 struct bh_control_reply *reply);
    /** flush of destinations; ends with {"destinations":N}. */
    void (*flush)(void *ctx, const struct bh_control_request *request,
                  struct bh_control_reply *reply);
    /** hold, release, cancel, bounce, requeue as durable jobs; see request->verb. Ends with
     * {"matched":N,"acted":N,"in_flight":N}, or with dry_run {"matched":N,"destinations":N}. */
    void (*bulk)(void *ctx, const struct bh_control_request *request,
                 struct bh_control_reply *reply);
    /** pause and resume of intake: paused is what is wanted. */
    void (*intake)(void *ctx, bool paused, struct bh_control_reply *reply);
    /** Rows are {"change":"+|-|~","text":".."} and {"error":{..}}; ends with {"generation":N}. */
    void (*reload)(void *ctx, const struct bh_control_request *request,
                   struct bh_control_reply *reply);
    /** The bulk jobs under way, a row each. */
    void (*jobs)(void *ctx, struct bh_control_reply *reply);
    /** A session with each target that mail to the address may go to, without any mail; a row for
     * each. Ends with {"targets":N,"bad":N,"negative":..}. */
    void (*probe)(void *ctx, const struct bh_control_request *request,
                  struct bh_control_reply *reply);
};

/** Hand a checked request to its callback. */
void bh_control_dispatch(const struct bh_control_ops *ops, void *ctx,
                         const struct bh_control_request *request, struct bh_control_reply *reply);

/* ---- Lines of answers, each with its LF. ---- */

/** {"row":OBJECT}. @param object  JSON text. @return BH_OK or BH_ELIMIT (no room) */
BH_MUST_USE enum bh_status bh_control_put_row(struct bh_buf *out, struct bh_slice object);
/** {"end":OBJECT}. */
BH_MUST_USE enum bh_status bh_control_put_end(struct bh_buf *out, struct bh_slice object);
/** {"error":{"what":..,"hint":..}}. */
BH_MUST_USE enum bh_status bh_control_put_error(struct bh_buf *out,
                                                const struct bh_control_error *error);

/* ---- Cutting a stream of octets into lines, for both ends. ---- */

struct bh_control_lines {
    struct bh_buf buf; /* storage of the owner: the bound of a line */
    size_t taken;      /* private: octets of the line given out last */
};

/** The next whole line, without its LF; the one before is then gone.
 * @return BH_OK; BH_MORE (append octets to lines->buf); BH_ELIMIT (full without a line: close) */
BH_MUST_USE enum bh_status bh_control_lines_next(struct bh_control_lines *lines,
                                                 struct bh_slice *line);
