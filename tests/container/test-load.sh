#!/bin/bash
# Mode accept under load: restarts and reloads lose no client, a kill loses only
# those just accepted, and every limit makes clients wait instead of losing them.
# With "soak" as its argument, the full sizes.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/load.sh"

addresses=(127.0.0.1:4000 '[::1]:4000')
text=(--expect 'This is a test\n')

boot
install_greeter
run systemctl start greeter.socket

# As many at once as come in a second, so that those who wait while the service
# is away keep none from coming.
under_load() {
	load_begin load "${addresses[@]}" "${text[@]}" --rate 2500 --at-once 3000 --timeout 60 --for 600
}

# A load that ends, and that was one: at least 2,000 clients a second.
expect_load() {
	load_end load
	expect_none_lost load
	expect_rate 2000
}

expect_rate() {
	[[ $(reported load greetings_per_second) -ge $1 ]] || fail "the load was no load: $(cat "$machine/load")"
}

settings() {
	write /etc/greeter/greeter.toml.d/50-test.toml
}

# The settings and the unit as they come, and a fresh start.
as_shipped() {
	rm -rf "$machine/root/etc/greeter/greeter.toml.d" "$machine/root/etc/systemd/system/greeter.service.d"
	run systemctl daemon-reload
	run systemctl stop --no-warn greeter.service
}

check "50 restarts under load lose no client"
under_load
for _ in {1..50}; do run systemctl restart greeter.service; done
expect_load

check "50 reloads under load lose no client"
under_load
for _ in {1..50}; do run systemctl reload greeter.service; done
expect_load
expect 50 grep -c . < <(journal --unit=greeter.service MESSAGE_ID=d199e71bb35344f7afb51cad54551f7e)

check "settings that turn wrong and right again under load lose no client"
under_load
for _ in {1..5}; do
	settings <<<'mesage = "x"'
	run systemctl reload greeter.service
	settings <<<'message = "This is a test"'
	run systemctl reload greeter.service
done
expect_load
expect 5 grep -c . < <(journal --unit=greeter.service MESSAGE_ID=48b5678f1a3b4f7d9c085d591f46dbd7)
as_shipped

# A client is accepted and greeted in one turn, so a kill can come between the
# two for one client. The others wait in the queue, or have their bytes and their
# end, as the kernel sends what was written.
check "20 kills under load lose one client each at most, the one just accepted"
under_load
back() { [[ $(property NRestarts greeter.service) == 1 && $(property ActiveState greeter.service) == active ]]; }
runs() { [[ $(property MainPID greeter.service) != 0 ]]; }
for _ in {1..20}; do
	# As if it were the first one, after which the service is back in 100 ms:
	# after more of them it waits ever longer, and the load with it.
	run systemctl reset-failed greeter.service
	expect_within 15 runs
	run systemctl kill --signal=KILL greeter.service
	expect_within 15 back
done
load_end load
started=$(reported load started) greeted=$(reported load greeted)
figure "$started clients, $(reported load greetings_per_second) a second, 20 kills: $((started - greeted)) lost"
[[ $((started - greeted)) -le 20 ]] || fail "clients were lost: $(cat "$machine/load")"
for way in mismatched refused timeout failed; do
	[[ $(reported load $way) = 0 ]] || fail "clients were lost otherwise: $(cat "$machine/load")"
done
expect_rate 2000
expect_nothing_failed
as_shipped

check "out of descriptors: the others wait, the CPU rests, one warning, all are greeted"
# To tell the watchdog takes a descriptor, too: it must not be the last one.
write /etc/systemd/system/greeter.service.d/50-test.conf <<<$'[Service]\nLimitNOFILE=64\nWatchdogSec=2s'
settings <<<$'[limits]\nlinger_timeout = "2min"'
run systemctl daemon-reload
# Who holds on takes every descriptor that is to be had, and the head of both queues.
hold_begin holders 160 "${addresses[@]}"
load_begin load "${addresses[@]}" "${text[@]}" --clients 1000 --at-once 1000 --timeout 120
sleep 1
before=$(cpu_of greeter.service)
sleep 5
spent=$(($(cpu_of greeter.service) - before))
figure "1,000 clients wait, which costs $((spent / 5)) µs of CPU a second"
# A loop that spins would take all of a CPU.
[[ $spent -lt 100000 ]] || fail "$spent µs of CPU in 5 s"
[[ ! -s $machine/load ]] || fail "nobody waited: $(cat "$machine/load")"
load_end holders
load_wait load
expect_none_lost load
expect 1000 reported load greeted
journal --unit=greeter.service MESSAGE_ID=523dbde4cfd44f7e919ff3c5502f8ea1 >"$machine/said"
expect 1 grep -c . "$machine/said"
expect_match '"PRIORITY" ?: ?"4"' cat "$machine/said"
expect "" journal --unit=greeter.service MESSAGE_ID=74383caa08ae46deb1f82efa628fe9f9
expect 0 property NRestarts greeter.service
as_shipped

# Each client comes just when the service is about to end.
idle() {
	local timeout=$1 per_second=$2 seconds=$3 since ended
	settings <<<$'[limits]\nidle_timeout = "'"$timeout"'"'
	since=$(cursor)
	load_begin load "${addresses[@]}" "${text[@]}" --rate "$per_second" --for "$seconds"
	load_wait load
	expect_none_lost load
	ended=$(journal --after-cursor="$since" --unit=greeter.service \
		MESSAGE_ID=e980b9712d9e4a96915da969057a041e | grep -c .) || :
	figure "the service ended as idle $ended times"
	[[ $ended -gt $((seconds / 10)) ]] || fail "it ended as idle $ended times in $seconds s"
	expect_nothing_failed
	as_shipped
}

check "idle_timeout of 1 s and a client each second: none is lost"
idle 1s 1 "$(so_many 8 120)"

check "idle_timeout of 250 ms and four clients a second: none is lost"
idle 250ms 4 "$(so_many 6 120)"

check "connections = 1024: the next clients wait until there is room, and none is refused"
settings <<<$'[limits]\nlinger_timeout = "2min"'
hold_begin holders 1024 "${addresses[@]}"
load_begin load "${addresses[@]}" "${text[@]}" --clients 200 --at-once 200 --timeout 60
sleep 2
[[ ! -s $machine/load ]] || fail "nobody waited: $(cat "$machine/load")"
sockets=$(run sh -c 'ls -l "/proc/$0/fd"' "$(property MainPID greeter.service)" | grep -c socket:)
figure "the service has $sockets sockets open"
# Its own beside the clients': two to listen, and those for signals and journal.
[[ $sockets -ge 1024 && $sockets -le 1040 ]] || fail "$sockets sockets are open"
load_end holders
load_wait load
expect_none_lost load
expect 200 reported load greeted
as_shipped

check "beside 10,000 clients that hold on the next one is answered as fast"
write /etc/systemd/system/greeter.service.d/50-test.conf <<<$'[Service]\nMemoryMax=infinity'
settings <<<$'[limits]\nconnections = 12000\nlinger_timeout = "2min"'
run systemctl daemon-reload
# The time in which half of the newcomers are at their end, in "$median".
newcomers() {
	load_begin load "${addresses[@]}" "${text[@]}" --clients 1000 --at-once 1 --timeout 60
	load_wait load
	expect_none_lost load
	median=$(sed 's/.*"end":{"p50":\([0-9]*\).*/\1/' "$machine/load")
}
# The first one starts the service.
expect $'This is a test\n' greeting 127.0.0.1:4000
newcomers
alone=$median
hold_begin holders 10000 "${addresses[@]}"
newcomers
figure "a newcomer is at its end within $alone µs alone, and within $median µs beside 10,000 (median)"
[[ $median -le $((alone * 3 + 1000)) ]] || fail "$median µs, and $alone µs alone"
load_end holders
expect 0 property NRestarts greeter.service
expect_nothing_failed
end_of_tests
