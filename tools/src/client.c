/* The control socket, from the client's side: one request, then rows until the end. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "output.h"

char *request_line(const struct options *options, enum bh_control_verb verb)
{
    json_t *request =
        json_pack("{s:s,s:O}", "verb", bh_control_verb_name(verb), "args", options->args);
    char *line = request != NULL ? json_dumps(request, JSON_COMPACT) : NULL;
    json_decref(request);
    return line;
}

static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd >= 0 &&
        connect(fd, (const struct sockaddr *)(const void *)&address, sizeof(address)) != 0) {
        const int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

static bool send_all(int fd, const char *text, size_t len)
{
    while (len > 0) {
        const ssize_t sent = send(fd, text, len, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) {
            continue;
        }
        if (sent <= 0) {
            return false;
        }
        text += sent;
        len -= (size_t)sent;
    }
    return true;
}

/* One line of the answer. @return the exit code once it ended, -1: more to come */
static int take_line(struct output *out, struct bh_slice line)
{
    json_error_t where;
    json_t *answer = json_loadb(line.ptr, line.len, JSON_ALLOW_NUL, &where);
    const json_t *row = json_object_get(answer, "row");
    const json_t *end = json_object_get(answer, "end");
    const json_t *error = json_object_get(answer, "error");
    int code = -1;
    if (row != NULL) {
        output_row(out, row);
    } else if (end != NULL) {
        code = output_end(out, end, true);
    } else {
        const char *what = json_string_value(json_object_get(error, "what"));
        const char *hint = json_string_value(json_object_get(error, "hint"));
        output_fail(out, what != NULL ? what : "the engine's answer is not understood", hint);
        code = EXIT_NEGATIVE;
    }
    json_decref(answer);
    return code;
}

/* @return the exit code, -1: the engine is gone, and nothing was shown */
static int read_answer(int fd, struct output *out)
{
    static char storage[BH_CONTROL_ROW_MAX];
    struct bh_control_lines lines = {.buf = bh_buf(storage, sizeof(storage))};
    while (true) {
        struct bh_slice line;
        const enum bh_status status = bh_control_lines_next(&lines, &line);
        if (status == BH_OK) {
            const int code = take_line(out, line);
            if (code >= 0) {
                return code;
            }
            continue;
        }
        const ssize_t got = status == BH_MORE
                                ? read(fd, lines.buf.ptr + lines.buf.len, bh_buf_room(&lines.buf))
                                : 0;
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0 && out->rows == 0 && bh_control_verb_is_view(out->verb)) {
            return -1; /* It died as it was asked: the store itself can still tell. */
        }
        if (got <= 0) {
            output_fail(out, "the engine ended the connection before its answer was whole", NULL);
            return EXIT_UNREACHABLE;
        }
        lines.buf.len += (size_t)got;
    }
}

int client_ask(const struct options *options, const char *socket_path, enum bh_control_verb verb,
               struct output *out)
{
    const int fd = connect_to(socket_path);
    if (fd < 0) {
        if (errno == EACCES) {
            output_error(options, "no permission to use the control socket",
                         "root, the engine's user and members of its control groups may");
            return EXIT_UNREACHABLE;
        }
        return -1;
    }
    char *line = request_line(options, verb);
    const bool sent = line != NULL && send_all(fd, line, strlen(line)) && send_all(fd, "\n", 1);
    int code = EXIT_UNREACHABLE;
    if (sent) {
        code = read_answer(fd, out);
    } else if (line != NULL && bh_control_verb_is_view(verb)) {
        code = -1; /* as in read_answer */
    } else {
        output_error(options, "the request could not be sent to the engine", NULL);
    }
    free(line);
    close(fd);
    return code;
}
