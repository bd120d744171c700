# Runs a server and stops it when standard input ends: its writer stopped it, or is gone, however it went.
# Arguments: signal to stop it, signal to end it, seconds between the two; then the server's command line.
# The signal is repeated, since a server that is just starting may miss it.
soft=$1 hard=$2 grace=$3
shift 3
exec 3<&0
"$@" </dev/null 3<&- &
server=$!
{
    while read -r _; do :; done
    nap=
    trap 'kill $nap; exit' TERM
    while kill -s "$soft" "$server"; do
        sleep 1 &
        nap=$!
        wait "$nap"
        grace=$((grace - 1))
        if [ "$grace" -le 0 ]; then soft=$hard; fi
    done
} <&3 2>/dev/null &
watcher=$!
exec 3<&-
wait "$server"
code=$?
kill "$watcher" 2>/dev/null
wait "$watcher"
exit "$code"
