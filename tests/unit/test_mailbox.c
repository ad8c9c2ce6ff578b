#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>

#include "bh/mailbox.h"

static void ring_counts(void *ctx)
{
    ++*(int *)ctx;
}

static void bounded_in_entries_and_octets(void **unused)
{
    (void)unused;
    int rings = 0;
    struct bh_mailbox *box = bh_mailbox_create(3, 100, ring_counts, &rings);
    struct bh_letter a = {.bytes = 500}, b = {.bytes = 60}, c = {.bytes = 60};

    assert_int_equal(bh_mailbox_post(box, &a), BH_OK); /* larger than the bound: passes alone */
    assert_int_equal(bh_mailbox_post(box, &b), BH_EFULL);
    assert_ptr_equal(bh_mailbox_take_all(box), &a);
    assert_int_equal(bh_mailbox_post(box, &b), BH_OK);
    assert_int_equal(bh_mailbox_post(box, &c), BH_EFULL);
    c.bytes = 10;
    assert_int_equal(bh_mailbox_post(box, &c), BH_OK);
    assert_int_equal(bh_mailbox_reserve(box, 30), BH_OK);
    assert_int_equal(bh_mailbox_reserve(box, 0), BH_EFULL); /* three entries */
    assert_int_equal(rings, 2);                             /* once for each batch */

    struct bh_letter answer = {.bytes = 5};
    bh_mailbox_post_reserved(box, &answer, 30);
    struct bh_letter *all = bh_mailbox_take_all(box);
    assert_ptr_equal(all, &b);
    assert_ptr_equal(all->next, &c);
    assert_ptr_equal(all->next->next, &answer);
    assert_null(all->next->next->next);
    size_t entries = 9, bytes = 9;
    bh_mailbox_load(box, &entries, &bytes);
    assert_int_equal(entries, 0);
    assert_int_equal(bytes, 0);
    bh_mailbox_destroy(box);
}

#define LETTERS 20000

static void *post_many(void *arg)
{
    struct bh_mailbox *box = arg;
    for (uint32_t i = 0; i < LETTERS; i++) {
        struct bh_letter *letter = calloc(1, sizeof(*letter));
        letter->kind = i;
        while (bh_mailbox_post(box, letter) != BH_OK) {
            sched_yield();
        }
    }
    return NULL;
}

/* Nothing is lost or changes places between two posters and a reader who sleeps in between. */
static void two_posters_one_reader(void **unused)
{
    (void)unused;
    struct bh_mailbox *box = bh_mailbox_create(64, 1 << 20, NULL, NULL);
    pthread_t posters[2];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&posters[i], NULL, post_many, box), 0);
    }
    size_t got = 0;
    uint64_t sum = 0;
    while (got < 2 * LETTERS && bh_mailbox_wait(box, 10000)) {
        for (struct bh_letter *letter = bh_mailbox_take_all(box); letter != NULL;) {
            struct bh_letter *next = letter->next;
            sum += letter->kind;
            got++;
            free(letter);
            letter = next;
        }
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(posters[i], NULL);
    }
    assert_int_equal(got, 2 * LETTERS);
    assert_int_equal(sum, (uint64_t)LETTERS * (LETTERS - 1));
    assert_false(bh_mailbox_wait(box, 1));
    bh_mailbox_destroy(box);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(bounded_in_entries_and_octets),
                                       cmocka_unit_test(two_posters_one_reader)};
    return cmocka_run_group_tests_name("mailbox", tests, NULL, NULL);
}
