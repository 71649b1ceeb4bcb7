# shellcheck shell=bash disable=SC2154 # container, containers and cgroup are of lib.sh
# Generates load in the background while the service is restarted, reloaded or upgraded,
# and reads the CPU time that services use. Scripts source this file after lib.sh.

# The sizes are small by default; `make soak` passes "soak" for the full sizes.
soak=${1-}
[[ -z $soak || $soak == soak ]] || fail "unknown argument '$soak'; the only argument is 'soak'"

# size SMALL FULL: prints the size for this run.
size() {
	if [[ -n $soak ]]; then echo "$2"; else echo "$1"; fi
}

# Prints a measurement below the current check.
note() {
	printf '          %s\n' "$*"
}

# statistics VALUE...: prints median and maximum.
statistics() {
	printf '%s\n' "$@" | sort -g | awk '
		{ value[NR] = $1 }
		END { printf "%d (%d)", (value[int((NR + 1) / 2)] + value[int(NR / 2) + 1]) / 2 + 0.5, value[NR] + 0.5 }'
}

# start_load NAME ARGUMENT...: starts greeter-load with these arguments in the
# container. Its report, a line of JSON, is in "$container/NAME" when it ends.
declare -A load_pids=()
start_load() {
	local name=$1
	shift
	rm -f "$container/root/root/$name.pid"
	# It writes its own process ID first: signals must go to it, not to nsenter.
	run sh -c 'echo $$ >"/root/$0.pid" && exec greeter-load "$@" --json' "$name" "$@" \
		>"$container/$name" 2>&1 &
	load_pids[$name]=$!
	expect_within 10 test -s "$container/root/root/$name.pid"
}

# hold_connections NAME COUNT ADDRESS...: starts clients that connect and then neither
# read nor close, and waits until there are COUNT of them.
hold_connections() {
	local name=$1 count=$2
	shift 2
	start_load "$name" "$@" --clients "$count" --at-once 128 --hold --for 600 --timeout 120
	expect_within 120 grep -q "^holding $count\$" "$container/$name"
}

# Starts no further clients, and waits until the open connections have ended. The exit
# status of the load is in "$load_status": 0 if every client was greeted.
stop_load() {
	run kill -TERM "$(cat "$container/root/root/$1.pid")"
	wait_for_load "$1"
}

# Waits for a load that ends without a signal, as above.
wait_for_load() {
	load_status=0
	wait "${load_pids[$1]}" || load_status=$?
	rm "$container/root/root/$1.pid"
	grep -q '^{' "$container/$1" || fail "the load '$1' has no report: $(cat "$container/$1")"
}

# load_value NAME KEY: prints a number of a load's report.
load_value() {
	local value
	value=$(sed -n 's/^{.*"'"$2"'":\([0-9.]*\).*/\1/p' "$container/$1")
	[[ -n $value ]] || fail "the report of the load '$1' has no '$2': $(cat "$container/$1")"
	echo "${value%.*}"
}

# load_latency NAME KEY: prints p50 or max of the microseconds until EOF.
load_latency() {
	sed 's/.*"end":{[^}]*"'"$2"'":\([0-9]*\).*/\1/' "$container/$1"
}

# Every client of the load was greeted.
expect_none_lost() {
	[[ $load_status = 0 ]] || fail "the load '$1' lost connections: $(cat "$container/$1")"
	note "$(load_value "$1" greeted) clients, $(load_value "$1" greetings_per_second) per second, 0 lost;" \
		"p50 $(($(load_latency "$1" p50) / 1000)) ms, max $(($(load_latency "$1" max) / 1000)) ms"
}

# The microseconds of CPU that a unit of the container has used, from its control group.
unit_cpu_usec() {
	sed -n 's/^usage_usec //p' "$cgroup/container$containers/payload/system.slice/$1/cpu.stat"
}

# The microseconds of CPU that the container's systemd and its terminated children have
# used: the kernel adds those of a child when its parent waits for it.
systemd_cpu_usec() {
	local own fields
	read -r own _ < <(run cat /proc/1/schedstat)
	fields=$(run cat /proc/1/stat)
	# The name, in parentheses, can contain spaces; utime is the 12th field after it.
	read -r -a fields <<<"${fields##*) }"
	echo $((own / 1000 + (fields[13] + fields[14]) * 10000))
}
