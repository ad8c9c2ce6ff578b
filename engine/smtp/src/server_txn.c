#include <stdlib.h>

#include "server_internal.h"
#include "tls_required.h"

#define RECIPIENTS_FIRST 8 /* room in the first array */

/* A recipient by its address, for finding duplicates. */
struct known {
    struct bh_map_node node;
    uint32_t index;
};

/* Every octet that the recipients allowed can need. The array doubles, up to twice what it holds,
 * and its earlier, smaller forms stay in the arena: four times in all. */
static size_t arena_cap(const struct bh_server_limits *limits)
{
    const size_t each =
        4 * sizeof(struct bh_recipient) + sizeof(struct known) + BH_ADDRESS_MAX + BH_ORCPT_MAX + 64;
    return each * limits->recipients + 4096;
}

static void reset(struct bh_server_txn *txn)
{
    bh_map_fini(&txn->by_address);
    bh_arena_reset(&txn->arena);
    const struct bh_arena arena = txn->arena;
    *txn = (struct bh_server_txn){.arena = arena};
    txn->envelope.sender = BH_EMPTY;
    txn->envelope.envid = BH_EMPTY;
}

bool bh_server_txn_open(struct bh_server *s)
{
    BH_ASSERT(s->open == NULL);
    struct bh_server_txn *txn = s->spare;
    s->spare = NULL;
    if (txn == NULL) {
        txn = calloc(1, sizeof(*txn));
        if (txn == NULL) {
            return false;
        }
        bh_arena_init(&txn->arena, arena_cap(&s->options->limits));
    }
    reset(txn);
    s->open = txn;
    s->began = false;
    s->begin_due = false;
    s->rcpt_tried = false;
    s->bdat = false;
    return true;
}

void bh_server_txn_free(struct bh_server_txn *txn)
{
    if (txn != NULL) {
        bh_map_fini(&txn->by_address);
        bh_arena_fini(&txn->arena);
        free(txn);
    }
}

void bh_server_txn_recycle(struct bh_server *s, struct bh_server_txn *txn)
{
    if (s->spare == NULL && s->phase != BH_SERVER_PHASE_CLOSED) {
        reset(txn); /* Its first block is kept: a session sends much the same again. */
        s->spare = txn;
    } else {
        bh_server_txn_free(txn);
    }
}

void bh_server_txn_discard(struct bh_server *s)
{
    struct bh_server_txn *txn = s->open;
    if (txn == NULL) {
        return;
    }
    s->open = NULL;
    s->begin_due = false;
    if (s->began) {
        BH_ASSERT(s->discarded == NULL || s->discard_given);
        if (s->discarded != NULL) {
            bh_server_txn_recycle(s, s->discarded);
        }
        s->discarded = txn;
        s->discard_given = false;
    } else {
        bh_server_txn_recycle(s, txn);
    }
}

void bh_server_txn_deliver(struct bh_server *s)
{
    struct bh_server_txn *txn = s->open;
    BH_ASSERT(txn != NULL && s->began);
    BH_ASSERT(s->committing_count < BH_SERVER_COMMITS_MAX && !s->deliver_due);
    txn->envelope.size = s->scan.size;
    if (s->scan.eight_bit) {
        txn->envelope.body = BH_BODY_8BITMIME;
    }
    txn->header_utf8 = s->scan.header_utf8;
    if (!s->scan.in_body) {
        bh_tls_required_end(&s->scan.tls_required); /* It was all header. */
    }
    /* With both, REQUIRETLS holds (RFC 8689 section 3). */
    txn->envelope.tls_optional =
        !txn->envelope.requiretls && bh_tls_required_says_no(&s->scan.tls_required);
    txn->committing = true;
    txn->reply_at = s->out_len;
    s->committing[s->committing_count++] = txn;
    s->deliver_due = true;
    s->open = NULL;
}

/* What two RCPT of one address ask for together. Without NOTIFY one asks for failures and delays
 * (RFC 3461 4.1); NEVER holds only if both say so. */
static uint8_t merge_notify(uint8_t a, uint8_t b)
{
    if (a == b) {
        return a;
    }
    const unsigned usual = BH_NOTIFY_FAILURE | BH_NOTIFY_DELAY;
    const unsigned both = (a == 0 ? usual : a) | (b == 0 ? usual : b);
    return (uint8_t)(both & ~(unsigned)BH_NOTIFY_NEVER);
}

static bool grow(struct bh_server_txn *txn)
{
    if (txn->recipients_count < txn->recipients_cap) {
        return true;
    }
    const uint32_t cap = txn->recipients_cap == 0 ? RECIPIENTS_FIRST : 2 * txn->recipients_cap;
    struct bh_recipient *wider = bh_arena_alloc(&txn->arena, cap * sizeof(*wider));
    if (wider == NULL) {
        return false;
    }
    if (txn->recipients_count > 0) {
        memcpy(wider, txn->recipients, txn->recipients_count * sizeof(*wider));
    }
    txn->recipients = wider;
    txn->recipients_cap = cap;
    return true;
}

static enum bh_status append(struct bh_server_txn *txn, const struct bh_recipient *recipient)
{
    struct bh_recipient copy = {.orcpt = BH_EMPTY, .notify = recipient->notify};
    struct known *known = bh_arena_alloc(&txn->arena, sizeof(*known));
    if (known == NULL || !grow(txn) ||
        !bh_arena_copy(&txn->arena, recipient->address, &copy.address) ||
        (recipient->orcpt.len > 0 && !bh_arena_copy(&txn->arena, recipient->orcpt, &copy.orcpt))) {
        return BH_ENOMEM;
    }
    known->node.key = copy.address;
    known->index = txn->recipients_count;
    const enum bh_status status = bh_map_insert(&txn->by_address, &known->node);
    if (status == BH_OK) {
        txn->recipients[txn->recipients_count++] = copy;
    }
    return status;
}

enum bh_status bh_server_txn_recipient(struct bh_server *s, const struct bh_recipient *recipient)
{
    struct bh_server_txn *txn = s->open;
    struct bh_map_node *node = bh_map_find(&txn->by_address, recipient->address);
    if (node != NULL) {
        const struct known *known = BH_CONTAINER(node, struct known, node);
        struct bh_recipient *same = &txn->recipients[known->index];
        same->notify = merge_notify(same->notify, recipient->notify);
        return BH_OK;
    }
    if (txn->recipients_count >= s->options->limits.recipients) {
        return BH_ELIMIT;
    }
    return append(txn, recipient);
}
