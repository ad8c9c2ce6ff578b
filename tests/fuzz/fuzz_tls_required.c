/* Property: what the scanner finds in a header does not depend on how its octets are cut, and is
 * what a plain reading of the unfolded fields finds. */
#include <strings.h>

#include "bh/smtp_server.h"

#include "../../engine/smtp/src/tls_required.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char field[] = "tls-required:";

static bool scan(const char *text, size_t size, size_t step)
{
    struct bh_tls_required t = {0};
    size_t line = 0; /* octets of this line so far */
    for (size_t i = 0; i < size;) {
        if (text[i] == '\n') {
            line = 0;
            i++;
            continue;
        }
        size_t len = 1;
        while (len < step && i + len < size && text[i + len] != '\n') {
            len++;
        }
        bh_tls_required_run(&t, bh_slice(text + i, len), line == 0);
        line += len;
        i += len;
    }
    bh_tls_required_end(&t);
    return bh_tls_required_says_no(&t);
}

/* The value of one unfolded field: "No" with blanks around. */
static bool is_no(const char *value, size_t len)
{
    while (len > 0 && (value[0] == ' ' || value[0] == '\t')) {
        value++;
        len--;
    }
    while (len > 0 && (value[len - 1] == ' ' || value[len - 1] == '\t')) {
        len--;
    }
    return len == 2 && strncasecmp(value, "no", 2) == 0;
}

/* The same by unfolding first: a line break before a blank is none. Empty lines, which end a
 * header, are taken out, so that the scanner never sees one. */
static bool read_plainly(const char *text, size_t size)
{
    static char flat[1 << 16];
    size_t len = 0;
    size_t fields = 0;
    bool no = false;
    for (size_t i = 0; i < size; i++) {
        const bool folded =
            text[i] == '\n' && i + 1 < size && (text[i + 1] == ' ' || text[i + 1] == '\t');
        if (!folded) {
            flat[len++] = text[i];
        }
    }
    for (size_t at = 0; at < len;) {
        size_t end = at;
        while (end < len && flat[end] != '\n') {
            end++;
        }
        if (end - at >= sizeof(field) - 1 &&
            strncasecmp(flat + at, field, sizeof(field) - 1) == 0) {
            fields++;
            no = no || is_no(flat + at + sizeof(field) - 1, end - at - (sizeof(field) - 1));
        }
        at = end + 1;
    }
    return fields == 1 && no;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char text[1 << 16];
    size_t len = 0;
    for (size_t i = 0; i < size && len < sizeof(text); i++) {
        const bool empty_line = data[i] == '\n' && (len == 0 || text[len - 1] == '\n');
        if (!empty_line) {
            text[len++] = (char)data[i];
        }
    }
    /* A name is not folded: "TLS-\n Required: No" is no such field, and flat it would be one. */
    const bool whole = scan(text, len, len + 1);
    BH_ASSERT(whole == scan(text, len, 1));
    BH_ASSERT(whole == scan(text, len, 3));
    BH_ASSERT(!whole || read_plainly(text, len));
    return 0;
}
