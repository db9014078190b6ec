#!/usr/bin/env bash
# Asks a lockkeeper server for a run and follows it to its end: bash, curl and jq, nothing else.
#
# The composite action beside this file runs it; so can any other pipeline that has no container for the command line
# (`lockkeeper trigger` does the same and more). All of it comes by variables, none of which is ever part of a command:
#
#   LOCKKEEPER_URL       the server                      LOCKKEEPER_TARGET   the target's name
#   LOCKKEEPER_RELEASE   sha256:…, the release           LOCKKEEPER_ACTION   apply (default), rollback or plan
#   LOCKKEEPER_TO        a version                       LOCKKEEPER_PLAN     sha256:…, an approved plan
#   LOCKKEEPER_WAIT      10m (default), 90s, 2h          LOCKKEEPER_LABELS   name=value, one a line
#   LOCKKEEPER_ON_FAILURE       keep or rollback         LOCKKEEPER_ALLOW_BREAKING        true
#   LOCKKEEPER_FOLDER           where the migrations lie in the repository, for annotations
#   LOCKKEEPER_CANCEL_ON_INTERRUPT   true: a job that is canceled also cancels the run
#
# Who asks: LOCKKEEPER_TOKEN or LOCKKEEPER_TOKEN_FILE; without them a job on GitHub asks for a fresh token each time
# (`permissions: id-token: write`), for LOCKKEEPER_AUDIENCE or else for LOCKKEEPER_URL.
#
# Exit code 0: the run was seen to succeed. 1: it did not, or nobody knows. 2: what was asked for makes no sense.
set -euo pipefail
umask 077

url=${LOCKKEEPER_URL:-}
url=${url%/}
target=${LOCKKEEPER_TARGET:-}
action=${LOCKKEEPER_ACTION:-apply}
audience=${LOCKKEEPER_AUDIENCE:-$url}

# Seconds that one request asks the server to wait: gateways give up after 29.
poll=10
# Seconds without an answer after which a run that has begun is not followed any longer.
outage=300

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

is_github() { [ "${GITHUB_ACTIONS:-}" = true ]; }

# Nothing that a server or a database says begins a line, and nothing has the mark of old: none of it is a command to GitHub.
mark='##['
harmless='## ['
say() { printf 'lockkeeper: %s\n' "${1//"$mark"/$harmless}"; }

# Texts of commands and their properties are written as GitHub's own toolkit does.
escaped() { jq -rn --arg text "$1" '$text | gsub("%"; "%25") | gsub("\r"; "%0D") | gsub("\n"; "%0A")'; }
property() { escaped "$1" | jq -Rr 'gsub(":"; "%3A") | gsub(","; "%2C")'; }

output() { if [ -n "${GITHUB_OUTPUT:-}" ]; then printf '%s=%s\n' "$1" "$2" >>"$GITHUB_OUTPUT"; fi; }
summary() { if [ -n "${GITHUB_STEP_SUMMARY:-}" ]; then cat >>"$GITHUB_STEP_SUMMARY"; else cat >/dev/null; fi; }

fail() {
  if is_github; then
    printf '::error title=lockkeeper::%s\n' "$(escaped "$1")"
  else
    say "error: $1"
  fi >&2
  exit "${2:-1}"
}

# One line of printable text, whatever it was; as Markdown; as code in Markdown.
# shellcheck disable=SC2016 # jq's own variables
shared='
  def clean: tostring | gsub("[[:cntrl:]]+"; " ");
  def md: clean | gsub("(?<mark>[\\\\`*_{}\\[\\]<>#+!|~@:&])"; "\\\(.mark)");
  def code: "`" + (clean | gsub("[`|]"; " ")) + "`";
'
read_json() { jq -r "$shared $1" "$work/body"; }

seconds_of() {
  [[ $1 =~ ^([0-9]{1,6})(s|m|h)?$ ]] || fail "LOCKKEEPER_WAIT: expected a duration such as 10m, got $1" 2
  case ${BASH_REMATCH[2]} in
    h) echo $((10#${BASH_REMATCH[1]} * 3600)) ;;
    m) echo $((10#${BASH_REMATCH[1]} * 60)) ;;
    *) echo $((10#${BASH_REMATCH[1]})) ;;
  esac
}

# In the background, because bash hears a signal only while it waits. Leaves the answer in body and headers.
# An answer has at most 4 MiB; many a curl holds only those to it that say how long they are.
fetch() {
  (
    trap '' XFSZ
    ulimit -f 4096 2>/dev/null || true
    exec curl -sS --proto =http,https --max-time 60 --max-filesize 4194304 -o "$work/body" -D "$work/headers" -w '%{http_code}' "$@"
  ) >"$work/status" 2>"$work/curl" &
  request=$!
  # an answer that broke off is none
  if wait "$request"; then status=$(cat "$work/status"); else status=000; fi
  case $status in [1-5][0-9][0-9]) ;; *) status=000 ;; esac
}

# Puts a token into $work/authorization, which curl reads: arguments can be seen by every process.
authorize() {
  local token='' asked
  if [ -n "${LOCKKEEPER_TOKEN_FILE:-}" ]; then
    token=$(cat "$LOCKKEEPER_TOKEN_FILE") || return 1
  elif [ -n "${LOCKKEEPER_TOKEN:-}" ]; then
    token=$LOCKKEEPER_TOKEN
  elif [ -n "${ACTIONS_ID_TOKEN_REQUEST_URL:-}" ] && [ -n "${ACTIONS_ID_TOKEN_REQUEST_TOKEN:-}" ]; then
    asked="$ACTIONS_ID_TOKEN_REQUEST_URL&audience=$(jq -rn --arg audience "$audience" '$audience | @uri')"
    printf 'Authorization: Bearer %s\n' "$ACTIONS_ID_TOKEN_REQUEST_TOKEN" >"$work/authorization"
    fetch -H "@$work/authorization" "$asked"
    [ "$status" = 200 ] || return 1
    token=$(jq -r '.value // empty | strings' "$work/body") || return 1
  elif is_github; then
    fail 'no token: give the job "permissions: id-token: write"' 2
  else
    fail 'no token: set LOCKKEEPER_TOKEN or LOCKKEEPER_TOKEN_FILE' 2
  fi
  [[ $token =~ ^[A-Za-z0-9._~+/=-]+$ ]] || return 1
  if is_github; then printf '::add-mask::%s\n' "$token"; fi
  printf 'Authorization: Bearer %s\n' "$token" >"$work/authorization"
}

# What went wrong with the last request, in words.
problem() {
  if [ "$status" = token ]; then
    echo 'no token could be had'
  elif [ "$status" = 000 ]; then
    echo "no answer from the server ($(tr -d '\n' <"$work/curl" | tr -c '[:print:]' ' ' | cut -c1-200))"
  elif ! read_json 'if (.code | type) == "string" then "\(.code | clean): \(.detail // .title // "" | clean)\(if .hint then " (\(.hint | clean))" else "" end)" else error end' 2>/dev/null; then
    echo "the server answered $status and nothing that lockkeeper says"
  fi
}

# ask TRIES SECONDS REFUSALS PATH [curl arguments]: until there is an answer of use, or it is not worth another try.
ask() {
  local tries=$1 patience=$2 refusals=$3 path=$4 since=$SECONDS try=1 pause
  shift 4
  while :; do
    if authorize; then
      fetch -H "@$work/authorization" -H 'Accept: application/json' "$@" "$url$path"
    else
      status=token
    fi
    case $status in
      200 | 202) return 0 ;;
      401 | token)
        refusals=$((refusals - 1))
        if [ "$refusals" -le 0 ]; then return 1; fi
        ;;
      000 | 408 | 425 | 429 | 502 | 503 | 504) ;;
      *) return 1 ;;
    esac
    pause=$(sed -n 's/^[Rr]etry-[Aa]fter: *\([0-9]\{1,4\}\)[[:space:]]*$/\1/p' "$work/headers" 2>/dev/null | head -n 1)
    if [ "$status" = 000 ] || [ "$status" = token ] || [ -z "$pause" ]; then pause=$((try < 4 ? 1 << (try - 1) : 10)); fi
    if [ "$try" -ge "$tries" ] || [ $((SECONDS - since + pause)) -gt "$patience" ]; then return 1; fi
    say "$(problem); trying again in $pause s"
    sleep "$pause" &
    wait $! || true
    try=$((try + 1))
  done
}

is_run() { jq -e 'type == "object" and (.id | type) == "string" and (.done | type) == "boolean" and (.status | type) == "string"' "$work/body" >/dev/null 2>&1; }
path_of_run() { printf '/v1/runs/%s' "$(jq -rn --arg id "$id" '$id | @uri')"; }

# shellcheck disable=SC2317 # reached by signals
interrupted() {
  trap '' INT TERM
  kill "${request:-}" 2>/dev/null || true
  if [ -z "${id:-}" ]; then
    say 'stopped before the server answered; it may have begun the run'
  elif [ "${LOCKKEEPER_CANCEL_ON_INTERRUPT:-}" != true ]; then
    say "stopped waiting; run $id goes on at the server"
  elif ask 2 5 1 "$(path_of_run)/cancel" -H 'Content-Type: application/json' --data-raw '{"reason":"the pipeline that asked for it was interrupted"}'; then
    say "told run $id to stop at its next safe point"
  else
    say "run $id could not be told to stop: $(problem)"
  fi
  exit 1
}
trap interrupted INT TERM

case $url in
  http://* | https://*) ;;
  *) fail 'the url has to begin with https://' 2 ;;
esac
case $url in *[[:space:]?#@]*) fail 'the url has no user, query or fragment' 2 ;; esac
[ -n "$target" ] || fail 'the target is missing' 2
longest=$(seconds_of "${LOCKKEEPER_WAIT:-10m}")

body=$(jq -cn --arg target "$target" --arg action "$action" --arg release "${LOCKKEEPER_RELEASE:-}" --arg to "${LOCKKEEPER_TO:-}" \
  --arg plan "${LOCKKEEPER_PLAN:-}" --arg failure "${LOCKKEEPER_ON_FAILURE:-}" --arg breaking "${LOCKKEEPER_ALLOW_BREAKING:-}" \
  --arg labels "${LOCKKEEPER_LABELS:-}" --arg commit "${GITHUB_SHA:-}" \
  --arg pipeline "${GITHUB_RUN_ID:+${GITHUB_SERVER_URL:-}/${GITHUB_REPOSITORY:-}/actions/runs/$GITHUB_RUN_ID}" '
  {target: $target, action: $action}
  + if $release != "" then {release: {digest: $release}} else {} end
  + if $to != "" then {to: $to} else {} end
  + if $plan != "" then {plan: $plan} else {} end
  + if $failure != "" then {onFailure: $failure} else {} end
  + if $breaking == "true" then {allow: ["breaking"]} else {} end
  + {labels: ({commit: $commit, pipelineUrl: $pipeline}
      + ([$labels | splits("\n") | select(test("="))
          | {(sub("=.*$"; "") | gsub("^\\s+|\\s+$"; "")): (sub("^[^=]*="; "") | sub("\\s+$"; ""))}] | add // {})
      | with_entries(select(.value != "")))}')

# One key for all tries, so that a repeated one begins no second run.
key=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
post=(-H 'Content-Type: application/json' -H "Idempotency-Key: $key" -H "Prefer: wait=$((longest < poll ? longest : poll))" --data-raw "$body")
deadline=$((SECONDS + longest))

if ! ask 5 300 1 /v1/runs "${post[@]}"; then
  why=$(problem)
  # A run that was refused is recorded, and answered as a problem with its id.
  id=$(jq -r '.run // empty | strings' "$work/body" 2>/dev/null || true)
  if [ "$status" != 422 ] || [ -z "$id" ] || ! ask 1 0 1 "$(path_of_run)" || ! is_run; then
    output run-id "$(jq -rn --arg id "$id" "$shared"' $id | clean')"
    output status unknown
    jq -rn --arg target "$target" --arg why "$why" "$shared"' "### lockkeeper: \($target | md): no run\n\n\($why | md)\n"' | summary
    fail "$why"
  fi
fi

if [ "$action" = plan ]; then
  jq -e '(.plan.steps | type) == "array"' "$work/body" >/dev/null 2>&1 || fail 'the server answered no plan'
  output plan "$(read_json '.plan.digest | clean')"
  output steps "$(read_json '.plan.steps | length')"
  output release "$(read_json '.plan.release.digest | clean')"
  output from "$(read_json '.plan.from // "" | clean')"
  output to "$(read_json '.plan.to // "" | clean')"
  read_json '.plan.steps[] | "\(.direction) \(.path)\(if (.locks | length) > 0 then " (locks \(.locks | join(", ")))" else "" end)" | clean' |
    while IFS= read -r line; do say "$line"; done
  say "$(read_json '"plan \(.plan.digest): \(.plan.steps | length) steps, from \(.plan.from // "0") to \(.plan.to // "0")" | clean')"
  read_json '"### lockkeeper: \(.target | md): \(.plan.steps | length) steps\n\nfrom \(.plan.from // "0" | md) to \(.plan.to // "0" | md), plan \(.plan.digest | code)\n\n| migration |  | locks |\n| --- | --- | --- |\n"
    + ([.plan.steps[:100][] | "| \(.path | code) | \(.direction | md) | \(.locks | join(", ") | md) |\n"] | join(""))' | summary
  exit 0
fi

is_run || fail 'the server answered no run; check the url'
id=$(jq -r .id "$work/body")
said=''
while :; do
  line=$(read_json '.progress.message // .status | clean')
  if [ "$line" != "$said" ]; then say "$line"; fi
  said=$line
  left=$((deadline - SECONDS))
  if jq -e .done "$work/body" >/dev/null || [ "$left" -le 0 ]; then break; fi
  if ! ask 1000000 "$((left < outage ? left : outage))" 5 "$(path_of_run)?wait=$((left < poll ? left : poll))" || ! is_run; then
    output run-id "$id"
    output status unknown
    why="$(problem); run $id may go on: ask again with the same release, and it is followed"
    jq -rn --arg target "$target" --arg why "$why" "$shared"' "### lockkeeper: \($target | md): nobody knows\n\n\($why | md)\n"' | summary
    fail "$why"
  fi
done
cp "$work/body" "$work/run"

output run-id "$(read_json '.id | clean')"
output status "$(read_json '.status | clean')"
output outcome "$(read_json '.outcome // "" | clean')"
output from "$(read_json '.from // "" | clean')"
output to "$(read_json '.to // "" | clean')"
output release "$(read_json '.release.digest // "" | clean')"

# Only told: without it nothing is missing but the table.
query=$(jq -rn --arg id "$id" '$id | @uri')
if ! ask 1 0 1 "/v1/targets/$(jq -rn --arg target "$target" '$target | @uri')/history?run=$query" ||
  ! jq -e '.history | type == "array"' "$work/body" >/dev/null 2>&1; then
  echo '{"history":[]}' >"$work/body"
fi
mv "$work/body" "$work/history"
cp "$work/run" "$work/body"
jq -r --slurpfile past "$work/history" "$shared"'
  def took: if . < 1000 then "\(round) ms" else "\(. / 100 | round / 10) s" end;
  "### lockkeeper: \(.target | md): \(.status | md)\(if .outcome then " (\(.outcome | md))" else "" end)\n",
  "|  |  |\n| --- | --- |",
  "| run | \(.id | md) |",
  "| release | \(.release.digest // "" | code)\(if .release.version then ", version \(.release.version | md)" else "" end) |",
  "| database | \(if .status == "succeeded" then "from \(.from // "0" | md) to \(.to // "0" | md)" else "was at \(.from // "0" | md), wanted is \(.to // "the newest" | md)" end) |",
  "| done | \(.progress.applied | md) of \(.progress.total | md) |",
  ($past[0].history[-100:] | select(length > 0) | "\n| migration |  | took |\n| --- | --- | --- |",
    (.[] | "| \(.path | code) | \(if .status != "done" then "**\(.status | md)**" elif .direction == "up" then "applied" else "taken back" end) | \(.durationMs | numbers // 0 | took) |")),
  (.error | select(. != null) | "\n**\(.code | md)**\(if .fields.migration then " at \([.fields.migration, .fields.line, .fields.column] | map(select(. != null) | tostring) | join(":") | code)" else "" end)\n\n\(.message | md)",
    (select(.hint) | "\nNext: \(.hint | md)")),
  ""' "$work/run" | summary

if jq -e '.done and .status == "succeeded"' "$work/run" >/dev/null; then exit 0; fi
if ! jq -e .done "$work/run" >/dev/null; then
  if [ "$longest" = 0 ]; then exit 0; fi
  fail "run $id is still $(read_json '.status | clean') after $longest s; it goes on at the server: ask again with the same release, and it is followed"
fi
why=$(read_json '"\(.error.code // .status): \(.error.message // "the run ended as \(.status)")\(if .error.hint then " (\(.error.hint))" else "" end)" | clean')
if is_github; then
  place=title=lockkeeper
  file=$(read_json '.error.fields.migration // "" | clean')
  if [ -n "$file" ]; then
    folder=${LOCKKEEPER_FOLDER:-}
    place+=",file=$(property "${folder:+${folder%/}/}$file")"
    for name in line column; do
      number=$(read_json ".error.fields.$name // \"\" | clean")
      if [[ $number =~ ^[0-9]+$ ]]; then place+=",${name/column/col}=$number"; fi
    done
  fi
  printf '::error %s::%s\n' "$place" "$(escaped "$why")" >&2
else
  say "error: $why" >&2
fi
exit 1
