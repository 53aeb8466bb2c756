#!/bin/sh
# 'broker.sh start' runs Mosquitto; 'broker.sh reload' lets it read passwords, rights and revoked certificates again.
# Mosquitto wants files that belong to its own user and that nobody else can read. Those from the
# host are neither, so it gets copies, in memory.
set -eu
umask 077
LOG=/mosquitto/log/mosquitto.log
LOG_KB=16384

copy() {
    cat /run/secrets/mosquitto_passwords >/mosquitto/run/passwords
    # A certificate that is revoked keeps others out, but not a connection that it has opened: its rights end here.
    {
        cat /mosquitto/config/acl
        while read -r device; do
            case "$device" in
                '#'* | '') ;;
                *) printf '\nuser %s\ntopic deny mc/v1/%s/#\n' "$device" "$device" ;;
            esac
        done </run/secrets/revoked_devices
    } >/mosquitto/run/acl
}

# The worker reads the log, as the group of this user; nobody else does.
fresh_log() {
    touch "$LOG"
    chmod 640 "$LOG"
}

# Whoever knocks writes lines. One older log is kept, of bounded size.
keep_log_small() {
    while sleep 5 && kill -0 "$1"; do
        if [ "$(du -k "$LOG" | cut -f 1)" -gt "$LOG_KB" ]; then
            mv -f "$LOG" "$LOG.1"
            fresh_log
            kill -HUP "$1"
        fi
    done
}

# Mosquitto does not start with a file that a power cut has broken. Whether it can read the file is tried by itself, on a
# link beside it and with an address that it cannot listen on: it reads, and ends. A broken file is kept aside. Devices
# still have what was in it, for they wait for the durable acknowledgement, and the worker sees that its session is lost.
check() {
    file=/mosquitto/data/mosquitto.db
    [ -s "$file" ] || return 0
    trial=/mosquitto/data/trial
    rm -rf "$trial" && mkdir "$trial" && ln "$file" "$trial/mosquitto.db"
    printf 'persistence true\npersistence_location %s/\nlistener 0 %s/none/socket\nlog_dest stderr\n' "$trial" "$trial" >"$trial/conf"
    [ "$(id -u)" -ne 0 ] || echo "user root" >>"$trial/conf"
    if mosquitto -c "$trial/conf" 2>&1 | grep -q "Couldn't open database"; then
        aside="$file.broken-$(date -u +%Y%m%dT%H%M%S)"
        mv "$file" "$aside"
        echo "the persistence file cannot be read; kept as $aside, starting without it" >&2
    fi
    rm -rf "$trial"
}

case "${1:-}" in
    start)
        ulimit -c 0
        copy
        check
        fresh_log
        echo $$ >/mosquitto/run/pid
        keep_log_small $$ &
        exec mosquitto -c /mosquitto/config/mosquitto.conf
        ;;
    reload)
        copy
        kill -HUP "$(cat /mosquitto/run/pid)"
        ;;
    *)
        echo "usage: broker.sh start|reload" >&2
        exit 2
        ;;
esac
