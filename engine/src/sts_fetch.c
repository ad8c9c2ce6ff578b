#include "sts_fetch.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "bh/assert.h"
#include "bh/buf.h"
#include "bh/sts.h"

struct sts_fetcher {
    uv_loop_t *loop;
    uv_timer_t timer;
    CURLM *multi;
};

/* A socket of curl's, watched by the loop. */
struct watch {
    uv_poll_t poll;
    struct sts_fetcher *fetcher;
    curl_socket_t socket;
};

struct sts_fetch {
    struct sts_fetcher *fetcher;
    CURL *easy;
    CURLSH *names; /* its own addresses: what one fetch was told must not serve another */
    struct curl_slist *resolve;
    sts_fetch_fn *cb;
    void *ctx;
    struct bh_ip addresses[STS_FETCH_ADDRESSES_MAX];
    size_t address_count;
    char host[256];
    size_t octets_max;
    bool too_large;
    char *body;
    size_t len;
    char error[CURL_ERROR_SIZE];
};

/* ---- curl on the loop ---- */

static void finish_all(struct sts_fetcher *f);

static void on_timer(uv_timer_t *timer)
{
    struct sts_fetcher *f = timer->data;
    int running = 0;
    curl_multi_socket_action(f->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    finish_all(f);
}

static int set_timer(CURLM *multi, long timeout_ms, void *ctx)
{
    struct sts_fetcher *f = ctx;
    (void)multi;
    if (timeout_ms < 0) {
        uv_timer_stop(&f->timer);
    } else {
        uv_timer_start(&f->timer, on_timer, (uint64_t)timeout_ms, 0);
    }
    return 0;
}

static void on_socket(uv_poll_t *poll, int status, int events)
{
    const struct watch *w = poll->data;
    struct sts_fetcher *f = w->fetcher;
    int running = 0;
    int flags = status < 0 ? CURL_CSELECT_ERR : 0;
    flags |= (events & UV_READABLE) != 0 ? CURL_CSELECT_IN : 0;
    flags |= (events & UV_WRITABLE) != 0 ? CURL_CSELECT_OUT : 0;
    curl_multi_socket_action(f->multi, w->socket, flags, &running);
    finish_all(f);
}

static void free_watch(uv_handle_t *handle)
{
    free(handle->data);
}

static struct watch *watch_socket(struct sts_fetcher *f, curl_socket_t socket)
{
    struct watch *w = calloc(1, sizeof(*w));
    if (w == NULL || uv_poll_init(f->loop, &w->poll, socket) != 0) {
        free(w);
        return NULL;
    }
    w->fetcher = f;
    w->socket = socket;
    w->poll.data = w;
    curl_multi_assign(f->multi, socket, w);
    return w;
}

static int set_socket(CURL *easy, curl_socket_t socket, int what, void *ctx, void *assigned)
{
    struct sts_fetcher *f = ctx;
    struct watch *w = assigned;
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (w != NULL) {
            curl_multi_assign(f->multi, socket, NULL);
            uv_close((uv_handle_t *)&w->poll, free_watch);
        }
        return 0;
    }
    if (w == NULL) {
        w = watch_socket(f, socket);
    }
    int events = 0;
    events |= what == CURL_POLL_IN || what == CURL_POLL_INOUT ? UV_READABLE : 0;
    events |= what == CURL_POLL_OUT || what == CURL_POLL_INOUT ? UV_WRITABLE : 0;
    return w != NULL && uv_poll_start(&w->poll, events, on_socket) == 0 ? 0 : -1;
}

static void init_curl(void)
{
    /* Before any thread of ours: it isn't safe beside others. */
    BH_ASSERT(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK);
}

enum bh_status sts_fetcher_create(uv_loop_t *loop, struct sts_fetcher **fetcher)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, init_curl);
    struct sts_fetcher *f = calloc(1, sizeof(*f));
    if (f == NULL) {
        return BH_ENOMEM;
    }
    f->loop = loop;
    f->multi = curl_multi_init();
    if (f->multi == NULL) {
        free(f);
        return BH_ENOMEM;
    }
    uv_timer_init(loop, &f->timer);
    f->timer.data = f;
    curl_multi_setopt(f->multi, CURLMOPT_SOCKETFUNCTION, set_socket);
    curl_multi_setopt(f->multi, CURLMOPT_SOCKETDATA, f);
    curl_multi_setopt(f->multi, CURLMOPT_TIMERFUNCTION, set_timer);
    curl_multi_setopt(f->multi, CURLMOPT_TIMERDATA, f);
    curl_multi_setopt(f->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
    *fetcher = f;
    return BH_OK;
}

void sts_fetcher_close(struct sts_fetcher *f)
{
    uv_close((uv_handle_t *)&f->timer, NULL);
    curl_multi_cleanup(f->multi);
    f->multi = NULL;
}

void sts_fetcher_free(struct sts_fetcher *f)
{
    if (f != NULL && f->multi != NULL) {
        curl_multi_cleanup(f->multi); /* the loop never ran */
    }
    free(f);
}

/* ---- one fetch ---- */

static void free_fetch(struct sts_fetch *t)
{
    curl_easy_cleanup(t->easy);
    curl_share_cleanup(t->names);
    curl_slist_free_all(t->resolve);
    free(t->body);
    free(t);
}

static size_t on_body(char *octets, size_t size, size_t count, void *ctx)
{
    struct sts_fetch *t = ctx;
    const size_t len = size * count;
    if (len > t->octets_max - t->len) {
        t->too_large = true;
        return 0; /* ends the transfer: MAXFILESIZE alone lets chunked bodies grow */
    }
    if (len > 0) {
        memcpy(t->body + t->len, octets, len);
        t->len += len;
    }
    return len;
}

/* The name is checked by OpenSSL too, without the common name: only the subject alternative names
 * count (RFC 8461 section 3.3). */
static CURLcode on_tls(CURL *easy, void *tls, void *ctx)
{
    const struct sts_fetch *t = ctx;
    X509_VERIFY_PARAM *param = SSL_CTX_get0_param(tls);
    (void)easy;
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT |
                                               X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return X509_VERIFY_PARAM_set1_host(param, t->host, 0) == 1 ? CURLE_OK : CURLE_SSL_CERTPROBLEM;
}

static struct bh_ip ip_of(const struct sockaddr *address)
{
    struct bh_ip ip = {0};
    if (address->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, address, sizeof(in));
        ip.family = 4;
        memcpy(ip.bytes, &in.sin_addr, 4);
    } else if (address->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, address, sizeof(in6));
        ip.family = 6;
        memcpy(ip.bytes, &in6.sin6_addr, 16);
    }
    return ip;
}

/* Whatever curl believes, it connects only to where it was told. */
static curl_socket_t open_socket(void *ctx, curlsocktype purpose, struct curl_sockaddr *address)
{
    const struct sts_fetch *t = ctx;
    const struct bh_ip ip = ip_of(&address->addr);
    (void)purpose;
    for (size_t i = 0; i < t->address_count; i++) {
        if (bh_ip_eq(&ip, &t->addresses[i])) {
            return socket(address->family, address->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK,
                          address->protocol);
        }
    }
    return CURL_SOCKET_BAD;
}

/* "+mta-sts.bank.example:443:192.0.2.1,[2001:db8::1]" */
static struct curl_slist *resolve_list(const struct sts_fetch_request *request)
{
    char text[256 + 16 + STS_FETCH_ADDRESSES_MAX * (BH_IP_TEXT_MAX + 3)];
    char ip[BH_IP_TEXT_MAX];
    struct bh_buf out = bh_buf(text, sizeof(text) - 1);
    bool ok = bh_buf_printf(&out, "%s:%u:", request->host, (unsigned)request->port) == BH_OK;
    for (size_t i = 0; i < request->address_count; i++) {
        const struct bh_ip *at = &request->addresses[i];
        ok &= bh_buf_printf(&out, at->family == 6 ? "%s[%s]" : "%s%s", i > 0 ? "," : "",
                            bh_ip_text(at, ip)) == BH_OK;
    }
    text[out.len] = '\0';
    return ok ? curl_slist_append(NULL, text) : NULL;
}

#define SET(option, value)                                          \
    do {                                                            \
        if (curl_easy_setopt(t->easy, option, value) != CURLE_OK) { \
            return false;                                           \
        }                                                           \
    } while (false)

static bool set_http(struct sts_fetch *t, const char *url)
{
    SET(CURLOPT_URL, url);
    SET(CURLOPT_PROTOCOLS_STR, "https");
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_PROXY, "");
    SET(CURLOPT_NOPROXY, "*");
    SET(CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    SET(CURLOPT_USERAGENT, "bridgehead");
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_FRESH_CONNECT, 1L);
    SET(CURLOPT_FORBID_REUSE, 1L);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, t);
    SET(CURLOPT_ERRORBUFFER, t->error);
    SET(CURLOPT_PRIVATE, t);
    return true;
}

static bool set_way(struct sts_fetch *t, const struct sts_fetch_request *request)
{
    const long ms = request->timeout_ms < 3600000 ? (long)request->timeout_ms : 3600000L;
    SET(CURLOPT_SHARE, t->names);
    SET(CURLOPT_RESOLVE, t->resolve);
    SET(CURLOPT_OPENSOCKETFUNCTION, open_socket);
    SET(CURLOPT_OPENSOCKETDATA, t);
    SET(CURLOPT_TIMEOUT_MS, ms);
    SET(CURLOPT_CONNECTTIMEOUT_MS, ms);
    return true;
}

static bool set_tls(struct sts_fetch *t, const char *ca_file)
{
    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    SET(CURLOPT_SSL_VERIFYPEER, 1L);
    SET(CURLOPT_SSL_VERIFYHOST, 2L);
    SET(CURLOPT_SSL_SESSIONID_CACHE, 0L);
    SET(CURLOPT_SSL_CTX_FUNCTION, on_tls);
    SET(CURLOPT_SSL_CTX_DATA, t);
    if (ca_file != NULL) {
        SET(CURLOPT_CAINFO, ca_file);
        SET(CURLOPT_CAPATH, NULL); /* else the system's authorities would count besides */
    }
    return true;
}

enum bh_status sts_fetch_start(struct sts_fetcher *f, const struct sts_fetch_request *request,
                               sts_fetch_fn *cb, void *ctx, struct sts_fetch **fetch)
{
    char url[512];
    struct bh_buf text = bh_buf(url, sizeof(url));
    BH_ASSERT(request->address_count > 0 && request->address_count <= STS_FETCH_ADDRESSES_MAX);
    struct sts_fetch *t = calloc(1, sizeof(*t));
    if (t == NULL) {
        return BH_ENOMEM;
    }
    t->fetcher = f;
    t->cb = cb;
    t->ctx = ctx;
    memcpy(t->addresses, request->addresses, request->address_count * sizeof(t->addresses[0]));
    t->address_count = request->address_count;
    struct bh_buf host = bh_buf(t->host, sizeof(t->host) - 1);
    bh_buf_add_cut(&host, bh_slice_str(request->host));
    t->octets_max = request->octets_max;
    t->body = malloc(request->octets_max + 1);
    t->easy = curl_easy_init();
    t->names = curl_share_init();
    t->resolve = resolve_list(request);
    const bool made =
        t->body != NULL && t->easy != NULL && t->names != NULL && t->resolve != NULL &&
        bh_buf_printf(&text, "https://%s:%u%s", request->host, (unsigned)request->port,
                      request->path) == BH_OK &&
        curl_share_setopt(t->names, CURLSHOPT_SHARE, CURL_LOCK_DATA_DNS) == CURLSHE_OK &&
        set_http(t, url) && set_way(t, request) && set_tls(t, request->ca_file) &&
        curl_multi_add_handle(f->multi, t->easy) == CURLM_OK;
    if (!made) {
        free_fetch(t);
        return BH_ENOMEM;
    }
    *fetch = t;
    return BH_OK;
}

void sts_fetch_cancel(struct sts_fetch *t)
{
    curl_multi_remove_handle(t->fetcher->multi, t->easy);
    free_fetch(t);
}

/* Why what came is not good; empty if it is. */
static struct bh_slice judge(struct sts_fetch *t, CURLcode result, struct bh_buf *text)
{
    long code = 0;
    const char *type = NULL;
    enum bh_status told = BH_OK;
    curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &code);
    curl_easy_getinfo(t->easy, CURLINFO_CONTENT_TYPE, &type);
    if (t->too_large) {
        told = bh_buf_printf(text, "it has more than %zu octets", t->octets_max);
    } else if (result != CURLE_OK) {
        bh_buf_add_cut(text,
                       bh_slice_str(t->error[0] != '\0' ? t->error : curl_easy_strerror(result)));
    } else if (code >= 300 && code < 400) {
        told = bh_buf_printf(text, "a redirect (%ld), which is not followed", code);
    } else if (code != 200) {
        told = bh_buf_printf(text, "its status is %ld, not 200", code);
    } else if (type == NULL || !bh_sts_content_type_ok(bh_slice_str(type))) {
        bh_buf_add_cut(text, BH_LIT("its media type is not text/plain"));
    }
    BH_ASSERT(told == BH_OK);
    return bh_buf_slice(text);
}

static void finish_all(struct sts_fetcher *f)
{
    const CURLMsg *message = NULL;
    int left = 0;
    while (f->multi != NULL && (message = curl_multi_info_read(f->multi, &left)) != NULL) {
        if (message->msg != CURLMSG_DONE) {
            continue;
        }
        char text[CURL_ERROR_SIZE + 64];
        char *private = NULL;
        struct bh_buf buf = bh_buf(text, sizeof(text));
        CURL *easy = message->easy_handle;
        const CURLcode result = message->data.result;
        curl_easy_getinfo(easy, CURLINFO_PRIVATE, &private);
        struct sts_fetch *t = (void *)private;
        const struct bh_slice error = judge(t, result, &buf);
        curl_multi_remove_handle(f->multi, easy);
        t->cb(t->ctx, error.len == 0 ? bh_slice(t->body, t->len) : BH_EMPTY, error);
        free_fetch(t);
    }
}
