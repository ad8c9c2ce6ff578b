#define _XOPEN_SOURCE 700 /* realpath */
#include "confine.h"

#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bh/log.h"
#include "config_files.h"

/* ---- what the configuration is read from ---- */

static enum bh_status read_and_allow(void *ctx, const char *path, struct bh_arena *arena,
                                     struct bh_slice *text)
{
    const struct bh_config_reader plain = bh_config_reader_posix();
    bh_sandbox_read_file(ctx, path);
    return plain.read(plain.ctx, path, arena, text);
}

/* Also a folder that nothing is in yet. */
static enum bh_status glob_and_allow(void *ctx, const char *pattern, struct bh_arena *arena,
                                     struct bh_names *paths)
{
    const struct bh_config_reader plain = bh_config_reader_posix();
    bh_sandbox_read_file(ctx, pattern);
    return plain.glob(plain.ctx, pattern, arena, paths);
}

struct bh_config_reader confine_reader(const struct bh_config_reader *reader,
                                       struct bh_sandbox *sandbox)
{
    struct bh_config_reader confining = *reader;
    if (sandbox != NULL) {
        confining.ctx = sandbox;
        confining.read = read_and_allow;
        confining.glob = glob_and_allow;
    }
    return confining;
}

/* ---- what else is needed ---- */

static void allow_file(void *ctx, const struct config_file *file)
{
    if (file->path.ptr[0] == '/') { /* else a credential, whose folder is allowed as a whole */
        bh_sandbox_read_file(ctx, file->path.ptr);
    }
}

/* Programs' libraries, which some functions of the C library load when first called; time zones;
 * authorities. Everybody may read them. */
static const char *const system_folders[] = {
    "/usr", "/lib", "/lib64", "/etc/ssl", "/etc/pki", "/run/systemd/userdb", "/var/lib/sss/mc"};
static const char *const system_files[] = {"/dev/null",     "/dev/urandom",    "/etc/resolv.conf",
                                           "/etc/hosts",    "/etc/host.conf",  "/etc/nsswitch.conf",
                                           "/etc/passwd",   "/etc/group",      "/etc/localtime",
                                           "/etc/gai.conf", "/etc/ld.so.cache"};

/* The files under /etc come anew by rename, so the folder it has to be; what is secret in there its
 * modes keep from our user, but not from root, who is left with the files as they are now. */
static void allow_system(struct bh_sandbox *sandbox)
{
    for (size_t i = 0; i < BH_COUNT(system_folders); i++) {
        bh_sandbox_read(sandbox, system_folders[i]);
    }
    for (size_t i = 0; i < BH_COUNT(system_files); i++) {
        bh_sandbox_read(sandbox, system_files[i]);
    }
    if (geteuid() != 0) {
        bh_sandbox_read(sandbox, "/etc");
    }
    char *resolv_conf = realpath("/etc/resolv.conf", NULL); /* often one of /run, made anew */
    if (resolv_conf != NULL && strncmp(resolv_conf, "/etc/", 5) != 0) {
        bh_sandbox_read_file(sandbox, resolv_conf);
    }
    free(resolv_conf);
    const char *const named[] = {getenv(X509_get_default_cert_file_env()),
                                 getenv(X509_get_default_cert_dir_env())};
    for (size_t i = 0; i < BH_COUNT(named); i++) {
        if (named[i] != NULL) {
            bh_sandbox_read_file(sandbox, named[i]);
            bh_sandbox_read(sandbox, named[i]);
        }
    }
    const char *credentials = getenv("CREDENTIALS_DIRECTORY");
    if (credentials != NULL) {
        bh_sandbox_read(sandbox, credentials);
    }
}

static void allow_own(struct bh_sandbox *sandbox, const struct bh_config *config)
{
    char path[4096];
    snprintf(path, sizeof(path), "%.*s", BH_FMT(config->queue.path));
    bh_sandbox_write(sandbox, path);
    if (config->engine.event_log.len > 0) {
        snprintf(path, sizeof(path), "%.*s", BH_FMT(config->engine.event_log));
        bh_sandbox_write(sandbox, path);
    }
    for (size_t i = 0; i < config->engine.control.count; i++) {
        snprintf(path, sizeof(path), "%.*s", BH_FMT(config->engine.control.at[i]));
        char *slash = strrchr(path, '/');
        if (slash != NULL && slash != path) {
            *slash = '\0';
            bh_sandbox_sockets(sandbox, path);
        }
    }
    for (size_t i = 0; i < config->engine.sandbox_read.count; i++) {
        bh_sandbox_read(sandbox, config->engine.sandbox_read.at[i].ptr);
    }
}

/* ---- entering ---- */

static bool tell(const struct bh_sandbox_result *result, bool required)
{
    const bool whole = result->lacks[0] == '\0';
    if (!whole && required) {
        fprintf(stderr, "engine sandbox required: %s\n", result->lacks);
        return false;
    }
    bh_log(whole ? BH_LOG_INFO : BH_LOG_WARN, "evt=sandbox landlock=%d seccomp=%s%s%s%s",
           result->landlock, result->seccomp ? "on" : "off", whole ? "" : " lacks=\"",
           result->lacks, whole ? "" : "\"");
    return true;
}

static bool enter(struct bh_sandbox *sandbox, const struct bh_config *config)
{
    const bool required = config->engine.sandbox == BH_SANDBOX_SET_REQUIRED;
    struct bh_sandbox_result result = {.lacks = "this build is made to find faults (sanitizers)"};
    if (config->engine.sandbox == BH_SANDBOX_SET_OFF) {
        bh_log(BH_LOG_INFO, "evt=sandbox landlock=0 seccomp=off reason=\"engine sandbox off\"");
        return true;
    }
    if (bh_sandbox_possible()) {
        if (sandbox == NULL) {
            fprintf(stderr, "engine sandbox: no memory\n");
            return false;
        }
        config_files_each(config, allow_file, sandbox);
        allow_system(sandbox);
        allow_own(sandbox, config);
        if (bh_sandbox_enter(sandbox, &result) != BH_OK) {
            fprintf(stderr, "engine sandbox: threads run already\n");
            return false;
        }
    }
    return tell(&result, required);
}

bool confine(struct bh_sandbox *sandbox, const struct bh_config *config)
{
    const bool good = enter(sandbox, config);
    bh_sandbox_destroy(sandbox);
    return good;
}
