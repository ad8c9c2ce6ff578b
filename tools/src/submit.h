/* submit.h - the parts of `bhctl submit`: a message made ready, and a small SMTP client. */
#pragma once

#include <sys/types.h>
#include <sysexits.h>

#include "bhctl.h"

#define SUBMIT_RECIPIENTS_MAX 1000

struct submit {
    char *sender; /* local@domain, "" for <> */
    char *recipients[SUBMIT_RECIPIENTS_MAX];
    size_t recipients_count;
    const char *notify; /* as in -N; NULL: not given */
    const char *ret;    /* "FULL", "HDRS" or NULL */
    const char *envid;  /* as given, not xtext; NULL */
    const char *host;   /* ours, for EHLO and the fields that are added */
    char *message;      /* CRLF line ends, ends with CRLF */
    size_t message_len;
    bool has_8bit;
};

/** Read a message: line ends become CRLF, a missing last one is added. With `dot_ends` a line of
 * one dot ends it. @return EX_OK, EX_NOINPUT or EX_TEMPFAIL (no memory) */
int message_read(struct submit *s, FILE *file, bool dot_ends);
/** Add the recipients of To, Cc and Bcc, and remove Bcc. @return EX_OK or EX_DATAERR */
int message_take_recipients(struct submit *s);
/** Add Date, Message-ID and From where they are missing. @return EX_OK or EX_TEMPFAIL */
int message_complete(struct submit *s);
/** @return EX_OK, or EX_USAGE: too many, or not an address */
int submit_add_recipient(struct submit *s, const char *address, size_t len);

/** Send it over a connected socket; says on standard error what went wrong. @return sysexits.h */
int smtp_send(int fd, const struct submit *s);
