/* sink_count.c - what arrived: counts, each id once, the rate that a throttled partner allows. */
#include "sink.h"

#include <stdlib.h>

#include "bench_tool.h"

struct sink_options sink_opt;
struct sink_counts sink_count;

/* A set of 64-bit hashes, open addressing; 0 is a free place. */
static uint64_t *ids;
static size_t ids_cap, ids_len;
static FILE *arrivals;

static size_t place(const uint64_t *table, size_t cap, uint64_t hash)
{
    size_t i = hash & (cap - 1);
    while (table[i] != 0 && table[i] != hash) {
        i = (i + 1) & (cap - 1);
    }
    return i;
}

static void grow(void)
{
    const size_t cap = ids_cap == 0 ? 1 << 16 : ids_cap * 2;
    uint64_t *table = (uint64_t *)calloc(cap, sizeof(*table));
    if (table == NULL) {
        bench_die("calloc");
    }
    for (size_t i = 0; i < ids_cap; i++) {
        if (ids[i] != 0) {
            table[place(table, cap, ids[i])] = ids[i];
        }
    }
    free(ids);
    ids = table;
    ids_cap = cap;
}

static bool seen_first(const char *id)
{
    const uint64_t hash = bh_hash(bh_slice_str(id), 1) | 1;
    if (ids_len * 2 >= ids_cap) {
        grow();
    }
    const size_t i = place(ids, ids_cap, hash);
    if (ids[i] == hash) {
        return false;
    }
    ids[i] = hash;
    ids_len++;
    return true;
}

void sink_count_message(const struct sink_smtp *s, bool chunked)
{
    const double now = bench_seconds(CLOCK_REALTIME);
    if (sink_count.messages == 0) {
        sink_count.first_unix_s = now;
    }
    sink_count.last_unix_s = now;
    sink_count.messages++;
    sink_count.octets += s->octets;
    sink_count.chunked += chunked;
    sink_count.encrypted += s->encrypted;
    if (s->id[0] == '\0') {
        sink_count.without_id++;
    } else if (seen_first(s->id)) {
        sink_count.unique++;
    } else {
        sink_count.duplicates++;
    }
    if (sink_opt.arrivals == NULL) {
        return;
    }
    if (arrivals == NULL && (arrivals = fopen(sink_opt.arrivals, "ae")) == NULL) {
        bench_die(sink_opt.arrivals);
    }
    fprintf(arrivals, "%s %s %.6f %d\n", s->id[0] != '\0' ? s->id : "-",
            s->sent[0] != '\0' ? s->sent : "-", now, s->encrypted);
}

/* A bucket of one second's worth, filled as time goes. */
bool sink_count_rate(void)
{
    static double level, filled_s;
    if (sink_opt.rate == 0) {
        return true;
    }
    const double now = bench_seconds(CLOCK_MONOTONIC);
    const double rate = (double)sink_opt.rate;
    level = filled_s > 0 ? level + (now - filled_s) * rate : rate;
    level = level < rate ? level : rate;
    filled_s = now;
    if (level < 1) {
        sink_count.refused_rate++;
        return false;
    }
    level -= 1;
    return true;
}

void sink_count_open(void)
{
    sink_count.connections++;
    sink_count.open++;
    if (sink_count.open > sink_count.open_max) {
        sink_count.open_max = sink_count.open;
    }
}

void sink_report(void)
{
    const struct sink_counts *c = &sink_count;
    const struct bench_cpu cpu = bench_cpu();
    const struct {
        const char *name;
        uint64_t value;
    } counts[] = {
        {"messages", c->messages},
        {"octets", c->octets},
        {"connections", c->connections},
        {"open", c->open},
        {"open_max", c->open_max},
        {"handshakes", c->handshakes},
        {"handshakes_resumed", c->handshakes_resumed},
        {"encrypted", c->encrypted},
        {"chunked", c->chunked},
        {"refused_rate", c->refused_rate},
        {"refused_connections", c->refused_connections},
        {"ended_connections", c->ended_connections},
        {"bad_commands", c->bad_commands},
        {"cut_off", c->cut_off},
        {"unique", c->unique},
        {"duplicates", c->duplicates},
        {"without_id", c->without_id},
    };
    if (arrivals != NULL) {
        (void)fflush(arrivals);
    }
    FILE *out = bench_report_open(sink_opt.report);
    fprintf(out, "{\"tool\":\"sink\"");
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        fprintf(out, ",\"%s\":%llu", counts[i].name, (unsigned long long)counts[i].value);
    }
    fprintf(out, ",\"first\":%.6f,\"last\":%.6f,\"cpu_s\":%.4f}\n", c->first_unix_s, c->last_unix_s,
            cpu.user_s + cpu.system_s);
    bench_report_close(out, sink_opt.report);
}
