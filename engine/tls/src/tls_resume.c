/* Sessions to resume, newest first. OpenSSL checks neither chain nor name on resumption, so the key
 * holds the digest of the whole demand: a session comes back only where its own handshake met
 * exactly what is demanded now, at this host and port. */
#include <stdlib.h>

#include "tls_internal.h"

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

SSL_SESSION *bh_tls_resume_find(struct bh_tls_worker *worker, struct bh_slice key)
{
    struct tls_resume *e = find(worker, key);
    if (e == NULL) {
        return NULL;
    }
    if (SSL_SESSION_is_resumable(e->session) != 1) {
        drop(worker, e);
        return NULL;
    }
    return e->session;
}

bool bh_tls_resume_keep(struct bh_tls_worker *worker, struct bh_slice key, SSL_SESSION *session)
{
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
