/* How audits look to people. */
#include <inttypes.h>
#include <string.h>

#include "output.h"

/* "9f3c..e1": enough to recognise it by. */
static void put_chain(const json_t *end)
{
    const char *chain = row_text(end, "chain");
    const size_t len = strlen(chain);
    printf("%.12s..%s", chain, len > 8 ? chain + len - 8 : "");
}

void render_audit_row(struct output *out, const json_t *row)
{
    static const char *const names[] = {"CONNECTOR", ">DELIVERED", ">IN CLEAR", ">UNAUTHENTICATED",
                                        ">BY NAME",  ">BY PIN",    ">BY DANE",  ""};
    if (strcmp(row_text(row, "kind"), "connector") != 0) {
        table_flush(out);
        printf("%s:%" PRId64 ": %s\n", row_text(row, "segment"), row_number(row, "line"),
               row_text(row, "text"));
        return;
    }
    table_columns(out, names, COUNT(names));
    table_cell(out, row_text(row, "connector"));
    table_number(out, row_number(row, "delivered"));
    table_number(out, row_number(row, "clear"));
    table_number(out, row_number(row, "unauthenticated"));
    table_number(out, row_number(row, "name"));
    table_number(out, row_number(row, "pin"));
    table_number(out, row_number(row, "dane"));
    table_cell(out, row_flag(row, "below") ? "BELOW WHAT IS REQUIRED" : "");
}

void render_audit_end(struct output *out, const json_t *end)
{
    table_flush(out);
    if (row_number(end, "records") == 0) {
        printf("no records in that time\n");
        return;
    }
    printf("ledger %s: records %" PRId64 " to %" PRId64 ", chain ",
           row_flag(end, "whole")           ? "whole"
           : row_number(end, "breaks") == 0 ? "has gaps"
                                            : "BROKEN",
           row_number(end, "first_seq"), row_number(end, "seq"));
    put_chain(end);
    printf("\n");
    if (row_number(end, "breaks") > 0) {
        printf("  %" PRId64 " findings, above\n", row_number(end, "breaks"));
    }
    if (row_number(end, "lost") > 0) {
        printf("  %" PRId64 " deliveries are missing: the disk took no records then\n",
               row_number(end, "lost"));
    }
    if (row_number(end, "crashes") > 0) {
        printf("  the engine ended %" PRId64
               " times without order: its last deliveries may be missing\n",
               row_number(end, "crashes"));
    }
}

/* An event of `why`, on a line. */
void render_event(struct output *out, const json_t *row)
{
    char text[TEXT_TIME];
    if (strcmp(row_text(row, "kind"), "note") == 0) {
        printf("  note ");
        put_safe(stdout, row_text(row, "text"));
        printf("\n");
        return;
    }
    printf("    %s  %s", text_time(row_number(row, "time"), out->now_unix_ms, text),
           row_text(row, "evt"));
    static const char *const shown[] = {"result", "rcpt", "domain", "sender", "client", "mx",
                                        "ip",     "tls",  "verb",   "reason", "text"};
    for (size_t i = 0; i < COUNT(shown); i++) {
        const char *value = row_text(row, shown[i]);
        if (strcmp(shown[i], "text") == 0 && row_number(row, "code") != 0) {
            printf("  %" PRId64 " %s", row_number(row, "code"), row_text(row, "enhanced"));
        }
        if (value[0] != 0 &&
            (strcmp(shown[i], "ip") != 0 || strcmp(value, row_text(row, "mx")) != 0)) {
            printf("  %s", strcmp(shown[i], "tls") == 0 ? "tls " : "");
            put_safe(stdout, value);
        }
    }
    printf("\n");
}
