#!/bin/sh
# Runs the tests: `run.sh -k broker`. First those that keep a processor busy, one process a core; then those with
# real servers, which also wait, twice as many, the longest first. Fails if either part fails or nothing was run.
set -u
cd "$(dirname "$0")/.."
python=.venv/bin/python
nothing_matched=5
mostly_waiting=$(( $(getconf _NPROCESSORS_ONLN) * 2 ))
[ $mostly_waiting -gt 8 ] && mostly_waiting=8

"$python" -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal tests/unit tests/contract tests/golden tests/integration "$@"
first=$?
[ $first -eq 2 ] && exit 2 # somebody interrupted it
"$python" -m pytest --numprocesses "$mostly_waiting" --dist loadscope --no-loadscope-reorder tests/system tests/faults "$@"
second=$?

[ $first -eq $nothing_matched ] && first=$second
[ $second -eq $nothing_matched ] && second=$first
[ $first -ne 0 ] && exit $first
exit $second
