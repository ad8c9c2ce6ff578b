/* text.h - octets into lines of mail: counted, made safe, folded. Private to the report writer. */
#pragma once

#include "bh/dsn.h"

/* Where the report goes. The first failure of the sink is kept; nothing is put after it. */
struct text_out {
    struct bh_dsn_sink sink;
    enum bh_status status;
    uint64_t size; /* octets so far */
    bool high;     /* an octet above 127 was put */
};

void text_put(struct text_out *out, struct bh_slice octets);
void text_str(struct text_out *out, const char *str);
/** Formatted, at most 512 octets; for text of our own. */
void text_printf(struct text_out *out, const char *format, ...) BH_PRINTF(2, 3);

#define TEXT_SAFE_MAX 2048 /* octets */

/** Make any octets printable: line ends and tabs become blanks, other controls "\xNN"; so do octets
 * above 127 unless `utf8` is set and they are harmless UTF-8 (no controls, line separators or
 * direction overrides). What is longer than `in_max` is cut and ends in "...".
 * @return the text, in storage */
struct bh_slice text_safe(struct bh_slice in, size_t in_max, bool utf8,
                          char storage[TEXT_SAFE_MAX]);

/** Put safe text in lines of at most 76 octets where its words allow it; longer words are cut,
 * never inside a character. Every line after the first starts with `indent`, so that none can look
 * like a boundary. The final CRLF is the caller's.
 * @param column  octets that the current line has already */
void text_fold(struct text_out *out, size_t column, const char *indent, struct bh_slice text);

/** Only CRLF as line end, no NUL, no line of 998 octets or more. */
bool text_is_clean(struct bh_slice content);
/** Quoted-printable (RFC 2045 6.7): any octets as clean 7-bit lines. CRLF stays a line end, a lone
 * CR or LF is encoded. Ends with CRLF. */
void text_quoted_printable(struct text_out *out, struct bh_slice content);
