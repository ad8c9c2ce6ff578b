/* Sessions to resume, newest first. OpenSSL checks neither chain nor name on resumption, so the key
 * holds the digest of the whole demand: a session comes back only where its own handshake met
 * exactly what is demanded now, at this host and port, and only while the certificates behind it
 * are in date. */
#include <stdlib.h>
#include <time.h>

#include "tls_internal.h"

#define KEEP_MS ((uint64_t)3600 * 1000)

static void unlink_entry(struct bh_tls_worker *w, struct tls_resume *e)
{
    *(e->newer != NULL ? &e->newer->older : &w->newest) = e->older;
    *(e->older != NULL ? &e->older->newer : &w->oldest) = e->newer;
    bh_map_remove(&w->resume, &e->node);
}

static void drop(struct bh_tls_worker *w, struct tls_resume *e)
{
    unlink_entry(w, e);
    SSL_SESSION_free(e->session);
    free(e);
}

static struct tls_resume *find(struct bh_tls_worker *w, struct bh_slice key)
{
    struct bh_map_node *node = bh_map_find(&w->resume, key);
    return node != NULL ? BH_CONTAINER(node, struct tls_resume, node) : NULL;
}

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

const struct tls_resume *bh_tls_resume_find(struct bh_tls_worker *worker, struct bh_slice key)
{
    struct tls_resume *e = find(worker, key);
    if (e != NULL && (SSL_SESSION_is_resumable(e->session) != 1 || now_ms() >= e->until_ms ||
                      (int64_t)time(NULL) >= e->valid_until_unix)) {
        drop(worker, e);
        return NULL;
    }
    return e;
}

bool bh_tls_resume_keep(struct bh_tls_worker *worker, const struct bh_tls *tls,
                        SSL_SESSION *session)
{
    const struct bh_slice key = bh_slice(tls->key, tls->key_len);
    if (worker->resume_max == 0 || key.len == 0 || key.len > TLS_KEY_LEN) {
        return false;
    }
    struct tls_resume *e = find(worker, key);
    if (e != NULL) {
        drop(worker, e);
    }
    while (worker->oldest != NULL && worker->resume.count >= worker->resume_max) {
        drop(worker, worker->oldest);
    }
    e = calloc(1, sizeof(*e));
    if (e == NULL) {
        return false;
    }
    memcpy(e->key, key.ptr, key.len);
    e->key_len = key.len;
    e->node.key = bh_slice(e->key, e->key_len);
    if (bh_map_insert(&worker->resume, &e->node) != BH_OK) {
        free(e);
        return false;
    }
    e->session = session;
    e->facts = tls->facts;
    e->valid_until_unix = tls->valid_until_unix;
    /* From the full handshake on: a row of resumed sessions gets no older than one. */
    e->until_ms = tls->facts.resumed ? tls->prior_until_ms : now_ms() + KEEP_MS;
    e->older = worker->newest;
    *(worker->newest != NULL ? &worker->newest->newer : &worker->oldest) = e;
    worker->newest = e;
    return true;
}

void bh_tls_resume_clear(struct bh_tls_worker *worker)
{
    while (worker->oldest != NULL) {
        drop(worker, worker->oldest);
    }
    bh_map_fini(&worker->resume);
}
