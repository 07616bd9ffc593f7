#!/bin/bash
# One night: labels what is new, then reports on it against the labels from before.
#
#   INPUT=s3://bucket/calls LABELS=s3://bucket/labels REPORTS=s3://bucket/reports deploy/nightly.sh
#
# Arguments are further flags of jobs.label. The exit code is 0 if all is well, 1 if the same command
# has to run again, 2 if it cannot run as written, and 3 if too many recordings failed or the labels
# drifted. With STOP_FILE, 3 leaves that file, and no night begins while it is there. DATE is that of
# the night, by default today in UTC. What was labelled since SINCE is new, by default since now.
set -u
for place in INPUT LABELS REPORTS; do
  if [[ ! ${!place:-} ]]; then
    echo "error: $place is not set" >&2
    exit 2
  fi
done
DATE=${DATE:-$(date -u +%F)}  # of all commands, also after midnight
SINCE=${SINCE:-$(date -u +%FT%TZ)}
if [[ ${STOP_FILE:-} && ! -w $(dirname "$STOP_FILE") ]]; then
  echo "error: STOP_FILE $STOP_FILE: its folder cannot be written" >&2
  exit 2
fi
again=$(dirname "${BASH_SOURCE[0]}")/again.sh

stopped=
trap 'stopped=1; kill -TERM "$child" 2>/dev/null' TERM INT
run() {
  bash "$again" "$@" &
  child=$!
  wait "$child"
  code=$?
  while kill -0 "$child" 2>/dev/null; do  # a signal ends `wait` before the command has ended
    wait "$child"
    code=$?
  done
  [[ ! $stopped ]] || exit "$((code ? code : 1))"  # the night has not been reported on
}

if [[ -e ${STOP_FILE:-} ]]; then
  echo "no night begins: $(<"$STOP_FILE"). Look at the report, then remove $STOP_FILE" >&2
  exit 3
fi

run python -m jobs.label --date "$DATE" --input "$INPUT" --output "$LABELS" \
  --max-failed-fraction 0.05 "$@"
labeled=$code
if [[ $labeled -eq 0 || $labeled -eq 3 ]]; then
  run python -m jobs.report --date "$DATE" --labels "$LABELS" --output "$REPORTS/{date}" \
    --since "$SINCE" --fail-on-drift
  [[ $code -eq 0 ]] && code=$labeled
fi

if [[ $code -eq 3 && ${STOP_FILE:-} ]]; then
  echo "on $DATE, a check failed" > "$STOP_FILE"
fi
exit "$code"
