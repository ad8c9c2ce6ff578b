/* Every effective demand against every kind of peer: a clearance exists only where an oracle that
 * knows nothing of OpenSSL says that the demand is met, on resumed sessions, too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <openssl/err.h>

#include "tls_certs.h"

/* ---- the world ---- */

enum kind {
    KIND_GOOD,
    KIND_WILDCARD,
    KIND_CN_ONLY,
    KIND_WRONG_NAME,
    KIND_EXPIRED,
    KIND_NOT_YET,
    KIND_INCOMPLETE, /* good, but the intermediate is not sent */
    KIND_SELF_SIGNED,
    KIND_UNKNOWN_CA,
    KINDS,
};

static const struct {
    struct made_as as;
    bool in_date;
    const char *name; /* the one alternative name */
} kinds[KINDS] = {
    [KIND_GOOD] = {{.common = "good", .names = "DNS:mx.bank.example"}, true, "mx.bank.example"},
    [KIND_WILDCARD] = {{.common = "wild", .names = "DNS:*.bank.example"}, true, "*.bank.example"},
    [KIND_CN_ONLY] = {{.common = "mx.bank.example"}, true, NULL},
    [KIND_WRONG_NAME] = {{.common = "mx.bank.example", .names = "DNS:other.test"},
                         true,
                         "other.test"},
    [KIND_EXPIRED] = {{.common = "old",
                       .names = "DNS:mx.bank.example",
                       .from_s = -2 * CERTS_DAY,
                       .to_s = -CERTS_DAY},
                      false,
                      "mx.bank.example"},
    [KIND_NOT_YET] = {{.common = "early",
                       .names = "DNS:mx.bank.example",
                       .from_s = CERTS_DAY,
                       .to_s = 2 * CERTS_DAY},
                      false,
                      "mx.bank.example"},
    [KIND_INCOMPLETE] = {{.common = "lone", .names = "DNS:mx.bank.example"},
                         true,
                         "mx.bank.example"},
    [KIND_SELF_SIGNED] = {{.common = "self", .names = "DNS:mx.bank.example"},
                          true,
                          "mx.bank.example"},
    [KIND_UNKNOWN_CA] = {{.common = "stranger", .names = "DNS:mx.bank.example"},
                         true,
                         "mx.bank.example"},
};

static struct made root, intermediate, other_root, leaves[KINDS];
static struct bh_tls_worker *worker;
static char folder[64], root_path[96], other_path[96];
static uint64_t last_connection;

static uint64_t seed;

static uint32_t chance(uint32_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 33) % below;
}

static struct bare_server server_of(enum kind kind, int version)
{
    const bool chained =
        kind != KIND_INCOMPLETE && kind != KIND_SELF_SIGNED && kind != KIND_UNKNOWN_CA;
    return (struct bare_server){
        .leaf = &leaves[kind], .intermediate = chained ? &intermediate : NULL, .version = version};
}

/* ---- one connection ---- */

struct result {
    bool created, up, cleared, resumed, authenticated;
    char error[256];
    struct bh_tls_facts facts;
};

enum mischief { HONEST, GARBAGE, ABORTS, CUTS };

static void misbehave(struct bh_tls *client, enum mischief mischief)
{
    char storage[4096];
    struct bh_buf out = bh_buf(storage, sizeof(storage));
    const char alert[] = {21, 3, 3, 0, 2, 2, 40};
    bh_tls_take(client, &out);
    if (mischief == GARBAGE) {
        assert_int_equal(bh_tls_feed(client, BH_LIT("220 what is this?\r\n")), BH_OK);
    } else if (mischief == ABORTS) {
        assert_int_equal(bh_tls_feed(client, bh_slice(alert, sizeof(alert))), BH_OK);
    }
}

static struct result connect_to(SSL_CTX *ctx, const struct bh_tls_demand *demand,
                                enum mischief mischief)
{
    struct result r = {.created = false};
    struct bh_buf error = bh_buf(r.error, sizeof(r.error) - 1);
    struct bh_tls *client = NULL;
    const struct bh_tls_client_params params = {.demand = demand,
                                                .host = BH_LIT("mx.bank.example"),
                                                .port = 25,
                                                .connection = ++last_connection,
                                                .generation = 1};
    if (bh_tls_client_create(worker, &params, &client, &error) != BH_OK) {
        r.error[error.len] = '\0';
        return r;
    }
    r.created = true;
    bh_tls_handshake(client);
    SSL *server = bare_session(ctx);
    if (mischief == HONEST) {
        bare_pump(client, server);
        SSL_write(server, "220 hi\r\n", 8); /* tickets come with it */
        bare_pump(client, server);
        char storage[64];
        struct bh_buf plain = bh_buf(storage, sizeof(storage));
        while (bh_tls_read(client, &plain) == BH_OK) {
        }
    } else {
        misbehave(client, mischief);
    }
    r.up = bh_tls_state(client) == BH_TLS_UP;
    r.facts = *bh_tls_facts(client);
    r.resumed = r.facts.resumed;
    r.authenticated = r.facts.peer_authenticated;
    snprintf(r.error, sizeof(r.error), "%.*s", BH_FMT(bh_tls_error(client)));
    struct bh_clearance *clearance = bh_clearance_of_tls(client);
    if (clearance != NULL) {
        uint8_t digest[BH_TLS_DIGEST_LEN];
        assert_int_equal(bh_tls_worker_digest(worker, demand, digest, &error), BH_OK);
        r.cleared = true;
        assert_true(bh_clearance_valid(clearance, last_connection, 1, digest));
        assert_int_equal(bh_tls_write(client, BH_LIT("MAIL FROM:<>\r\n")), BH_OK);
    } else {
        /* What has no clearance takes no plain text either. */
        assert_int_not_equal(bh_tls_write(client, BH_LIT("MAIL FROM:<>\r\n")), BH_OK);
    }
    bh_clearance_destroy(clearance);
    SSL_free(server);
    bh_tls_destroy(client);
    ERR_clear_error();
    return r;
}

static struct result once(const struct bare_server *server, const struct bh_tls_demand *demand)
{
    SSL_CTX *ctx = bare_context(server);
    const struct result r = connect_to(ctx, demand, HONEST);
    SSL_CTX_free(ctx);
    return r;
}

/* ---- the oracle ---- */

/* The demand's names are from this list only, and so are the answers. */
static const struct {
    const char *reference;
    bool good, wildcard, wrong; /* does a certificate of that name match it? */
} names_known[] = {
    {"mx.bank.example", true, true, false}, {".bank.example", true, true, false},
    {"MX.Bank.Example", true, true, false}, {"bank.example", false, false, false},
    {"other.test", false, false, true},     {"a.mx.bank.example", false, false, false},
    {".example", true, true, false},        {"mx.bank.example.", true, true, false},
};

static bool oracle_name(enum kind kind, struct bh_slice reference)
{
    for (size_t i = 0; i < BH_COUNT(names_known); i++) {
        if (bh_slice_eq(reference, bh_slice_str(names_known[i].reference))) {
            return kind == KIND_CN_ONLY      ? false
                   : kind == KIND_WRONG_NAME ? names_known[i].wrong
                   : kind == KIND_WILDCARD   ? names_known[i].wildcard
                                             : names_known[i].good;
        }
    }
    fail();
    return false;
}

static bool oracle_names(enum kind kind, const struct bh_names *names)
{
    bool found = false;
    for (size_t i = 0; i < names->count; i++) {
        found = found || oracle_name(kind, names->at[i]);
    }
    return found;
}

/* What a TLSA record was made of; BROKEN ones match nothing. */
enum made_of { OF_LEAF, OF_INTERMEDIATE, OF_ROOT, OF_OTHER_ROOT, OF_OTHER_LEAF, OF_NOTHING, OFS };

struct record {
    enum made_of of;
    enum kind leaf; /* of OF_LEAF */
    struct bh_tlsa tlsa;
    unsigned char data[2048];
};

static struct record records[4];
static struct bh_tlsa tlsa_at[4];

/* RFC 7671 section 9: of the digests published with a usage and selector, the strongest counts. */
static bool oracle_counts(const struct record *r, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct bh_tlsa *t = &records[i].tlsa;
        if (r->tlsa.matching == 1 && t->matching == 2 && t->usage == r->tlsa.usage &&
            t->selector == r->tlsa.selector) {
            return false;
        }
    }
    return true;
}

static bool oracle_record(enum kind kind, const struct record *r, bool named)
{
    if (r->tlsa.usage == 3) {
        return r->of == OF_LEAF && r->leaf == kind;
    }
    if (!named || !kinds[kind].in_date) {
        return false;
    }
    const bool full = r->tlsa.matching == 0; /* brings the authority along */
    const bool ours = kind != KIND_SELF_SIGNED && kind != KIND_UNKNOWN_CA;
    switch (r->of) {
    case OF_INTERMEDIATE:
        return ours && (kind != KIND_INCOMPLETE || full);
    case OF_ROOT: /* never sent by a server here */
        return ours && kind != KIND_INCOMPLETE && full;
    case OF_OTHER_ROOT:
        return kind == KIND_UNKNOWN_CA && full;
    case OF_LEAF: /* itself, as the authority that it is not, or is */
    case OF_OTHER_LEAF:
    case OF_NOTHING:
    case OFS:
        return false;
    }
    return false;
}

static bool oracle_tlsa(enum kind kind, const struct bh_tls_demand *demand)
{
    bool met = false;
    const bool named = oracle_names(kind, &demand->names);
    for (size_t i = 0; i < demand->tlsa.count; i++) {
        met = met || (oracle_counts(&records[i], demand->tlsa.count) &&
                      oracle_record(kind, &records[i], named));
    }
    return met;
}

static bool oracle_chain(enum kind kind, const struct bh_tls_demand *demand)
{
    if (demand->ca_file.len == 0 || !kinds[kind].in_date) {
        return false; /* the system knows none of them */
    }
    const bool ours = bh_slice_eq(demand->ca_file, bh_slice_str(root_path));
    return ours ? kind != KIND_SELF_SIGNED && kind != KIND_UNKNOWN_CA && kind != KIND_INCOMPLETE
                : kind == KIND_UNKNOWN_CA;
}

static bool oracle_version(const struct bh_tls_demand *demand, int version)
{
    const int number = version == TLS1_VERSION     ? BH_TLS_VERSION_1_0
                       : version == TLS1_2_VERSION ? BH_TLS_VERSION_1_2
                                                   : BH_TLS_VERSION_1_3;
    const int floor = demand->min_version != 0 ? (int)demand->min_version : BH_TLS_VERSION_1_2;
    return version == 0 ||
           (number >= floor && (demand->max_version == 0 || number <= (int)demand->max_version));
}

static bool oracle(enum kind kind, int version, const struct bh_tls_demand *demand,
                   enum kind pinned)
{
    if (!oracle_version(demand, version)) {
        return false;
    }
    switch (demand->mode) {
    case BH_TLS_OPPORTUNISTIC:
    case BH_TLS_ENCRYPT:
        return true;
    case BH_TLS_VERIFY:
        return oracle_chain(kind, demand) && oracle_names(kind, &demand->names);
    case BH_TLS_PIN:
        return kind == pinned;
    case BH_TLS_DANE:
        return oracle_tlsa(kind, demand);
    case BH_TLS_OFF:
    case BH_TLS_AUTO:
    case BH_TLS_DANE_ONLY:
        break;
    }
    return false;
}

/* ---- random demands ---- */

static const struct made *made_of(const struct record *r)
{
    switch (r->of) {
    case OF_INTERMEDIATE:
        return &intermediate;
    case OF_ROOT:
        return &root;
    case OF_OTHER_ROOT:
        return &other_root;
    case OF_LEAF:
    case OF_OTHER_LEAF:
    case OF_NOTHING:
    case OFS:
        break;
    }
    return &leaves[r->leaf];
}

static void fill_record(struct record *r)
{
    unsigned char *der = NULL;
    const struct made *of = made_of(r);
    const int len = r->tlsa.selector == 0
                        ? i2d_X509(of->certificate, &der)
                        : i2d_X509_PUBKEY(X509_get_X509_PUBKEY(of->certificate), &der);
    assert_true(len > 0 && (size_t)len <= sizeof(r->data));
    unsigned size = (unsigned)len;
    if (r->tlsa.matching == 0) {
        memcpy(r->data, der, (size_t)len);
    } else {
        EVP_Digest(der, (size_t)len, r->data, &size,
                   r->tlsa.matching == 1 ? EVP_sha256() : EVP_sha512(), NULL);
    }
    OPENSSL_free(der);
    if (r->of == OF_NOTHING) {
        if (r->tlsa.matching == 0) {
            size /= 2; /* not DER any more */
        } else {
            r->data[chance(size)] ^= 1;
        }
    }
    r->tlsa.data = bh_slice(r->data, size);
}

static void random_tlsa(struct bh_tls_demand *demand, enum kind kind)
{
    const size_t count = 1 + chance(BH_COUNT(records));
    for (size_t i = 0; i < count; i++) {
        struct record *r = &records[i];
        r->tlsa.usage = chance(2) == 0 ? 3 : 2;
        r->tlsa.selector = (uint8_t)chance(2);
        r->tlsa.matching = (uint8_t)chance(3);
        r->of = r->tlsa.usage == 3 ? (chance(2) == 0 ? OF_LEAF : OF_NOTHING)
                                   : (enum made_of)(OF_INTERMEDIATE + chance(3));
        if (chance(5) == 0) {
            r->of = OF_NOTHING;
        }
        r->leaf = chance(3) > 0 ? kind : (enum kind)chance(KINDS);
        fill_record(r);
        tlsa_at[i] = r->tlsa;
    }
    demand->tlsa = (struct bh_tlsa_set){tlsa_at, count};
}

static struct bh_slice names_at[3];
static uint8_t pins_at[2][BH_PIN_LEN];

static void pin_of(const struct made *m, uint8_t pin[BH_PIN_LEN])
{
    unsigned char *der = NULL;
    unsigned size = 0;
    const int len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(m->certificate), &der);
    EVP_Digest(der, (size_t)len, pin, &size, EVP_sha256(), NULL);
    OPENSSL_free(der);
}

static struct bh_tls_demand random_demand(enum kind kind, enum kind *pinned)
{
    static const enum bh_tls_mode modes[] = {BH_TLS_OPPORTUNISTIC, BH_TLS_ENCRYPT, BH_TLS_VERIFY,
                                             BH_TLS_VERIFY,        BH_TLS_PIN,     BH_TLS_DANE,
                                             BH_TLS_DANE,          BH_TLS_DANE};
    static const enum bh_tls_version floors[] = {BH_TLS_VERSION_NONE, BH_TLS_VERSION_1_2,
                                                 BH_TLS_VERSION_1_2, BH_TLS_VERSION_1_0,
                                                 BH_TLS_VERSION_1_3};
    struct bh_tls_demand demand = {.mode = modes[chance(BH_COUNT(modes))],
                                   .min_version = floors[chance(BH_COUNT(floors))]};
    if (chance(8) == 0 && demand.min_version <= BH_TLS_VERSION_1_2) {
        demand.max_version = BH_TLS_VERSION_1_2;
    }
    const size_t names = 1 + chance(BH_COUNT(names_at));
    for (size_t i = 0; i < names; i++) {
        names_at[i] = bh_slice_str(names_known[chance(BH_COUNT(names_known))].reference);
    }
    demand.names = (struct bh_names){names_at, names};
    demand.ca_file = chance(8) == 0   ? BH_EMPTY
                     : chance(4) == 0 ? bh_slice_str(other_path)
                                      : bh_slice_str(root_path);
    *pinned = chance(2) == 0 ? kind : (enum kind)chance(KINDS);
    memset(pins_at[0], (int)chance(256), BH_PIN_LEN);
    pin_of(&leaves[*pinned], pins_at[1]);
    demand.pins = (struct bh_pins){(const uint8_t(*)[BH_PIN_LEN])pins_at, 2};
    if (demand.mode == BH_TLS_DANE) {
        random_tlsa(&demand, kind);
    }
    return demand;
}

static void tell(const char *what, uint64_t start, enum kind kind, int version,
                 const struct bh_tls_demand *demand, const struct result *r)
{
    print_error("%s: seed %llu, kind %d, version %x, mode %s, %s / %s\n", what,
                (unsigned long long)start, (int)kind, (unsigned)version,
                bh_tls_mode_name(demand->mode), r->error, r->facts.verify_error);
    for (size_t i = 0; demand->mode == BH_TLS_DANE && i < demand->tlsa.count; i++) {
        print_error("  TLSA %d %d %d of %d leaf %d\n", records[i].tlsa.usage,
                    records[i].tlsa.selector, records[i].tlsa.matching, (int)records[i].of,
                    (int)records[i].leaf);
    }
}

static void one_world(uint64_t start)
{
    static const int versions[] = {0, 0, 0, TLS1_2_VERSION, TLS1_3_VERSION, TLS1_VERSION};
    seed = start * 2654435761U + 88172645463325252U;
    (void)chance(2);
    const enum kind kind = (enum kind)chance(KINDS);
    const int version = versions[chance(BH_COUNT(versions))];
    struct bare_server server = server_of(kind, version);
    server.demands_client = chance(8) == 0;
    SSL_CTX *ctx = bare_context(&server);
    for (size_t i = 0; i < 2; i++) {
        enum kind pinned = KIND_GOOD;
        const struct bh_tls_demand demand = random_demand(kind, &pinned);
        const bool meets = oracle(kind, version, &demand, pinned);
        /* The second time the same demand may go back to the first session. */
        for (size_t again = 0; again < 2; again++) {
            const enum mischief mischief = chance(8) == 0 ? (enum mischief)(1 + chance(3)) : HONEST;
            const struct result r = connect_to(ctx, &demand, mischief);
            const bool honest = mischief == HONEST && !server.demands_client;
            const bool proof = demand.mode == BH_TLS_VERIFY || demand.mode == BH_TLS_PIN ||
                               demand.mode == BH_TLS_DANE;
            if ((r.cleared && (!meets || mischief != HONEST)) || (honest && meets && !r.cleared)) {
                tell("clearance and oracle differ", start, kind, version, &demand, &r);
                fail();
            }
            if (r.up && proof && r.authenticated != r.cleared) {
                tell("authenticated without proof", start, kind, version, &demand, &r);
                fail();
            }
            if (honest && again == 1 && r.cleared && !r.resumed && version != TLS1_VERSION) {
                /* Nothing forbids it, but then resumption is not tested. */
                assert_true(mischief == HONEST);
            }
            if (r.created && !r.cleared) {
                assert_true(r.error[0] != '\0' || mischief == CUTS);
            }
        }
    }
    SSL_CTX_free(ctx);
}

static void a_clearance_is_what_the_oracle_says(void **unused)
{
    (void)unused;
    const char *only = getenv("BH_SEED");
    if (only != NULL) {
        one_world(strtoull(only, NULL, 10));
        return;
    }
    for (uint64_t start = 1; start <= 400; start++) {
        one_world(start);
    }
}

/* ---- tables: each rule by itself, with the words an operator reads ---- */

static struct bh_slice one_name;

static struct bh_tls_demand verify_of(const char *name)
{
    one_name = bh_slice_str(name);
    return (struct bh_tls_demand){.mode = BH_TLS_VERIFY,
                                  .min_version = BH_TLS_VERSION_1_2,
                                  .names = {&one_name, 1},
                                  .ca_file = bh_slice_str(root_path)};
}

static void verify_says_what_failed(void **unused)
{
    (void)unused;
    char expired[64];
    const time_t then = time(NULL) - CERTS_DAY;
    struct tm tm;
    gmtime_r(&then, &tm);
    strftime(expired, sizeof(expired), "certificate expired %Y-%m-%d", &tm);
    const struct {
        enum kind kind;
        const char *says;
    } cases[] = {
        {KIND_CN_ONLY, "name mismatch: certificate has no names, wanted mx.bank.example"},
        {KIND_WRONG_NAME, "name mismatch: certificate names other.test, wanted mx.bank.example"},
        {KIND_EXPIRED, expired},
        {KIND_NOT_YET, "certificate not valid before "},
        {KIND_SELF_SIGNED, "self-signed certificate"},
        {KIND_UNKNOWN_CA, "unknown authority or incomplete chain, issuer Other Root"},
        {KIND_INCOMPLETE, "unknown authority or incomplete chain, issuer Intermediate"},
    };
    const struct bh_tls_demand demand = verify_of("mx.bank.example");
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        const struct bare_server server = server_of(cases[i].kind, 0);
        const struct result r = once(&server, &demand);
        assert_true(r.up);
        assert_false(r.cleared);
        assert_string_equal(r.error, r.facts.verify_error);
        if (strncmp(r.error, cases[i].says, strlen(cases[i].says)) != 0) {
            print_error("wanted %s, got %s\n", cases[i].says, r.error);
            fail();
        }
    }
    const struct bare_server good = server_of(KIND_GOOD, 0);
    const struct result r = once(&good, &demand);
    assert_true(r.cleared && r.authenticated);
    assert_string_equal(r.facts.proof, "name mx.bank.example, CA Root");
    assert_string_equal(r.facts.names, "mx.bank.example");
    assert_string_equal(r.facts.issuer, "Intermediate");
    assert_true(r.facts.not_after_unix > (int64_t)time(NULL));
    assert_string_equal(r.facts.verify_error, "");
}

static void a_resumed_session_is_as_verified_as_its_first(void **unused)
{
    (void)unused;
    const struct bare_server server = server_of(KIND_GOOD, 0);
    const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    for (size_t i = 0; i < BH_COUNT(versions); i++) {
        struct bare_server one = server;
        one.version = versions[i];
        SSL_CTX *ctx = bare_context(&one);
        struct bh_tls_demand demand = verify_of("mx.bank.example");
        demand.max_version = i == 0 ? BH_TLS_VERSION_1_2 : BH_TLS_VERSION_1_3;
        const struct result first = connect_to(ctx, &demand, HONEST);
        const struct result second = connect_to(ctx, &demand, HONEST);
        assert_true(first.cleared && !first.resumed);
        assert_true(second.cleared && second.resumed && second.authenticated);
        assert_true(second.facts.verified && second.facts.name_matched);
        assert_string_equal(second.facts.proof, first.facts.proof);
        assert_string_equal(second.facts.names, first.facts.names);
        /* Another name, another demand: verified anew, and refused. */
        const struct bh_tls_demand other = verify_of("mx.other.example");
        assert_false(connect_to(ctx, &other, HONEST).cleared);
        assert_false(connect_to(ctx, &other, HONEST).resumed); /* nothing was kept of it */
        SSL_CTX_free(ctx);
    }
}

/* The worker's cache outlives no certificate: handshakes until it has ended. */
static void nothing_is_resumed_past_the_end_of_its_certificate(void **unused)
{
    (void)unused;
    const struct made_as brief = {
        .common = "brief", .names = "DNS:mx.bank.example", .from_s = -60, .to_s = 2};
    struct made leaf = certs_make(&brief, &intermediate);
    const struct bare_server server = {.leaf = &leaf, .intermediate = &intermediate};
    SSL_CTX *ctx = bare_context(&server);
    const struct bh_tls_demand demand = verify_of("mx.bank.example");
    struct result r = connect_to(ctx, &demand, HONEST);
    assert_true(r.cleared);
    const int64_t end = r.facts.not_after_unix;
    bool resumed = false;
    while ((int64_t)time(NULL) < end) {
        r = connect_to(ctx, &demand, HONEST);
        resumed = resumed || r.resumed;
        assert_true(r.cleared || (int64_t)time(NULL) >= end);
    }
    assert_true(resumed);
    while ((int64_t)time(NULL) == end) { /* the last second counts as in date */
        (void)connect_to(ctx, &demand, HONEST);
    }
    r = connect_to(ctx, &demand, HONEST);
    assert_false(r.resumed);
    assert_false(r.cleared);
    SSL_CTX_free(ctx);
    certs_free(&leaf);
}

static void a_pin_stands_beside_the_next(void **unused)
{
    (void)unused;
    const struct bare_server server = server_of(KIND_SELF_SIGNED, 0);
    struct bh_tls_demand demand = {.mode = BH_TLS_PIN, .min_version = BH_TLS_VERSION_1_2};
    pin_of(&leaves[KIND_GOOD], pins_at[0]);
    pin_of(&leaves[KIND_SELF_SIGNED], pins_at[1]);
    demand.pins = (struct bh_pins){(const uint8_t(*)[BH_PIN_LEN])pins_at, 2};
    struct result r = once(&server, &demand);
    assert_true(r.cleared && r.authenticated);
    assert_int_equal(strncmp(r.facts.proof, "pin ", 4), 0);
    demand.pins.count = 1;
    r = once(&server, &demand);
    assert_true(r.up);
    assert_false(r.cleared);
    assert_non_null(strstr(r.error, "not pinned"));
}

static void dane_says_which_record_matched(void **unused)
{
    (void)unused;
    struct bh_tls_demand demand = {.mode = BH_TLS_DANE, .min_version = BH_TLS_VERSION_1_2};
    records[0] = (struct record){
        .of = OF_LEAF, .leaf = KIND_EXPIRED, .tlsa = {.usage = 3, .selector = 1, .matching = 1}};
    fill_record(&records[0]);
    tlsa_at[0] = records[0].tlsa;
    demand.tlsa = (struct bh_tlsa_set){tlsa_at, 1};
    const struct bare_server expired = server_of(KIND_EXPIRED, 0);
    struct result r = once(&expired, &demand);
    assert_true(r.cleared && r.authenticated);
    assert_int_equal(strncmp(r.facts.proof, "TLSA 3 1 1 ", 11), 0);
    const struct bare_server good = server_of(KIND_GOOD, 0);
    r = once(&good, &demand);
    assert_false(r.cleared);
    assert_non_null(strstr(r.error, "no TLSA record matches"));
    tlsa_at[0].usage = 1; /* means nothing here */
    assert_false(once(&expired, &demand).cleared);
    tlsa_at[0].usage = 3;
    tlsa_at[0].data.len = 5;
    assert_false(once(&expired, &demand).cleared);
}

static void failures_are_told_exactly(void **unused)
{
    (void)unused;
    struct bh_tls_demand demand = {.mode = BH_TLS_ENCRYPT, .min_version = BH_TLS_VERSION_1_2};
    const struct bare_server old = server_of(KIND_GOOD, TLS1_VERSION);
    struct result r = once(&old, &demand);
    assert_false(r.up);
    assert_non_null(strstr(r.error, "no protocol version in common (we offer TLS 1.2 to 1.3)"));

    demand.min_version = BH_TLS_VERSION_1_0; /* the exception, with the security level it needs */
    r = once(&old, &demand);
    assert_true(r.cleared);
    assert_string_equal(r.facts.version, "TLSv1");
    demand.min_version = BH_TLS_VERSION_1_2;

    struct bare_server picky = server_of(KIND_GOOD, TLS1_2_VERSION);
    picky.demands_client = true;
    r = once(&picky, &demand);
    assert_non_null(strstr(r.error, "the peer wants a client certificate"));
    picky.version = TLS1_3_VERSION;
    r = once(&picky, &demand);
    assert_non_null(strstr(r.error, "the peer wants a client certificate"));

    demand.ciphers = BH_LIT("ECDHE-RSA-AES128-GCM-SHA256"); /* the certificate is ECDSA */
    const struct bare_server narrow = server_of(KIND_GOOD, TLS1_2_VERSION);
    r = once(&narrow, &demand);
    assert_non_null(strstr(r.error, "no common cipher"));
    demand.ciphers = BH_LIT("NO-SUCH-CIPHER");
    r = once(&narrow, &demand);
    assert_false(r.created);
    assert_non_null(strstr(r.error, "no cipher match"));

    demand.ciphers = BH_EMPTY;
    SSL_CTX *ctx = bare_context(&narrow);
    r = connect_to(ctx, &demand, GARBAGE);
    assert_string_equal(r.error, "the peer does not speak TLS: 220 what is this???");
    r = connect_to(ctx, &demand, ABORTS);
    assert_non_null(strstr(r.error, "handshake failure"));
    SSL_CTX_free(ctx);
}

/* The name that is asked for: of the host, or the demand's; never an address (RFC 6066 section 3).
 */
static void the_name_that_is_asked_for(void **unused)
{
    (void)unused;
    static const struct {
        const char *host, *sni, *asked;
    } cases[] = {
        {"mx.example", "", "mx.example"},
        {"mx.example.", "", "mx.example"},
        {"mx.example", "other.test", "other.test"},
        {"192.0.2.1", "", NULL},
        {"2001:db8::1", "", NULL},
        {"192.0.2.1", "other.test", "other.test"},
    };
    const struct bare_server good = server_of(KIND_GOOD, TLS1_3_VERSION);
    SSL_CTX *ctx = bare_context(&good);
    for (size_t i = 0; i < BH_COUNT(cases); i++) {
        char text[128];
        struct bh_buf error = bh_buf(text, sizeof(text));
        const struct bh_tls_demand demand = {.mode = BH_TLS_ENCRYPT,
                                             .min_version = BH_TLS_VERSION_1_2,
                                             .sni = bh_slice_str(cases[i].sni)};
        const struct bh_tls_client_params params = {.demand = &demand,
                                                    .host = bh_slice_str(cases[i].host),
                                                    .port = 25,
                                                    .connection = 1000 + i,
                                                    .generation = 1};
        struct bh_tls *tls = NULL;
        assert_int_equal(bh_tls_client_create(worker, &params, &tls, &error), BH_OK);
        SSL *server = bare_session(ctx);
        bh_tls_handshake(tls);
        bare_pump(tls, server);
        assert_int_equal(bh_tls_state(tls), BH_TLS_UP);
        const char *asked = SSL_get_servername(server, TLSEXT_NAMETYPE_host_name);
        assert_int_equal(asked != NULL, cases[i].asked != NULL);
        if (asked != NULL) {
            assert_string_equal(asked, cases[i].asked);
        }
        SSL_free(server);
        bh_tls_destroy(tls);
    }
    SSL_CTX_free(ctx);
}

/* ---- set up ---- */

static int setup(void **unused)
{
    (void)unused;
    const struct made_as root_as = {
        .common = "Root", .authority = true, .from_s = -CERTS_DAY * 9, .to_s = CERTS_DAY * 9};
    struct made_as other_as = root_as;
    struct made_as intermediate_as = root_as;
    other_as.common = "Other Root";
    intermediate_as.common = "Intermediate";
    root = certs_make(&root_as, NULL);
    other_root = certs_make(&other_as, NULL);
    intermediate = certs_make(&intermediate_as, &root);
    for (size_t i = 0; i < KINDS; i++) {
        const struct made *issuer = i == KIND_SELF_SIGNED  ? NULL
                                    : i == KIND_UNKNOWN_CA ? &other_root
                                                           : &intermediate;
        leaves[i] = certs_make(&kinds[i].as, issuer);
    }
    snprintf(folder, sizeof(folder), "/tmp/bh-test-XXXXXX");
    if (mkdtemp(folder) == NULL) {
        return -1;
    }
    snprintf(root_path, sizeof(root_path), "%s/root.pem", folder);
    snprintf(other_path, sizeof(other_path), "%s/other.pem", folder);
    const struct made *one[] = {&root};
    certs_write(root_path, one, 1);
    one[0] = &other_root;
    certs_write(other_path, one, 1);
    worker = bh_tls_worker_create(64);
    return worker != NULL ? 0 : -1;
}

static int teardown(void **unused)
{
    (void)unused;
    bh_tls_worker_destroy(worker);
    for (size_t i = 0; i < KINDS; i++) {
        certs_free(&leaves[i]);
    }
    certs_free(&root);
    certs_free(&intermediate);
    certs_free(&other_root);
    unlink(root_path);
    unlink(other_path);
    rmdir(folder);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(verify_says_what_failed),
        cmocka_unit_test(a_resumed_session_is_as_verified_as_its_first),
        cmocka_unit_test(nothing_is_resumed_past_the_end_of_its_certificate),
        cmocka_unit_test(a_pin_stands_beside_the_next),
        cmocka_unit_test(dane_says_which_record_matched),
        cmocka_unit_test(failures_are_told_exactly),
        cmocka_unit_test(the_name_that_is_asked_for),
        cmocka_unit_test(a_clearance_is_what_the_oracle_says),
    };
    return cmocka_run_group_tests_name("tls_demands", tests, setup, teardown);
}
