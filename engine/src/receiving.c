#include "receiving.h"

#include <signal.h>
#include <time.h>

#include "bh/log.h"
#include "lease.h"

static int64_t wall_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- start ---- */

static void add(struct bh_suspects *suspects, const struct bh_handling *left, int64_t now_unix_ms)
{
    const uint32_t crashes = bh_suspects_add(suspects, left->id, now_unix_ms);
    bh_log(crashes < 2 ? BH_LOG_WARN : BH_LOG_ERROR,
           "evt=receiving_ended_the_process envelope=%016llx step=%s times=%u action=%s",
           (unsigned long long)left->id, left->step == BH_HANDLING_RECEIVE ? "receive" : "store",
           (unsigned)crashes, crashes < 2 ? "remembered" : "\"refused for a while\"");
}

enum bh_status receiving_recover(struct daemon *d, struct bh_kv_txn *txn, struct bh_arena *arena)
{
    size_t count = 0;
    const int64_t now_unix_ms = wall_ms();
    const struct bh_handling *left = bh_inflight_left_handling(d->inflight, &count);
    enum bh_status status = bh_suspects_get(txn, arena, &d->suspects);
    if (status == BH_ECORRUPT || status == BH_EVERSION) {
        bh_log(BH_LOG_WARN, "evt=suspects_unreadable error=\"%s\" action=\"begun anew\"",
               bh_status_name(status));
        d->suspects.count = 0; /* It guards the process, and no mail depends on it. */
        status = BH_OK;
    }
    bool changed = bh_suspects_forget(&d->suspects, now_unix_ms);
    for (size_t i = 0; i < count; i++) {
        const bool receiving =
            left[i].step == BH_HANDLING_RECEIVE || left[i].step == BH_HANDLING_STORE;
        /* Unlike mail in the queue, this has others beside it that look alike: be sure. */
        if (receiving && left[i].blame == BH_BLAME_LIKELY) {
            add(&d->suspects, &left[i], now_unix_ms);
            changed = true;
        }
    }
    return status == BH_OK && changed ? bh_suspects_put(d->queue, txn, &d->suspects) : status;
}

/* ---- hooks ---- */

void receiving_handling(void *ctx, uint32_t worker, enum bh_handling_step step,
                        uint64_t fingerprint)
{
    const struct daemon *d = ctx;
    const uint32_t thread =
        worker == BH_INTAKE_STORE_THREAD ? store_thread_number() : STORE_THREADS_MAX + worker;
    bh_inflight_handling(d->inflight, thread, step, fingerprint);
}

bool receiving_refuse(void *ctx, uint64_t fingerprint, struct bh_slice sender)
{
    const struct daemon *d = ctx; /* `suspects` does not change after the start. */
    if (!bh_suspects_refuse(&d->suspects, fingerprint, wall_ms())) {
        return false;
    }
    char quoted[BH_LOG_QUOTE_MAX];
    bh_log(BH_LOG_WARN, "evt=suspect_refused envelope=%016llx sender=%s",
           (unsigned long long)fingerprint, bh_log_quote(sender, quoted));
    return true;
}

/* ---- the end ---- */

static struct bh_inflight *dying_inflight;
static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
static struct sigaction before[BH_COUNT(fatal)];

static void on_fatal(int signum, siginfo_t *info, void *context)
{
    (void)context;
    /* abort() and faults come from the thread itself; kill() from a watchdog, or a person. */
    const bool outside = info->si_code == SI_USER || info->si_code == SI_QUEUE;
    bh_inflight_dying(dying_inflight, outside ? BH_DEATH_HUNG : BH_DEATH_OWN);
    for (size_t i = 0; i < BH_COUNT(fatal); i++) {
        if (fatal[i] == signum) {
            (void)sigaction(signum, &before[i], NULL);
        }
    }
    /* A fault comes again on return, in its place, for the core dump or a sanitizer's report. */
    if (outside || info->si_code == SI_TKILL) {
        (void)raise(signum);
    }
}

void dying_watch(struct bh_inflight *inflight)
{
    struct sigaction action = {.sa_sigaction = on_fatal, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    dying_inflight = inflight;
    for (size_t i = 0; i < BH_COUNT(fatal); i++) {
        (void)sigaction(fatal[i], &action, &before[i]);
    }
}
