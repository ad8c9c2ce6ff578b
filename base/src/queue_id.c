#include "bh/queue_id.h"

static const char digits[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

const char *bh_queue_id_text(uint64_t id, char text[BH_QUEUE_ID_TEXT])
{
    for (int i = BH_QUEUE_ID_TEXT - 2; i >= 0; i--) {
        text[i] = digits[id & 31];
        id >>= 5;
    }
    text[BH_QUEUE_ID_TEXT - 1] = '\0';
    return text;
}

static int digit_value(char c)
{
    c = bh_upper(c);
    if (c == 'I' || c == 'L') {
        c = '1';
    } else if (c == 'O') {
        c = '0';
    }
    const char *at = c != '\0' ? strchr(digits, c) : NULL;
    return at != NULL ? (int)(at - digits) : -1;
}

bool bh_queue_id_parse(struct bh_slice text, uint64_t *id)
{
    uint64_t value = 0;
    if (text.len != BH_QUEUE_ID_TEXT - 1) {
        return false;
    }
    for (size_t i = 0; i < text.len; i++) {
        const int digit = digit_value(text.ptr[i]);
        if (digit < 0 || value >> 59 != 0) {
            return false;
        }
        value = value << 5 | (uint64_t)digit;
    }
    *id = value;
    return true;
}
