#!/bin/sh
# Makes InfluxDB 2 what the worker and Grafana expect. It runs at each start of the stack, makes what is
# missing, sets the retention that is asked for, and leaves everything else alone.
#
#   bucket telemetry        readings                     InfluxQL: telemetry.raw, the default
#   bucket telemetry_long   alerts, sessions, roll-ups   InfluxQL: telemetry.long
#   $TOKENS/ingest          may write both, and nothing else
#   $TOKENS/reconcile       may read both, and nothing else; for the worker's 'reconcile'
#   $TOKENS/grafana         may read both, and nothing else
#
# The operator's token is read from a file and stays here.
set -eu
umask 077

: "${INFLUX_HOST:?}" "${INFLUX_ORG:?}" "${RAW_BUCKET:?}" "${LONG_BUCKET:?}" "${TOKENS:?}"
: "${RAW_DAYS:?}" "${LONG_DAYS:?}" "${INGEST_GID:?}" "${GRAFANA_GID:?}"
: "${ADMIN_PASSWORD_FILE:?}" "${ADMIN_TOKEN_FILE:?}"
ADMIN='admin'
INFLUX_TOKEN=$(cat "$ADMIN_TOKEN_FILE")
export INFLUX_HOST INFLUX_ORG INFLUX_TOKEN

say() { printf 'influxdb: %s\n' "$*" >&2; }

for days in "$RAW_DAYS" "$LONG_DAYS"; do
    case $days in
        '' | *[!0-9]* | 0*) say "the retention '$days' is not a number of days, 1 or more"; exit 2 ;;
    esac
done

# -- the instance: 'influx setup' would show the password to everybody who can list processes ----------

setup_allowed() { curl -fsS "$INFLUX_HOST/api/v2/setup" | grep -q '"allowed": *true'; }

if setup_allowed; then
    printf '{"username":"%s","password":"%s","token":"%s","org":"%s","bucket":"%s","retentionPeriodSeconds":%d}' \
        "$ADMIN" "$(cat "$ADMIN_PASSWORD_FILE")" "$INFLUX_TOKEN" "$INFLUX_ORG" "$RAW_BUCKET" $((RAW_DAYS * 86400)) |
        curl -fsS -o /dev/null -H 'Content-Type: application/json' --data-binary @- "$INFLUX_HOST/api/v2/setup"
    say "set up organisation $INFLUX_ORG and bucket $RAW_BUCKET"
fi

# -- buckets ---------------------------------------------------------------------------------------

# The program separates columns by one tab or more.
bucket_id() { influx bucket list --org "$INFLUX_ORG" --hide-headers | awk -F '\t+' -v name="$1" '$2 == name { print $1 }'; }

bucket() { # name, days; prints its id
    id=$(bucket_id "$1")
    if [ -z "$id" ]; then
        influx bucket create --org "$INFLUX_ORG" --name "$1" --retention "$2d" >/dev/null
        say "made bucket $1, kept for $2 days"
        id=$(bucket_id "$1")
    else
        influx bucket update --id "$id" --retention "$2d" >/dev/null
    fi
    [ -n "$id" ] || { say "bucket $1 cannot be found after making it"; exit 1; }
    printf '%s' "$id"
}

raw=$(bucket "$RAW_BUCKET" "$RAW_DAYS")
long=$(bucket "$LONG_BUCKET" "$LONG_DAYS")

# -- names for InfluxQL: a database is RAW_BUCKET, its retention policies are raw and long -----------

# After the mappings, 'list' shows virtual ones, which are guesses of the server and no mappings.
mapping() { # retention policy; prints id and bucket
    influx v1 dbrp list --org "$INFLUX_ORG" --db "$RAW_BUCKET" --hide-headers |
        awk -F '\t+' -v db="$RAW_BUCKET" -v rp="$1" '/^VIRTUAL/ { exit } $2 == db && $4 == rp { print $1, $3 }'
}

map() { # retention policy, bucket id; prints the mapping's id
    found=$(mapping "$1")
    if [ -n "$found" ] && [ "${found#* }" != "$2" ]; then
        influx v1 dbrp delete --org "$INFLUX_ORG" --id "${found% *}" >/dev/null
        found=
    fi
    if [ -z "$found" ]; then
        influx v1 dbrp create --org "$INFLUX_ORG" --db "$RAW_BUCKET" --rp "$1" --bucket-id "$2" >/dev/null
        say "mapped $RAW_BUCKET.$1"
        found=$(mapping "$1")
    fi
    printf '%s' "${found% *}"
}

raw_mapping=$(map raw "$raw")
map long "$long" >/dev/null
# 'create --default' is accepted and has no effect in this program's version; 'update' has.
influx v1 dbrp update --org "$INFLUX_ORG" --id "$raw_mapping" --default >/dev/null

# -- tokens ------------------------------------------------------------------------------------------

# Other users may open what they know the name of, and may not look around.
chmod 0711 "$TOKENS"

authorizations() { influx auth list --org "$INFLUX_ORG" --hide-headers; }

token() { # name, group, right: a token on both buckets, in a file that this group alone can read
    file=$TOKENS/$1
    # With the buckets in its name: a token for buckets that were made again is another token.
    description=microcurrent-$1-$raw-$long
    if [ -s "$file" ] && authorizations | grep -F -e "$description" | grep -qF -f "$file"; then
        return
    fi
    for id in $(authorizations | awk -F '\t+' -v begin="microcurrent-$1-" 'index($2, begin) == 1 { print $1 }'); do
        influx auth delete --id "$id" >/dev/null
    done
    influx auth create --org "$INFLUX_ORG" --user "$ADMIN" --description "$description" \
        "--$3-bucket" "$raw" "--$3-bucket" "$long" --json |
        sed -n 's/^[[:space:]]*"token": *"\([^"]*\)".*/\1/p' | tr -d '\n' >"$file.new"
    [ -s "$file.new" ] || { say "InfluxDB gave no token for $1"; exit 1; }
    chgrp "$2" "$file.new"
    chmod 0440 "$file.new"
    mv -f "$file.new" "$file"
    say "made the $3 token of $1"
}

token ingest "$INGEST_GID" write
token reconcile "$INGEST_GID" read
token grafana "$GRAFANA_GID" read
say "ready: readings for $RAW_DAYS days, the rest for $LONG_DAYS"
