/* sink.h - the parts of the sink: what it counts (sink_count.c), and the SMTP of one connection,
 * from octets to replies (sink_smtp.c). Sockets and TLS are in sink.c. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "bh/buf.h"

struct sink_options {
    bool no_pipelining, no_chunking, tls;
    long messages_per_connection; /* then 421; 0: no limit */
    long rate;            /* messages a second; what is above gets 450 at RCPT. 0: no limit */
    long expected;        /* messages after which a report is written; 0: none */
    const char *report;   /* a file, or NULL for standard output */
    const char *arrivals; /* a file with a line per message: id, sent, arrived, encrypted */
};

struct sink_counts {
    uint64_t messages, octets, connections, open, open_max;
    uint64_t handshakes, handshakes_resumed, encrypted, chunked;
    uint64_t refused_rate, refused_connections, ended_connections;
    uint64_t bad_commands, cut_off, unique, duplicates, without_id;
    double first_unix_s, last_unix_s;
};

extern struct sink_options sink_opt;
extern struct sink_counts sink_count;

enum sink_phase { SINK_COMMAND, SINK_DATA, SINK_CHUNK };

/** What the sink knows of a session. Zeroed is ready, once sink_smtp_begin was called. */
struct sink_smtp {
    enum sink_phase phase;
    bool greeted, mail, encrypted;
    bool starttls; /* out: once the replies are written, TLS begins */
    bool closing;  /* out: once the replies are written, the connection ends */
    long recipients, messages;
    uint64_t octets;
    bool at_line_start, after_cr;   /* in DATA */
    uint64_t chunk_left;            /* in BDAT */
    bool chunk_last, chunk_ignored; /* ignored: no recipient was accepted before it */
    bool in_header;
    size_t line_len;
    char line[160];        /* a header line, cut */
    char id[96], sent[24]; /* X-Blast-Id, X-Blast-Time */
};

void sink_smtp_begin(struct sink_smtp *s, struct bh_buf *replies);
/** After STARTTLS: what was said in clear is forgotten. */
void sink_smtp_encrypted(struct sink_smtp *s);
/** Take in octets, append replies; stops early if these fill, or at STARTTLS or the end.
 * @return how many octets were used */
size_t sink_smtp_feed(struct sink_smtp *s, struct bh_slice in, struct bh_buf *replies);

/** One more message was accepted. */
void sink_count_message(const struct sink_smtp *s, bool chunked);
/** May one more be, at the rate that was set? */
bool sink_count_rate(void);
void sink_count_open(void);
void sink_report(void);
