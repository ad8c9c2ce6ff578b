/* Property: whatever a server asks, responses are base64 within their bound, an exchange ends after
 * a few challenges, and with SCRAM nobody who lacks the password is believed. The first octet picks
 * the mechanism, lines are challenges: with a '!' as they are, else put into base64 first. */
#include "bh/assert.h"
#include "bh/base64.h"
#include "bh/sasl.h"
#include "bh/smtp_reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint32_t mechanisms[] = {BH_SASL_PLAIN, BH_SASL_LOGIN, BH_SASL_CRAM_MD5,
                                      BH_SASL_SCRAM_SHA_256, BH_SASL_XOAUTH2};

static void check_response(struct bh_slice response)
{
    static char storage[BH_SASL_RESPONSE_MAX];
    struct bh_buf plain = bh_buf(storage, sizeof(storage));
    BH_ASSERT(response.len <= BH_SASL_RESPONSE_MAX);
    BH_ASSERT(bh_base64_decode(response, &plain) == BH_OK);
}

/* The rounds cost time: a fuzzer that finds large ones would find nothing else. */
static bool costly(struct bh_slice line)
{
    const size_t at = bh_slice_find_slice(line, BH_LIT(",i="));
    return at < line.len && !bh_slice_starts(bh_slice_skip(line, at), BH_LIT(",i=4096"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bh_slice input = bh_slice(data, size);
    if (input.len == 0 || costly(input)) {
        return 0;
    }
    char reason[200];
    struct bh_buf error = bh_buf(reason, sizeof(reason));
    const struct bh_sasl_params params = {.mechanism = mechanisms[data[0] % 5],
                                          .user = BH_LIT("user"),
                                          .secret = BH_LIT("pencil"),
                                          .nonce = BH_LIT("rOprNGfwEbeRWgbNEkqO")};
    struct bh_sasl *sasl = NULL;
    BH_ASSERT(bh_sasl_create(&params, &sasl, &error) == BH_OK);
    struct bh_slice response;
    bh_sasl_begin(sasl, &response);
    check_response(response);
    input = bh_slice_skip(input, 1);
    unsigned answered = 0;
    enum bh_status status = BH_OK;
    while (status == BH_OK && input.len > 0) {
        static char text[8192];
        struct bh_buf challenge = bh_buf(text, sizeof(text));
        const size_t end = bh_slice_find(input, '\n');
        struct bh_slice line = bh_slice_take(input, end);
        input = bh_slice_skip(input, end + 1);
        if (bh_slice_starts(line, BH_LIT("!"))) {
            (void)bh_buf_add_cut(&challenge, bh_slice_skip(line, 1));
        } else if (bh_base64_encode(line, &challenge) != BH_OK) {
            break;
        }
        status = bh_sasl_answer(sasl, bh_buf_slice(&challenge), &response, &error);
        if (status == BH_OK) {
            check_response(response);
            answered++;
        }
    }
    BH_ASSERT(answered <= 2);
    bh_sasl_destroy(sasl);
    return 0;
}
