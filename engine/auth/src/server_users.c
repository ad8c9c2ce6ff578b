/* The text of a password file as a table by name. Names and hashes stay where they were read. */
#include <crypt.h>
#include <openssl/crypto.h>
#include <stdlib.h>

#include "server_internal.h"

static const char scram_prefix[] = "{SCRAM-SHA-256}";

/* Says what is wrong in which line, and quotes nothing: it may hold a secret. */
static bool fault(struct bh_buf *error, uint32_t line, const char *what)
{
    char number[24];
    struct bh_buf text = bh_buf(number, sizeof(number));
    if (bh_buf_printf(&text, "line %u: ", line) == BH_OK) {
        bh_buf_add_cut(error, bh_buf_slice(&text));
    }
    bh_buf_add_cut(error, bh_slice_str(what));
    return false;
}

static struct bh_slice take_until(struct bh_slice *rest, char c)
{
    const size_t at = bh_slice_find(*rest, c);
    const struct bh_slice piece = bh_slice_take(*rest, at);
    *rest = bh_slice_skip(*rest, at + 1);
    return piece;
}

static bool read_key(struct bh_slice text, uint8_t key[BH_AUTH_SCRAM_KEY])
{
    struct bh_buf out = bh_buf(key, BH_AUTH_SCRAM_KEY);
    return auth_base64_decode(text, &out) == BH_OK && out.len == BH_AUTH_SCRAM_KEY;
}

/* "4096,SALT,STORED,SERVER" */
static bool read_scram(struct bh_slice text, struct scram_keys *keys)
{
    uint64_t iterations = 0;
    struct bh_buf salt = bh_buf(keys->salt, sizeof(keys->salt));
    if (!bh_slice_u64(take_until(&text, ','), SCRAM_ITERATIONS_MAX, &iterations) ||
        iterations < SCRAM_ITERATIONS_MIN ||
        auth_base64_decode(take_until(&text, ','), &salt) != BH_OK || salt.len < 8) {
        return false;
    }
    keys->iterations = (uint32_t)iterations;
    keys->salt_len = (uint8_t)salt.len;
    return read_key(take_until(&text, ','), keys->stored_key) && read_key(text, keys->server_key);
}

static bool name_good(struct bh_slice name)
{
    bool good = name.len > 0 && name.len <= BH_SERVER_USER_MAX;
    for (size_t i = 0; good && i < name.len; i++) {
        good = (unsigned char)name.ptr[i] >= ' ' && name.ptr[i] != 127;
    }
    return good;
}

/* The line ends in a NUL, which stands where its line break was. */
static bool read_line(struct bh_slice line, struct auth_user *user, struct bh_buf *error)
{
    user->name = take_until(&line, ':');
    if (!name_good(user->name)) {
        return fault(error, user->line, "a name of 1 to 255 characters and ':' are needed");
    }
    if (bh_slice_starts(line, bh_slice_str(scram_prefix))) {
        return read_scram(bh_slice_skip(line, sizeof(scram_prefix) - 1), &user->scram) ||
               fault(error, user->line,
                     "{SCRAM-SHA-256} needs iterations (4096 at least), salt, stored key and "
                     "server key, commas between");
    }
    /* To crypt(3) almost any text is a salt of the DES of old, a bare password too: the forms that
     * say what they are all start with a dollar sign. */
    const int salt = bh_slice_starts(line, BH_LIT("$")) && line.len < HASH_MAX
                         ? crypt_checksalt(line.ptr)
                         : CRYPT_SALT_INVALID;
    if (salt == CRYPT_SALT_INVALID || salt == CRYPT_SALT_METHOD_DISABLED) {
        return fault(error, user->line,
                     "a hash of crypt(3) is needed, such as $y$..., or SCRAM keys");
    }
    user->hash = line.ptr;
    return true;
}

static bool read_lines(struct bh_auth_users *u, struct bh_buf *error)
{
    uint32_t number = 0;
    for (char *at = u->text, *end = u->text + u->text_len; at < end;) {
        char *lf = memchr(at, '\n', (size_t)(end - at));
        char *next = lf != NULL ? lf + 1 : end;
        char *stop = lf != NULL ? lf : end; /* There is a NUL behind the text. */
        stop -= stop > at && stop[-1] == '\r' ? 1 : 0;
        *stop = '\0';
        number++;
        const struct bh_slice line = bh_slice(at, (size_t)(stop - at));
        if (memchr(line.ptr, '\0', line.len) != NULL) {
            return fault(error, number, "a NUL octet");
        }
        at = next;
        if (line.len == 0 || line.ptr[0] == '#') {
            continue;
        }
        struct auth_user *user = &u->users[u->count];
        *user = (struct auth_user){.line = number};
        if (!read_line(line, user, error)) {
            return false;
        }
        u->count++;
    }
    return true;
}

static int by_name(const void *a, const void *b)
{
    const struct auth_user *x = a;
    const struct auth_user *y = b;
    const int order = bh_slice_cmp(x->name, y->name);
    return order != 0 ? order : (x->line > y->line) - (x->line < y->line);
}

/* Two lines of a user, one of each form, become one. */
static bool merge(struct bh_auth_users *u, struct bh_buf *error)
{
    size_t kept = 0;
    qsort(u->users, u->count, sizeof(*u->users), by_name);
    for (size_t i = 0; i < u->count; i++) {
        struct auth_user *user = &u->users[i];
        struct auth_user *last = kept > 0 ? &u->users[kept - 1] : NULL;
        if (last == NULL || !bh_slice_eq(last->name, user->name)) {
            u->users[kept++] = *user;
        } else if (user->hash != NULL && last->hash == NULL) {
            last->hash = user->hash;
        } else if (user->scram.iterations > 0 && last->scram.iterations == 0) {
            last->scram = user->scram;
        } else {
            return fault(error, user->line, "this user has a line of this form already");
        }
    }
    u->count = kept;
    u->all_scram = kept > 0;
    for (size_t i = 0; i < kept; i++) {
        u->all_scram = u->all_scram && u->users[i].scram.iterations > 0;
    }
    return true;
}

static size_t count_lines(struct bh_slice text)
{
    size_t lines = 1;
    for (size_t i = 0; i < text.len; i++) {
        lines += text.ptr[i] == '\n' ? 1 : 0;
    }
    return lines;
}

enum bh_status bh_auth_users_parse(struct bh_slice text, struct bh_auth_users **users,
                                   struct bh_buf *error)
{
    struct bh_auth_users *u = calloc(1, sizeof(*u));
    if (u == NULL) {
        return BH_ENOMEM;
    }
    atomic_init(&u->references, 1);
    u->users = calloc(count_lines(text), sizeof(*u->users));
    u->text = malloc(text.len + 1);
    if (u->users == NULL || u->text == NULL) {
        bh_auth_users_unref(u);
        return BH_ENOMEM;
    }
    memcpy(u->text, text.ptr, text.len);
    u->text[text.len] = '\0';
    u->text_len = text.len;
    if (!read_lines(u, error) || !merge(u, error)) {
        bh_auth_users_unref(u);
        return BH_EINVAL;
    }
    *users = u;
    return BH_OK;
}

void bh_auth_users_unref(struct bh_auth_users *users)
{
    if (users == NULL || atomic_fetch_sub(&users->references, 1) > 1) {
        return;
    }
    if (users->text != NULL) {
        OPENSSL_cleanse(users->text, users->text_len);
    }
    if (users->users != NULL) {
        OPENSSL_cleanse(users->users, users->count * sizeof(*users->users));
    }
    free(users->text);
    free(users->users);
    free(users);
}

size_t bh_auth_users_count(const struct bh_auth_users *users)
{
    return users->count;
}

const struct auth_user *auth_users_find(const struct bh_auth_users *users, struct bh_slice name)
{
    size_t low = 0;
    size_t high = users->count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const int order = bh_slice_cmp(users->users[middle].name, name);
        if (order == 0) {
            return &users->users[middle];
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}
