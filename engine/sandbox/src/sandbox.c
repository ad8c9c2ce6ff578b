#define _GNU_SOURCE /* O_PATH */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sandbox_internal.h"

#define RULES_MAX 4096 /* more files than that in so many folders are in no configuration */

struct bh_sandbox {
    struct sandbox_rule *rules;
    size_t count, cap;
    bool full; /* something could not be kept: then nothing may be put in force */
};

struct bh_sandbox *bh_sandbox_create(void)
{
    return calloc(1, sizeof(struct bh_sandbox));
}

void bh_sandbox_destroy(struct bh_sandbox *sandbox)
{
    if (sandbox != NULL) {
        for (size_t i = 0; i < sandbox->count; i++) {
            close(sandbox->rules[i].fd);
        }
        free(sandbox->rules);
        free(sandbox);
    }
}

static struct sandbox_rule *new_rule(struct bh_sandbox *sandbox)
{
    if (sandbox->count == sandbox->cap && sandbox->cap < RULES_MAX) {
        const size_t cap = sandbox->cap == 0 ? 64 : sandbox->cap * 2;
        struct sandbox_rule *rules = realloc(sandbox->rules, cap * sizeof(*rules));
        if (rules != NULL) {
            sandbox->rules = rules;
            sandbox->cap = cap;
        }
    }
    return sandbox->count < sandbox->cap ? &sandbox->rules[sandbox->count++] : NULL;
}

static void allow(struct bh_sandbox *sandbox, const char *path, unsigned access)
{
    struct stat st;
    const int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) {
        if (fd >= 0) {
            close(fd);
        }
        return;
    }
    struct sandbox_rule *rule = new_rule(sandbox);
    if (rule == NULL) {
        sandbox->full = true;
        close(fd);
        return;
    }
    *rule = (struct sandbox_rule){.fd = fd, .folder = S_ISDIR(st.st_mode), .access = access};
}

/* Its folder; a file that stands directly under / alone, or all would be readable. */
static void allow_around(struct bh_sandbox *sandbox, const char *path)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    const size_t len = slash == NULL ? 1 : (size_t)(slash - path);
    if (len == 0 || len >= sizeof(folder)) {
        allow(sandbox, path, SANDBOX_READ);
        return;
    }
    memcpy(folder, slash == NULL ? "." : path, len);
    folder[len] = '\0';
    allow(sandbox, folder, SANDBOX_READ);
}

void bh_sandbox_read(struct bh_sandbox *sandbox, const char *path)
{
    allow(sandbox, path, SANDBOX_READ);
}

void bh_sandbox_read_file(struct bh_sandbox *sandbox, const char *path)
{
    allow_around(sandbox, path);
    char *real = realpath(path, NULL);
    if (real != NULL && strcmp(real, path) != 0) {
        allow_around(sandbox, real);
    }
    free(real);
}

void bh_sandbox_write(struct bh_sandbox *sandbox, const char *path)
{
    allow(sandbox, path, SANDBOX_WRITE);
}

void bh_sandbox_sockets(struct bh_sandbox *sandbox, const char *path)
{
    allow(sandbox, path, SANDBOX_SOCKETS);
}

/* @return -1: it cannot be told */
static int threads_of_this_process(void)
{
    DIR *tasks = opendir("/proc/self/task");
    if (tasks == NULL) {
        return -1;
    }
    int count = 0;
    for (const struct dirent *entry; (entry = readdir(tasks)) != NULL;) {
        count += entry->d_name[0] != '.' ? 1 : 0;
    }
    closedir(tasks);
    return count;
}

static void add_lack(struct bh_sandbox_result *result, const char *what, int error)
{
    const size_t len = strlen(result->lacks);
    (void)snprintf(result->lacks + len, sizeof(result->lacks) - len, "%s%s: %s",
                   len > 0 ? ", " : "", what, strerror(error));
}

enum bh_status bh_sandbox_enter(struct bh_sandbox *sandbox, struct bh_sandbox_result *result)
{
    *result = (struct bh_sandbox_result){.landlock = 0};
    if (threads_of_this_process() > 1) {
        return BH_EIO;
    }
    if (sandbox->full) {
        add_lack(result, "landlock", ENOMEM);
    } else {
        result->landlock = sandbox_landlock(sandbox->rules, sandbox->count);
        if (result->landlock == 0) {
            add_lack(result, "landlock", errno);
        }
    }
    const int error = sandbox_seccomp();
    result->seccomp = error == 0;
    if (error != 0) {
        add_lack(result, "seccomp", error);
    }
    return BH_OK;
}

bool bh_sandbox_possible(void)
{
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
    __has_feature(memory_sanitizer)
    return false;
#else
    return true;
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return false;
#else
    return true;
#endif
}
