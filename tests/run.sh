#!/bin/sh
# Runs the tests: `run.sh -k broker`. First those that keep a processor busy, one process a core; then those with
# real servers, which mostly wait, one process more. Fails if either part fails or nothing was run.
set -u
cd "$(dirname "$0")/.."
python=.venv/bin/python
nothing_matched=5

"$python" -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal tests/unit tests/contract tests/golden tests/integration "$@"
first=$?
[ $first -eq 2 ] && exit 2 # somebody interrupted it
"$python" -m pytest --numprocesses 3 --dist loadfile tests/system tests/faults "$@"
second=$?

[ $first -eq $nothing_matched ] && first=$second
[ $second -eq $nothing_matched ] && second=$first
[ $first -ne 0 ] && exit $first
exit $second
