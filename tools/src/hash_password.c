/* `bhctl hash-password NAME`: lines for a listener's auth-file. The password comes from standard
 * input, never from the command line, which others can see. */
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "bh/auth_server.h"
#include "bhctl.h"

#define LINE_MAX_LEN 1024 /* octets of a line that is printed */

/* Turns the echo of a terminal off, or on again. */
static void echo(bool on)
{
    struct termios settings;
    if (isatty(STDIN_FILENO) != 1 || tcgetattr(STDIN_FILENO, &settings) != 0) {
        return;
    }
    settings.c_lflag = on ? settings.c_lflag | ECHO : settings.c_lflag & ~(tcflag_t)ECHO;
    (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &settings);
    fputs(on ? "\n" : "Password: ", stderr);
}

/* The first line, without its end. */
static bool read_password(char *text, size_t cap, struct bh_slice *password)
{
    echo(false);
    const char *got = fgets(text, (int)cap, stdin);
    echo(true);
    *password = bh_slice(text, got == NULL ? 0 : strcspn(text, "\r\n"));
    return password->len > 0;
}

static enum bh_status print_line(struct bh_slice name, struct bh_slice password,
                                 enum bh_status (*make)(struct bh_slice, struct bh_slice,
                                                        struct bh_buf *))
{
    char storage[LINE_MAX_LEN];
    struct bh_buf line = bh_buf(storage, sizeof(storage));
    const enum bh_status status = make(name, password, &line);
    if (status == BH_OK) {
        printf("%.*s\n", BH_FMT(bh_buf_slice(&line)));
    }
    OPENSSL_cleanse(storage, sizeof(storage));
    return status;
}

int hash_password_main(int argc, char **argv)
{
    char text[1024];
    struct bh_slice password;
    if (argc != 2 || argv[1][0] == '-') {
        fputs("usage: bhctl hash-password NAME\n", stderr);
        return EXIT_BAD_USAGE;
    }
    if (!read_password(text, sizeof(text), &password)) {
        fputs("bhctl: no password came on standard input\n", stderr);
        return EXIT_BAD_USAGE;
    }
    enum bh_status status = print_line(bh_slice_str(argv[1]), password, bh_auth_line_crypt);
    if (status == BH_OK) {
        status = print_line(bh_slice_str(argv[1]), password, bh_auth_line_scram);
    }
    OPENSSL_cleanse(text, sizeof(text));
    if (status == BH_OK) {
        return EXIT_GOOD;
    }
    fputs(status == BH_EINVAL ? "bhctl: the name may have no ':', and the password 511 octets\n"
                              : "bhctl: no hash could be made\n",
          stderr);
    return status == BH_EINVAL ? EXIT_BAD_USAGE : EXIT_NEGATIVE;
}
