# Tears down one lab when its owner is gone, and does nothing else.
#
# Standard input is a pipe whose only writer is the owner: its end is the owner's.
# Standard output is the lab's registry entry: while this shell lives the entry stays locked.
# It drops what it cannot do: half a lab torn down is better than none.
id=$1 entry=$2 run_dir=$3 keep_dir=$4 owner=$5
trap '' HUP INT TERM
exec 3>&1 >/dev/null 2>&1
cd /

read -r order
[ "$order" = stand ] && exit 0

# One look at all processes costs less than `ip netns pids` for each namespace.
inside() {
    {
        stat -Lc 'netns %i' "/run/netns/lr-$id-"*
        stat -Lc 'process %i %n' /proc/[0-9]*/ns/net
    } | awk -v owner="$owner" '
        $1 == "netns" { lab[$2] }
        $1 == "process" && ($2 in lab) { split($3, path, "/"); if (path[3] != owner) print path[3] }'
}

# Again, for those that forked meanwhile.
for _ in 1 2 3 4 5 6 7 8 9 10; do
    processes=$(inside)
    [ -z "$processes" ] && break
    kill -9 $processes
    sleep 0.01
done

for netns in "/run/netns/lr-$id-"*; do
    [ -e "$netns" ] && echo "netns del ${netns##*/}"
done | ip -force -batch -
rm -rf "/etc/netns/lr-$id-"*

# A directory that is not named after the lab is not ours.
case $run_dir in
*/lanrage-lab-"$id")
    if [ -n "$keep_dir" ]; then
        mkdir -p "$keep_dir" && mv "$run_dir" "$keep_dir/$id"
    else
        rm -rf "$run_dir"
    fi
    ;;
esac
rm -f "$entry"
