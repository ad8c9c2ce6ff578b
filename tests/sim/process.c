/* The daemon as a process: its real main() on a fiber, on a disk that stays when it dies. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bh/assert.h"
#include "bh/inflight.h"
#include "memory_idle.h"
#include "published.h"
#include "world.h"

int bridgehead_main(int argc, char **argv);

static struct process {
    bool running, ended, stopping;
    int status;
    struct bh_inflight *inflight;
} p;

static void *run(void *arg)
{
    char name[] = "bridgehead";
    char option[] = "--config";
    char *argv[] = {name, option, arg, NULL};
    optind = 0;
    p.status = bridgehead_main(3, argv);
    p.ended = true;
    return NULL;
}

enum bh_status __real_bh_inflight_open(const char *path, uint32_t slots, uint32_t threads,
                                       struct bh_inflight **inflight);
void __real_bh_inflight_close(struct bh_inflight *inflight);
enum bh_status __wrap_bh_inflight_open(const char *path, uint32_t slots, uint32_t threads,
                                       struct bh_inflight **inflight);
void __wrap_bh_inflight_close(struct bh_inflight *inflight);

enum bh_status __wrap_bh_inflight_open(const char *path, uint32_t slots, uint32_t threads,
                                       struct bh_inflight **inflight)
{
    char own[400]; /* a configuration of the user's names a folder that is not ours */
    snprintf(own, sizeof(own), "%s/inflight", world.folder);
    (void)path;
    const enum bh_status status = __real_bh_inflight_open(own, slots, threads, inflight);
    p.inflight = status == BH_OK ? *inflight : NULL;
    return status;
}

void __wrap_bh_inflight_close(struct bh_inflight *inflight)
{
    p.inflight = NULL;
    __real_bh_inflight_close(inflight);
}

/* Nothing of the machine is touched: no user is changed, no socket file goes. */
uid_t __wrap_geteuid(void);
uid_t __wrap_geteuid(void)
{
    return 1;
}

int __real_unlink(const char *path);
int __wrap_unlink(const char *path);
int __wrap_unlink(const char *path)
{
    return fiber_current() == NULL ? __real_unlink(path) : 0;
}

int __wrap_chown(const char *path, uid_t uid, gid_t gid);
int __wrap_chown(const char *path, uid_t uid, gid_t gid)
{
    (void)path;
    (void)uid;
    (void)gid;
    return 0;
}

int __wrap_mkdir(const char *path, mode_t mode);
int __wrap_mkdir(const char *path, mode_t mode)
{
    (void)path;
    (void)mode;
    return 0;
}

int __wrap_chmod(const char *path, mode_t mode);
int __wrap_chmod(const char *path, mode_t mode)
{
    (void)path;
    (void)mode;
    return 0;
}

/* What lies idle in the allocator is the simulator's: nothing of a seed's may hang on it. */
void memory_idle_watch(uv_loop_t *loop, uv_timer_t *timer)
{
    uv_timer_init(loop, timer);
}

_Noreturn void __wrap__exit(int status);
_Noreturn void __wrap__exit(int status)
{
    fiber_die(status);
}

static void trace_configuration(void)
{
    char line[1024];
    FILE *in = sim_tracing ? fopen(world.conf_path, "r") : NULL;
    while (in != NULL && fgets(line, sizeof(line), in) != NULL) {
        sim_trace("  conf %.*s", (int)strcspn(line, "\n"), line);
    }
    if (in != NULL) {
        fclose(in);
    }
}

void process_start(void)
{
    BH_ASSERT(!p.running);
    p = (struct process){.running = true};
    world.life++;
    world.life_began_us = sim_now_us();
    world.up = true;
    sim_trace("the daemon starts, life %u", world.life);
    trace_configuration();
    fiber_create(run, world.conf_path);
}

/* Everything that the kernel ends with a process. */
static void clean_up(void)
{
    dns_process_died();
    web_process_died();
    published_process_died();
    net_process_died();
    fiber_kill_all();
    disk_process_died();
    if (p.inflight != NULL) {
        __real_bh_inflight_close(p.inflight);
        p.inflight = NULL;
    }
    memory_drop_all();
    p.running = false;
    world.up = false;
    world.ready = false;
}

void process_kill(bool power)
{
    if (!p.running) {
        return;
    }
    sim_trace(power ? "the power fails" : "the daemon is killed");
    clean_up();
    model_on_crash(power);
    if (power) {
        char path[400];
        snprintf(path, sizeof(path), "%s/inflight", world.folder);
        unlink(path);
        world.power_lost_life = world.life;
    }
}

void process_stop(void)
{
    if (p.running && !p.stopping) {
        p.stopping = true;
        sim_trace("SIGTERM");
        sim_signal(SIGTERM);
    }
}

bool process_running(void)
{
    return p.running;
}

static void check_leaks(void)
{
    if (memory_live_count() > 0) {
        char text[400];
        const size_t count = memory_live_count();
        memory_describe(text, sizeof(text));
        sim_fail("the daemon ended in good order and left %zu pieces of memory:%s", count, text);
    }
}

void process_poll(void)
{
    int status = 0;
    if (!p.running) {
        return;
    }
    if (fiber_died(&status)) {
        sim_trace("the daemon ends with status %d", status);
        const bool power = status < 0 && sim_chance(CHANCE_WORLD, world.set.power_permille);
        process_kill(power);
    } else if (p.ended) {
        const bool good = p.status == 0;
        sim_trace("the daemon has ended, status %d", p.status);
        if (!good && !(world.faults && world.set.disk_fail_permille > 0)) {
            sim_fail("the daemon did not start: status %d", p.status);
        }
        if (good && !p.stopping) {
            sim_fail("the daemon ended without being asked to");
        }
        if (good) {
            check_leaks();
        }
        clean_up();
        model_on_crash(false);
    }
}
