#!/bin/sh
# Runs the tests: `run.sh -k broker`. Those that need no quiet machine go side by side, one process a core;
# those with real servers and deadlines one after the other. Fails if either part fails or nothing was run.
set -u
cd "$(dirname "$0")/.."
python=.venv/bin/python
nothing_matched=5

"$python" -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal tests/unit tests/contract tests/golden tests/integration "$@"
first=$?
[ $first -eq 2 ] && exit 2 # somebody interrupted it
"$python" -m pytest tests/system "$@"
second=$?

[ $first -eq $nothing_matched ] && first=$second
[ $second -eq $nothing_matched ] && second=$first
[ $first -ne 0 ] && exit $first
exit $second
