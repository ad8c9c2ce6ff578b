/* Rows and keys of the queue from any octets: decoding must not crash, and what it accepts must
 * come back the same: decode, encode, decode, encode gives the same row twice. The first octet
 * picks the record. */
#include <stdint.h>
#include <stdlib.h>

#include "bh/assert.h"
#include "keys.h"
#include "records.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Rows of one length. */
static enum bh_status again_short(unsigned kind, struct bh_slice row, struct bh_arena *arena,
                                  struct bh_slice *out)
{
    char state_row[RECORD_STATE_LEN];
    char open_row_octets[RECORD_OPEN_LEN];
    struct message_state state;
    struct open_row open;
    const enum bh_status status =
        kind == 5 ? record_state_decode(row, &state) : record_open_decode(row, &open);
    if (status != BH_OK) {
        return status;
    }
    if (kind == 5) {
        record_state_encode(&state, state_row);
        BH_ASSERT(bh_arena_copy(arena, bh_slice(state_row, sizeof(state_row)), out));
    } else {
        record_open_encode(&open, open_row_octets);
        BH_ASSERT(bh_arena_copy(arena, bh_slice(open_row_octets, sizeof(open_row_octets)), out));
    }
    return BH_OK;
}

/* Keys: the octets are the only ones that mean what they mean. */
static enum bh_status again_key(struct bh_slice key, struct bh_arena *arena, struct bh_slice *out)
{
    struct bh_queue_key e;
    int64_t due = 0;
    struct row_key made = {.len = 0};
    if (key_entry_read(key, &e)) {
        made = key_entry(e);
    } else if (key_due_read(key, &e, &due)) {
        made = key_due(e, due);
    } else {
        return BH_ECORRUPT;
    }
    BH_ASSERT(bh_slice_eq(key_slice(&made), key));
    return bh_arena_copy(arena, key_slice(&made), out) ? BH_OK : BH_ENOMEM;
}

static enum bh_status again(unsigned kind, struct bh_slice row, struct bh_arena *arena,
                            struct bh_slice *out)
{
    enum bh_status status;
    struct bh_message message;
    struct bh_entry entry;
    struct bh_entry head;
    struct fresh_row fresh;
    struct bh_destination destination;
    struct bh_job job;
    switch (kind) {
    case 0:
        status = record_message_decode(row, arena, &message);
        return status == BH_OK ? record_message_encode(&message, arena, out) : status;
    case 1:
        status = record_entry_decode(row, arena, &entry);
        if (status == BH_OK) {
            /* The short form reads the same head. */
            BH_ASSERT(record_entry_head(row, &head) == BH_OK);
            BH_ASSERT(head.recipient_count == entry.recipient_count);
            BH_ASSERT(head.due_unix_ms == entry.due_unix_ms && head.state == entry.state);
        }
        return status == BH_OK ? record_entry_encode(&entry, arena, out) : status;
    case 2:
        status = record_fresh_decode(row, arena, &fresh);
        return status == BH_OK ? record_fresh_encode(&fresh, arena, out) : status;
    case 3:
        status = record_destination_decode(row, &destination);
        return status == BH_OK ? record_destination_encode(&destination, arena, out) : status;
    case 4:
        status = record_job_decode(row, &job);
        return status == BH_OK ? record_job_encode(&job, arena, out) : status;
    case 5:
    case 6:
        return again_short(kind, row, arena, out);
    default:
        return again_key(row, arena, out);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    struct bh_arena arena;
    bh_arena_init(&arena, (size_t)64 << 20);
    const unsigned kind = data[0] % 8;
    const struct bh_slice row = bh_slice(data + 1, size - 1);
    struct bh_slice once;
    if (again(kind, row, &arena, &once) == BH_OK) {
        struct bh_slice twice;
        BH_ASSERT(again(kind, once, &arena, &twice) == BH_OK);
        BH_ASSERT(bh_slice_eq(once, twice));
        /* One octet less is not a row, nor is one more. */
        struct bh_slice other;
        BH_ASSERT(again(kind, bh_slice(once.ptr, once.len - 1), &arena, &other) != BH_OK);
    }
    bh_arena_fini(&arena);
    return 0;
}
