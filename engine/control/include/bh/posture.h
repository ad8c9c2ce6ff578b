/* posture.h - what is remembered of the TLS of a host, so that it is seen when it gets worse; and
 * of a destination, when it was last reached and last known for who it is. Rows of the queue's
 * policy database, a name and a value each. Pure but for the walk over the rows.
 *
 *     posture/<host>:<port>          struct bh_posture
 *     reached/<connector>/<domain>   struct bh_reached */
#pragma once

#include "bh/queue.h"
#include "bh/tls_demand.h"

#define BH_POSTURE_PREFIX "posture/"
#define BH_REACHED_PREFIX "reached/"
#define BH_POSTURE_ROWS_MAX 10000 /* of each kind; the longest unseen go */
#define BH_POSTURE_VALUE_MAX 1024
#define BH_POSTURE_TEXT_MAX 200 /* octets of issuer, cipher, and of what was known of the peer */
#define BH_POSTURE_EXPIRY_MS (14 * BH_DAY_MS)
#define BH_POSTURE_ISSUER_MS (7 * BH_DAY_MS) /* how long a change of issuer is shown */

/* What got worse. */
#define BH_WORSE_NO_TLS 1U  /* STARTTLS was offered, and is not any more */
#define BH_WORSE_VERSION 2U /* the version is lower than it was */
#define BH_WORSE_ISSUER 4U  /* somebody else issued the certificate */
#define BH_WORSE_EXPIRY 8U  /* it ends within 14 days, or has ended */

/** What one session saw. */
struct bh_posture_seen {
    bool offered;                /* STARTTLS, or TLS was had */
    enum bh_tls_version version; /* NONE: clear text */
    struct bh_slice issuer;      /* empty: not known */
    bool has_spki;
    uint8_t spki[BH_PIN_LEN];
    int64_t not_after_unix_ms; /* 0: not known */
};

/** What is remembered. Slices are borrowed. */
struct bh_posture {
    int64_t first_unix_ms, last_unix_ms;
    bool offered;                /* last time */
    bool ever_offered;           /* and STARTTLS is missed since, if it is not now */
    enum bh_tls_version version; /* of the last session inside TLS; NONE: never */
    enum bh_tls_version best;
    struct bh_slice issuer;
    bool has_spki;
    uint8_t spki[BH_PIN_LEN];
    int64_t not_after_unix_ms;
    int64_t issuer_changed_unix_ms; /* 0: never */
    int64_t expiry_told_unix_ms;    /* of which certificate's end was told */
};

/** Take in what a session saw.
 * @param known  false: the host was not known; `p` is then made new
 * @return BH_WORSE_ bits of what is worse since just now, to be told once */
unsigned bh_posture_observe(struct bh_posture *p, bool known, const struct bh_posture_seen *seen,
                            int64_t now_unix_ms);
/** What stands at this time, to be shown. */
unsigned bh_posture_worse(const struct bh_posture *p, int64_t now_unix_ms);
/** "STARTTLS is not offered any more; ..", NUL-terminated, cut. @return text */
#define BH_POSTURE_WORDS 400
const char *bh_posture_text(const struct bh_posture *p, unsigned worse, int64_t now_unix_ms,
                            char text[BH_POSTURE_WORDS]);

/** A destination: its domain by one connector. */
struct bh_reached {
    int64_t last_unix_ms;     /* a session was ready */
    int64_t verified_unix_ms; /* and its peer authenticated; 0: never */
    struct bh_slice auth;     /* of the last: "name", "clear" ... */
    struct bh_slice tls;      /* of the last, in words */
    struct bh_slice host;     /* of the last */
};

/** Append. @return BH_OK or BH_ELIMIT (fewer than BH_POSTURE_VALUE_MAX octets of room) */
BH_MUST_USE enum bh_status bh_posture_write(const struct bh_posture *p, struct bh_buf *out);
BH_MUST_USE enum bh_status bh_reached_write(const struct bh_reached *r, struct bh_buf *out);
/** @return BH_OK, BH_ECORRUPT, BH_EVERSION */
BH_MUST_USE enum bh_status bh_posture_read(struct bh_slice value, struct bh_posture *p);
BH_MUST_USE enum bh_status bh_reached_read(struct bh_slice value, struct bh_reached *r);

/** The name of a row. @return false: too long to be kept */
bool bh_posture_name(struct bh_slice host, uint16_t port, struct bh_buf *name);
bool bh_reached_name(struct bh_slice connector, struct bh_slice domain, struct bh_buf *name);

/** Put a row; where there are BH_POSTURE_ROWS_MAX of its kind, the hundredth part that was not seen
 * for longest goes first.
 * @param prefix  of its kind: its name begins with it */
BH_MUST_USE enum bh_status bh_posture_put(struct bh_queue *q, struct bh_kv_txn *txn,
                                          const char *prefix, struct bh_slice name,
                                          struct bh_slice value, size_t rows_max);
