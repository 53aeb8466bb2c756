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

case "${1:-}" in
    start)
        copy
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
