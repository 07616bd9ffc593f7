#!/bin/bash
# Runs a command, and again for as long as its exit code says that this continues it:
#
#   deploy/again.sh python -m jobs.label --input … --output …
#
# 1 and signals, as of a machine that runs out of memory, are repeated. 0 is done; repeating 2, 3 and
# the shell's own 126 and 127 gives the same result.
attempts=${ATTEMPTS:-3}
pause=${PAUSE:-60}  # s
trap 'stopped=1 interrupted=1; kill -TERM "$child" 2>/dev/null' TERM INT
for ((attempt = 1; ; attempt++)); do
  "$@" &
  child=$!
  [[ $stopped ]] && kill -TERM "$child" 2>/dev/null  # the signal came before its id was known
  while  # a signal ends `wait` before the command has ended
    interrupted=
    wait "$child"
    code=$?
    [[ $interrupted ]]
  do :; done
  if [[ $stopped || ($code -ne 1 && $code -lt 128) || $attempt -ge $attempts ]]; then
    exit "$code"
  fi
  echo "exit code $code: attempt $((attempt + 1)) of $attempts in $pause s" >&2
  sleep "$pause" &
  child=$!
  wait "$child"
  [[ $stopped ]] && exit "$code"
done
