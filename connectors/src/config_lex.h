/* config_lex.h - cuts configuration text into tokens. A value: copy it to look ahead. */
#pragma once

#include "bh/arena.h"
#include "bh/status.h"

enum bh_token_kind {
    BH_TOKEN_WORD,
    BH_TOKEN_STRING,
    BH_TOKEN_OPEN_BLOCK,
    BH_TOKEN_CLOSE_BLOCK,
    BH_TOKEN_OPEN_LIST,
    BH_TOKEN_CLOSE_LIST,
    BH_TOKEN_NEWLINE,
    BH_TOKEN_SEMICOLON,
    BH_TOKEN_BAD, /* text says why */
    BH_TOKEN_END,
};

struct bh_token {
    enum bh_token_kind kind;
    struct bh_slice text; /* WORD: borrowed from the input; STRING: as written, without quotes */
    uint32_t line, column;
};

struct bh_lexer {
    struct bh_slice text;
    size_t at;
    size_t line_start;
    uint32_t line;
};

/** Always moves on until BH_TOKEN_END, which repeats. */
struct bh_token bh_lexer_next(struct bh_lexer *lexer);
/** The octets a STRING stands for (escapes \" \\ \n \t), NUL-terminated behind.
 * @return BH_OK, BH_EPROTO for an unknown escape, or BH_ENOMEM */
BH_MUST_USE enum bh_status bh_lexer_unescape(struct bh_arena *arena, struct bh_slice text,
                                             struct bh_slice *octets);
