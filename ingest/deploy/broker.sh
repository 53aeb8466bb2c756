#!/bin/sh
# 'broker.sh start' runs Mosquitto; 'broker.sh reload' lets it read passwords and rights again.
# Mosquitto wants files that belong to its own user and that nobody else can read. Those from the
# host are neither, so it gets copies, in memory.
set -eu
umask 077

copy() {
    cat /run/secrets/mosquitto_passwords >/mosquitto/run/passwords
    cat /mosquitto/config/acl >/mosquitto/run/acl
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
        copy
        check
        echo $$ >/mosquitto/run/pid
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
