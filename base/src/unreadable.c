#include "bh/unreadable.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *user_name;

void bh_unreadable_user(const char *name)
{
    user_name = name;
}

static size_t put_user(char *text)
{
    const int len = user_name != NULL
                        ? snprintf(text, BH_UNREADABLE_MAX, "user %.64s (uid %lu)", user_name,
                                   (unsigned long)geteuid())
                        : snprintf(text, BH_UNREADABLE_MAX, "uid %lu", (unsigned long)geteuid());
    return len > 0 ? (size_t)len : 0;
}

/* "... WHAT it belongs to uid 0, gid 0, mode 0600"; nothing if even that is hidden. */
static void put_owner(char *text, size_t len, const char *what, const char *path, const char *shown)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        (void)snprintf(text + len, BH_UNREADABLE_MAX - len, " %s%s", what, shown);
        return;
    }
    (void)snprintf(text + len, BH_UNREADABLE_MAX - len,
                   " %s%s: it belongs to uid %lu, gid %lu, mode %04o", what, shown,
                   (unsigned long)st.st_uid, (unsigned long)st.st_gid,
                   (unsigned)(st.st_mode & 07777));
}

/* The first folder on the way that this process may not pass through. @return false: there is none
 */
static bool find_closed_folder(const char *path, char folder[BH_UNREADABLE_MAX])
{
    for (const char *slash = strchr(path, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        const size_t len = slash == path ? 1 : (size_t)(slash - path);
        if (len >= BH_UNREADABLE_MAX) {
            return false;
        }
        memcpy(folder, path, len);
        folder[len] = '\0';
        if (access(folder, X_OK) != 0) {
            return errno == EACCES;
        }
    }
    return false;
}

const char *bh_unreadable(const char *path, int error, char text[BH_UNREADABLE_MAX])
{
    char folder[BH_UNREADABLE_MAX];
    if (error != EACCES && error != EPERM) {
        if (strerror_r(error, text, BH_UNREADABLE_MAX) != 0) {
            (void)snprintf(text, BH_UNREADABLE_MAX, "error %d", error);
        }
        return text;
    }
    if (access(path, R_OK) == 0) {
        /* Its mode is not what is in the way. */
        (void)snprintf(
            text, BH_UNREADABLE_MAX,
            "the sandbox of this process does not reach there: restart it, or put the file "
            "into a folder that it knows (those of files named at its start, sandbox-read)");
        return text;
    }
    const size_t len = put_user(text);
    if (find_closed_folder(path, folder)) {
        char shown[160];
        (void)snprintf(shown, sizeof(shown), "%.150s", folder);
        put_owner(text, len, "may not pass through ", folder, shown);
    } else {
        put_owner(text, len, "may not read it", path, "");
    }
    return text;
}
