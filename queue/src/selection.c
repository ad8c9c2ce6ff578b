#include "bh/selection.h"

#include "bh/assert.h"

void bh_selection_init(struct bh_selection *s)
{
    *s = (struct bh_selection){.arrived_from_unix_ms = INT64_MIN, .arrived_to_unix_ms = INT64_MAX};
}

const char *bh_job_verb_name(enum bh_job_verb verb)
{
    static const char *const names[] = {"hold", "release", "cancel", "bounce", "requeue"};
    BH_ASSERT((unsigned)verb < BH_COUNT(names));
    return names[verb];
}

bool bh_selection_matches_destination(const struct bh_selection *s, struct bh_slice domain,
                                      struct bh_slice connector)
{
    return (s->domain.len == 0 || bh_slice_eq_nocase(s->domain, domain)) &&
           (s->connector.len == 0 || bh_slice_eq(s->connector, connector));
}

bool bh_selection_needs_message(const struct bh_selection *s)
{
    return s->sender.len > 0 && !bh_slice_eq(s->sender, BH_LIT("<>"));
}

bool bh_selection_address_matches(struct bh_slice pattern, struct bh_slice address)
{
    if (pattern.len > 0 && pattern.ptr[0] == '@') {
        return address.len > 0 &&
               bh_slice_eq_nocase(bh_slice_skip(pattern, 1), bh_address_domain(address));
    }
    return bh_slice_eq(bh_address_local(pattern), bh_address_local(address)) &&
           bh_slice_eq_nocase(bh_address_domain(pattern), bh_address_domain(address));
}

static bool matches_id(const struct bh_selection *s, uint64_t id)
{
    for (uint32_t i = 0; i < s->id_count; i++) {
        if (s->ids[i] == id) {
            return true;
        }
    }
    return s->id_count == 0;
}

static bool matches_state(const struct bh_selection *s, enum bh_entry_state state)
{
    static const unsigned bits[BH_ENTRY_STATES] = {BH_SELECT_READY, BH_SELECT_DUE, BH_SELECT_HELD};
    return s->states == 0 || (s->states & bits[state]) != 0;
}

static bool matches_sender(const struct bh_selection *s, const struct bh_message *message,
                           const struct bh_entry *entry)
{
    if (s->sender.len == 0) {
        return true;
    }
    if (bh_slice_eq(s->sender, BH_LIT("<>"))) {
        return entry->sender_null;
    }
    return !entry->sender_null && message != NULL &&
           bh_selection_address_matches(s->sender, message->envelope.sender);
}

static bool matches_recipient(const struct bh_selection *s, const struct bh_entry *entry)
{
    for (uint16_t i = 0; i < entry->recipient_count && s->recipient.len > 0; i++) {
        if (bh_selection_address_matches(s->recipient, entry->recipients[i].to.address)) {
            return true;
        }
    }
    return s->recipient.len == 0;
}

bool bh_selection_matches(const struct bh_selection *s, const struct bh_message *message,
                          const struct bh_entry *entry, struct bh_slice domain,
                          struct bh_slice connector)
{
    return matches_id(s, entry->key.id) && matches_state(s, entry->state) &&
           entry->arrival_unix_ms >= s->arrived_from_unix_ms &&
           (s->arrived_to_unix_ms == INT64_MAX || entry->arrival_unix_ms < s->arrived_to_unix_ms) &&
           bh_selection_matches_destination(s, domain, connector) && matches_recipient(s, entry) &&
           matches_sender(s, message, entry);
}
