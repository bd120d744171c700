#!/usr/bin/env bash
# The README's main command for real: start on an empty folder, the walk with curl, audit, stop, and a look for leftovers.
set -euo pipefail
cd "$(dirname "$0")/.."
home=$(mktemp -d)
export EVENTICKET_HOME=$home/platform
log=$home/up.log
port=${PORT:-$((20000 + RANDOM % 10000))}
pid=

finish() {
  status=$?
  if [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; then
    kill -INT "$pid"
    wait "$pid" || true
  fi
  [ $status = 0 ] || { echo "--- the platform's output"; tail -n 60 "$log"; tail -n 40 "$EVENTICKET_HOME"/logs/*.log 2>/dev/null || true; }
  rm -rf "$home"
  exit $status
}
trap finish EXIT

# An interactive shell gives a job a signal disposition of its own; a script's job would ignore Ctrl-C.
set -m
started=$(date +%s.%N)
cargo run --release -q -- up --port "$port" >"$log" 2>&1 &
pid=$!
set +m
for _ in $(seq 1 1200); do
  grep -q '^ready ' "$log" && break
  kill -0 "$pid" 2>/dev/null || { echo "the platform ended before it was ready"; exit 1; }
  sleep 0.1
done
url=$(sed -n 's/^ready //p' "$log")
[ -n "$url" ] || { echo "not ready within two minutes"; exit 1; }
echo "ready after $(echo "$(date +%s.%N) $started" | awk '{printf "%.1f", $1 - $2}') s (servers fetched included on a first run)"

api() { curl -sS --fail-with-body "$@"; }
token=$(api "$url/v1/auth/login" -H 'Content-Type: application/json' \
  -d '{"email": "customer@demo.test", "password": "demo-password"}' | jq -r .access_token)
event=$(api "$url/v1/events" | jq '[.items[] | select(.ticket_types[0].price.amount > 0)][0]')
body=$(jq -n --argjson e "$event" \
  '{event_id: $e.id, items: [{ticket_type_id: $e.ticket_types[0].id, quantity: 2}], payment_method: "pm_card_visa"}')
booking=$(api "$url/v1/bookings" -H "Authorization: Bearer $token" -H 'Content-Type: application/json' \
  -H "Idempotency-Key: smoke-$$" -H 'Prefer: wait=10' -d "$body")
id=$(jq -r .id <<<"$booking")
[ "$(jq -r .status <<<"$booking")" = confirmed ] || { echo "not confirmed: $booking"; exit 1; }
tickets=$(api "$url/v1/bookings/$id/tickets" -H "Authorization: Bearer $token" | jq '.items | length')
[ "$tickets" = 2 ] || { echo "2 tickets expected, not $tickets"; exit 1; }

# Before another booking brings another mail.
eventicket=target/release/eventicket
mail_came() {
  for _ in $(seq 1 100); do
    $eventicket mail show latest 2>/dev/null | grep -q "$id" && return 0
    sleep 0.1
  done
  return 1
}
mail_came || { echo "no mail for $id"; exit 1; }

declined=$(api "$url/v1/bookings" -H "Authorization: Bearer $token" -H 'Content-Type: application/json' \
  -H "Idempotency-Key: smoke-declined-$$" -H 'Prefer: wait=10' -d "${body/pm_card_visa/pm_card_declined}")
[ "$(jq -r '.status + " " + .last_decline' <<<"$declined")" = "awaiting_payment payment_declined" ] ||
  { echo "not declined: $declined"; exit 1; }
paid=$(api "$url/v1/bookings/$(jq -r .id <<<"$declined")/payment" -H "Authorization: Bearer $token" \
  -H 'Content-Type: application/json' -H "Idempotency-Key: smoke-again-$$" -H 'Prefer: wait=10' \
  -d '{"payment_method": "pm_card_visa"}')
[ "$(jq -r .status <<<"$paid")" = confirmed ] || { echo "not paid: $paid"; exit 1; }

$eventicket saga show "$id"
for _ in $(seq 1 100); do
  [ -z "$($eventicket saga ls --state compensating --json | jq -r '.[].id')" ] && break
  sleep 0.1
done
$eventicket audit

kill -INT "$pid"
wait "$pid" || { echo "the platform did not stop cleanly"; exit 1; }
pid=
if pgrep -f "$EVENTICKET_HOME" >/dev/null; then
  echo "left running:"; pgrep -af "$EVENTICKET_HOME"; exit 1
fi
echo "stopped, nothing left running"
