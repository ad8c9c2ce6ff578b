/* The functions of SHA-256 themselves, which OpenSSL would rather have us not call: those it
 * recommends allocate for each digest, and no record may be lost for want of memory. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "bh/ledger.h"

#include <openssl/sha.h>

#include "bh/event_line.h"

#define HASH_KEY ",\"hash\":\""
#define HASH_KEY_LEN (sizeof(HASH_KEY) - 1)
#define TAIL_LEN (HASH_KEY_LEN + 2 * BH_LEDGER_HASH + 2) /* ,"hash":"..."} */

static void digest(const uint8_t before[BH_LEDGER_HASH], struct bh_slice text,
                   uint8_t hash[BH_LEDGER_HASH])
{
    SHA256_CTX ctx;
    const bool good = SHA256_Init(&ctx) == 1 && SHA256_Update(&ctx, before, BH_LEDGER_HASH) == 1 &&
                      SHA256_Update(&ctx, text.ptr, text.len) == 1 && SHA256_Final(hash, &ctx) == 1;
    BH_ASSERT(good);
}

static void put_hex(struct bh_buf *out, const uint8_t hash[BH_LEDGER_HASH])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < BH_LEDGER_HASH; i++) {
        bh_buf_put_char(out, digits[hash[i] >> 4]);
        bh_buf_put_char(out, digits[hash[i] & 15]);
    }
}

static int nibble(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool get_hex(struct bh_slice text, uint8_t hash[BH_LEDGER_HASH])
{
    if (text.len != (size_t)2 * BH_LEDGER_HASH) {
        return false;
    }
    for (size_t i = 0; i < BH_LEDGER_HASH; i++) {
        const int high = nibble(text.ptr[2 * i]);
        const int low = nibble(text.ptr[2 * i + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        hash[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* A line as a record: what was hashed, its number and its hash. */
struct record {
    struct bh_slice text;
    uint64_t seq;
    uint8_t hash[BH_LEDGER_HASH];
};

static bool read_record(struct bh_slice line, struct record *r)
{
    if (line.len <= TAIL_LEN || line.ptr[0] != '{') {
        return false;
    }
    r->text = bh_slice_take(line, line.len - TAIL_LEN);
    const struct bh_slice tail = bh_slice_skip(line, r->text.len);
    if (!bh_slice_starts(tail, BH_LIT(HASH_KEY)) ||
        !bh_slice_eq(bh_slice_skip(tail, TAIL_LEN - 2), BH_LIT("\"}")) ||
        !get_hex(bh_slice(tail.ptr + HASH_KEY_LEN, (size_t)2 * BH_LEDGER_HASH), r->hash)) {
        return false;
    }
    size_t at = r->text.len;
    while (at > 0 && bh_is_digit(r->text.ptr[at - 1])) {
        at--;
    }
    const struct bh_slice key = BH_LIT(",\"seq\":");
    return at >= key.len && bh_slice_eq(bh_slice(r->text.ptr + at - key.len, key.len), key) &&
           bh_slice_u64(bh_slice_skip(r->text, at), UINT64_MAX, &r->seq);
}

enum bh_status bh_ledger_seal(struct bh_ledger *ledger, struct bh_buf *line)
{
    BH_ASSERT(line->len > 2 && line->ptr[line->len - 1] == '}');
    if (bh_buf_room(line) < BH_LEDGER_SEAL) {
        return BH_ELIMIT;
    }
    line->len--;
    const enum bh_status status =
        bh_buf_printf(line, ",\"seq\":%llu", (unsigned long long)ledger->seq + 1);
    BH_ASSERT(status == BH_OK);
    digest(ledger->head, bh_buf_slice(line), ledger->head);
    ledger->seq++;
    bh_buf_put(line, BH_LIT(HASH_KEY));
    put_hex(line, ledger->head);
    bh_buf_put(line, BH_LIT("\"}"));
    return BH_OK;
}

enum bh_ledger_verdict bh_ledger_check(struct bh_ledger *ledger, struct bh_slice line)
{
    struct record r;
    uint8_t hash[BH_LEDGER_HASH];
    if (!read_record(line, &r)) {
        return BH_LEDGER_NO_RECORD;
    }
    digest(ledger->head, r.text, hash);
    const bool good =
        memcmp(hash, r.hash, sizeof(hash)) == 0 && r.seq == ledger->seq + 1 && r.seq != 0;
    memcpy(ledger->head, r.hash, sizeof(hash));
    ledger->seq = r.seq;
    return good ? BH_LEDGER_GOOD : BH_LEDGER_BROKEN;
}

bool bh_ledger_adopt(struct bh_ledger *ledger, struct bh_slice line)
{
    struct record r;
    if (!read_record(line, &r)) {
        return false;
    }
    memcpy(ledger->head, r.hash, sizeof(ledger->head));
    ledger->seq = r.seq;
    return true;
}

bool bh_ledger_before(struct bh_ledger *ledger, struct bh_slice line)
{
    struct record r;
    struct bh_slice prev;
    struct bh_ledger before;
    if (!read_record(line, &r) || r.seq == 0 || !bh_event_text(line, "prev", &prev) ||
        !get_hex(prev, before.head)) {
        return false;
    }
    before.seq = r.seq - 1;
    *ledger = before;
    return true;
}

const char *bh_ledger_head_text(const struct bh_ledger *ledger, char text[BH_LEDGER_HEX])
{
    struct bh_buf out = bh_buf(text, BH_LEDGER_HEX);
    put_hex(&out, ledger->head);
    text[out.len] = '\0';
    return text;
}
