/* bhctl.h - what the parts of bhctl share: options, where rows come from, how they are shown. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "bh/config.h"
#include "bh/control.h"

/* Exit codes; `submit` and nothing else uses those of sysexits.h. */
enum {
    EXIT_GOOD = 0,
    EXIT_NEGATIVE = 1, /* asked and answered: not so */
    EXIT_BAD_USAGE = 2,
    EXIT_UNREACHABLE = 3, /* the engine is not there, and the queue neither */
};

#define BHCTL_CONFIG "/etc/bridgehead/bridgehead.conf"
#define BHCTL_CONTROL "/run/bridgehead/control"

struct options {
    bool json;
    bool offline;
    bool csv;            /* connectors --matrix */
    bool watch;          /* queue: again and again */
    const char *path;    /* of the queue; NULL: the configuration's */
    const char *config;  /* NULL: BHCTL_CONFIG */
    const char *events;  /* folder of the event log; NULL: the configuration's */
    const char *control; /* NULL: the configuration's, else BHCTL_CONTROL */
    json_t *args;        /* of the request */
    char **words;        /* what is left: ids, a file, an address */
    int words_count;
};

/* Where the engine and its queue are. Each text is NUL-terminated behind. */
struct places {
    const struct bh_config *config; /* NULL: it can't be read or is wrong */
    struct bh_names control;        /* sockets to try in turn; of config, or of peeked */
    struct bh_slice queue;          /* likewise; empty: not known */
    struct bh_config_places peeked; /* of a file that is wrong */
};

/* Where rows go: printed as JSON, or as a table or text for people. */
struct output;

/** @param verb  what was asked, which decides how rows look */
struct output *output_create(enum bh_control_verb verb, const struct options *options);
/** Borrowed. */
void output_row(struct output *out, const json_t *row);
/** The engine answered with an error, maybe after rows; ends the output. hint may be NULL. */
void output_fail(struct output *out, const char *what, const char *hint);
/** The totals; ends the output. @param running  the engine answered. @return the exit code */
int output_end(struct output *out, const json_t *end, bool running);
void output_destroy(struct output *out);
/** To standard error, or as JSON: what is wrong and what helps. */
void output_error(const struct options *options, const char *what, const char *hint);

/** Ask the daemon. @return the exit code, or -1: it does not listen there (nothing was printed) */
int client_ask(const struct options *options, const char *socket_path, enum bh_control_verb verb,
               struct output *out);
/** The same from the store itself. @return the exit code */
int offline_ask(const struct options *options, const struct places *places,
                enum bh_control_verb verb, struct output *out);
/** The line of a request, to be freed. */
char *request_line(const struct options *options, enum bh_control_verb verb);

/** Read the configuration quietly. @return NULL: it can't be read or is wrong */
const struct bh_config *load_config(const char *path);
/** Read the configuration quietly; a broken one as far as it says where things are. */
void places_find(const char *path, struct places *places);
void places_fini(struct places *places);
/** `bhctl check`. @return the exit code */
int check_file(const struct options *options, const char *path);
/** `bhctl hash-password NAME`, argv[0] is its name. @return the exit code */
int hash_password_main(int argc, char **argv);
/** `bhctl submit`, argv[0] is its name. @return a code of sysexits.h */
int submit_main(int argc, char **argv);

/* ---- Texts for people ---- */

#define TEXT_TIME 48
/** "40 s", "2 h 10 m", "3 d 4 h". @return text */
const char *text_span(int64_t span_ms, char text[TEXT_TIME]);
/** Local time: "03:20:44" today, else "2026-11-28 01:12". @return text */
const char *text_time(int64_t unix_ms, int64_t now_unix_ms, char text[TEXT_TIME]);
/** "1,204". @return text */
const char *text_count(uint64_t n, char text[TEXT_TIME]);
/** "12.3 KB". @return text */
const char *text_size(uint64_t octets, char text[TEXT_TIME]);
/** Print with control octets as \xNN: text that a remote had a hand in. */
void put_safe(FILE *file, const char *text);
/** "30s", "5m", "1h", "2d", "1w". @return false if it is none */
bool parse_span(const char *text, int64_t *span_ms);
/** An instant: "08:00" (the next one, local), "+2h", "2026-11-28T01:12Z". @return false */
bool parse_until(const char *text, int64_t now_unix_ms, int64_t *unix_ms);
/** An instant that was: "24h" ago, "2026-10-01", "2026-11-28T01:12Z". @return false */
bool parse_since(const char *text, int64_t now_unix_ms, int64_t *unix_ms);
int64_t now_ms(void);
