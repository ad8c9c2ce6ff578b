#include "bh/forecast.h"

#define MS_PER_MINUTE 60000.0
#define LEFT_ENOUGH 5 /* of fewer the time of each weighs too much, where a rate says more */
#define NS_PER_MS 1000000.0
#define FOREVER_MS ((int64_t)1000 * 365 * BH_DAY_MS)

/* Messages in a ms that the rates allow; 0: as many as there are. */
static double allowed(const struct bh_forecast_facts *f)
{
    const uint64_t entries = f->fresh + f->ready + f->due + f->held;
    double most = f->message_ns > 0 ? NS_PER_MS / (double)f->message_ns : 0;
    if (f->recipient_ns > 0 && f->recipients > 0) {
        const double each = (double)f->recipients / (double)entries;
        const double by_recipients = NS_PER_MS / (double)f->recipient_ns / each;
        most = most == 0 || by_recipients < most ? by_recipients : most;
    }
    return most;
}

/* Of `count` messages of a slot, those that grow too old before it is their turn: both the age and
 * the turn go evenly from its first to its last.
 * @param ahead  messages that leave before them */
static double too_old(const struct bh_forecast_facts *f, const struct bh_arrival_slot *slot,
                      double count, double ahead, double per_ms)
{
    const double now = (double)f->now_unix_ms;
    const double expire = (double)f->expire_ms;
    const double first = now + ahead / per_ms - ((double)slot->start_unix_ms + expire);
    const double last = now + (ahead + count) / per_ms - ((double)slot->end_unix_ms + expire);
    if (first <= 0 && last <= 0) {
        return 0;
    }
    if (first >= 0 && last >= 0) {
        return count;
    }
    const double share = first / (first - last); /* where one becomes the other */
    return count * (first > 0 ? share : 1 - share);
}

static uint64_t expiring(const struct bh_forecast_facts *f, double per_ms)
{
    const uint64_t entries = f->ready + f->due + f->held;
    double ahead = 0;
    double sum = 0;
    if (f->expire_ms <= 0) {
        return 0;
    }
    const double leaving = entries > 0 ? (double)(f->ready + f->due) / (double)entries : 0;
    for (size_t i = 0; i < f->slot_count; i++) {
        const double count = (double)f->slots[i].count * leaving;
        sum += too_old(f, &f->slots[i], count, ahead, per_ms);
        ahead += count;
    }
    if (f->fresh > 0) {
        sum += too_old(f, &f->fresh_slot, (double)f->fresh, ahead, per_ms);
    }
    return (uint64_t)(sum + 0.5);
}

bool bh_forecast(const struct bh_forecast_facts *facts, struct bh_forecast *forecast)
{
    const uint64_t messages = facts->fresh + facts->ready + facts->due;
    const double most = allowed(facts);
    const uint64_t enough = most > 0 ? LEFT_ENOUGH : 1;
    const bool known = facts->left >= enough && facts->left_ms > 0;
    double per_ms = known ? (double)facts->left / (double)facts->left_ms : most;
    if (messages == 0 || per_ms <= 0) {
        return false;
    }
    per_ms = most > 0 && most < per_ms ? most : per_ms;
    const double takes = (double)messages / per_ms;
    *forecast = (struct bh_forecast){
        .messages = messages,
        .per_minute = per_ms * MS_PER_MINUTE,
        .by_limit = !known,
        .drains_in_ms = takes < (double)FOREVER_MS ? (int64_t)takes : FOREVER_MS,
        .expire_before = expiring(facts, per_ms),
    };
    return true;
}
