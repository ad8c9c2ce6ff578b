/* Files that change on disk, bad ones, and certificates that clients show. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/stat.h>

#include "tls_certs.h"

static struct made root, other_root, server_leaf, client_leaf, stranger;
static struct bh_tls_worker *worker;
static SSL_CTX *server_ctx;
static char folder[64], ca_path[96], certificate_path[96], key_path[96];
static struct bh_slice name;
static uint64_t generation;

static void path_in(char *path, const char *file)
{
    snprintf(path, 96, "%s/%s", folder, file);
}

/* As an installer does it: beside, then in its place. */
static void put_certificate(const char *path, const struct made *m)
{
    char beside[112];
    const struct made *one[] = {m};
    snprintf(beside, sizeof(beside), "%s.new", path);
    certs_write(beside, one, 1);
    assert_int_equal(rename(beside, path), 0);
}

static void put_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static struct bh_tls_demand verify(void)
{
    name = BH_LIT("mx.example");
    return (struct bh_tls_demand){.mode = BH_TLS_VERIFY,
                                  .min_version = BH_TLS_VERSION_1_2,
                                  .names = {&name, 1},
                                  .ca_file = bh_slice_str(ca_path)};
}

struct result {
    enum bh_status status;
    bool cleared, resumed;
    char error[256];
};

static struct result connect_as(const struct bh_tls_demand *demand, SSL_CTX *ctx)
{
    struct result r = {.status = BH_OK};
    struct bh_buf error = bh_buf(r.error, sizeof(r.error) - 1);
    struct bh_tls *tls = NULL;
    const struct bh_tls_client_params params = {
        .demand = demand, .host = name, .port = 25, .connection = 1, .generation = generation};
    r.status = bh_tls_client_create(worker, &params, &tls, &error);
    r.error[error.len] = '\0';
    if (r.status != BH_OK) {
        return r;
    }
    SSL *server = bare_session(ctx);
    char storage[64];
    struct bh_buf plain = bh_buf(storage, sizeof(storage));
    bh_tls_handshake(tls);
    bare_pump(tls, server);
    SSL_write(server, "220 hi\r\n", 8);
    bare_pump(tls, server);
    while (bh_tls_read(tls, &plain) == BH_OK) {
    }
    struct bh_clearance *clearance = bh_clearance_of_tls(tls);
    r.cleared = clearance != NULL && bh_tls_state(tls) == BH_TLS_UP;
    r.resumed = bh_tls_facts(tls)->resumed;
    snprintf(r.error, sizeof(r.error), "%.*s", BH_FMT(bh_tls_error(tls)));
    bh_clearance_destroy(clearance);
    SSL_free(server);
    bh_tls_destroy(tls);
    return r;
}

static void digest_of(const struct bh_tls_demand *demand, uint8_t digest[BH_TLS_DIGEST_LEN])
{
    char text[256];
    struct bh_buf error = bh_buf(text, sizeof(text));
    assert_int_equal(bh_tls_worker_digest(worker, demand, digest, &error), BH_OK);
}

static void a_replaced_authority_is_another_demand(void **unused)
{
    (void)unused;
    uint8_t before[BH_TLS_DIGEST_LEN];
    uint8_t after[BH_TLS_DIGEST_LEN];
    put_certificate(ca_path, &root);
    const struct bh_tls_demand demand = verify();
    digest_of(&demand, before);
    assert_true(connect_as(&demand, server_ctx).cleared);
    assert_true(connect_as(&demand, server_ctx).resumed);

    put_certificate(ca_path, &other_root);
    digest_of(&demand, after); /* nobody has looked yet */
    assert_memory_equal(before, after, sizeof(before));
    (void)bh_tls_worker_refresh(worker);
    digest_of(&demand, after);
    assert_memory_not_equal(before, after, sizeof(before));
    struct result r = connect_as(&demand, server_ctx);
    assert_false(r.resumed);
    assert_false(r.cleared);
    assert_non_null(strstr(r.error, "unknown authority"));

    /* Back again, and taken up with a new generation: what was proven with it counts again. */
    put_certificate(ca_path, &root);
    assert_false(connect_as(&demand, server_ctx).cleared);
    generation++;
    assert_true(connect_as(&demand, server_ctx).cleared);
    digest_of(&demand, after);
    assert_memory_equal(before, after, sizeof(before));

    /* Other octets around the same certificate are other content: asking anew costs little. */
    FILE *file = fopen(ca_path, "a");
    assert_non_null(file);
    fputs("# a note\n", file);
    fclose(file);
    (void)bh_tls_worker_refresh(worker);
    digest_of(&demand, after);
    assert_memory_not_equal(before, after, sizeof(before));
    assert_true(connect_as(&demand, server_ctx).cleared);
}

static void a_bad_authority_file_makes_no_session(void **unused)
{
    (void)unused;
    const struct bh_tls_demand demand = verify();
    uint8_t digest[BH_TLS_DIGEST_LEN];
    char text[256];
    static const struct {
        const char *content; /* NULL: there is none */
        const char *says;
    } cases[] = {
        {NULL, "No such file or directory"},
        {"", "holds no PEM certificate"},
        {"nothing of the kind\n", "holds no PEM certificate"},
        {"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", ": "},
        {"-----BEGIN CERTIFICATE-----\n!\n", ": "},
    };
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        struct bh_buf error = bh_buf(text, sizeof(text));
        unlink(ca_path);
        if (cases[i].content != NULL) {
            put_text(ca_path, cases[i].content);
        }
        (void)bh_tls_worker_refresh(worker);
        const struct result r = connect_as(&demand, server_ctx);
        assert_int_equal(r.status, BH_EIO);
        assert_non_null(strstr(r.error, ca_path));
        assert_non_null(strstr(r.error, cases[i].says));
        assert_int_equal(bh_tls_worker_digest(worker, &demand, digest, &error), BH_EIO);
    }
    /* A good one and a broken one behind it: not half of it. */
    put_certificate(ca_path, &root);
    FILE *file = fopen(ca_path, "a");
    fputs("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", file);
    fclose(file);
    (void)bh_tls_worker_refresh(worker);
    assert_int_equal(connect_as(&demand, server_ctx).status, BH_EIO);
    /* Modes that trust no authority do not read it. */
    struct bh_tls_demand encrypt = demand;
    encrypt.mode = BH_TLS_ENCRYPT;
    assert_true(connect_as(&encrypt, server_ctx).cleared);

    unlink(ca_path);
    assert_int_equal(mkdir(ca_path, 0700), 0);
    (void)bh_tls_worker_refresh(worker);
    assert_non_null(strstr(connect_as(&demand, server_ctx).error, "not a regular file"));
    assert_int_equal(rmdir(ca_path), 0);
    put_certificate(ca_path, &root);
    (void)bh_tls_worker_refresh(worker);
    assert_true(connect_as(&demand, server_ctx).cleared);
}

static struct bh_tls_demand with_certificate(void)
{
    return (struct bh_tls_demand){.mode = BH_TLS_ENCRYPT,
                                  .min_version = BH_TLS_VERSION_1_2,
                                  .client_cert = bh_slice_str(certificate_path),
                                  .client_key = bh_slice_str(key_path)};
}

static void client_certificates_and_their_keys(void **unused)
{
    (void)unused;
    const struct bh_tls_demand demand = with_certificate();
    const struct bare_server wanting = {
        .leaf = &server_leaf, .demands_client = true, .client_root = &root};
    SSL_CTX *ctx = bare_context(&wanting);
    put_certificate(certificate_path, &client_leaf);
    certs_write_key(key_path, &client_leaf);
    uint8_t before[BH_TLS_DIGEST_LEN];
    uint8_t after[BH_TLS_DIGEST_LEN];
    (void)bh_tls_worker_refresh(worker);
    digest_of(&demand, before);
    assert_true(connect_as(&demand, ctx).cleared);

    certs_write_key(key_path, &stranger);
    (void)bh_tls_worker_refresh(worker);
    struct result r = connect_as(&demand, ctx);
    assert_int_equal(r.status, BH_EIO);
    assert_non_null(strstr(r.error, "does not belong to the certificate"));
    assert_non_null(strstr(r.error, key_path));

    put_certificate(certificate_path, &stranger); /* now they fit, and the peer does not know it */
    (void)bh_tls_worker_refresh(worker);
    digest_of(&demand, after);
    assert_memory_not_equal(before, after, sizeof(before));
    r = connect_as(&demand, ctx);
    assert_int_equal(r.status, BH_OK);
    assert_false(r.cleared);
    assert_non_null(strstr(r.error, "the peer refused our client certificate"));

    /* A key under a passphrase is no key: nobody is there to be asked. */
    FILE *file = fopen(key_path, "w");
    assert_non_null(file);
    unsigned char secret[] = "secret";
    assert_int_equal(PEM_write_PKCS8PrivateKey(file, stranger.key, EVP_aes_128_cbc(),
                                               (char *)secret, 6, NULL, NULL),
                     1);
    fclose(file);
    (void)bh_tls_worker_refresh(worker);
    r = connect_as(&demand, ctx);
    assert_int_equal(r.status, BH_EIO);
    assert_non_null(strstr(r.error, key_path));
    file = fopen(key_path, "w");
    assert_non_null(file);
    fputs("no key\n", file);
    fclose(file);
    (void)bh_tls_worker_refresh(worker);
    assert_non_null(strstr(connect_as(&demand, ctx).error, "holds no PEM private key"));
    unlink(key_path);
    (void)bh_tls_worker_refresh(worker);
    assert_non_null(strstr(connect_as(&demand, ctx).error, "No such file or directory"));
    SSL_CTX_free(ctx);
}

/* ---- the listener's side ---- */

static struct bh_tls_server_ctx *listener(bool with_ca)
{
    char text[256];
    char cert[96];
    char key[96];
    struct bh_buf error = bh_buf(text, sizeof(text));
    struct bh_tls_server_ctx *ctx = NULL;
    path_in(cert, "listener.pem");
    path_in(key, "listener.key");
    put_certificate(cert, &server_leaf);
    certs_write_key(key, &server_leaf);
    put_certificate(ca_path, &root);
    const struct bh_tls_server_params params = {.certificate = bh_slice_str(cert),
                                                .key = bh_slice_str(key),
                                                .ask_client = true,
                                                .client_ca =
                                                    with_ca ? bh_slice_str(ca_path) : BH_EMPTY};
    assert_int_equal(bh_tls_server_ctx_create(&params, &ctx, &error), BH_OK);
    return ctx;
}

/* What the listener learns of a client that shows this certificate (NULL: none). */
static struct bh_tls_facts learned(struct bh_tls_server_ctx *ctx, const struct made *shown)
{
    struct bh_tls_demand demand = with_certificate();
    char text[256];
    struct bh_buf error = bh_buf(text, sizeof(text));
    if (shown != NULL) {
        put_certificate(certificate_path, shown);
        certs_write_key(key_path, shown);
        (void)bh_tls_worker_refresh(worker);
    } else {
        demand.client_cert = demand.client_key = BH_EMPTY;
    }
    struct bh_tls *client = NULL;
    const struct bh_tls_client_params params = {
        .demand = &demand, .host = name, .port = 25, .connection = 1, .generation = generation};
    assert_int_equal(bh_tls_client_create(worker, &params, &client, &error), BH_OK);
    struct bh_tls *server = bh_tls_server_create(ctx);
    char storage[16384];
    bool moved = true;
    bh_tls_handshake(client);
    while (moved) {
        struct bh_buf out = bh_buf(storage, sizeof(storage));
        moved = bh_tls_take(client, &out) > 0;
        assert_int_equal(bh_tls_feed(server, bh_buf_slice(&out)), BH_OK);
        out.len = 0;
        moved = bh_tls_take(server, &out) > 0 || moved;
        assert_int_equal(bh_tls_feed(client, bh_buf_slice(&out)), BH_OK);
    }
    assert_int_equal(bh_tls_state(server), BH_TLS_UP);
    assert_null(bh_clearance_of_tls(server));
    const struct bh_tls_facts facts = *bh_tls_facts(server);
    bh_tls_destroy(client);
    bh_tls_destroy(server);
    return facts;
}

static void a_listener_learns_who_its_client_is(void **unused)
{
    (void)unused;
    struct bh_tls_server_ctx *ctx = listener(true);
    for (size_t i = 0; i < 2; i++) { /* the second time is no different */
        const struct bh_tls_facts facts = learned(ctx, &client_leaf);
        assert_true(facts.verified && facts.peer_authenticated && facts.has_spki);
        assert_false(facts.resumed);
        assert_string_equal(facts.names, "client.example");
    }
    struct bh_tls_facts facts = learned(ctx, &stranger);
    assert_false(facts.verified || facts.peer_authenticated);
    assert_true(facts.has_spki);
    assert_true(facts.verify_error[0] != '\0');
    facts = learned(ctx, NULL);
    assert_false(facts.verified || facts.peer_authenticated || facts.has_spki ||
                 facts.has_certificate);
    assert_string_equal(facts.verify_error, "no certificate");
    bh_tls_server_ctx_destroy(ctx);

    ctx = listener(false);
    facts = learned(ctx, &client_leaf);
    assert_false(facts.verified || facts.peer_authenticated);
    assert_true(facts.has_spki);
    bh_tls_server_ctx_destroy(ctx);
}

static void a_listener_sees_that_its_files_changed(void **unused)
{
    (void)unused;
    struct bh_tls_server_ctx *ctx = listener(true);
    char path[96];
    assert_false(bh_tls_server_ctx_stale(ctx));
    put_certificate(ca_path, &other_root);
    assert_true(bh_tls_server_ctx_stale(ctx));
    bh_tls_server_ctx_destroy(ctx);
    ctx = listener(true);
    path_in(path, "listener.key");
    certs_write_key(path, &server_leaf);
    assert_true(bh_tls_server_ctx_stale(ctx));
    bh_tls_server_ctx_destroy(ctx);
    ctx = listener(true);
    assert_false(bh_tls_server_ctx_stale(ctx));
    unlink(path);
    assert_true(bh_tls_server_ctx_stale(ctx));
    bh_tls_server_ctx_destroy(ctx);
}

static int setup(void **unused)
{
    (void)unused;
    const struct made_as root_as = {.common = "Root", .authority = true};
    const struct made_as other_as = {.common = "Other Root", .authority = true};
    const struct made_as server_as = {.common = "mx", .names = "DNS:mx.example"};
    const struct made_as client_as = {.common = "client", .names = "DNS:client.example"};
    root = certs_make(&root_as, NULL);
    other_root = certs_make(&other_as, NULL);
    server_leaf = certs_make(&server_as, &root);
    client_leaf = certs_make(&client_as, &root);
    stranger = certs_make(&client_as, &other_root);
    snprintf(folder, sizeof(folder), "/tmp/bh-test-XXXXXX");
    if (mkdtemp(folder) == NULL) {
        return -1;
    }
    path_in(ca_path, "ca.pem");
    path_in(certificate_path, "client.pem");
    path_in(key_path, "client.key");
    const struct bare_server server = {.leaf = &server_leaf};
    server_ctx = bare_context(&server);
    worker = bh_tls_worker_create(16);
    name = BH_LIT("mx.example");
    return worker != NULL ? 0 : -1;
}

static int teardown(void **unused)
{
    (void)unused;
    static const char *const files[] = {"ca.pem", "client.pem", "client.key", "listener.pem",
                                        "listener.key"};
    char path[96];
    for (size_t i = 0; i < BH_COUNT(files); i++) {
        path_in(path, files[i]);
        unlink(path);
    }
    bh_tls_worker_destroy(worker);
    SSL_CTX_free(server_ctx);
    struct made *all[] = {&root, &other_root, &server_leaf, &client_leaf, &stranger};
    for (size_t i = 0; i < BH_COUNT(all); i++) {
        certs_free(all[i]);
    }
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_replaced_authority_is_another_demand),
        cmocka_unit_test(a_bad_authority_file_makes_no_session),
        cmocka_unit_test(client_certificates_and_their_keys),
        cmocka_unit_test(a_listener_learns_who_its_client_is),
        cmocka_unit_test(a_listener_sees_that_its_files_changed),
    };
    return cmocka_run_group_tests_name("tls_files", tests, setup, teardown);
}
