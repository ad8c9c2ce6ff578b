/* net.h - the network: connections between the daemon's streams and *actors* (partners, senders,
 * operators), which are simulator code. Latency, bandwidth, windows, splits, cuts and resets. */
#pragma once

#include <uv.h>

#include "bh/ip.h"
#include "core.h"

struct net_conn;

/** What an actor is told, on the main stack. */
struct net_actor {
    void *ctx;
    /** The daemon has accepted (senders, operators). NULL: nobody asks. */
    void (*on_open)(void *ctx);
    void (*on_data)(void *ctx, const char *octets, size_t len);
    /** No more will come: ended (graceful), or broken. The connection is gone after this; the actor
     * forgets it. Not called for what the actor ended itself. */
    void (*on_end)(void *ctx, bool graceful);
};

/** How a connection carries octets. */
struct net_path {
    uint64_t latency_us, jitter_us;
    uint64_t bytes_per_s;    /* 0: no bound */
    size_t window;           /* octets on their way to the actor */
    uint32_t split_permille; /* of arrivals that come in pieces */
    uint32_t cut_permille;   /* of arrivals after which the line goes dead, in silence */
};

/** What becomes of a connection that the daemon asks for. */
enum net_answer { NET_ACCEPT, NET_REFUSE, NET_SILENCE, NET_UNREACHABLE };
struct net_asked {
    struct bh_ip ip;
    uint16_t port;
    struct net_path path;   /* to be set with NET_ACCEPT and NET_REFUSE */
    struct net_actor actor; /* to be set with NET_ACCEPT */
};
/** The world's: decide. With NET_ACCEPT the connection is the actor's from now on; on_open tells
 * when it stands. */
enum net_answer world_on_connect(struct net_asked *asked, struct net_conn *conn);

/** An actor connects to where the daemon listens: a TCP port, or (0) its control socket.
 * @return NULL: nobody listens */
struct net_conn *net_connect(uint16_t port, const struct bh_ip *from, const struct net_path *path,
                             const struct net_actor *actor);
/** To the daemon. @return the place of the last octet in all that was sent on this connection */
uint64_t net_send(struct net_conn *conn, const char *octets, size_t len);
/** How many of these octets daemon code has read. Also right after the connection has gone, while
 * the actor holds it (net_hold). */
uint64_t net_seen(const struct net_conn *conn);
/** Within on_data: when the daemon wrote these octets. They may have been on their way for minutes.
 */
uint64_t net_written_us(const struct net_conn *conn);
/** Both ends are open, and the line is not dead. */
bool net_stands(const struct net_conn *conn);
/** The daemon has not closed its end. */
bool net_held_open(const struct net_conn *conn);
void net_hold(struct net_conn *conn);
void net_release(struct net_conn *conn);
/** The actor is through: what was sent still arrives, then the end (or at once, a reset). */
void net_end(struct net_conn *conn);
void net_reset(struct net_conn *conn);
/** The actor reads no more for now; or again. */
void net_pause(struct net_conn *conn, bool paused);
/** Everything on its way is lost from now on, in silence. */
void net_cut(struct net_conn *conn);
/** All lines go dead (or one in some). */
void net_cut_all(uint32_t permille);

/** The process died: its ends of all connections are reset, its loops and handles are gone. */
void net_process_died(void);
size_t net_open_count(void);
/** The end of a run, when no actor, no process and no event is left. */
void net_forget_all(void);

/* ---- between stream.c and loop.c ---- */

struct work {
    struct work *next;
    bool queued;
    void (*run)(struct work *work); /* on the loop's fiber */
    uv_loop_t *loop;
};
void loop_post(struct work *work);
void loop_unpost(struct work *work);
void loop_post_after(struct work *work, uint64_t delay_us, struct sim_event *timer);
/** A handle is open (or no longer): the loop lives as long as one is. */
void loop_hold(uv_loop_t *loop, int by);
void loop_process_died(void);
void stream_close(uv_handle_t *handle);
void stream_init(uv_loop_t *loop, uv_stream_t *handle);
void stream_process_died(void);

/** How many doorbells were rung; which of them is lost is a mutation's to say. */
extern bool (*loop_bell_is_lost)(void);
