#include "tls_required.h"

static const char name[] = "tls-required:";
#define NAME_LEN (sizeof(name) - 1)

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* A field is over when the next one starts, or the header ends. */
static void end_field(struct bh_tls_required *t)
{
    t->no = t->no || t->state == BH_TLS_REQUIRED_NO;
    t->state = BH_TLS_REQUIRED_NAME;
    t->name_len = 0;
}

static void on_name(struct bh_tls_required *t, char c)
{
    if (bh_lower(c) != name[t->name_len]) {
        t->state = BH_TLS_REQUIRED_OTHER;
        return;
    }
    t->name_len++;
    if (t->name_len == NAME_LEN) {
        t->fields++;
        t->state = BH_TLS_REQUIRED_BLANK;
    }
}

static void on_octet(struct bh_tls_required *t, char c)
{
    switch (t->state) {
    case BH_TLS_REQUIRED_NAME:
        on_name(t, c);
        break;
    case BH_TLS_REQUIRED_OTHER:
        break;
    case BH_TLS_REQUIRED_BLANK:
        if (!is_blank(c)) {
            t->state = bh_lower(c) == 'n' ? BH_TLS_REQUIRED_N : BH_TLS_REQUIRED_OTHER;
        }
        break;
    case BH_TLS_REQUIRED_N:
        t->state = bh_lower(c) == 'o' ? BH_TLS_REQUIRED_NO : BH_TLS_REQUIRED_OTHER;
        break;
    case BH_TLS_REQUIRED_NO:
        t->state = is_blank(c) ? BH_TLS_REQUIRED_NO : BH_TLS_REQUIRED_OTHER;
        break;
    }
}

void bh_tls_required_run(struct bh_tls_required *t, struct bh_slice run, bool starts)
{
    if (starts && run.len > 0 && !is_blank(run.ptr[0])) {
        end_field(t);
    } else if (starts && t->state == BH_TLS_REQUIRED_NAME) {
        t->state = BH_TLS_REQUIRED_OTHER; /* A name is not folded. */
    }
    for (size_t i = 0; i < run.len && t->state != BH_TLS_REQUIRED_OTHER; i++) {
        on_octet(t, run.ptr[i]);
    }
}

void bh_tls_required_end(struct bh_tls_required *t)
{
    end_field(t);
}

bool bh_tls_required_says_no(const struct bh_tls_required *t)
{
    return t->fields == 1 && t->no;
}
