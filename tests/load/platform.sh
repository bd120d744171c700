# Sourced by the scripts of this folder, from the project's root: platforms of their own.

eventicket=target/release/eventicket
# In the order of the suite, then pairs of runs.
runs=(mails low high knee ten-events thousand-events overload triple slow-gateway waiting realistic untraced traced)
results=tests/load/results

# start [OPTIONS OF eventicket up]: a fresh platform, until it is ready.
start() {
  EVENTICKET_HOME=$(mktemp -d) && chmod 755 "$EVENTICKET_HOME" # as root, PostgreSQL runs as another user
  export EVENTICKET_HOME
  "$eventicket" up --port 0 "$@" >"$EVENTICKET_HOME.log" 2>&1 &
  platform=$!
  until grep -q '^ready ' "$EVENTICKET_HOME.log"; do
    kill -0 "$platform" 2>/dev/null || { cat "$EVENTICKET_HOME.log"; exit 1; }
    sleep 0.2
  done
}

# stop: the platform that was started, if one was.
stop() {
  [ -n "${platform:-}" ] || return 0
  kill -INT "$platform" 2>/dev/null || true
  wait "$platform" || true
  rm -rf "$EVENTICKET_HOME" "$EVENTICKET_HOME.log"
  platform=
}

# report: writes tests/load/README.md from all reports that there are.
report() {
  local files=() run file
  for run in "${runs[@]}"; do
    for file in "$results/$run.json" "$results/$run"-[0-9].json; do
      [ -e "$file" ] && files+=("$file")
    done
  done
  "$eventicket" load report --plot tests/load/rush.svg "${files[@]}" >tests/load/README.md
}
