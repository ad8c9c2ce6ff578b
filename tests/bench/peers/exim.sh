# Exim (fsyncs the data and the header file before the 250).
# EXIM_MODE=immediate (default): a delivery process per accepted message.
# EXIM_MODE=queue: accept only; EXIM_RUNNERS parallel queue runners, a new one
#   each second, deliver and reuse connections (connection_max_messages).
ex=$PFX/exim/usr/sbin/exim4
start() {
  mkdir -p "$RUN/spool" "$RUN/log"
  chown -R Debian-exim:Debian-exim "$RUN/spool" "$RUN/log"
  local mode=${EXIM_MODE:-queue} qo=false qi=-q30m router
  [ "$mode" = queue ] && { qo=true; qi=${EXIM_Q:--q1s}; }
  if [ "$MODE" = smarthost ]; then
    router="  driver = manualroute
  route_list = * $SINK_ADDR::$SINK_PORT byname
  self = send"
  else
    router="  driver = dnslookup
  self = send"
  fi
  cat > "$RUN/exim.conf" <<X
primary_hostname = exim.bench.test
exim_path = $ex
exim_user = Debian-exim
exim_group = Debian-exim
spool_directory = $RUN/spool
log_file_path = $RUN/log/%slog
pid_file_path = $RUN/exim.pid
local_interfaces = 127.0.0.1
daemon_smtp_ports = $PORT
disable_ipv6 = true
tls_advertise_hosts =
host_lookup =
rfc1413_hosts =
rfc1413_query_timeout = 0s
acl_smtp_rcpt = acl_accept
acl_smtp_data = acl_accept
message_size_limit = 50M
never_users =
# throughput: split spool, no privilege re-exec per delivery, no cut-off of
# immediate delivery after 10 messages of one session, higher limits
deliver_drop_privilege = true
split_spool_directory = true
smtp_accept_max = 200
smtp_accept_max_per_connection = 0
smtp_accept_queue_per_connection = 0
smtp_accept_reserve = 0
queue_only = $qo
queue_run_max = ${EXIM_RUNNERS:-3}
remote_max_parallel = 10
keep_environment =
daemon_smtp_ports = $PORT
smtp_receive_timeout = 60s
log_selector = -host_lookup_failed
pipelining_connect_advertise_hosts =
prdr_enable = false
begin acl
acl_accept:
  accept
begin routers
out:
$router
  transport = smtp_out
begin transports
smtp_out:
  driver = smtp
  allow_localhost
  hosts_try_fastopen =
  hosts_avoid_tls = *
  tls_verify_certificates =
  tls_try_verify_hosts =
  hosts_request_ocsp =
  hosts_try_dane =
  dnssec_request_domains =
  connection_max_messages = ${EXIM_CMM:-1}
begin retry
* * F,1h,5m; G,16h,1h,1.5; F,4d,6h
X
  sed -i '0,/^daemon_smtp_ports/{//d}' "$RUN/exim.conf"
  "$ex" -C "$RUN/exim.conf" -bd $qi
}
stop() { kill "$(cat "$RUN/exim.pid")" 2>/dev/null || true; }
pids() { cat "$RUN/exim.pid"; }
queue_list() { "$ex" -C "$RUN/exim.conf" -bp; }
flush() { # forced run of the whole queue by several runners
  local i; for i in $(seq "${EXIM_FLUSH:-8}"); do "$ex" -C "$RUN/exim.conf" -qff & sleep 0.3; done; wait; }
# Nothing that the scenarios tls, distant and those with a retry interval ask for is set up here.
can() { return 1; }
