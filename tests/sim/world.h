/* world.h - what is around the daemon, and what is known of it from outside. One world at a time;
 * everything in it follows from its seed. */
#pragma once

#include "core.h"
#include "net.h"
#include "tls_wire.h"

#define DOMAINS_MAX 8
#define HOSTS_MAX 12
#define DOMAIN_WELL 1    /* where only others are sick */
#define DOMAIN_DEAD 2    /* where its mail goes by a relay */
#define DOMAIN_SENDERS 0 /* where senders have their mailboxes: reports go there */
#define LISTEN_PORT 2525
#define CONFIGS_MAX 64

/* ---- configuration (conf.c) ---- */

struct conf_domain {
    enum bh_tls_mode tls;
    bool fallback_encrypt;    /* of mode dane */
    bool alternate, stricter; /* a costlier connector to the relay; which demands more of TLS */
    unsigned via;             /* its connector's smarthost: a host's number + 1; 0: by MX */
    bool own_connector;
    bool held;
    bool forbidden; /* all its hosts, by mistake */
};

/** A configuration as the simulator means it; the daemon gets it as text. */
struct conf {
    struct conf_domain domains[DOMAINS_MAX];
    uint32_t per_host, per_destination, initial, connections;
    uint32_t intervals_s[3], glitch_count;
    uint32_t expire_s, expire_bounces_s, warn_s, jitter;
    uint32_t idle_s, rate_per_minute;
    bool pipelining, chunking, uncertain_hold, trusted, pause;
    uint32_t fresh_window, workers;
    bool broken;                /* an error in it: to be refused */
    uint64_t from_us, until_us; /* in force; until 0: still */
};

void conf_make(struct conf *conf);
/** One or some settings differ. */
void conf_change(struct conf *conf);
/** What heals everything: no connector held. */
void conf_heal(struct conf *conf);
void conf_write(const struct conf *conf, const char *path, const char *folder);
enum bh_tls_mode conf_tls(const struct conf *conf, unsigned domain);
/** What the connector that takes mail of the domain to that host demands. @return false: none does
 */
bool conf_tls_at(const struct conf *conf, unsigned domain, unsigned host, enum bh_tls_mode *mode);

/* ---- settings of a world, drawn from its seed (world.c) ---- */

struct mood { /* of a host: in permille, for each time that it could happen */
    uint32_t refuse, silence, greet_421, greet_hang, greet_slow, ehlo_5xx, no_starttls,
        starttls_454, tls_garbage, tls_reset, bad_certificate, mail_4xx, mail_5xx, rcpt_4xx,
        rcpt_5xx, data_4xx, dot_4xx, dot_5xx, say_421, reset_command, reset_octet, lose_reply, hang,
        trickle, greylist, slow_reader, garbage_reply, multi_line;
};

struct settings {
    unsigned domains, hosts, messages, recipients_max;
    uint64_t arrivals_us, faults_us; /* from the start */
    size_t size_max;
    uint32_t dns_servfail, dns_silent, dns_nxdomain, dns_insecure, dns_slow;
    uint32_t crash_per_hour, power_permille, kv_step_crash;
    uint32_t operator_per_hour, reload_permille;
    uint32_t clock_steps;
    uint32_t cut_per_hour;
    uint32_t disk_full_permille, disk_slow_us, disk_fail_permille;
    bool sick_only;   /* domain 1 is well all the time, and nothing but partners is at fault */
    bool check_every; /* the whole store is checked at every commit */
};

/* What a world has beside the plain, each in some seeds only, so that plain ones stay frequent. */
struct wider {
    bool published; /* signed zones, TLSA records, MTA-STS policies: published.h */
    bool failover;  /* connectors with an alternate, to a relay */
    bool rescue;    /* with sick_only: all hosts of DOMAIN_DEAD are down, and the relay is well */
    bool lmtp;      /* a domain whose mail goes to an LMTP server */
    bool ipv6;      /* hosts with addresses of either family, or both */
    bool auth;      /* a domain whose mail goes to a smarthost that wants a password */
};

struct host {
    unsigned number;
    char name[64];
    struct bh_ip ip;
    struct tls_shown shown;
    unsigned generation;                            /* of its key */
    bool v4, v6, lmtp;                              /* the addresses that it has; what it speaks */
    uint32_t auth_hidden, auth_refused, auth_later; /* as a mood: of AUTH */
    struct mood mood;
    bool pipelining, chunking;
    uint64_t think_us;
    struct net_path path;
    uint64_t vain_us; /* since when sessions that asked for nothing are counted */
    unsigned vain;
};

struct domain {
    char name[64];
    unsigned host_count;
    unsigned hosts[3];
    uint32_t ttl_s;
    uint64_t trouble_us; /* when a host of it was last connected to, or its names not found */
};

struct world {
    struct settings set;
    struct wider has;
    struct host hosts[HOSTS_MAX];
    unsigned host_count; /* with relay and LMTP server, which no domain names: 0, there is none */
    unsigned relay, lmtp_server, auth_server;
    struct domain domains[DOMAINS_MAX];
    struct conf confs[CONFIGS_MAX];
    unsigned conf_count;
    char folder[256], conf_path[300], secret_path[300];
    bool faults; /* on */
    uint64_t begin_us;
    unsigned life; /* of the daemon's process */
    uint64_t life_began_us;
    unsigned power_lost_life; /* the last life that ended by power loss */
    bool clock_stepped;
    bool up;    /* the process runs */
    bool ready; /* and takes connections */
    uint64_t last_flush_us;
    unsigned conf_broken_at;
    bool restart_planned;
    bool over; /* nothing is checked any more */
};
extern struct world world;

/** The folder of this program's runs goes. */
void world_end(void);
void say_reset(void);

/** Does the world of a seed have this beside the plain ("published")? @param known  is there such a
 * thing? */
bool world_has(uint64_t seed, const char *what, bool *known);
/* wider.c */
void world_draw_host(unsigned i);
void wider_draw(void);
void wider_keep_rescue(void);
bool wider_has(const char *what, bool *known);
/** Run one seed to its end. @return true: no promise was broken */
bool world_run(uint64_t seed);
/** Leave the run: never returns. */
/** The steps of a run, for those that are not drawn: an empty world; run it until it ends or
 * breaks; one step; the end. */
void world_blank(uint64_t seed);
bool world_guard(uint64_t (*run)(void), uint64_t *result);
void world_step(void);
void world_clean(void);
_Noreturn void world_failed(const char *text);
const char *world_failure(void);
void world_on_log(const char *line);
void world_on_event(const char *line);
/** DNS and web, answered by the world. @return false: silence */
struct dns_build;
bool world_on_query(unsigned server, uint16_t id, const char *name, uint16_t type,
                    struct dns_build *build, uint64_t *delay_us);
/** A policy is asked for. @return what world_on_fetched is to be told when the answer arrives */
unsigned world_on_fetch(const char *host, char *body, size_t body_cap, char *error,
                        size_t error_cap, uint64_t *delay_us);
void world_on_fetched(unsigned token);
/** The conf in force now; and a walk back over those in force within the last `since_us`. */
const struct conf *world_conf(void);
bool world_conf_within(unsigned back, uint64_t since_us, const struct conf **conf);

/* ---- the process (process.c) ---- */

void process_start(void);
/** Simulator code: it dies. */
void process_kill(bool power);
/** SIGTERM. */
void process_stop(void);
/** Look whether it has ended by itself. */
void process_poll(void);
bool process_running(void);
void dns_process_died(void);
void web_process_died(void);
void sim_signal(int signum);

/* ---- the disk (disk.c) ---- */

struct bh_kv;
void disk_new(void);
void disk_gone(void);
void disk_process_died(void);
struct bh_kv *disk_kv(void);
void disk_set_full(bool full);
void disk_set_max(size_t max);
/** The daemon has written a report into the transaction that is open. */
void disk_report_written(size_t octets);
/** Reports alone may have used up what a full disk reserves: it is small here, as the disk is, and
 * a report returns up to 50 KB. */
bool disk_is_full_of_reports(void);

/* ---- the model (model.c) ---- */

#define RECIPIENTS_MAX 4096
#define MESSAGES_MAX 2048
#define ACCEPTANCES_MAX 8

enum msg_state { MSG_PLANNED, MSG_SENDING, MSG_MAYBE, MSG_ACKED, MSG_REFUSED };

struct message {
    unsigned number, first, count;
    enum msg_state state;
    uint64_t acked_us;
    size_t size;
    uint64_t queue_id; /* 0: not known */
    bool null_sender, large;
};

struct acceptance {
    struct net_conn *conn;
    uint64_t reply_end;
    unsigned life;
    uint64_t at_us;
};

/** How a recipient stood on disk, from a commit to the next that changed it. */
struct standing {
    uint64_t since_us;
    bool in_store, held, never_free, due_known, flushed; /* never_free: held since it came */
    uint64_t held_since_us;
    int64_t due_unix_ms;
};
#define STANDINGS_MAX 8

/** Told to come back later, by a reply that the daemon may not have read. */
struct deferral {
    struct net_conn *conn;
    uint64_t at_us, reply_end;
    unsigned life;
};
#define DEFERRALS_MAX 4

struct recipient {
    unsigned number, message, domain;
    bool accepted_ever;
    struct acceptance acceptances[ACCEPTANCES_MAX];
    unsigned accepted;
    bool perm_failed; /* a partner refused it for good, or the domain was said not to exist */
    bool temp_failed;
    bool reported; /* a DSN that says it failed was put into the queue */
    bool uncertain_told;
    bool cancelled;    /* an operator may have meant it */
    bool bounce_asked; /* likewise */
    bool ended, in_store, was_in_store;
    bool notify_never;
    bool power_lost;     /* since its first acceptance */
    struct standing now; /* as on disk */
    struct standing standings[STANDINGS_MAX];
    unsigned standing_count; /* ever: the newest is the one before, modulo STANDINGS_MAX */
    uint64_t first_in_store_us;
    bool greylisted;
    struct deferral deferrals[DEFERRALS_MAX];
    unsigned deferral_count; /* likewise */
};

extern struct recipient recipients[RECIPIENTS_MAX];
extern struct message messages[MESSAGES_MAX];
extern unsigned recipient_count, message_count;

void model_reset(void);
struct message *model_plan(unsigned count, unsigned domain_first, unsigned domain_last,
                           size_t size);
void model_acked(struct message *m, const char *reply);
/** A whole message's content, as a sender sends it (CRLF lines, dots not doubled). */
size_t model_content(const struct message *m, char *out, size_t cap);
struct recipient *model_find(const char *address, size_t len);
/** A partner told it to come back later. */
void model_deferred(struct recipient *r, struct net_conn *conn, uint64_t reply_end);
/** A partner was asked to take it.
 * @param written_us  when the daemon asked: what counts is how it stood then */
void model_on_rcpt(struct recipient *r, uint64_t written_us);
/** @param life  of the process whose connection it is */
void model_on_accepted(struct recipient *r, struct net_conn *conn, uint64_t reply_end,
                       unsigned life);
void model_on_crash(bool power);
/** {"evt":"uncertain","msg":ID}: its recipients may have been delivered. */
void model_uncertain_event(const char *line);
/** After every commit. */
void model_on_commit(struct bh_kv *kv);
bool model_all_ended(void);
/** In words, who has not ended. */
void model_describe(char *text, size_t cap);
void model_operator_removes(const char *domain, bool bounce);
uint64_t model_entries(void);

/* ---- actors ---- */

void partners_reset(void);
/** Connections to it on which it was greeted, and that the daemon has not closed. */
uint32_t partners_talking(const struct host *host);
bool partner_answers(struct host *host, struct net_conn *conn, struct net_asked *asked);
void senders_start(void);
bool senders_done(void);
void senders_reset(void);
void operators_start(void);
void operators_heal(void);
bool operators_busy(void);
void operators_reset(void);
void mood_make(struct mood *mood);
/* partner_auth.c: passwords, the smarthost's and those of the file that the connector names */

void password_draw(void);
void password_start(void);
void password_heal(void);
/** Mail may be handed in there with a password only. */
bool password_is_wanted(const struct host *host);
/** The line of EHLO that offers it; "": none, this time. */
const char *password_offer(const struct host *host);
/** The daemon has read that they are refused. */
void password_refusal_read(void);

/* partner_check.c */

struct seen_link;
/** The host's own key, of any generation? */
bool partner_is_own_key(const struct seen_link *link);
/** Mail for it is told to the partner: is it one of those that it may go to, and is the connection
 * what the connector demands? */
void partner_check(const struct seen_link *link, const struct recipient *r);
