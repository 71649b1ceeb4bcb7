#!/bin/bash
# The modes with one process per connection: during bursts of clients systemd responds
# and the sockets stay open, each client has a line in the journal, and the CPU time per
# connection is limited. With the argument "soak", in full size.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/load.sh"

boot
install_greeter
run systemctl start greeter-accepted.socket greeter-inet.socket

# Queries systemd five times per second until /root/polling is removed, and prints the
# longest response time in milliseconds.
write /root/poll <<'END'
#!/bin/bash
slowest=0
while [[ -e /root/polling ]]; do
	start=${EPOCHREALTIME/./}
	systemctl is-active --quiet greeter-accepted.socket greeter-inet.socket || echo "a socket is not active"
	elapsed=$(((${EPOCHREALTIME/./} - start) / 1000))
	((elapsed <= slowest)) || slowest=$elapsed
	sleep 0.2
done
echo "$slowest"
END

bursts=$(size 1 20)
check "bursts of 500 simultaneous clients in each mode: greeted, or closed gracefully at the limit"
first=$(journal_cursor)
touch "$container/root/root/polling"
run bash /root/poll >"$container/slowest" &
poll_pid=$!
greeted=0 closed=0
for ((n = 0; n < bursts; n++)); do
	since=$(journal_cursor)
	greeted_in_burst=0
	for port in 4001 4002; do
		start_load load "127.0.0.1:$port" --clients 500 --at-once 500 --allow-empty --timeout 120
		wait_for_load load
		[[ $load_status = 0 ]] || fail "connections were lost: $(cat "$container/load")"
		greeted_in_burst=$((greeted_in_burst + $(load_value load greeted)))
		closed=$((closed + $(load_value load empty)))
	done
	greeted=$((greeted + greeted_in_burst))
done
rm "$container/root/root/polling"
wait "$poll_pid"
note "$((bursts * 1000)) clients: $greeted greeted, $closed closed at the limit, 0 lost"
[[ $((greeted + closed)) = $((bursts * 1000)) && $greeted -gt $((bursts * 500)) ]] || fail "too few clients were greeted"

check "during the bursts systemctl responds within one second, and the sockets stay active"
note "the longest response time was $(cat "$container/slowest") ms"
expect_match '^[0-9]+$' cat "$container/slowest"
[[ $(cat "$container/slowest") -lt 1000 ]] || fail "it was $(cat "$container/slowest") ms"
expect "active"$'\n'"active" run systemctl is-active greeter-accepted.socket greeter-inet.socket

check "each greeted client has a line under journalctl -u 'greeter*', and no instance failed"
expect_within 60 no_instances
journal --after-cursor="$first" --identifier=greeter PRIORITY=5 >"$container/entries"
expect "$greeted" grep -c '"greeted ' "$container/entries"
# By unit only those of the last burst: with tens of thousands of unit names to match,
# journalctl takes many minutes.
journal --after-cursor="$since" --unit='greeter*' --identifier=greeter PRIORITY=5 >"$container/entries"
note "$(grep -c '"greeted ' <"$container/entries") lines"
expect "$greeted_in_burst" grep -c '"greeted ' "$container/entries"
# Failed instances are unloaded, but they would have entries in the journal.
expect_nothing_failed
expect "" journal --after-cursor="$first" --identifier=greeter --identifier=systemd --priority=warning

# Measures the microseconds of CPU that PID 1 and its children use for one connection
# when there are no others, in "$cpu_usec".
measure_connection() {
	local before
	before=$(systemd_cpu_usec)
	start_load single "127.0.0.1:$1" --clients 60 --at-once 1 --rate 25 --timeout 60
	wait_for_load single
	expect_none_lost single
	expect_within 30 no_instances
	cpu_usec=$((($(systemd_cpu_usec) - before) / 60))
}

# The same program, started in the same way but without a sandbox, as a reference for
# the speed of this host. Its user is static, as a dynamic one has a mount namespace.
run useradd --system greeter-bare
write /etc/systemd/system/greeter-bare.socket <<'END'
[Socket]
ListenStream=127.0.0.1:4009
Accept=yes
END
write /etc/systemd/system/greeter-bare@.service <<'END'
[Unit]
CollectMode=inactive-or-failed
[Service]
Type=exec
ExecStart=/usr/bin/greeter --config greeter-accepted
User=greeter-bare
LogLevelMax=notice
END
run systemctl daemon-reload
run systemctl start greeter-bare.socket

check "CPU time per connection, of systemd and the process together"
declare -A port_of=([bare]=4009 [accepted]=4001 [inet]=4002)
declare -A lowest=()
# In alternating rounds, and the lowest of each: other load on the host only adds to it.
for _ in {1..4}; do
	for mode in bare accepted inet; do
		measure_connection "${port_of[$mode]}"
		if [[ -z ${lowest[$mode]-} || $cpu_usec -lt ${lowest[$mode]} ]]; then
			lowest[$mode]=$cpu_usec
		fi
	done
done
for mode in accepted inet; do
	note "$mode: ${lowest[$mode]} µs with the sandbox, ${lowest[bare]} µs without one"
	[[ ${lowest[$mode]} -lt 60000 ]] || fail "$mode: ${lowest[$mode]} µs"
	[[ $((lowest[$mode] * 10)) -lt $((lowest[bare] * 26)) ]] || fail "$mode: more than 2.6 times as much"
done
end_of_tests
