/* What workers share about clients: refusals of AUTH. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../engine/intake/src/intake_internal.h"

static struct bh_ip ip(const char *text)
{
    struct bh_ip parsed;
    assert_true(bh_ip_parse(bh_slice_str(text), &parsed));
    return parsed;
}

static void refusals_are_remembered_by_client(void **unused)
{
    (void)unused;
    struct bh_intake_shared *shared = bh_intake_shared_create();
    assert_non_null(shared);
    const struct bh_ip guesser = ip("192.0.2.1");
    const struct bh_ip other = ip("192.0.2.2");
    const struct bh_ip six = ip("2001:db8:0:1::1");
    const struct bh_ip same_six = ip("2001:db8:0:1:ffff::2");
    const struct bh_ip other_six = ip("2001:db8:0:2::1");
    uint64_t now_ms = 5000000;
    assert_int_equal(shared_auth_delay(shared, &guesser, now_ms), 1000);
    shared_auth_refused(shared, &guesser, now_ms);
    assert_int_equal(shared_auth_delay(shared, &guesser, now_ms), 2000);
    for (int i = 0; i < 40; i++) {
        shared_auth_refused(shared, &guesser, now_ms);
    }
    assert_int_equal(shared_auth_delay(shared, &guesser, now_ms), BH_SERVER_AUTH_DELAY_MAX);
    assert_int_equal(shared_auth_delay(shared, &other, now_ms), 1000);

    shared_auth_refused(shared, &six, now_ms);
    assert_int_equal(shared_auth_delay(shared, &same_six, now_ms), 2000);
    assert_int_equal(shared_auth_delay(shared, &other_six, now_ms), 1000);

    now_ms += AUTH_REFUSALS_MS - 1;
    assert_int_equal(shared_auth_delay(shared, &guesser, now_ms), BH_SERVER_AUTH_DELAY_MAX);
    now_ms += 1;
    assert_int_equal(shared_auth_delay(shared, &guesser, now_ms), 1000);
    shared_auth_refused(shared, &guesser, now_ms); /* counts from one again */
    assert_int_equal(shared_auth_delay(shared, &guesser, now_ms), 2000);
    bh_intake_shared_destroy(shared);
}

static void so_many_are_judged_at_a_time(void **unused)
{
    (void)unused;
    struct bh_intake_shared *shared = bh_intake_shared_create();
    assert_non_null(shared);
    for (int i = 0; i < AUTH_JOBS_MAX; i++) {
        assert_true(shared_auth_enter(shared));
    }
    assert_false(shared_auth_enter(shared));
    shared_auth_leave(shared);
    assert_true(shared_auth_enter(shared));
    bh_intake_shared_destroy(shared);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refusals_are_remembered_by_client),
        cmocka_unit_test(so_many_are_judged_at_a_time),
    };
    return cmocka_run_group_tests_name("intake_shared", tests, NULL, NULL);
}
