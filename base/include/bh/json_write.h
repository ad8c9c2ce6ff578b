/* json_write.h - emits JSON into a caller's buffer: the event log and the control answers. Octets
 * that are not UTF-8 (a remote's reply) come out as \u00NN of the octet, never as broken JSON. */
#pragma once

#include "bh/buf.h"

struct bh_json {
    struct bh_buf buf;
    bool overflow; /* something did not fit: the text is not whole */
    bool comma;    /* private */
};

void bh_json_begin_object(struct bh_json *j);
void bh_json_end_object(struct bh_json *j);
void bh_json_begin_array(struct bh_json *j);
void bh_json_end_array(struct bh_json *j);
/** The key of the next value in an object; a literal of ours, written as it is. */
void bh_json_key(struct bh_json *j, const char *key);
void bh_json_str(struct bh_json *j, struct bh_slice s);
/** Octets as U+0000 to U+00FF, whatever they mean: for content, which must come back octet by
 * octet. */
void bh_json_latin1(struct bh_json *j, struct bh_slice octets);
void bh_json_cstr(struct bh_json *j, const char *s);
void bh_json_u64(struct bh_json *j, uint64_t v);
void bh_json_i64(struct bh_json *j, int64_t v);
void bh_json_bool(struct bh_json *j, bool v);
void bh_json_null(struct bh_json *j);
