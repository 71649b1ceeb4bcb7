#!/bin/bash
# Mode accept under load: restarts and reloads lose no connection, a kill loses only the
# connection just accepted, and at every limit further clients wait and are not lost.
# With the argument "soak", in full size.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/load.sh"

addresses=(127.0.0.1:4000 '[::1]:4000')
text=(--expect 'This is a test\n')

boot
install_greeter
run systemctl start greeter.socket

# More simultaneous clients than start per second, so that clients which wait while the
# service is not running do not delay new ones.
start_restart_load() {
	start_load load "${addresses[@]}" "${text[@]}" --rate 2500 --at-once 3000 --timeout 60 --for 600
}

# Stops the load: no connection was lost, at a rate of at least 2,000 clients per second.
expect_load() {
	stop_load load
	expect_none_lost load
	expect_rate 2000
}

expect_rate() {
	[[ $(load_value load greetings_per_second) -ge $1 ]] || fail "the rate was too low: $(cat "$container/load")"
}

settings() {
	write /etc/greeter/greeter.toml.d/50-test.toml
}

# Removes the drop-ins of settings and unit, and stops the service.
reset_service() {
	rm -rf "$container/root/etc/greeter/greeter.toml.d" "$container/root/etc/systemd/system/greeter.service.d"
	run systemctl daemon-reload
	run systemctl stop --no-warn greeter.service
}

check "50 restarts under load lose no connection"
start_restart_load
for _ in {1..50}; do run systemctl restart greeter.service; done
expect_load

check "50 reloads under load lose no connection"
start_restart_load
# The same result is not logged twice within a second, so each reload changes a setting.
for n in {1..50}; do
	settings <<<"log_exclude = [\"192.0.2.$n\"]"
	run systemctl reload greeter.service
done
expect_load
expect 50 grep -c . < <(journal --unit=greeter.service MESSAGE_ID=d199e71bb35344f7afb51cad54551f7e)

check "reloads of invalid and valid settings under load lose no connection"
start_restart_load
for _ in {1..5}; do
	settings <<<'mesage = "x"'
	expect_status 1 run systemctl reload greeter.service
	settings <<<'message = "This is a test"'
	run systemctl reload greeter.service
done
expect_load
expect 5 grep -c . < <(journal --unit=greeter.service MESSAGE_ID=48b5678f1a3b4f7d9c085d591f46dbd7)
reset_service

# A connection is accepted and greeted in the same loop iteration, so a kill can happen
# between the two for one connection. The others wait in the backlog, or receive their
# greeting and EOF, as the kernel sends what was written.
check "20 kills under load lose at most one connection each, the one just accepted"
start_restart_load
is_running() { [[ $(property MainPID greeter.service) != 0 ]]; }
is_restarted() { [[ $(property NRestarts greeter.service) == 1 && $(property ActiveState greeter.service) == active ]]; }
for _ in {1..20}; do
	# Reset the back-off, so that the service restarts after a second each time and not
	# after an increasing delay, during which the load would wait.
	run systemctl reset-failed greeter.service
	expect_within 15 is_running
	run systemctl kill --signal=KILL greeter.service
	expect_within 15 is_restarted
done
stop_load load
started=$(load_value load started) greeted=$(load_value load greeted)
note "$started clients, $(load_value load greetings_per_second) per second, 20 kills: $((started - greeted)) lost"
[[ $((started - greeted)) -le 20 ]] || fail "connections were lost: $(cat "$container/load")"
for result in mismatched refused timeout failed; do
	[[ $(load_value load $result) = 0 ]] || fail "connections were lost in another way: $(cat "$container/load")"
done
expect_rate 2000
expect_nothing_failed
reset_service

check "out of descriptors: clients wait, the CPU is idle, one warning is logged, all are greeted"
# The watchdog message needs a descriptor as well: one must remain for it.
write /etc/systemd/system/greeter.service.d/50-test.conf <<<$'[Service]\nLimitNOFILE=64\nWatchdogSec=2s'
settings <<<$'[limits]\nlinger_timeout = "2min"'
run systemctl daemon-reload
# These clients use all available descriptors and the head of both backlogs.
hold_connections held 160 "${addresses[@]}"
start_load load "${addresses[@]}" "${text[@]}" --clients 1000 --at-once 1000 --timeout 120
sleep 1
before=$(unit_cpu_usec greeter.service)
sleep 5
spent=$(($(unit_cpu_usec greeter.service) - before))
note "1,000 clients wait, which uses $((spent / 5)) µs of CPU per second"
# A busy loop would use a whole CPU.
[[ $spent -lt 100000 ]] || fail "$spent µs of CPU in 5 s"
[[ ! -s $container/load ]] || fail "the clients did not wait: $(cat "$container/load")"
stop_load held
wait_for_load load
expect_none_lost load
expect 1000 load_value load greeted
journal --unit=greeter.service MESSAGE_ID=523dbde4cfd44f7e919ff3c5502f8ea1 >"$container/warnings"
expect 1 grep -c . "$container/warnings"
expect_match '"PRIORITY" ?: ?"4"' cat "$container/warnings"
expect "" journal --unit=greeter.service MESSAGE_ID=74383caa08ae46deb1f82efa628fe9f9
expect 0 property NRestarts greeter.service
reset_service

# Each client connects at about the time of the idle exit. The interval of the clients is
# 10 ms longer than idle_timeout: were it the same, it would depend on chance whether the
# service exits at all.
test_idle_exit() {
	local timeout=$1 per_second=$2 seconds=$3 since exits
	settings <<<$'[limits]\nidle_timeout = "'"$timeout"'"'
	since=$(journal_cursor)
	start_load load "${addresses[@]}" "${text[@]}" --rate "$per_second" --for "$seconds"
	wait_for_load load
	expect_none_lost load
	exits=$(journal --after-cursor="$since" --unit=greeter.service \
		MESSAGE_ID=e980b9712d9e4a96915da969057a041e | grep -c .) || :
	note "$exits idle exits"
	[[ $exits -gt $((seconds / 10)) ]] || fail "only $exits idle exits in $seconds s"
	expect_nothing_failed
	reset_service
}

check "idle_timeout = 990 ms and one client per second: no connection is lost"
test_idle_exit 990ms 1 "$(size 8 120)"

check "idle_timeout = 240 ms and four clients per second: no connection is lost"
test_idle_exit 240ms 4 "$(size 6 120)"

check "connections = 1024: further clients wait until a connection is closed, and none is refused"
settings <<<$'[limits]\nlinger_timeout = "2min"'
hold_connections held 1024 "${addresses[@]}"
start_load load "${addresses[@]}" "${text[@]}" --clients 200 --at-once 200 --timeout 60
sleep 2
[[ ! -s $container/load ]] || fail "the clients did not wait: $(cat "$container/load")"
sockets=$(run sh -c 'ls -l "/proc/$0/fd"' "$(property MainPID greeter.service)" | grep -c socket:)
note "the service has $sockets sockets open"
# In addition to the connections: two listening sockets, and those for signals and journal.
[[ $sockets -ge 1024 && $sockets -le 1040 ]] || fail "$sockets sockets are open"
stop_load held
wait_for_load load
expect_none_lost load
expect 200 load_value load greeted
reset_service

check "latency is unchanged with 10,000 open connections"
write /etc/systemd/system/greeter.service.d/50-test.conf <<<$'[Service]\nMemoryMax=infinity'
settings <<<$'[limits]\nconnections = 12000\nlinger_timeout = "2min"'
run systemctl daemon-reload
# Measures the median time until EOF of a new connection, in "$median".
measure_latency() {
	start_load load "${addresses[@]}" "${text[@]}" --clients 1000 --at-once 1 --timeout 60
	wait_for_load load
	expect_none_lost load
	median=$(load_latency load p50)
}
# The first client starts the service.
expect $'This is a test\n' greeting 127.0.0.1:4000
measure_latency
unloaded=$median
hold_connections held 10000 "${addresses[@]}"
measure_latency
note "median time until EOF: $unloaded µs, and $median µs with 10,000 open connections"
[[ $median -le $((unloaded * 3 + 1000)) ]] || fail "$median µs instead of $unloaded µs"
stop_load held
expect 0 property NRestarts greeter.service
expect_nothing_failed
end_of_tests
