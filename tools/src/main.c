/* bhctl - looks at and acts on the queue. One table of verbs; what a verb takes is checked by the
 * same code that the daemon checks it with. */
#include <getopt.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bhctl.h"

#define WATCH_SECONDS 2

enum word { WORDS_NONE, WORDS_IDS, WORDS_ADDRESS, WORDS_NAME, WORDS_DOMAIN, WORDS_SHOW };

static const struct {
    enum bh_control_verb verb;
    enum word words;
    const char *usage;
    const char *what;
} verbs[] = {
    {BH_VERB_STATUS, WORDS_NONE, "", "is mail flowing, and what needs attention"},
    {BH_VERB_QUEUE, WORDS_DOMAIN, "[--top N] [--watch] [--connector NAME] [DOMAIN]",
     "a row for each destination, largest first"},
    {BH_VERB_LIST, WORDS_NONE, "[--limit N] [SELECTION]", "a row for each queued message"},
    {BH_VERB_SHOW, WORDS_IDS, "[--content] ID...", "the envelope, and each recipient's attempts"},
    {BH_VERB_WHY, WORDS_IDS, "ID...", "why it is where it is: every attempt and what decided it"},
    {BH_VERB_CONNECTORS, WORDS_NAME, "[--matrix [--csv]] [NAME]",
     "the connectors, all settings of one, or what each partner is promised"},
    {BH_VERB_EXPLAIN, WORDS_ADDRESS, "[--sender ADDRESS] [--size N] ADDRESS",
     "which connector takes mail for it, and how"},
    {BH_VERB_VERIFY, WORDS_NONE, "", "does everything in the store agree"},
    {BH_VERB_AUDIT, WORDS_NONE,
     "[--connector NAME] [--since WHEN] [--until WHEN] [--require tls|authenticated]",
     "what was delivered in clear or unauthenticated, and is the ledger whole"},
    {BH_VERB_POLICY, WORDS_SHOW, "show DOMAIN|ADDRESS",
     "what is remembered of MTA-STS and DANE there, from where, and how old it is"},
    {BH_VERB_FLUSH, WORDS_NONE, "SELECTION [--dry-run]",
     "try what is queued now, paced; lifts no hold"},
    {BH_VERB_HOLD, WORDS_NONE, "SELECTION [--reason TEXT] [--until WHEN] [--dry-run]",
     "keep mail from leaving"},
    {BH_VERB_RELEASE, WORDS_NONE, "SELECTION [--dry-run]", "let held mail go"},
    {BH_VERB_CANCEL, WORDS_NONE, "SELECTION [--reason TEXT] [--dry-run]",
     "remove mail; nobody is told"},
    {BH_VERB_BOUNCE, WORDS_NONE, "SELECTION [--reason TEXT] [--dry-run]",
     "return mail to its senders"},
    {BH_VERB_REQUEUE, WORDS_NONE, "SELECTION [--dry-run]", "make waiting mail ready at once"},
    {BH_VERB_PAUSE, WORDS_NONE, "[--reason TEXT]", "accept no more mail"},
    {BH_VERB_RESUME, WORDS_NONE, "", "accept mail again"},
    {BH_VERB_RELOAD, WORDS_NONE, "[--plan] [--allow-weaken]",
     "take up the configuration; --plan only says what would change"},
    {BH_VERB_JOBS, WORDS_NONE, "", "bulk verbs under way"},
    {BH_VERB_PROBE, WORDS_ADDRESS, "[--from ADDRESS] DOMAIN|ADDRESS",
     "a session with each target, without mail: would it be delivered, and how"},
};

static const char global_help[] = "usage: bhctl VERB [OPTIONS] [ARGUMENTS]\n\n";
static const char option_help[] =
    "\nSELECTION, the same for every verb that acts, and for list; all that is given must match:\n"
    "  --id ID (more than once)      --destination DOMAIN     --connector NAME\n"
    "  --sender ADDRESS|@DOMAIN|'<>' --recipient ADDRESS|@DOMAIN\n"
    "  --age '>1h'|'<1h'             --state ready|due|held   --all\n"
    "Everywhere:\n"
    "  --json           one JSON document instead of tables\n"
    "  --offline        read the store itself, as when the engine is not running\n"
    "  --path DIR       the queue (implies --offline)\n"
    "  --events DIR     the event log (implies --offline)\n"
    "  --config FILE    the configuration (" BHCTL_CONFIG ")\n"
    "  --control PATH   the engine's socket (the configuration's, else " BHCTL_CONTROL ")\n"
    "WHEN is 08:00, +2h, or 2026-11-28T01:12Z; after --since 24h is that long ago.\n"
    "Exit status: 0 good, 1 a negative finding, 2 wrong usage, 3 nothing to ask; submit: "
    "sysexits.\n";

static void print_usage(FILE *file, size_t i)
{
    fprintf(file, "usage: bhctl %s %s\n  %s\n", bh_control_verb_name(verbs[i].verb), verbs[i].usage,
            verbs[i].what);
}

static int help(const char *name)
{
    if (name == NULL) {
        fputs(global_help, stdout);
        for (size_t i = 0; i < BH_COUNT(verbs); i++) {
            printf("  %-11s %s\n", bh_control_verb_name(verbs[i].verb), verbs[i].what);
        }
        puts("  check       check a configuration file: every error in it");
        puts("  submit      send a message, as sendmail does");
        puts("  hash-password  lines of an auth-file, from a password on standard input");
        puts("  help        this, or the usage of a verb");
        fputs(option_help, stdout);
        return EXIT_GOOD;
    }
    for (size_t i = 0; i < BH_COUNT(verbs); i++) {
        if (strcmp(name, bh_control_verb_name(verbs[i].verb)) == 0) {
            print_usage(stdout, i);
            fputs(option_help, stdout);
            return EXIT_GOOD;
        }
    }
    if (strcmp(name, "check") == 0) {
        puts("usage: bhctl check [--json] [FILE]\n  every error of a configuration file");
        return EXIT_GOOD;
    }
    if (strcmp(name, "hash-password") == 0) {
        puts("usage: bhctl hash-password NAME\n"
             "  reads a password from standard input, prints lines for a listener's auth-file");
        return EXIT_GOOD;
    }
    if (strcmp(name, "submit") == 0) {
        puts("usage: bhctl submit [-t] [-i] [-f SENDER] [-N NOTIFY] [-R full|hdrs] [-V ENVID]\n"
             "                    [--file FILE] [--server HOST:PORT|unix:PATH] [RECIPIENT...]");
        return EXIT_GOOD;
    }
    fprintf(stderr, "bhctl: unknown verb '%s'\n  see bhctl help\n", name);
    return EXIT_BAD_USAGE;
}

/* ---- Options ---- */

enum {
    OPT_JSON = 256,
    OPT_OFFLINE,
    OPT_PATH,
    OPT_CONFIG,
    OPT_CONTROL,
    OPT_ID,
    OPT_AGE,
    OPT_UNTIL,
    OPT_SINCE,
    OPT_FROM,
    OPT_CSV,
    OPT_WATCH,
    OPT_EVENTS,
    OPT_TEXT,   /* an argument that is a text under its own name */
    OPT_NUMBER, /* likewise a number */
    OPT_FLAG,   /* likewise true */
};

static const struct option long_options[] = {
    {"json", no_argument, NULL, OPT_JSON},
    {"offline", no_argument, NULL, OPT_OFFLINE},
    {"path", required_argument, NULL, OPT_PATH},
    {"config", required_argument, NULL, OPT_CONFIG},
    {"control", required_argument, NULL, OPT_CONTROL},
    {"id", required_argument, NULL, OPT_ID},
    {"age", required_argument, NULL, OPT_AGE},
    {"until", required_argument, NULL, OPT_UNTIL},
    {"since", required_argument, NULL, OPT_SINCE},
    {"events", required_argument, NULL, OPT_EVENTS},
    {"require", required_argument, NULL, OPT_TEXT},
    {"destination", required_argument, NULL, OPT_TEXT},
    {"connector", required_argument, NULL, OPT_TEXT},
    {"sender", required_argument, NULL, OPT_TEXT},
    {"recipient", required_argument, NULL, OPT_TEXT},
    {"from", required_argument, NULL, OPT_FROM},
    {"state", required_argument, NULL, OPT_TEXT},
    {"reason", required_argument, NULL, OPT_TEXT},
    {"size", required_argument, NULL, OPT_NUMBER},
    {"top", required_argument, NULL, OPT_NUMBER},
    {"limit", required_argument, NULL, OPT_NUMBER},
    {"all", no_argument, NULL, OPT_FLAG},
    {"dry-run", no_argument, NULL, OPT_FLAG},
    {"plan", no_argument, NULL, OPT_FLAG},
    {"allow-weaken", no_argument, NULL, OPT_FLAG},
    {"content", no_argument, NULL, OPT_FLAG},
    {"matrix", no_argument, NULL, OPT_FLAG},
    {"csv", no_argument, NULL, OPT_CSV},
    {"watch", no_argument, NULL, OPT_WATCH},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static int wrong(const char *what, const char *value)
{
    fprintf(stderr, "bhctl: %s '%s'\n  see bhctl help\n", what, value);
    return EXIT_BAD_USAGE;
}

/* "allow-weaken" is allow_weaken in the request. */
static void set_arg(json_t *args, const char *option, json_t *value)
{
    char key[32];
    snprintf(key, sizeof(key), "%s", option);
    for (char *c = key; *c != 0; c++) {
        *c = *c == '-' ? '_' : *c;
    }
    json_object_set_new(args, key, value);
}

static void add_id(json_t *args, const char *id)
{
    json_t *ids = json_object_get(args, "ids");
    if (ids == NULL) {
        ids = json_array();
        json_object_set_new(args, "ids", ids);
    }
    json_array_append_new(ids, json_string(id));
}

/* ">1h" is older, "<1h" younger. */
static bool set_age(json_t *args, const char *text)
{
    int64_t span = 0;
    if ((text[0] != '>' && text[0] != '<') || !parse_span(text + 1, &span)) {
        return false;
    }
    json_object_set_new(args, text[0] == '>' ? "older_ms" : "younger_ms", json_integer(span));
    return true;
}

/* @return 0, or the exit code */
static int take_option(struct options *o, int option, const char *name)
{
    int64_t at = 0;
    uint64_t number = 0;
    switch (option) {
    case OPT_JSON:
        o->json = true;
        return 0;
    case OPT_OFFLINE:
        o->offline = true;
        return 0;
    case OPT_PATH:
        o->path = optarg;
        o->offline = true;
        return 0;
    case OPT_CONFIG:
        o->config = optarg;
        return 0;
    case OPT_CONTROL:
        o->control = optarg;
        return 0;
    case OPT_ID:
        add_id(o->args, optarg);
        return 0;
    case OPT_AGE:
        return set_age(o->args, optarg) ? 0 : wrong("--age takes '>1h' or '<1h', not", optarg);
    case OPT_UNTIL:
        if (!parse_until(optarg, now_ms(), &at)) {
            return wrong("--until takes 08:00, +2h or 2026-11-28T01:12Z, not", optarg);
        }
        json_object_set_new(o->args, "until_unix_ms", json_integer(at));
        return 0;
    case OPT_SINCE:
        if (!parse_since(optarg, now_ms(), &at)) {
            return wrong("--since takes 24h (ago), 2026-10-01 or 2026-11-28T01:12Z, not", optarg);
        }
        json_object_set_new(o->args, "since_unix_ms", json_integer(at));
        return 0;
    case OPT_CSV:
        o->csv = true;
        return 0;
    case OPT_WATCH:
        o->watch = true;
        return 0;
    case OPT_FROM:
        set_arg(o->args, "sender", json_string(optarg));
        return 0;
    case OPT_EVENTS:
        o->events = optarg;
        o->offline = true;
        return 0;
    case OPT_TEXT:
        if (json_object_get(o->args, name) != NULL) {
            return wrong("given twice: option", name);
        }
        set_arg(o->args, name, json_string(optarg));
        return 0;
    case OPT_NUMBER:
        if (!bh_slice_u64(bh_slice_str(optarg), UINT64_C(1) << 53, &number)) {
            return wrong("not a number:", optarg);
        }
        set_arg(o->args, name, json_integer((json_int_t)number));
        return 0;
    case OPT_FLAG:
        set_arg(o->args, name, json_true());
        return 0;
    default:
        fputs("  see bhctl help, or bhctl help VERB\n", stderr); /* getopt has said why. */
        return EXIT_BAD_USAGE;
    }
}

static int take_words(struct options *o, enum word kind)
{
    if (kind == WORDS_IDS) {
        for (int i = 0; i < o->words_count; i++) {
            add_id(o->args, o->words[i]);
        }
        return 0;
    }
    if (kind == WORDS_SHOW) {
        if (o->words_count == 0 || strcmp(o->words[0], "show") != 0) {
            return wrong("there is only `policy show DOMAIN', not",
                         o->words_count > 0 ? o->words[0] : "");
        }
        o->words++;
        o->words_count--;
        kind = WORDS_ADDRESS;
    }
    const int most = kind == WORDS_NONE ? 0 : 1;
    if (o->words_count > most) {
        return wrong("one argument too many:", o->words[most]);
    }
    if (o->words_count == 1) {
        set_arg(o->args,
                kind == WORDS_ADDRESS  ? "address"
                : kind == WORDS_DOMAIN ? "destination"
                                       : "name",
                json_string(o->words[0]));
    }
    return 0;
}

/* ---- Asking ---- */

/* Check the request here, so that a wrong one is wrong usage whether or not the engine runs. */
static int check_request(const struct options *options, size_t verb)
{
    struct bh_control_request request;
    struct bh_control_error error = {.what = "no memory"};
    char *line = request_line(options, verbs[verb].verb);
    const bool good =
        line != NULL && bh_control_parse(bh_slice_str(line), now_ms(), &request, &error) == BH_OK;
    if (good) {
        bh_control_request_fini(&request);
    } else {
        output_error(options, error.what, error.hint);
        print_usage(stderr, verb);
    }
    free(line);
    return good ? 0 : EXIT_BAD_USAGE;
}

/* @return the exit code, or -1: nobody listens at any socket; *tried is then the first */
static int ask_engine(const struct options *options, const struct places *places,
                      enum bh_control_verb verb, struct output *out, const char **tried)
{
    const bool named = options->control == NULL && places->control.count > 0;
    *tried = named                      ? places->control.at[0].ptr
             : options->control != NULL ? options->control
                                        : BHCTL_CONTROL;
    int code = client_ask(options, *tried, verb, out);
    for (size_t i = 1; named && code < 0 && i < places->control.count; i++) {
        code = client_ask(options, places->control.at[i].ptr, verb, out);
    }
    return code;
}

static int ask(const struct options *options, enum bh_control_verb verb)
{
    struct places places;
    places_find(options->config != NULL ? options->config : BHCTL_CONFIG, &places);
    struct output *out = output_create(verb, options);
    const char *tried = NULL;
    int code = -1;
    if (out != NULL && !options->offline) {
        code = ask_engine(options, &places, verb, out, &tried);
    }
    if (out != NULL && code < 0 && bh_control_verb_is_view(verb)) {
        code = offline_ask(options, &places, verb, out);
    } else if (code < 0) {
        output_error(options,
                     options->offline ? "only the running engine can do that"
                                      : "the engine is not running (no answer at its "
                                        "control socket)",
                     tried);
        code = EXIT_UNREACHABLE;
    }
    output_destroy(out);
    places_fini(&places);
    return code;
}

/* Ways to look at rows that only one verb has. */
static int check_looks(const struct options *options, enum bh_control_verb verb)
{
    const bool matrix = json_is_true(json_object_get(options->args, "matrix"));
    if (options->csv && (verb != BH_VERB_CONNECTORS || !matrix || options->json)) {
        return wrong("only connectors --matrix is made as", "csv");
    }
    if (options->watch && (verb != BH_VERB_QUEUE || options->json)) {
        return wrong("only queue's table can be looked at with", "--watch");
    }
    return 0;
}

/* The table again and again, until somebody ends it or it can't be had. */
static int watch(const struct options *options, enum bh_control_verb verb)
{
    const struct timespec pause = {.tv_sec = WATCH_SECONDS};
    int code = EXIT_GOOD;
    while (code == EXIT_GOOD || code == EXIT_NEGATIVE) {
        if (isatty(STDOUT_FILENO)) {
            fputs("\033[H\033[2J", stdout);
        }
        code = ask(options, verb);
        if (fflush(stdout) != 0) {
            return EXIT_NEGATIVE;
        }
        nanosleep(&pause, NULL);
    }
    return code;
}

static int run(const char *name, struct options *options)
{
    if (strcmp(name, "check") == 0) {
        if (options->words_count > 1) {
            return wrong("one argument too many:", options->words[1]);
        }
        const char *file = options->words_count == 1 ? options->words[0]
                           : options->config != NULL ? options->config
                                                     : BHCTL_CONFIG;
        return check_file(options, file);
    }
    for (size_t i = 0; i < BH_COUNT(verbs); i++) {
        if (strcmp(name, bh_control_verb_name(verbs[i].verb)) == 0) {
            int code = take_words(options, verbs[i].words);
            code = code != 0 ? code : check_request(options, i);
            code = code != 0 ? code : check_looks(options, verbs[i].verb);
            if (code == 0 && options->watch) {
                return watch(options, verbs[i].verb);
            }
            return code != 0 ? code : ask(options, verbs[i].verb);
        }
    }
    return help(name); /* It knows no such verb either, and says so. */
}

int main(int argc, char **argv)
{
    setlocale(LC_ALL, "");
    const char *slash = strrchr(argv[0], '/');
    if (strcmp(slash != NULL ? slash + 1 : argv[0], "sendmail") == 0) {
        return submit_main(argc, argv);
    }
    if (argc > 1 && strcmp(argv[1], "submit") == 0) {
        return submit_main(argc - 1, argv + 1);
    }
    if (argc > 1 && strcmp(argv[1], "hash-password") == 0) {
        return hash_password_main(argc - 1, argv + 1);
    }
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        puts("bhctl " BH_VERSION);
        return 0;
    }
    struct options options = {.args = json_object()};
    int code = options.args == NULL ? EXIT_BAD_USAGE : 0;
    int index = 0;
    for (int c; code == 0 && (c = getopt_long(argc, argv, "h", long_options, &index)) != -1;) {
        if (c == 'h') {
            code = help(optind < argc ? argv[optind] : NULL);
            json_decref(options.args);
            return code;
        }
        code = take_option(&options, c, c == '?' ? "" : long_options[index].name);
    }
    if (code == 0 && optind == argc) {
        fputs(global_help, stderr);
        fputs("  see bhctl help\n", stderr);
        code = EXIT_BAD_USAGE;
    } else if (code == 0) {
        const char *name = argv[optind];
        options.words = argv + optind + 1;
        options.words_count = argc - optind - 1;
        code = strcmp(name, "help") == 0 ? help(options.words_count > 0 ? options.words[0] : NULL)
                                         : run(name, &options);
    }
    json_decref(options.args);
    return code;
}
