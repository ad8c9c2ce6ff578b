/* `bhctl submit`, also as sendmail(8): its options, where to send, and the exit codes of
 * sysexits.h. It goes through a listener of the engine, so that the same checks and limits hold. */
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "submit.h"

struct how {
    const char *config;
    const char *server; /* "HOST:PORT" as addresses, or "unix:PATH"; NULL: from the configuration */
    const char *file;   /* NULL: standard input */
    bool from_header;   /* -t */
    bool no_dot;        /* -i */
};

static int usage(const char *what)
{
    fprintf(stderr, "bhctl: submit: %s\n  see bhctl help submit\n", what);
    return EX_USAGE;
}

static int connect_unix(const char *path, size_t len)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (len >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(address.sun_path, path, len);
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd >= 0 &&
        connect(fd, (const struct sockaddr *)(const void *)&address, sizeof(address)) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static int connect_tcp(const struct bh_ip *ip, uint16_t port)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    memcpy(&v4.sin_addr, ip->bytes, 4);
    memcpy(&v6.sin6_addr, ip->bytes, 16);
    const bool four = ip->family == 4;
    const int fd = socket(four ? AF_INET : AF_INET6, SOCK_STREAM, 0);
    if (fd >= 0 && connect(fd,
                           four ? (const struct sockaddr *)(const void *)&v4
                                : (const struct sockaddr *)(const void *)&v6,
                           four ? sizeof(v4) : sizeof(v6)) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* The address that reaches a listener: of all addresses, the loopback one. */
static struct bh_ip reachable(const struct bh_ip *ip)
{
    static const uint8_t none[16] = {0};
    struct bh_ip to = *ip;
    if (memcmp(ip->bytes, none, sizeof(none)) == 0) {
        to.bytes[ip->family == 4 ? 0 : 15] = ip->family == 4 ? 127 : 1;
        to.bytes[3] = ip->family == 4 ? 1 : to.bytes[3];
    }
    return to;
}

static int connect_configured(const struct bh_config *config)
{
    for (size_t i = 0; i < config->listens_count; i++) {
        const struct bh_listen_config *l = &config->listens[i];
        if (l->kind == BH_LISTEN_UNIX) {
            const int fd = connect_unix(l->path.ptr, l->path.len);
            if (fd >= 0) {
                return fd;
            }
        }
    }
    for (size_t i = 0; i < config->listens_count; i++) {
        const struct bh_listen_config *l = &config->listens[i];
        if (l->kind == BH_LISTEN_TCP && l->tls != BH_LISTEN_TLS_IMPLICIT && l->port != 0) {
            const struct bh_ip ip = reachable(&l->ip);
            const int fd = connect_tcp(&ip, l->port);
            if (fd >= 0) {
                return fd;
            }
        }
    }
    return -1;
}

static int connect_named(const char *server)
{
    const struct bh_slice text = bh_slice_str(server);
    if (bh_slice_starts(text, BH_LIT("unix:"))) {
        return connect_unix(server + 5, text.len - 5);
    }
    const char *colon = strrchr(server, ':');
    struct bh_ip ip;
    uint64_t port = 0;
    if (colon == NULL || !bh_slice_u64(bh_slice_str(colon + 1), 65535, &port)) {
        errno = EINVAL;
        return -1;
    }
    struct bh_slice host = bh_slice(server, (size_t)(colon - server));
    if (host.len > 2 && host.ptr[0] == '[' && host.ptr[host.len - 1] == ']') {
        host = bh_slice(host.ptr + 1, host.len - 2);
    }
    if (bh_slice_eq(host, BH_LIT("localhost"))) {
        host = BH_LIT("127.0.0.1");
    }
    if (!bh_ip_parse(host, &ip)) {
        errno = EINVAL;
        return -1;
    }
    return connect_tcp(&ip, (uint16_t)port);
}

/* @return NULL: no memory */
static char *default_sender(const char *host)
{
    const struct passwd *user = getpwuid(getuid());
    char text[BH_ADDRESS_MAX];
    snprintf(text, sizeof(text), "%s@%s", user != NULL ? user->pw_name : "root", host);
    return strdup(text);
}

/* "user", "user@domain", "Name <user@domain>" and "<>" are all meant by -f. */
static char *sender_of(const char *text, const char *host)
{
    const char *open = strchr(text, '<');
    const size_t len = open != NULL ? strcspn(open + 1, ">") : strlen(text);
    const char *start = open != NULL ? open + 1 : text;
    char sender[BH_ADDRESS_MAX + 2];
    if (len > BH_ADDRESS_MAX) {
        return NULL;
    }
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)start[i] <= ' ' || start[i] == 0x7f) {
            return NULL;
        }
    }
    const bool local = len > 0 && memchr(start, '@', len) == NULL;
    const int made = snprintf(sender, sizeof(sender), "%.*s%s%s", (int)len, start, local ? "@" : "",
                              local ? host : "");
    return made >= 0 && (size_t)made < sizeof(sender) ? strdup(sender) : NULL;
}

static bool good_notify(const char *text)
{
    struct bh_slice rest = bh_slice_str(text);
    bool never = false;
    size_t count = 0;
    while (true) {
        const struct bh_slice word = bh_slice_take(rest, bh_slice_find(rest, ','));
        const bool is_never = bh_slice_eq_nocase(word, BH_LIT("never"));
        if (!is_never && !bh_slice_eq_nocase(word, BH_LIT("success")) &&
            !bh_slice_eq_nocase(word, BH_LIT("failure")) &&
            !bh_slice_eq_nocase(word, BH_LIT("delay"))) {
            return false;
        }
        never = never || is_never;
        count++;
        if (word.len == rest.len) {
            return !never || count == 1; /* RFC 3461 4.1: NEVER stands alone. */
        }
        rest = bh_slice_skip(rest, word.len + 1);
    }
}

enum { OPT_CONFIG = 256, OPT_SERVER, OPT_FILE };

static const struct option long_options[] = {
    {"config", required_argument, NULL, OPT_CONFIG},
    {"server", required_argument, NULL, OPT_SERVER},
    {"file", required_argument, NULL, OPT_FILE},
    {NULL, 0, NULL, 0},
};

/* One option. @return EX_OK, or the exit code */
static int take_option(int option, struct how *how, struct submit *s, const char **sender)
{
    switch (option) {
    case OPT_CONFIG:
        how->config = optarg;
        return EX_OK;
    case OPT_SERVER:
        how->server = optarg;
        return EX_OK;
    case OPT_FILE:
        how->file = optarg;
        return EX_OK;
    case 'f':
    case 'r':
        *sender = optarg;
        return EX_OK;
    case 't':
        how->from_header = true;
        return EX_OK;
    case 'i':
        how->no_dot = true;
        return EX_OK;
    case 'o':
        how->no_dot = how->no_dot || strcmp(optarg, "i") == 0; /* -oi; others change nothing */
        return EX_OK;
    case 'N':
        s->notify = optarg;
        return good_notify(optarg) ? EX_OK : usage("-N takes never, or of success, failure, delay");
    case 'R':
        s->ret = strcasecmp(optarg, "full") == 0 ? "FULL" : "HDRS";
        return strcasecmp(optarg, "full") == 0 || strcasecmp(optarg, "hdrs") == 0
                   ? EX_OK
                   : usage("-R takes full or hdrs");
    case 'V':
        s->envid = optarg;
        return strlen(optarg) <= BH_ENVID_MAX ? EX_OK : usage("-V: more than 100 octets");
    case 'b':
        return strcmp(optarg, "m") == 0 ? EX_OK : usage("only the mode -bm is there");
    case 'B':
    case 'F':
    case 'L':
    case 'O':
    case 'X':
    case 'm':
    case 'n':
    case 'G':
    case 'U':
    case 'v':
        return EX_OK; /* Of sendmail; they mean nothing here. */
    default:
        return EX_USAGE;
    }
}

static int take_options(int argc, char **argv, struct how *how, struct submit *s,
                        const char **sender)
{
    int code = EX_OK;
    optind = 1;
    for (int c; code == EX_OK && (c = getopt_long(argc, argv, "+f:r:tio:N:R:V:b:B:F:L:O:X:mnGUv",
                                                  long_options, NULL)) != -1;) {
        code = take_option(c, how, s, sender);
    }
    return code;
}

/* The message and its recipients. */
static int take_message(const struct how *how, struct submit *s)
{
    FILE *file = how->file != NULL ? fopen(how->file, "rb") : stdin;
    if (file == NULL) {
        fprintf(stderr, "bhctl: submit: %s: %s\n", how->file, strerror(errno));
        return EX_NOINPUT;
    }
    int code = message_read(s, file, !how->no_dot && how->file == NULL);
    if (file != stdin) {
        fclose(file);
    }
    if (code == EX_OK && how->from_header) {
        code = message_take_recipients(s);
    }
    if (code == EX_OK && s->recipients_count == 0) {
        return usage("no recipient");
    }
    return code == EX_OK ? message_complete(s) : code;
}

static int deliver(const struct how *how, const struct bh_config *config, const struct submit *s)
{
    if (how->server == NULL && config == NULL) {
        fprintf(stderr,
                "bhctl: submit: no usable configuration in %s\n  give --config or "
                "--server\n",
                how->config != NULL ? how->config : BHCTL_CONFIG);
        return EX_CONFIG;
    }
    const int fd = how->server != NULL ? connect_named(how->server) : connect_configured(config);
    if (fd < 0) {
        fprintf(stderr, "bhctl: submit: no listener answers; the message was not sent\n");
        return EX_TEMPFAIL;
    }
    const int code = smtp_send(fd, s);
    close(fd);
    return code;
}

static void free_submit(struct submit *s)
{
    for (size_t i = 0; i < s->recipients_count; i++) {
        free(s->recipients[i]);
    }
    free(s->message);
    free(s->sender);
}

int submit_main(int argc, char **argv)
{
    struct submit *s = calloc(1, sizeof(*s));
    struct how how = {0};
    const char *sender = NULL;
    char host[256] = "localhost";
    int code = s != NULL ? take_options(argc, argv, &how, s, &sender) : EX_TEMPFAIL;
    if (code != EX_OK) {
        free(s);
        return code;
    }
    const struct bh_config *config = load_config(how.config != NULL ? how.config : BHCTL_CONFIG);
    if (config != NULL && config->engine.hostname.len > 0 &&
        config->engine.hostname.len < sizeof(host)) {
        snprintf(host, sizeof(host), "%.*s", BH_FMT(config->engine.hostname));
    } else if (gethostname(host, sizeof(host) - 1) != 0) {
        snprintf(host, sizeof(host), "localhost");
    }
    s->host = host;
    s->sender = sender != NULL ? sender_of(sender, host) : default_sender(host);
    if (s->sender == NULL) {
        code = usage("-f: not an address");
    }
    for (int i = optind; i < argc && code == EX_OK; i++) {
        code = submit_add_recipient(s, argv[i], strlen(argv[i]));
    }
    code = code == EX_OK ? take_message(&how, s) : code;
    code = code == EX_OK ? deliver(&how, config, s) : code;
    bh_config_unref(config);
    free_submit(s);
    free(s);
    return code;
}
