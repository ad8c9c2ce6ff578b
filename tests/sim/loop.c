/* libuv as far as the daemon uses it: loops, timers, doorbells, signals, work. Names and meaning
 * are libuv's; time and threads are the simulator's. A function of libuv that is missing here makes
 * the program depend on the real one, which a test refuses. */
#include <stdlib.h>
#include <string.h>

#include "bh/assert.h"
#include "net.h"

struct loop {
    struct loop *next;
    uv_loop_t *loop;
    struct fiber *fiber; /* waiting in uv_run */
    uint64_t now_ms;
    struct work *first, **last;
    size_t held; /* handles that keep it alive, works on their way */
    bool stop;
};

/* Beside each handle: what libuv keeps in it. */
struct side {
    struct work work; /* first */
    uv_handle_t *handle;
    struct sim_event timer;
    uint64_t repeat_ms;
    uv_timer_cb on_timer;
    uv_async_cb on_async;
    uv_idle_cb on_idle;
    uv_signal_cb on_signal;
    uv_close_cb on_close;
    int signum;
    bool active, closing;
    struct side *next, *prev;
};

static struct loop *loops;
static struct side *sides;
bool (*loop_bell_is_lost)(void);

static struct loop *loop_of(const uv_loop_t *loop)
{
    return loop->internal_fields;
}

static struct side *side_of(const uv_handle_t *handle)
{
    return handle->u.reserved[3];
}

/* ---- works ---- */

void loop_post(struct work *work)
{
    struct loop *l = loop_of(work->loop);
    if (work->queued) {
        return;
    }
    work->queued = true;
    work->next = NULL;
    *l->last = work;
    l->last = &work->next;
    if (l->fiber != NULL) {
        fiber_wake(l->fiber);
    }
}

static void post_now(void *ctx)
{
    loop_post(ctx);
}

void loop_post_after(struct work *work, uint64_t delay_us, struct sim_event *timer)
{
    timer->fn = post_now;
    timer->ctx = work;
    sim_event_at(timer, sim_now_us() + delay_us);
}

void loop_hold(uv_loop_t *loop, int by)
{
    struct loop *l = loop_of(loop);
    BH_ASSERT(by > 0 || l->held > 0);
    l->held = by > 0 ? l->held + 1 : l->held - 1;
}

static struct work *take(struct loop *l)
{
    struct work *work = l->first;
    if (work != NULL) {
        l->first = work->next;
        l->last = l->first == NULL ? &l->first : l->last;
        work->queued = false;
    }
    return work;
}

static void unqueue(struct loop *l, struct work *work)
{
    if (!work->queued) {
        return;
    }
    for (struct work **at = &l->first; *at != NULL; at = &(*at)->next) {
        if (*at == work) {
            *at = work->next;
            break;
        }
    }
    l->last = &l->first;
    while (*l->last != NULL) {
        l->last = &(*l->last)->next;
    }
    work->queued = false;
}

void loop_unpost(struct work *work)
{
    unqueue(loop_of(work->loop), work);
}

/* ---- loops ---- */

int uv_loop_init(uv_loop_t *loop)
{
    struct loop *l = sim_alloc(sizeof(*l));
    memset(loop, 0, sizeof(*loop));
    *l = (struct loop){.next = loops, .loop = loop, .now_ms = sim_now_us() / SIM_MS};
    l->last = &l->first;
    loops = l;
    loop->internal_fields = l;
    return 0;
}

int uv_loop_close(uv_loop_t *loop)
{
    struct loop *l = loop_of(loop);
    for (struct loop **at = &loops; *at != NULL; at = &(*at)->next) {
        if (*at == l) {
            *at = l->next;
            break;
        }
    }
    BH_ASSERT(l->held == 0);
    sim_free(l);
    return 0;
}

int uv_run(uv_loop_t *loop, uv_run_mode mode)
{
    struct loop *l = loop_of(loop);
    BH_ASSERT(mode == UV_RUN_DEFAULT);
    l->stop = false;
    while (!l->stop && (l->held > 0 || l->first != NULL)) {
        l->now_ms = sim_now_us() / SIM_MS;
        struct work *work = take(l);
        if (work != NULL) {
            work->run(work);
        } else {
            l->fiber = fiber_current();
            fiber_wait();
            l->fiber = NULL;
        }
    }
    return l->held > 0;
}

void uv_stop(uv_loop_t *loop)
{
    loop_of(loop)->stop = true;
}

uint64_t uv_now(const uv_loop_t *loop)
{
    return loop_of(loop)->now_ms;
}

void uv_update_time(uv_loop_t *loop)
{
    loop_of(loop)->now_ms = sim_now_us() / SIM_MS;
}

uint64_t uv_hrtime(void)
{
    return sim_now_us() * 1000;
}

/* ---- handles ---- */

static struct side *init(uv_loop_t *loop, uv_handle_t *handle, uv_handle_type type,
                         void (*run)(struct work *work))
{
    struct side *s = sim_alloc(sizeof(*s));
    *s = (struct side){.work = {.run = run, .loop = loop}, .handle = handle, .next = sides};
    if (sides != NULL) {
        sides->prev = s;
    }
    sides = s;
    handle->loop = loop;
    handle->type = type;
    handle->flags = 0;
    memset(&handle->u, 0, sizeof(handle->u));
    handle->u.reserved[3] = s;
    return s;
}

static void set_active(struct side *s, bool active)
{
    if (s->active != active) {
        s->active = active;
        loop_hold(s->work.loop, active ? 1 : -1);
    }
}

static void run_close(struct work *work)
{
    struct side *s = (struct side *)(void *)work;
    uv_handle_t *handle = s->handle;
    const uv_close_cb on_close = s->on_close;
    loop_hold(work->loop, -1);
    if (s->prev != NULL) {
        s->prev->next = s->next;
    } else {
        sides = s->next;
    }
    if (s->next != NULL) {
        s->next->prev = s->prev;
    }
    sim_free(s);
    handle->flags = 2;
    if (on_close != NULL) {
        on_close(handle);
    }
}

int uv_is_closing(const uv_handle_t *handle)
{
    return handle->flags != 0;
}

int uv_is_active(const uv_handle_t *handle)
{
    return handle->flags == 0 && side_of(handle)->active;
}

void uv_close(uv_handle_t *handle, uv_close_cb on_close)
{
    struct side *s = side_of(handle);
    BH_ASSERT(handle->flags == 0);
    handle->flags = 1;
    sim_event_cancel(&s->timer);
    unqueue(loop_of(handle->loop), &s->work);
    set_active(s, false);
    if (handle->type == UV_TCP || handle->type == UV_NAMED_PIPE) {
        stream_close(handle);
    }
    s->closing = true;
    s->on_close = on_close;
    s->work.run = run_close;
    loop_hold(handle->loop, 1);
    loop_post(&s->work);
}

void uv_walk(uv_loop_t *loop, uv_walk_cb walk, void *arg)
{
    for (struct side *s = sides, *next = NULL; s != NULL; s = next) {
        next = s->next;
        if (s->handle->loop == loop && !s->closing) {
            walk(s->handle, arg);
        }
    }
}

/* ---- timers ---- */

static void run_timer(struct work *work)
{
    struct side *s = (struct side *)(void *)work;
    uv_timer_t *timer = (uv_timer_t *)s->handle;
    if (s->repeat_ms > 0) {
        loop_post_after(work, s->repeat_ms * SIM_MS, &s->timer);
    } else {
        set_active(s, false);
    }
    s->on_timer(timer);
}

int uv_timer_init(uv_loop_t *loop, uv_timer_t *timer)
{
    init(loop, (uv_handle_t *)timer, UV_TIMER, run_timer);
    return 0;
}

int uv_timer_start(uv_timer_t *timer, uv_timer_cb cb, uint64_t timeout_ms, uint64_t repeat_ms)
{
    struct side *s = side_of((uv_handle_t *)timer);
    if (timer->flags != 0) {
        return UV_EINVAL;
    }
    s->on_timer = cb;
    s->repeat_ms = repeat_ms;
    set_active(s, true);
    unqueue(loop_of(timer->loop), &s->work);
    s->timer.fn = post_now;
    s->timer.ctx = &s->work;
    const uint64_t now_ms = uv_now(timer->loop);
    const uint64_t due_ms =
        timeout_ms < UINT64_MAX / 2000 ? now_ms + timeout_ms : UINT64_MAX / 2000;
    sim_event_at(&s->timer, due_ms * SIM_MS);
    return 0;
}

int uv_timer_stop(uv_timer_t *timer)
{
    struct side *s = side_of((uv_handle_t *)timer);
    if (timer->flags == 0) {
        sim_event_cancel(&s->timer);
        unqueue(loop_of(timer->loop), &s->work);
        set_active(s, false);
    }
    return 0;
}

/* ---- doorbells ---- */

static void run_async(struct work *work)
{
    struct side *s = (struct side *)(void *)work;
    s->on_async((uv_async_t *)s->handle);
}

int uv_async_init(uv_loop_t *loop, uv_async_t *async, uv_async_cb cb)
{
    struct side *s = init(loop, (uv_handle_t *)async, UV_ASYNC, run_async);
    s->on_async = cb;
    set_active(s, true);
    return 0;
}

int uv_async_send(uv_async_t *async)
{
    if (async->flags == 0 && (loop_bell_is_lost == NULL || !loop_bell_is_lost())) {
        loop_post(&side_of((uv_handle_t *)async)->work);
    }
    return 0;
}

/* ---- idle: once a turn of the loop ---- */

static void run_idle(struct work *work)
{
    struct side *s = (struct side *)(void *)work;
    uv_idle_t *idle = (uv_idle_t *)s->handle;
    loop_post(work); /* behind all that waits; its callback may stop or close it */
    s->on_idle(idle);
}

int uv_idle_init(uv_loop_t *loop, uv_idle_t *idle)
{
    init(loop, (uv_handle_t *)idle, UV_IDLE, run_idle);
    return 0;
}

int uv_idle_start(uv_idle_t *idle, uv_idle_cb cb)
{
    struct side *s = side_of((uv_handle_t *)idle);
    s->on_idle = cb;
    set_active(s, true);
    loop_post(&s->work);
    return 0;
}

int uv_idle_stop(uv_idle_t *idle)
{
    struct side *s = side_of((uv_handle_t *)idle);
    if (idle->flags == 0) {
        unqueue(loop_of(idle->loop), &s->work);
        set_active(s, false);
    }
    return 0;
}

/* ---- signals ---- */

static void run_signal(struct work *work)
{
    struct side *s = (struct side *)(void *)work;
    s->on_signal((uv_signal_t *)s->handle, s->signum);
}

int uv_signal_init(uv_loop_t *loop, uv_signal_t *handle)
{
    init(loop, (uv_handle_t *)handle, UV_SIGNAL, run_signal);
    return 0;
}

int uv_signal_start(uv_signal_t *handle, uv_signal_cb cb, int signum)
{
    struct side *s = side_of((uv_handle_t *)handle);
    s->on_signal = cb;
    s->signum = signum;
    set_active(s, true);
    return 0;
}

void sim_signal(int signum);
void sim_signal(int signum)
{
    for (struct side *s = sides; s != NULL; s = s->next) {
        if (s->handle->type == UV_SIGNAL && s->signum == signum && !s->closing) {
            loop_post(&s->work);
        }
    }
}

/* ---- work elsewhere ---- */

struct elsewhere {
    struct work work; /* first */
    struct sim_event timer;
    uv_work_t *request;
    uv_work_cb run;
    uv_after_work_cb after;
    struct elsewhere *next;
};
static struct elsewhere *elsewheres;

static void run_elsewhere(struct work *work)
{
    struct elsewhere *e = (struct elsewhere *)(void *)work;
    for (struct elsewhere **at = &elsewheres; *at != NULL; at = &(*at)->next) {
        if (*at == e) {
            *at = e->next;
            break;
        }
    }
    const struct elsewhere copy = *e;
    sim_free(e);
    loop_hold(copy.work.loop, -1);
    copy.run(copy.request);
    copy.after(copy.request, 0);
}

int uv_queue_work(uv_loop_t *loop, uv_work_t *request, uv_work_cb run, uv_after_work_cb after)
{
    struct elsewhere *e = sim_alloc(sizeof(*e));
    *e = (struct elsewhere){.work = {.run = run_elsewhere, .loop = loop},
                            .request = request,
                            .run = run,
                            .after = after,
                            .next = elsewheres};
    elsewheres = e;
    loop_hold(loop, 1);
    loop_post_after(&e->work, sim_range(CHANCE_THREADS, 10, 5000), &e->timer);
    return 0;
}

/* ---- the rest ---- */

struct sem {
    unsigned value;
    struct fiber *waiter;
};
_Static_assert(sizeof(struct sem) <= sizeof(uv_sem_t), "fits its place");

int uv_sem_init(uv_sem_t *sem, unsigned value)
{
    *(struct sem *)(void *)sem = (struct sem){.value = value};
    return 0;
}

void uv_sem_post(uv_sem_t *sem)
{
    struct sem *s = (struct sem *)(void *)sem;
    s->value++;
    if (s->waiter != NULL) {
        fiber_wake(s->waiter);
    }
}

void uv_sem_wait(uv_sem_t *sem)
{
    struct sem *s = (struct sem *)(void *)sem;
    s->waiter = fiber_current();
    while (s->value == 0) {
        fiber_wait();
    }
    s->waiter = NULL;
    s->value--;
}

const char *uv_strerror(int error)
{
    switch (error) {
    case UV_ECONNREFUSED:
        return "connection refused";
    case UV_ECONNRESET:
        return "connection reset by peer";
    case UV_EHOSTUNREACH:
        return "host is unreachable";
    case UV_EOF:
        return "end of file";
    case UV_EPIPE:
        return "broken pipe";
    default:
        return "error";
    }
}

const char *uv_err_name(int error)
{
    return uv_strerror(error);
}

uv_buf_t uv_buf_init(char *base, unsigned len)
{
    uv_buf_t buf = {.base = base, .len = len};
    return buf;
}

int uv_interface_addresses(uv_interface_address_t **addresses, int *count)
{
    *addresses = NULL;
    *count = 0;
    return 0;
}

void uv_free_interface_addresses(uv_interface_address_t *addresses, int count)
{
    (void)addresses;
    (void)count;
}

void stream_init(uv_loop_t *loop, uv_stream_t *handle)
{
    init(loop, (uv_handle_t *)handle, handle->type, NULL);
}

void loop_process_died(void)
{
    while (sides != NULL) {
        struct side *s = sides;
        sides = s->next;
        sim_event_cancel(&s->timer);
        sim_free(s);
    }
    while (elsewheres != NULL) {
        struct elsewhere *e = elsewheres;
        elsewheres = e->next;
        sim_event_cancel(&e->timer);
        sim_free(e);
    }
    while (loops != NULL) {
        struct loop *l = loops;
        loops = l->next;
        sim_free(l);
    }
}
