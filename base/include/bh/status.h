/* status.h - the result of an operation that can fail for reasons other than a bug. */
#pragma once

#define BH_MUST_USE __attribute__((warn_unused_result))
#define BH_PRINTF(format_at, args_at) __attribute__((format(printf, format_at, args_at)))

/** 0 is done, above 0 is not yet, below 0 failed. */
enum bh_status {
    BH_OK = 0,
    BH_MORE = 1,       /* needs more input, or more room for output */
    BH_ENOMEM = -1,    /* no memory, or an arena at its cap */
    BH_ELIMIT = -2,    /* a configured or built-in limit */
    BH_EPROTO = -3,    /* the input breaks its protocol or grammar */
    BH_EIO = -4,       /* the operating system failed; errno was logged where it happened */
    BH_ECORRUPT = -5,  /* stored data is not what was written */
    BH_ENOTFOUND = -6, /* no such record, name or file */
    BH_EFULL = -7,     /* no space: disk, map or mailbox */
    BH_EINVAL = -8,    /* an argument or setting that can't be */
    BH_EVERSION = -9,  /* written by a newer version */
    BH_EEXIST = -10,   /* is there already */
    BH_EBUSY = -11,    /* somebody else holds it */
};

/** The name of a status in lower case, such as "not found". Static storage. */
const char *bh_status_name(enum bh_status status);
