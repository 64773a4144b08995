#!/usr/bin/env bash
# A learner in curl: learner.sh [controller] [name]. The controller's /docs say what a learner does, step by step.
# METIS_ENROLL_TOKEN holds the enrolment token, if the controller has one; weights.py does the learning.
set -euo pipefail
umask 077 # the folder holds a token
controller=${1:-http://localhost:8080}
name=${2:-curl-$$}
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)

# Every call repeats itself while there is no answer (or 408, 429, 503), also when it is cut or silent for a minute.
# The token stays out of the process list.
curl=(curl --silent --show-error --retry 1000 --retry-delay 2 --retry-connrefused --retry-all-errors
  --connect-timeout 10 --speed-limit 1 --speed-time 60 --header @"$folder/token" --write-out '%{http_code}')
call() { "${curl[@]}" --output "$folder/answer" "$@"; } # the status to standard output, the body to a file
json='Content-Type: application/json'
weights='Content-Type: application/vnd.msgpack'

field() { # FILE KEY [KEY …]: a value in a file of JSON
  python3 -c 'import functools, json, sys
print(functools.reduce(lambda value, key: value[key], sys.argv[2:], json.load(open(sys.argv[1]))))' "$@"
}

leave() { # 7. However this script ends.
  # shellcheck disable=SC2046 # a word per process
  kill $(jobs -p) 2>/dev/null || true
  [ -z "$me" ] || call --retry 0 --max-time 5 --request DELETE "$me" >/dev/null 2>&1 || true
  rm -r "$folder"
}
me=
trap leave EXIT
trap 'exit 0' INT TERM

# 1. Enrol. From now on the token in the answer says who this is.
echo "${METIS_ENROLL_TOKEN:+Authorization: Bearer $METIS_ENROLL_TOKEN}" >"$folder/token"
if [ "$(call --header "$json" --data "{\"name\": \"$name\"}" "$controller/v1/learners")" != 201 ]; then
  cat "$folder/answer" >&2
  exit 1
fi
me=$controller/v1/learners/$(field "$folder/answer" id)
echo "Authorization: Bearer $(field "$folder/answer" token)" >"$folder/token"
echo "enrolled as $name"

alive() { # 6. A sign of life while working.
  while sleep "$(field "$folder/task" heartbeat_s)"; do
    "${curl[@]}" --output /dev/null --header "$json" --data "{\"task_id\": \"$id\"}" "$me/heartbeat" >/dev/null
  done
}

work() { # 3. and 4. The result of the task to standard output. Its urls are relative to its own; curl resolves the dots.
  case $kind in
    init) python3 "$here/weights.py" init ;;
    train | evaluate)
      [ "$("${curl[@]}" --output "$folder/model" "$me/$(field "$folder/task" model url)")" = 200 ] || return 1
      python3 "$here/weights.py" "$kind" "$folder/model" "$folder/task" ;;
    *) return 1 ;; # not known here
  esac
}

while true; do
  # 2. Ask for a task and wait for one, in the background, so that a signal is heard at once.
  "${curl[@]}" --output "$folder/answer" "$me/task?wait=30" >"$folder/status" & wait $!
  case $(cat "$folder/status") in
    200) mv "$folder/answer" "$folder/task" ;;
    204) continue ;;
    410) echo "the federation is over"; exit 0 ;;
    *) cat "$folder/answer" >&2; exit 1 ;;
  esac
  id=$(field "$folder/task" id) kind=$(field "$folder/task" kind)
  echo "round $(field "$folder/task" round): $kind"

  # 5. Send the result, or say that there is none.
  alive & beating=$!
  if work >"$folder/result"; then
    if [ "$kind" = evaluate ]; then type=$json; else type=$weights; fi
    sent=$(call --upload-file "$folder/result" --header "$type" "$me/$(field "$folder/task" result url)")
  else
    sent=$(call --header "$json" --data '{"error": "unsupported-task, or see its log"}' "$me/../../tasks/$id/failure")
  fi
  [[ $sent == 2* ]] || cat "$folder/answer" >&2 # 409 and 410: it came too late
  { kill $beating && wait $beating; } 2>/dev/null || true
done
