add_library(bh_engine STATIC
    src/config_cell.c src/config_load.c src/control_count.c src/control_engine.c src/control_ops.c src/control_pause.c src/control_probe.c
    src/control_reload.c src/control_server.c src/engine.c src/engine_age.c src/engine_clock.c src/engine_redate.c src/engine_sweep.c src/engine_dest.c
    src/engine_failover.c src/engine_follow.c src/engine_posture.c src/engine_careful.c src/engine_probe.c src/engine_session.c
    src/engine_settle.c src/engine_tls.c src/event_log.c src/event_log_write.c src/judge.c src/lease.c src/leased.c src/life.c src/memory_idle.c
    src/notify.c src/probe.c src/receiving.c src/recover.c src/sched_policy.c src/sd_notify.c src/tls_seen.c
    src/engine_exception.c src/engine_trust.c src/engine_lift.c src/engine_unmet.c src/tls_audit.c
    src/engine_sts.c src/limit_words.c src/sts.c src/sts_fetch.c src/sts_lookup.c src/sts_store.c
    src/config_files.c src/confine.c src/control_peer.c src/privileges.c
    src/worker.c)
target_include_directories(bh_engine PUBLIC src)
target_link_libraries(bh_engine PUBLIC bh_base bh_queue bh_connectors bh_dns bh_scheduler
    bh_outcome_policy bh_policy bh_sts bh_smtp_client bh_smtp_server bh_tls bh_delivery bh_intake bh_dsn
    bh_control bh_events bh_sandbox
    PkgConfig::UV PkgConfig::IDN2 PkgConfig::CURL PkgConfig::SSL PRIVATE bh_flags)
add_executable(bridgehead src/main.c)
target_link_libraries(bridgehead PRIVATE bh_engine bh_flags)
bh_unit_test(test_judge LINKS bh_engine)
bh_unit_test(test_tls_audit LINKS bh_engine)
bh_unit_test(test_event_log LINKS bh_engine)

# The daemon with allocations of its wiring that fail now and then: tests/integration/test_faults.py.
if(BH_TESTS AND BH_SANITIZE)
    set(faults ${CMAKE_SOURCE_DIR}/tests/faults)
    add_library(bh_engine_shaky OBJECT
        src/control_count.c src/control_engine.c src/engine_age.c src/engine_dest.c src/engine_follow.c
        src/engine_session.c src/engine_settle.c src/lease.c)
    target_compile_options(bh_engine_shaky PRIVATE -include ${faults}/fault.h)
    target_link_libraries(bh_engine_shaky PRIVATE bh_engine bh_flags)
    add_library(bh_worker_shaky OBJECT src/receiving.c src/worker.c)
    target_compile_options(bh_worker_shaky PRIVATE "SHELL:-include ${faults}/crash.h"
        "SHELL:-include ${faults}/clock.h")
    target_compile_definitions(bh_worker_shaky PRIVATE FILES_MS=200)
    target_link_libraries(bh_worker_shaky PRIVATE bh_engine bh_flags)
    add_library(bh_clock_shaky OBJECT src/engine.c src/main.c src/recover.c intake/src/intake.c)
    target_compile_options(bh_clock_shaky PRIVATE -include ${faults}/clock.h)
    target_link_libraries(bh_clock_shaky PRIVATE bh_engine bh_flags)
    add_executable(bridgehead-faults ${faults}/fault.c)
    target_link_libraries(bridgehead-faults PRIVATE bh_engine_shaky bh_worker_shaky bh_clock_shaky
        bh_engine bh_flags)
endif()
