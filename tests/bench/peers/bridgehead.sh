# bridgehead (a message is in a synced LMDB transaction before its 250; there is no other mode).
# BENCH_BUILD: a release build. BRIDGEHEAD_CONNECTOR: more settings of its connector.
# BRIDGEHEAD_TOTAL: outgoing connections in all (2,000: with the default of 500 a thousand domains take
# them from each other, and each message opens one; Postfix and Haraka open one for each message anyway).
# BRIDGEHEAD_CONC: most connections to one destination and to one host (20, as the other peers here).
bh=${BENCH_BUILD:?}/engine/bridgehead
bhctl=${BENCH_BUILD:?}/tools/bhctl
start() {
  mkdir -p "$RUN/log"
  local conc=${MAXCONN:-${BRIDGEHEAD_CONC:-20}} route= tls=off each= retry=standard connections=
  [ "$MODE" = smarthost ] && route="smarthosts [ [$SINK_ADDR]:$SINK_PORT ]"
  [ -z "${MAXCONN:-}" ] || connections="connections $MAXCONN;"
  case ${TLS:-} in
  may) tls=opportunistic ;;
  reuse) tls=encrypt ;;
  full|resume) tls=encrypt each="messages-per-connection 1;" ;;
  esac
  [ -z "${RETRY:-}" ] || retry=bench
  cat > "$RUN/bridgehead.conf" <<X
engine {
    hostname  bridgehead.bench.test
    control   $RUN/control
    event-log $RUN/log
    connections ${BRIDGEHEAD_TOTAL:-2000}
    ${BRIDGEHEAD_ENGINE:-}
}
listen 127.0.0.1:$PORT {
    relay-from 127.0.0.0/8
    limits { sessions 2000; sessions-per-client 2000; message-size 50M }
}
queue { path $RUN/queue; max-size 64G }
resolver { allow-loopback yes }
retry bench {
    intervals ${RETRY:-300}s
    destination-intervals ${RETRY:-300}s
    glitch none
    jitter 0%
}
connector default {
    domains *
    $route
    tls     $tls
    retry   $retry
    limits  { $connections $each per-destination $conc; initial $([ "$conc" -lt 10 ] && echo "$conc" || echo 10); per-host $conc }
    ${BRIDGEHEAD_CONNECTOR:-}
}
X
  "$bh" --config "$RUN/bridgehead.conf" > "$RUN/log/bridgehead.log" 2>&1 < /dev/null &
  echo $! > "$RUN/bridgehead.pid"
}
stop() { kill "$(cat "$RUN/bridgehead.pid")" 2>/dev/null || true; }
pids() { cat "$RUN/bridgehead.pid"; }
queue_list() { "$bhctl" --config "$RUN/bridgehead.conf" list; }
flush() { "$bhctl" --config "$RUN/bridgehead.conf" flush --all; }
# It always offers a session for resumption that proved what the connector demands; for `full` the sink gives none.
can() { case $1 in tls-full|tls-reuse|tls-resume|maxconn|retry) ;; *) return 1 ;; esac; }
