# Removes folders when standard input ends, once the processes whose ids it carried have ended too (30 s at most: where
# nobody reaps them, ended ones look alive). Arguments: the folders.
pids=
while read -r pid; do pids="$pids $pid"; done
tries=300
for pid in $pids; do
    while [ "$tries" -gt 0 ] && kill -0 "$pid" 2>/dev/null; do
        sleep 0.1
        tries=$((tries - 1))
    done
done
rm -rf -- "$@"
