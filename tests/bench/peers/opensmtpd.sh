# OpenSMTPD (fsyncs message and envelopes before the 250).  Its spool path is
# compiled in: $RUN/spool is bind-mounted there (run.sh's private mount namespace).
os=$PFX/opensmtpd
start() {
  mkdir -p "$RUN/spool" "$RUN/log" /var/spool/smtpd /var/lib/opensmtpd/empty
  chmod 711 "$RUN/spool"
  mountpoint -q /var/spool/smtpd || mount --bind "$RUN/spool" /var/spool/smtpd
  local host=
  [ "$MODE" = smarthost ] && host="host smtp://$SINK_ADDR:$SINK_PORT"
  cat > "$RUN/smtpd.conf" <<X
queue ttl 4d
smtp max-message-size 50M
smtp limit max-mails 1000000
smtp limit max-rcpt 1000
mta limit max-conn-per-host ${OSMTPD_CONN:-50}
mta limit max-conn-per-relay ${OSMTPD_CONN:-50}
mta limit max-conn-per-route ${OSMTPD_CONN:-50}
mta limit max-conn-per-connector 100
mta limit max-conn-per-domain ${OSMTPD_CONN:-50}
mta limit max-conn-per-source 500
mta limit session-mail-max 1000
mta limit session-keepalive ${OSMTPD_KEEP:-1}
mta limit task-hiwat 2000
mta limit task-lowat 1500
mta limit task-release 500
mta limit conn-delay-host 0
mta limit conn-delay-route 0
mta limit conn-delay-source 0
mta limit conn-delay-connector 0
mta limit conn-delay-relay 0
mta limit conn-delay-domain 0
scheduler limit max-inflight 20000
scheduler limit max-evp-batch-size 256
listen on 127.0.0.1 port $PORT hostname opensmtpd.bench.test
action "relay" relay $host helo opensmtpd.bench.test
match from any for any action "relay"
X
  "$os/usr/sbin/smtpd" -d -f "$RUN/smtpd.conf" > "$RUN/log/smtpd.log" 2>&1 < /dev/null &
  echo $! > "$RUN/smtpd.pid"
}
stop() { kill "$(cat "$RUN/smtpd.pid")" 2>/dev/null || true; }
pids() { cat "$RUN/smtpd.pid"; }
queue_list() { "$os/usr/sbin/smtpctl" show queue; }
flush() { "$os/usr/sbin/smtpctl" schedule all; }
# Nothing that the scenarios tls, distant and those with a retry interval ask for is set up here.
can() { return 1; }
