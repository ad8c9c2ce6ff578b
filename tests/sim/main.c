/* bh-sim: the whole daemon in a simulated world. See tests/sim/README.md. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "mutate.h"
#include "scenario.h"
#include "world.h"

static void usage(FILE *out)
{
    fputs(
        "usage: bh-sim [--seed N] [--seeds N] [--first N] [--seconds N] [--trace] [--mutate NAME]\n"
        "              [--with NAME]\n"
        "  --seed N      run one seed\n"
        "  --seeds N     run N seeds, from --first on\n"
        "  --first N     the first one; without it a fresh one\n"
        "  --seconds N   stop after that many seconds\n"
        "  --trace       tell everything\n"
        "  --mutate NAME with a bug on purpose\n"
        "  --mutations   list them\n"
        "  --with NAME   only seeds whose world has it: published, failover, lmtp, ipv6, auth\n",
        out);
}

static double seconds(void)
{
    struct timeval t;
    gettimeofday(&t, NULL);
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"seed", required_argument, NULL, 's'},
                                            {"seeds", required_argument, NULL, 'n'},
                                            {"first", required_argument, NULL, 'f'},
                                            {"seconds", required_argument, NULL, 't'},
                                            {"config", required_argument, NULL, 'c'},
                                            {"scenario", required_argument, NULL, 'S'},
                                            {"trace", no_argument, NULL, 'v'},
                                            {"find", no_argument, NULL, 'F'},
                                            {"mutate", required_argument, NULL, 'm'},
                                            {"mutations", no_argument, NULL, 'l'},
                                            {"with", required_argument, NULL, 'w'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    uint64_t first = 0, count = 1;
    double limit = -1; /* none */
    bool find = false;
    const char *config = NULL;
    const char *scenario = NULL;
    const char *with = NULL;
    bool known = true;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 's':
            first = strtoull(optarg, NULL, 10);
            count = 1;
            break;
        case 'n':
            count = strtoull(optarg, NULL, 10);
            break;
        case 'f':
            first = strtoull(optarg, NULL, 10);
            break;
        case 't':
            limit = strtod(optarg, NULL);
            count = UINT64_MAX;
            break;
        case 'v':
            sim_tracing = true;
            break;
        case 'c':
            config = optarg;
            break;
        case 'S':
            scenario = optarg;
            break;
        case 'w':
            with = optarg;
            break;
        case 'F':
            find = true;
            break;
        case 'l':
            for (unsigned i = 1; i < MUTATE_COUNT; i++) {
                printf("%-22s %s\n", mutate_name((enum mutation)i), mutate_text((enum mutation)i));
            }
            return 0;
        case 'm':
            if (!mutate_select(optarg)) {
                fprintf(stderr, "bh-sim: no mutation '%s'\n", optarg);
                return 2;
            }
            break;
        case 'h':
            usage(stdout);
            return 0;
        default:
            usage(stderr);
            return 2;
        }
    }
    if (config != NULL || scenario != NULL) {
        if (config == NULL || scenario == NULL) {
            usage(stderr);
            return 2;
        }
        const int status = scenario_run(config, scenario);
        world_end();
        return status;
    }
    if (!sim_tracing) {
        stderr = fopen("/dev/null", "w"); /* the daemon's warnings of its configurations */
    }
    const double begin = seconds();
    uint64_t ran = 0, failed = 0;
    for (uint64_t i = 0;
         i < count && !(find && failed > 0) && (limit < 0 || seconds() - begin < limit); i++) {
        const uint64_t seed = first + i;
        if (with != NULL && !world_has(seed, with, &known)) {
            if (!known) {
                fprintf(stdout, "bh-sim: no world has '%s'\n", with);
                return 2;
            }
            continue;
        }
        ran++;
        if (!world_run(seed)) {
            failed++;
            printf("seed %llu failed at step %llu: %s\n", (unsigned long long)seed,
                   (unsigned long long)sim_step, world_failure());
            fflush(stdout);
        } else if (count == 1) {
            printf("seed %llu good, %llu steps, digest %016llx\n", (unsigned long long)seed,
                   (unsigned long long)sim_step, (unsigned long long)sim_digest());
        }
    }
    printf("ran %llu seeds from %llu, failed %llu, %.1f s\n", (unsigned long long)ran,
           (unsigned long long)first, (unsigned long long)failed, seconds() - begin);
    world_end();
    return failed > 0 ? 1 : 0;
}
