/* One table, read from the top: the first row that fits an outcome decides. Its order matters only
 * where stages or codes overlap: the narrower row stands first. */
#include "bh/outcome_policy.h"

#include "bh/assert.h"

#define ANY_FIRST BH_STAGE_NONE
#define ANY_LAST BH_STAGE_IDLE

struct row {
    enum bh_happened happened;
    enum bh_stage first, last;   /* inclusive */
    uint16_t code_min, code_max; /* inclusive; of replies */
    enum bh_meaning meaning;
    enum bh_scope scope;
    enum bh_fault fault;
    bool next_host;
    uint8_t status[3]; /* when the remote gave none */
};

#define REPLY(first, last, min, max) BH_HAPPENED_REPLY, first, last, min, max
#define EVENT(happened, first, last) happened, first, last, 0, 999
#define ALWAYS(happened) happened, ANY_FIRST, ANY_LAST, 0, 999

#define DELIVERED BH_MEANS_DELIVERED
#define TEMPORARY BH_MEANS_TEMPORARY
#define PERMANENT BH_MEANS_PERMANENT
#define UNCERTAIN BH_MEANS_UNCERTAIN
#define RECIPIENT BH_SCOPE_RECIPIENT
#define MESSAGE BH_SCOPE_MESSAGE
#define HOST BH_SCOPE_HOST
#define DESTINATION BH_SCOPE_DESTINATION
#define CONNECTOR BH_SCOPE_CONNECTOR
#define THEIRS BH_FAULT_THEIRS
#define OURS BH_FAULT_OURS
#define UNKNOWN BH_FAULT_UNKNOWN

static const struct row rows[] = {
    /* ---- replies ---- */
    /* The service is closing; it may come at any point (RFC 5321 3.8). */
    {REPLY(ANY_FIRST, ANY_LAST, 421, 421), TEMPORARY, HOST, THEIRS, true, {4, 3, 2}},
    /* Only a 2xx to the end of the content hands the message over. */
    {REPLY(BH_STAGE_DOT, BH_STAGE_DOT, 200, 299), DELIVERED, RECIPIENT, THEIRS, false, {2, 0, 0}},
    /* A host that won't talk says nothing about any message: try the next (RFC 5321 3.1, 7504). */
    {REPLY(BH_STAGE_CONNECT, BH_STAGE_GREETING, 400, 599),
     TEMPORARY,
     HOST,
     THEIRS,
     true,
     {4, 3, 2}},
    {REPLY(BH_STAGE_EHLO, BH_STAGE_EHLO, 400, 599), TEMPORARY, HOST, THEIRS, true, {4, 3, 2}},
    /* TLS refused, for now or for good, is never a reason to bounce. */
    {REPLY(BH_STAGE_STARTTLS, BH_STAGE_TLS, 400, 599),
     TEMPORARY,
     DESTINATION,
     THEIRS,
     true,
     {4, 7, 5}},
    {REPLY(BH_STAGE_AUTH, BH_STAGE_AUTH, 400, 499), TEMPORARY, HOST, THEIRS, true, {4, 7, 0}},
    /* Our credentials are not good there: every message would meet the same. */
    {REPLY(BH_STAGE_AUTH, BH_STAGE_AUTH, 500, 599), TEMPORARY, CONNECTOR, OURS, false, {4, 7, 8}},
    /* It wants authentication or TLS first. Not OURS: a remote must not be able to park mail. */
    {REPLY(BH_STAGE_MAIL, BH_STAGE_DATA, 530, 530),
     TEMPORARY,
     DESTINATION,
     THEIRS,
     true,
     {4, 7, 0}},
    {REPLY(BH_STAGE_MAIL, BH_STAGE_DATA, 535, 535),
     TEMPORARY,
     DESTINATION,
     THEIRS,
     true,
     {4, 7, 0}},
    {REPLY(BH_STAGE_MAIL, BH_STAGE_DATA, 538, 538),
     TEMPORARY,
     DESTINATION,
     THEIRS,
     true,
     {4, 7, 0}},
    /* Out of step: the session is broken, not the message. */
    {REPLY(BH_STAGE_MAIL, BH_STAGE_DATA, 503, 503), TEMPORARY, HOST, THEIRS, true, {4, 5, 1}},
    {REPLY(BH_STAGE_MAIL, BH_STAGE_MAIL, 400, 499), TEMPORARY, MESSAGE, THEIRS, false, {4, 0, 0}},
    {REPLY(BH_STAGE_MAIL, BH_STAGE_MAIL, 552, 552), PERMANENT, MESSAGE, THEIRS, false, {5, 3, 4}},
    {REPLY(BH_STAGE_MAIL, BH_STAGE_MAIL, 500, 599), PERMANENT, MESSAGE, THEIRS, false, {5, 0, 0}},
    {REPLY(BH_STAGE_RCPT, BH_STAGE_RCPT, 452, 452), TEMPORARY, RECIPIENT, THEIRS, false, {4, 5, 3}},
    {REPLY(BH_STAGE_RCPT, BH_STAGE_RCPT, 400, 499), TEMPORARY, RECIPIENT, THEIRS, false, {4, 0, 0}},
    /* RFC 5321 4.5.3.1.10: 552 to RCPT counts as 452. */
    {REPLY(BH_STAGE_RCPT, BH_STAGE_RCPT, 552, 552), TEMPORARY, RECIPIENT, THEIRS, false, {4, 5, 3}},
    {REPLY(BH_STAGE_RCPT, BH_STAGE_RCPT, 556, 556),
     PERMANENT,
     RECIPIENT,
     THEIRS,
     false,
     {5, 1, 10}},
    {REPLY(BH_STAGE_RCPT, BH_STAGE_RCPT, 500, 599), PERMANENT, RECIPIENT, THEIRS, false, {5, 0, 0}},
    {REPLY(BH_STAGE_DATA, BH_STAGE_DOT, 400, 499), TEMPORARY, MESSAGE, THEIRS, false, {4, 0, 0}},
    {REPLY(BH_STAGE_DATA, BH_STAGE_DOT, 552, 552), PERMANENT, MESSAGE, THEIRS, false, {5, 3, 4}},
    {REPLY(BH_STAGE_DATA, BH_STAGE_DOT, 500, 599), PERMANENT, MESSAGE, THEIRS, false, {5, 0, 0}},
    {REPLY(BH_STAGE_IDLE, BH_STAGE_IDLE, 400, 599), TEMPORARY, HOST, THEIRS, true, {4, 5, 0}},
    /* No reply, or one that makes no sense where it came. */
    {REPLY(ANY_FIRST, ANY_LAST, 0, 999), TEMPORARY, HOST, UNKNOWN, true, {4, 5, 0}},

    /* ---- the connection ---- */
    {EVENT(BH_HAPPENED_TIMEOUT, ANY_FIRST, BH_STAGE_CONNECT),
     TEMPORARY,
     HOST,
     THEIRS,
     true,
     {4, 4, 1}},
    {EVENT(BH_HAPPENED_TIMEOUT, BH_STAGE_DOT, BH_STAGE_DOT),
     UNCERTAIN,
     HOST,
     THEIRS,
     false,
     {4, 4, 2}},
    {ALWAYS(BH_HAPPENED_TIMEOUT), TEMPORARY, HOST, THEIRS, true, {4, 4, 2}},
    {EVENT(BH_HAPPENED_LOST, ANY_FIRST, BH_STAGE_CONNECT),
     TEMPORARY,
     HOST,
     THEIRS,
     true,
     {4, 4, 1}},
    {EVENT(BH_HAPPENED_LOST, BH_STAGE_DOT, BH_STAGE_DOT),
     UNCERTAIN,
     HOST,
     THEIRS,
     false,
     {4, 4, 2}},
    {ALWAYS(BH_HAPPENED_LOST), TEMPORARY, HOST, THEIRS, true, {4, 4, 2}},
    {ALWAYS(BH_HAPPENED_REFUSED), TEMPORARY, HOST, THEIRS, true, {4, 4, 1}},
    {ALWAYS(BH_HAPPENED_UNREACHABLE), TEMPORARY, HOST, THEIRS, true, {4, 4, 1}},
    {EVENT(BH_HAPPENED_TOO_SLOW, BH_STAGE_DOT, BH_STAGE_DOT),
     UNCERTAIN,
     HOST,
     THEIRS,
     false,
     {4, 4, 2}},
    {ALWAYS(BH_HAPPENED_TOO_SLOW), TEMPORARY, HOST, THEIRS, true, {4, 4, 2}},
    {EVENT(BH_HAPPENED_GARBLED, BH_STAGE_DOT, BH_STAGE_DOT),
     UNCERTAIN,
     HOST,
     THEIRS,
     false,
     {4, 5, 0}},
    {ALWAYS(BH_HAPPENED_GARBLED), TEMPORARY, HOST, THEIRS, true, {4, 5, 0}},
    {ALWAYS(BH_HAPPENED_INJECTED), TEMPORARY, HOST, THEIRS, true, {4, 7, 0}},

    /* ---- the route ---- */
    {ALWAYS(BH_HAPPENED_NXDOMAIN), PERMANENT, DESTINATION, THEIRS, false, {5, 1, 2}},
    {ALWAYS(BH_HAPPENED_NULL_MX), PERMANENT, DESTINATION, THEIRS, false, {5, 1, 10}},
    {ALWAYS(BH_HAPPENED_NO_ADDRESS), TEMPORARY, DESTINATION, THEIRS, false, {4, 4, 4}},
    {ALWAYS(BH_HAPPENED_DNS_FAILED), TEMPORARY, DESTINATION, THEIRS, false, {4, 4, 3}},
    {ALWAYS(BH_HAPPENED_DNS_BOGUS), TEMPORARY, DESTINATION, THEIRS, false, {4, 7, 5}},
    /* No resolver of ours answered. */
    {ALWAYS(BH_HAPPENED_DNS_TIMEOUT), TEMPORARY, DESTINATION, OURS, false, {4, 4, 3}},
    {ALWAYS(BH_HAPPENED_ALL_FILTERED), TEMPORARY, DESTINATION, OURS, false, {4, 4, 4}},
    /* Mail for us has no connector here: a mistake of the operator's, not of the sender's. */
    {ALWAYS(BH_HAPPENED_LOOP), TEMPORARY, DESTINATION, OURS, false, {4, 4, 6}},

    /* ---- TLS and what the next hop can do ---- */
    {ALWAYS(BH_HAPPENED_TLS_NOT_OFFERED), TEMPORARY, HOST, THEIRS, true, {4, 7, 4}},
    {ALWAYS(BH_HAPPENED_TLS_FAILED), TEMPORARY, HOST, THEIRS, true, {4, 7, 5}},
    /* The connector has credentials and demands nothing that would prove who gets them: what it
     * demands is met, or the session would have ended at TLS. */
    {EVENT(BH_HAPPENED_TLS_UNVERIFIED, BH_STAGE_AUTH, BH_STAGE_AUTH),
     TEMPORARY,
     CONNECTOR,
     OURS,
     true,
     {4, 7, 5}},
    {ALWAYS(BH_HAPPENED_TLS_UNVERIFIED), TEMPORARY, HOST, THEIRS, true, {4, 7, 5}},
    {ALWAYS(BH_HAPPENED_AUTH_NOT_OFFERED), TEMPORARY, CONNECTOR, OURS, true, {4, 7, 4}},
    {ALWAYS(BH_HAPPENED_TOO_BIG), PERMANENT, MESSAGE, THEIRS, true, {5, 3, 4}},
    {ALWAYS(BH_HAPPENED_NEEDS_8BITMIME), PERMANENT, MESSAGE, THEIRS, true, {5, 6, 3}},
    {ALWAYS(BH_HAPPENED_NEEDS_SMTPUTF8), PERMANENT, MESSAGE, THEIRS, true, {5, 6, 7}},
    {ALWAYS(BH_HAPPENED_NEEDS_REQUIRETLS), PERMANENT, MESSAGE, THEIRS, true, {5, 7, 30}},

    /* ---- ours ---- */
    /* Intake lets no such message in: what is stored is not what came. */
    {ALWAYS(BH_HAPPENED_BAD_CONTENT), TEMPORARY, MESSAGE, OURS, false, {4, 6, 0}},
    {ALWAYS(BH_HAPPENED_OUR_CONFIG), TEMPORARY, CONNECTOR, OURS, false, {4, 3, 5}},
    {ALWAYS(BH_HAPPENED_OUR_SECRET), TEMPORARY, CONNECTOR, OURS, false, {4, 3, 5}},
    {ALWAYS(BH_HAPPENED_OUR_SOURCE), TEMPORARY, CONNECTOR, OURS, false, {4, 3, 5}},
    {ALWAYS(BH_HAPPENED_OUR_NETWORK), TEMPORARY, CONNECTOR, OURS, false, {4, 4, 0}},
    {ALWAYS(BH_HAPPENED_OUR_RESOURCE), TEMPORARY, CONNECTOR, OURS, false, {4, 3, 0}},
    {ALWAYS(BH_HAPPENED_UNCERTAIN_CRASH), UNCERTAIN, RECIPIENT, OURS, false, {4, 3, 0}},

    /* ---- ends that were decided ---- */
    {ALWAYS(BH_HAPPENED_OPERATOR), PERMANENT, RECIPIENT, UNKNOWN, false, {5, 0, 0}},
    {ALWAYS(BH_HAPPENED_EXPIRED), PERMANENT, RECIPIENT, THEIRS, false, {4, 4, 7}},
};

static const struct row *row_of(const struct bh_outcome *o)
{
    for (size_t i = 0; i < BH_COUNT(rows); i++) {
        const struct row *r = &rows[i];
        if (r->happened == o->happened && o->stage >= r->first && o->stage <= r->last &&
            o->code >= r->code_min && o->code <= r->code_max) {
            return r;
        }
    }
    return NULL;
}

struct bh_policy bh_outcome_policy(const struct bh_outcome *outcome)
{
    const struct row *row = row_of(outcome);
    BH_ASSERT(row != NULL); /* every value of bh_happened has a row; a test walks them all */
    struct bh_policy policy = {
        .meaning = row->meaning,
        .scope = row->scope,
        .fault = row->fault,
        .next_host = row->next_host,
        .status_class = row->status[0],
        .status_subject = row->status[1],
        .status_detail = row->status[2],
    };
    if (outcome->happened == BH_HAPPENED_REPLY && outcome->enhanced_class != 0) {
        /* Their words, under the class of our verdict: a greeting's 5.7.1 that we retry is 4.7.1.
         */
        policy.status_subject = outcome->enhanced_subject;
        policy.status_detail = outcome->enhanced_detail;
    }
    return policy;
}

const char *bh_meaning_name(enum bh_meaning meaning)
{
    static const char *const names[] = {"delivered", "temporary", "permanent", "uncertain"};
    return (size_t)meaning < BH_COUNT(names) ? names[meaning] : "unknown";
}

const char *bh_scope_name(enum bh_scope scope)
{
    static const char *const names[] = {"recipient", "message", "host", "destination", "connector"};
    return (size_t)scope < BH_COUNT(names) ? names[scope] : "unknown";
}

const char *bh_fault_name(enum bh_fault fault)
{
    static const char *const names[] = {"theirs", "ours", "unknown"};
    return (size_t)fault < BH_COUNT(names) ? names[fault] : "unknown";
}
