/* A treap in which nodes never change once they can be seen: a write makes new nodes from the root
 * to its place and shares the rest. Nodes and items count their references. So a transaction is an
 * array of roots: to begin is to take them, to commit is to hand them over, to abort is to let go,
 * and a reader keeps what it saw. The priority of a node is a hash of its key, so that the shape of
 * a tree depends on its keys alone. */
#include "bh/kv_memory.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "bh/assert.h"
#include "kv_backend.h"

struct item {
    atomic_uint references;
    size_t key_len;
    size_t value_len;
    char octets[]; /* the key, then the value */
};

struct node {
    atomic_uint references;
    uint64_t priority;
    struct item *item;
    struct node *left;
    struct node *right;
};

struct memory_kv {
    struct bh_kv kv;      /* first */
    pthread_mutex_t lock; /* guards roots, bytes and bytes_max */
    struct node *roots[BH_KV_DB_COUNT];
    size_t bytes;
    size_t bytes_max;
    size_t reserve;
    atomic_uint crashes;
    bool writing;
    bh_kv_fault fault;
    void *fault_ctx;
};

struct memory_txn {
    struct bh_kv_txn txn; /* first */
    struct node *roots[BH_KV_DB_COUNT];
    uint64_t changes[BH_KV_DB_COUNT]; /* writes to each, to catch a cursor used after one */
    size_t bytes;
    unsigned crashes; /* as of its begin */
    unsigned cursors;
};

struct memory_cursor {
    struct bh_kv_cursor cursor; /* first */
    struct item *at;            /* referenced; NULL before the first move */
    uint64_t changes;
};

static struct memory_kv *memory_of(struct bh_kv *kv)
{
    return (struct memory_kv *)(void *)kv;
}

static struct memory_txn *txn_of(struct bh_kv_txn *txn)
{
    return (struct memory_txn *)(void *)txn;
}

/* ---- items and nodes ---- */

static struct bh_slice item_key(const struct item *item)
{
    return bh_slice(item->octets, item->key_len);
}

static struct bh_slice item_value(const struct item *item)
{
    return bh_slice(item->octets + item->key_len, item->value_len);
}

static struct item *item_create(struct bh_slice key, struct bh_slice value)
{
    struct item *item = malloc(sizeof(*item) + key.len + value.len);
    if (item == NULL) {
        return NULL;
    }
    atomic_init(&item->references, 1);
    item->key_len = key.len;
    item->value_len = value.len;
    memcpy(item->octets, key.ptr, key.len);
    if (value.len > 0) {
        memcpy(item->octets + key.len, value.ptr, value.len);
    }
    return item;
}

static struct item *item_share(struct item *item)
{
    atomic_fetch_add_explicit(&item->references, 1, memory_order_relaxed);
    return item;
}

static void item_release(struct item *item)
{
    if (item != NULL &&
        atomic_fetch_sub_explicit(&item->references, 1, memory_order_acq_rel) == 1) {
        free(item);
    }
}

static struct node *node_share(struct node *node)
{
    if (node != NULL) {
        atomic_fetch_add_explicit(&node->references, 1, memory_order_relaxed);
    }
    return node;
}

/* The depth is that of the tree: some 60 for a million keys. */
static void node_release(struct node *node)
{
    while (node != NULL &&
           atomic_fetch_sub_explicit(&node->references, 1, memory_order_acq_rel) == 1) {
        struct node *right = node->right;
        node_release(node->left);
        item_release(node->item);
        free(node);
        node = right;
    }
}

/* Takes over the references of all three; on failure lets go of them. */
static struct node *node_create(struct item *item, struct node *left, struct node *right)
{
    struct node *node = malloc(sizeof(*node));
    if (node == NULL) {
        item_release(item);
        node_release(left);
        node_release(right);
        return NULL;
    }
    atomic_init(&node->references, 1);
    node->priority = bh_hash(item_key(item), 0x6b766d65);
    node->item = item;
    node->left = left;
    node->right = right;
    return node;
}

/* A new root for the tree with `item` in it, or NULL for want of memory. Takes over the reference
 * of item; borrows root. */
static struct node *insert(struct node *root, struct item *item)
{
    if (root == NULL) {
        return node_create(item, NULL, NULL);
    }
    const int order = bh_slice_cmp(item_key(item), item_key(root->item));
    if (order == 0) {
        return node_create(item, node_share(root->left), node_share(root->right));
    }
    struct node *child = insert(order < 0 ? root->left : root->right, item);
    if (child == NULL) {
        return NULL;
    }
    struct item *own = item_share(root->item);
    if (child->priority <= root->priority) {
        return order < 0 ? node_create(own, child, node_share(root->right))
                         : node_create(own, node_share(root->left), child);
    }
    /* The child rises above: a rotation. Its own far side becomes the near side of the old root. */
    struct node *below = order < 0
                             ? node_create(own, node_share(child->right), node_share(root->right))
                             : node_create(own, node_share(root->left), node_share(child->left));
    struct node *risen = NULL;
    if (below != NULL) {
        struct item *top = item_share(child->item);
        risen = order < 0 ? node_create(top, node_share(child->left), below)
                          : node_create(top, below, node_share(child->right));
    }
    node_release(child);
    return risen;
}

/* Both borrowed; every key of left is below every key of right. @return false for want of memory */
static bool merge(struct node *left, struct node *right, struct node **merged)
{
    if (left == NULL || right == NULL) {
        *merged = node_share(left == NULL ? right : left);
        return true;
    }
    struct node *inner;
    if (left->priority > right->priority) {
        if (!merge(left->right, right, &inner)) {
            return false;
        }
        *merged = node_create(item_share(left->item), node_share(left->left), inner);
    } else {
        if (!merge(left, right->left, &inner)) {
            return false;
        }
        *merged = node_create(item_share(right->item), inner, node_share(right->right));
    }
    return *merged != NULL;
}

/* The key is in the tree. */
static bool erase(struct node *root, struct bh_slice key, struct node **without)
{
    BH_ASSERT(root != NULL);
    const int order = bh_slice_cmp(key, item_key(root->item));
    if (order == 0) {
        return merge(root->left, root->right, without);
    }
    struct node *child;
    if (!erase(order < 0 ? root->left : root->right, key, &child)) {
        return false;
    }
    struct item *own = item_share(root->item);
    *without = order < 0 ? node_create(own, child, node_share(root->right))
                         : node_create(own, node_share(root->left), child);
    return *without != NULL;
}

/* The item with the key, or the nearest above (or below) it, or NULL. */
static struct item *find(struct node *root, struct bh_slice key, bool equal, bool above, bool below)
{
    struct item *best = NULL;
    while (root != NULL) {
        const int order = bh_slice_cmp(key, item_key(root->item));
        if (order == 0 && equal) {
            return root->item;
        }
        if (order < 0) {
            best = above ? root->item : best;
            root = root->left;
        } else if (order > 0) {
            best = below ? root->item : best;
            root = root->right;
        } else {
            root = above ? root->right : root->left;
        }
    }
    return best;
}

static struct item *edge(struct node *root, bool first)
{
    if (root == NULL) {
        return NULL;
    }
    while ((first ? root->left : root->right) != NULL) {
        root = first ? root->left : root->right;
    }
    return root->item;
}

/* ---- transactions ---- */

static enum bh_status step(struct bh_kv_txn *txn, enum bh_kv_step what)
{
    struct memory_kv *m = memory_of(txn->kv);
    if (txn->mode == BH_KV_READ) {
        return BH_OK;
    }
    enum bh_status status = BH_OK;
    if (m->fault != NULL) {
        status = m->fault(m->fault_ctx, what);
    }
    /* A process that died takes its transactions along, whatever it would still have done. */
    return txn_of(txn)->crashes != atomic_load(&m->crashes) ? BH_EIO : status;
}

static void drop_roots(struct memory_txn *t)
{
    for (unsigned db = 0; db < BH_KV_DB_COUNT; db++) {
        node_release(t->roots[db]);
    }
}

static void end(struct bh_kv_txn *txn)
{
    struct memory_kv *m = memory_of(txn->kv);
    BH_ASSERT(txn_of(txn)->cursors == 0);
    drop_roots(txn_of(txn));
    if (txn->mode == BH_KV_WRITE && txn->parent == NULL) {
        pthread_mutex_lock(&m->lock);
        m->writing = false;
        pthread_mutex_unlock(&m->lock);
    }
    free(txn_of(txn));
}

static enum bh_status memory_begin(struct bh_kv *kv, enum bh_kv_mode mode, struct bh_kv_txn *parent,
                                   struct bh_kv_txn **txn)
{
    struct memory_kv *m = memory_of(kv);
    struct memory_txn *t = calloc(1, sizeof(*t));
    if (t == NULL) {
        return BH_ENOMEM;
    }
    t->txn = (struct bh_kv_txn){.kv = kv, .parent = parent, .mode = mode};
    pthread_mutex_lock(&m->lock);
    if (mode == BH_KV_WRITE && parent == NULL) {
        BH_ASSERT(!m->writing);
        m->writing = true;
    }
    t->crashes = parent != NULL ? txn_of(parent)->crashes : atomic_load(&m->crashes);
    t->bytes = parent != NULL ? txn_of(parent)->bytes : m->bytes;
    for (unsigned db = 0; db < BH_KV_DB_COUNT; db++) {
        t->roots[db] = node_share(parent != NULL ? txn_of(parent)->roots[db] : m->roots[db]);
        t->changes[db] = parent != NULL ? txn_of(parent)->changes[db] : 0;
    }
    pthread_mutex_unlock(&m->lock);
    const enum bh_status status = step(&t->txn, BH_KV_STEP_BEGIN);
    if (status != BH_OK) {
        end(&t->txn);
        return status;
    }
    *txn = &t->txn;
    return BH_OK;
}

static void hand_over(struct memory_txn *t, struct node **roots, size_t *bytes)
{
    for (unsigned db = 0; db < BH_KV_DB_COUNT; db++) {
        struct node *old = roots[db];
        roots[db] = t->roots[db];
        t->roots[db] = old;
    }
    *bytes = t->bytes;
}

static enum bh_status memory_commit(struct bh_kv_txn *txn)
{
    struct memory_kv *m = memory_of(txn->kv);
    struct memory_txn *t = txn_of(txn);
    enum bh_status status = BH_OK;
    if (txn->mode == BH_KV_WRITE && txn->parent != NULL) {
        struct memory_txn *parent = txn_of(txn->parent);
        hand_over(t, parent->roots, &parent->bytes);
        memcpy(parent->changes, t->changes, sizeof(parent->changes));
    } else if (txn->mode == BH_KV_WRITE) {
        status = step(txn, BH_KV_STEP_COMMIT);
        if (status == BH_OK) {
            pthread_mutex_lock(&m->lock);
            hand_over(t, m->roots, &m->bytes);
            pthread_mutex_unlock(&m->lock);
            status = step(txn, BH_KV_STEP_COMMITTED);
        }
    }
    end(txn);
    return status;
}

static void memory_abort(struct bh_kv_txn *txn)
{
    end(txn);
}

/* ---- one row ---- */

static enum bh_status memory_get(struct bh_kv_txn *txn, enum bh_kv_db db, struct bh_slice key,
                                 struct bh_slice *value)
{
    const enum bh_status status = step(txn, BH_KV_STEP_GET);
    if (status != BH_OK) {
        return status;
    }
    const struct item *item = find(txn_of(txn)->roots[db], key, true, false, false);
    if (item == NULL) {
        return BH_ENOTFOUND;
    }
    *value = item_value(item);
    return BH_OK;
}

static void replace_root(struct memory_txn *t, enum bh_kv_db db, struct node *root)
{
    node_release(t->roots[db]);
    t->roots[db] = root;
    t->changes[db]++;
}

static size_t bytes_max(struct memory_kv *m)
{
    pthread_mutex_lock(&m->lock);
    const size_t max = m->bytes_max;
    pthread_mutex_unlock(&m->lock);
    return max;
}

static enum bh_status memory_put(struct bh_kv_txn *txn, enum bh_kv_db db, struct bh_slice key,
                                 struct bh_slice value, unsigned flags)
{
    (void)flags;
    struct memory_txn *t = txn_of(txn);
    const enum bh_status status = step(txn, BH_KV_STEP_PUT);
    if (status != BH_OK) {
        return status;
    }
    const struct item *old = find(t->roots[db], key, true, false, false);
    const size_t without = old != NULL ? t->bytes - old->key_len - old->value_len : t->bytes;
    const size_t with = without + key.len + value.len;
    if (with > t->bytes && with > bytes_max(memory_of(txn->kv))) {
        return BH_EFULL;
    }
    struct item *item = item_create(key, value);
    struct node *root = item != NULL ? insert(t->roots[db], item) : NULL;
    if (root == NULL) {
        return BH_ENOMEM;
    }
    replace_root(t, db, root);
    t->bytes = with;
    return BH_OK;
}

static enum bh_status memory_del(struct bh_kv_txn *txn, enum bh_kv_db db, struct bh_slice key)
{
    struct memory_txn *t = txn_of(txn);
    const enum bh_status status = step(txn, BH_KV_STEP_DEL);
    if (status != BH_OK) {
        return status;
    }
    const struct item *old = find(t->roots[db], key, true, false, false);
    if (old == NULL) {
        return BH_ENOTFOUND;
    }
    const size_t bytes = old->key_len + old->value_len;
    struct node *root;
    if (!erase(t->roots[db], key, &root)) {
        return BH_ENOMEM;
    }
    replace_root(t, db, root);
    t->bytes -= bytes;
    return BH_OK;
}

static enum bh_status memory_room(struct bh_kv_txn *txn, size_t bytes)
{
    struct memory_kv *m = memory_of(txn->kv);
    const size_t max = bytes_max(m);
    const size_t used = txn_of(txn)->bytes;
    return max >= m->reserve && max - m->reserve >= used && max - m->reserve - used >= bytes
               ? BH_OK
               : BH_EFULL;
}

/* ---- cursors ---- */

static enum bh_status memory_cursor_open(struct bh_kv_txn *txn, enum bh_kv_db db,
                                         struct bh_kv_cursor **cursor)
{
    struct memory_cursor *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        return BH_ENOMEM;
    }
    c->cursor = (struct bh_kv_cursor){.txn = txn, .db = db};
    txn_of(txn)->cursors++;
    *cursor = &c->cursor;
    return BH_OK;
}

static void memory_cursor_close(struct bh_kv_cursor *cursor)
{
    struct memory_cursor *c = (struct memory_cursor *)(void *)cursor;
    txn_of(cursor->txn)->cursors--;
    item_release(c->at);
    free(c);
}

static enum bh_status memory_cursor_move(struct bh_kv_cursor *cursor, int how, struct bh_slice seek,
                                         struct bh_slice *key, struct bh_slice *value)
{
    struct memory_cursor *c = (struct memory_cursor *)(void *)cursor;
    const struct memory_txn *t = txn_of(cursor->txn);
    struct node *root = t->roots[cursor->db];
    const enum bh_status status = step(cursor->txn, BH_KV_STEP_GET);
    if (status != BH_OK) {
        return status;
    }
    if (how == KV_NEXT || how == KV_PREV) {
        BH_ASSERT(c->at != NULL);
        BH_ASSERT(c->changes == t->changes[cursor->db]);
    }
    struct item *item = NULL;
    switch ((enum kv_move)how) {
    case KV_FIRST:
        item = edge(root, true);
        break;
    case KV_LAST:
        item = edge(root, false);
        break;
    case KV_SEEK:
        item = find(root, seek, true, true, false);
        break;
    case KV_NEXT:
        item = find(root, item_key(c->at), false, true, false);
        break;
    case KV_PREV:
        item = find(root, item_key(c->at), false, false, true);
        break;
    }
    if (item == NULL) {
        return BH_ENOTFOUND;
    }
    item_share(item);
    item_release(c->at);
    c->at = item;
    c->changes = t->changes[cursor->db];
    *key = item_key(item);
    *value = item_value(item);
    return BH_OK;
}

/* ---- the store ---- */

static void memory_close(struct bh_kv *kv)
{
    struct memory_kv *m = memory_of(kv);
    BH_ASSERT(!m->writing);
    for (unsigned db = 0; db < BH_KV_DB_COUNT; db++) {
        node_release(m->roots[db]);
    }
    pthread_mutex_destroy(&m->lock);
    free(m);
}

static const struct bh_kv_ops memory_ops = {
    .begin = memory_begin,
    .commit = memory_commit,
    .abort = memory_abort,
    .get = memory_get,
    .put = memory_put,
    .del = memory_del,
    .room = memory_room,
    .cursor_open = memory_cursor_open,
    .cursor_close = memory_cursor_close,
    .cursor_move = memory_cursor_move,
    .close = memory_close,
};

struct bh_kv *bh_kv_memory_create(size_t max, size_t reserve)
{
    struct memory_kv *m = calloc(1, sizeof(*m));
    if (m == NULL) {
        return NULL;
    }
    m->kv.ops = &memory_ops;
    pthread_mutex_init(&m->lock, NULL);
    m->bytes_max = max;
    m->reserve = reserve;
    return &m->kv;
}

void bh_kv_memory_set_fault(struct bh_kv *kv, bh_kv_fault fault, void *ctx)
{
    memory_of(kv)->fault = fault;
    memory_of(kv)->fault_ctx = ctx;
}

void bh_kv_memory_set_max(struct bh_kv *kv, size_t max)
{
    struct memory_kv *m = memory_of(kv);
    pthread_mutex_lock(&m->lock);
    m->bytes_max = max;
    pthread_mutex_unlock(&m->lock);
}

void bh_kv_memory_crash(struct bh_kv *kv)
{
    atomic_fetch_add(&memory_of(kv)->crashes, 1);
}

size_t bh_kv_memory_bytes(struct bh_kv *kv)
{
    struct memory_kv *m = memory_of(kv);
    pthread_mutex_lock(&m->lock);
    const size_t bytes = m->bytes;
    pthread_mutex_unlock(&m->lock);
    return bytes;
}
