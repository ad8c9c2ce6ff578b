#include "config_lex.h"

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static bool is_control(char c)
{
    return ((unsigned char)c < 0x20 && c != '\t' && c != '\n' && c != '\r') || c == 0x7f;
}

/* Ends a word that is not inside brackets. */
static bool ends_word(char c)
{
    return is_blank(c) || c == '\n' || c == '{' || c == '}' || c == ';' || c == '"' || c == ']' ||
           is_control(c);
}

static void skip_blanks_and_comment(struct bh_lexer *lexer)
{
    while (lexer->at < lexer->text.len && is_blank(lexer->text.ptr[lexer->at])) {
        lexer->at++;
    }
    if (lexer->at < lexer->text.len && lexer->text.ptr[lexer->at] == '#') {
        lexer->at += bh_slice_find(bh_slice_skip(lexer->text, lexer->at), '\n');
    }
}

/* The length of "[...]" at the start, or 0 if it is not closed before a blank: then it is a list.
 */
static size_t bracketed(struct bh_slice rest)
{
    for (size_t i = 1; i < rest.len; i++) {
        const char c = rest.ptr[i];
        if (c == ']') {
            return i > 1 ? i + 1 : 0;
        }
        if (ends_word(c) || c == '[') {
            return 0;
        }
    }
    return 0;
}

static struct bh_token string_token(struct bh_lexer *lexer, struct bh_token token)
{
    const struct bh_slice rest = bh_slice_skip(lexer->text, lexer->at + 1);
    size_t len = 0;
    while (len < rest.len && rest.ptr[len] != '"' && rest.ptr[len] != '\n' &&
           !is_control(rest.ptr[len])) {
        len += rest.ptr[len] == '\\' && len + 1 < rest.len && rest.ptr[len + 1] != '\n' &&
                       !is_control(rest.ptr[len + 1])
                   ? 2
                   : 1;
    }
    const bool closed = len < rest.len && rest.ptr[len] == '"';
    lexer->at += 1 + len + (closed ? 1 : 0);
    token.kind = closed ? BH_TOKEN_STRING : BH_TOKEN_BAD;
    token.text = closed ? bh_slice(rest.ptr, len) : BH_LIT("this \" is not closed on its line");
    return token;
}

static struct bh_token word_token(struct bh_lexer *lexer, struct bh_token token)
{
    const struct bh_slice rest = bh_slice_skip(lexer->text, lexer->at);
    size_t len = rest.ptr[0] == '[' ? bracketed(rest) : 0;
    while (len < rest.len && !ends_word(rest.ptr[len])) {
        len++;
    }
    token.kind = BH_TOKEN_WORD;
    token.text = bh_slice(rest.ptr, len);
    lexer->at += len;
    return token;
}

static struct bh_token single(struct bh_lexer *lexer, struct bh_token token,
                              enum bh_token_kind kind)
{
    token.kind = kind;
    token.text = bh_slice(lexer->text.ptr + lexer->at, 1);
    lexer->at++;
    return token;
}

struct bh_token bh_lexer_next(struct bh_lexer *lexer)
{
    skip_blanks_and_comment(lexer);
    struct bh_token token = {.kind = BH_TOKEN_END,
                             .text = BH_EMPTY,
                             .line = lexer->line,
                             .column = (uint32_t)(lexer->at - lexer->line_start + 1)};
    if (lexer->at >= lexer->text.len) {
        return token;
    }
    const struct bh_slice rest = bh_slice_skip(lexer->text, lexer->at);
    switch (rest.ptr[0]) {
    case '\n':
        token = single(lexer, token, BH_TOKEN_NEWLINE);
        lexer->line++;
        lexer->line_start = lexer->at;
        return token;
    case ';':
        return single(lexer, token, BH_TOKEN_SEMICOLON);
    case '{':
        return single(lexer, token, BH_TOKEN_OPEN_BLOCK);
    case '}':
        return single(lexer, token, BH_TOKEN_CLOSE_BLOCK);
    case ']':
        return single(lexer, token, BH_TOKEN_CLOSE_LIST);
    case '"':
        return string_token(lexer, token);
    case '[':
        if (bracketed(rest) == 0) {
            return single(lexer, token, BH_TOKEN_OPEN_LIST);
        }
        return word_token(lexer, token);
    default:
        break;
    }
    if (is_control(rest.ptr[0])) {
        token = single(lexer, token, BH_TOKEN_BAD);
        token.text = BH_LIT("a control character; the file must be plain text");
        return token;
    }
    return word_token(lexer, token);
}

enum bh_status bh_lexer_unescape(struct bh_arena *arena, struct bh_slice text,
                                 struct bh_slice *octets)
{
    char *copy = bh_arena_alloc(arena, text.len + 1);
    if (copy == NULL) {
        return BH_ENOMEM;
    }
    size_t len = 0;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (c == '\\') {
            i++;
            switch (i < text.len ? text.ptr[i] : '\0') {
            case '"':
            case '\\':
                c = text.ptr[i];
                break;
            case 'n':
                c = '\n';
                break;
            case 't':
                c = '\t';
                break;
            default:
                return BH_EPROTO;
            }
        }
        copy[len++] = c;
    }
    *octets = bh_slice(copy, len);
    return BH_OK;
}
