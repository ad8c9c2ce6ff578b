/* Property: whatever a client answers, an exchange ends in a verdict, a challenge fits its room,
 * and only a user of the file is ever granted. The first octet picks the mechanism, lines are
 * responses before base64; SERVERNONCE in one stands for the nonce that the server chose, so that a
 * fuzzer gets past it. */
#include <openssl/evp.h>

#include "bh/auth_server.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The keys of RFC 7677 section 3: password "pencil". */
static const char file[] =
    "user:{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,"
    "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=\n";

static const char *const mechanisms[] = {"PLAIN", "LOGIN", "SCRAM-SHA-256", "CRAM-MD5"};

static const struct bh_auth_users *users(void)
{
    static struct bh_auth_users *made;
    if (made == NULL) {
        char storage[100];
        struct bh_buf error = bh_buf(storage, sizeof(storage));
        BH_ASSERT(bh_auth_users_parse(bh_slice_str(file), &made, &error) == BH_OK);
    }
    return made;
}

/* SERVERNONCE replaced by that of the challenge, "r=...," */
static void put_line(struct bh_slice line, struct bh_slice challenge, struct bh_buf *out)
{
    const struct bh_slice mark = BH_LIT("SERVERNONCE");
    const size_t at = bh_slice_find_slice(line, mark);
    bh_buf_add_cut(out, bh_slice_take(line, at));
    if (at < line.len && challenge.len > 2) {
        const struct bh_slice nonce = bh_slice_skip(challenge, 2);
        bh_buf_add_cut(out, bh_slice_take(nonce, bh_slice_find(nonce, ',')));
        bh_buf_add_cut(out, bh_slice_skip(line, at + mark.len));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bh_auth_exchange e = {0};
    struct bh_slice input = bh_slice(data, size);
    if (input.len == 0) {
        return 0;
    }
    const struct bh_slice mechanism = bh_slice_str(mechanisms[data[0] % BH_COUNT(mechanisms)]);
    bool first = true;
    char decoded[BH_SERVER_CHALLENGE_MAX];
    struct bh_slice challenge = BH_EMPTY;
    input = bh_slice_skip(input, 1);
    for (int round = 0; round < 6; round++) {
        char line[3000];
        char text[4100];
        char asked[BH_SERVER_CHALLENGE_MAX];
        struct bh_buf plain = bh_buf(line, sizeof(line));
        struct bh_buf out = bh_buf(asked, sizeof(asked));
        const size_t lf = bh_slice_find(input, '\n');
        put_line(bh_slice_take(input, lf), challenge, &plain);
        input = bh_slice_skip(input, lf + 1);
        const int len =
            EVP_EncodeBlock((unsigned char *)text, (unsigned char *)line, (int)plain.len);
        const enum bh_server_verdict verdict =
            bh_auth_step(&e, users(), first ? mechanism : BH_EMPTY, bh_slice(text, (size_t)len),
                         first && plain.len == 0, &out);
        first = false;
        BH_ASSERT(verdict != BH_SERVER_AUTH_GRANTED ||
                  bh_slice_eq(bh_auth_exchange_user(&e), BH_LIT("user")));
        if (verdict != BH_SERVER_AUTH_MORE) {
            break;
        }
        const int got =
            EVP_DecodeBlock((unsigned char *)decoded, (unsigned char *)asked, (int)out.len);
        challenge = bh_slice(decoded, got > 0 ? (size_t)got : 0);
    }
    return 0;
}
