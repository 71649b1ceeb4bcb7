# shellcheck shell=bash disable=SC2154 # machine, group and machines are of lib.sh
# A load that goes on while something befalls the service, and the kernel's
# books of what it costs. For the scripts that read this file after lib.sh.

# Short by default; `make soak` says "soak", and takes the full sizes.
soak=${1-}
[[ -z $soak || $soak == soak ]] || fail "the only argument there is, is 'soak'"

# so_many SHORT FULL: the size for this run.
so_many() {
	if [[ -n $soak ]]; then echo "$2"; else echo "$1"; fi
}

# A figure for whoever reads the run.
figure() {
	printf '          %s\n' "$*"
}

# Begins a load in the machine, of greeter-load with these arguments. What it
# reports, a line of JSON, is in "$machine/NAME" when it ends.
#     load_begin NAME ARGUMENT...
declare -A loads=()
load_begin() {
	local name=$1
	shift
	rm -f "$machine/root/root/$name.pid"
	# Its own number first, as a signal must reach it and not nsenter.
	run sh -c 'echo $$ >"/root/$0.pid" && exec greeter-load "$@" --json' "$name" "$@" \
		>"$machine/$name" 2>&1 &
	loads[$name]=$!
	expect_within 10 test -s "$machine/root/root/$name.pid"
}

# Begins clients that connect and then neither read nor leave, and waits until
# there are so many.
#     hold_begin NAME COUNT ADDRESS...
hold_begin() {
	local name=$1 count=$2
	shift 2
	load_begin "$name" "$@" --clients "$count" --at-once 128 --hold --for 600 --timeout 120
	expect_within 120 grep -q "^holding $count\$" "$machine/$name"
}

# Lets no new clients come, and waits until those that are there have ended. The
# load's status is in "$load_status": 0 where every one was greeted.
load_end() {
	run kill -TERM "$(cat "$machine/root/root/$1.pid")"
	load_wait "$1"
}

# The same of a load that ends by itself.
load_wait() {
	load_status=0
	wait "${loads[$1]}" || load_status=$?
	rm "$machine/root/root/$1.pid"
	grep -q '^{' "$machine/$1" || fail "the load '$1' reports nothing: $(cat "$machine/$1")"
}

# The number that a load's report has under a name.
reported() {
	local value
	value=$(sed -n 's/^{.*"'"$2"'":\([0-9.]*\).*/\1/p' "$machine/$1")
	[[ -n $value ]] || fail "the load '$1' reports no '$2': $(cat "$machine/$1")"
	echo "${value%.*}"
}

# All that a load says, where not every one of its clients was greeted.
expect_none_lost() {
	[[ $load_status = 0 ]] || fail "the load '$1' lost clients: $(cat "$machine/$1")"
	figure "$(reported "$1" greeted) clients, $(reported "$1" greetings_per_second) a second, 0 lost;" \
		"p50 $(($(sed 's/.*"end":{"p50":\([0-9]*\).*/\1/' "$machine/$1") / 1000)) ms," \
		"max $(($(sed 's/.*"end":{[^}]*"max":\([0-9]*\).*/\1/' "$machine/$1") / 1000)) ms"
}

# The microseconds of CPU that a unit of the machine has used, by its control group.
cpu_of() {
	sed -n 's/^usage_usec //p' "$group/machine$machines/payload/system.slice/$1/cpu.stat"
}

# The same of the machine's systemd and of all that it has started and that is
# over: the kernel adds the children's when they are waited for.
cpu_of_systemd() {
	local own fields
	read -r own _ < <(run cat /proc/1/schedstat)
	fields=$(run cat /proc/1/stat)
	# The name, in parentheses, may hold spaces; utime is the 12th after it.
	read -r -a fields <<<"${fields##*) }"
	echo $((own / 1000 + (fields[13] + fields[14]) * 10000))
}

# Where the journal ends now.
cursor() {
	run journalctl --sync
	run journalctl --quiet --no-pager --lines=0 --show-cursor | sed -n 's/^-- cursor: //p'
}

property() {
	run systemctl show --value --property="$1" "$2"
}
