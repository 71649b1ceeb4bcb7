#!/bin/bash
# A process for each client: bursts of clients leave the machine answering and
# the sockets open, each client has its line in the journal, and what one costs.
# With "soak" as its argument, the full sizes.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/load.sh"

boot
install_greeter
run systemctl start greeter-accepted.socket greeter-inet.socket

# Asks systemd five times a second, and writes what the slowest answer took, in
# milliseconds, until its file is removed.
write /root/ask <<'END'
#!/bin/bash
slowest=0
while [[ -e /root/asking ]]; do
	began=${EPOCHREALTIME/./}
	systemctl is-active --quiet greeter-accepted.socket greeter-inet.socket || echo "a socket is not active"
	took=$(((${EPOCHREALTIME/./} - began) / 1000))
	((took <= slowest)) || slowest=$took
	sleep 0.2
done
echo "$slowest"
END

bursts=$(so_many 1 20)
check "bursts of 500 clients at once, in each mode: greeted, or cleanly ended at the limit"
first=$(cursor)
touch "$machine/root/root/asking"
run bash /root/ask >"$machine/slowest" &
asking=$!
greeted=0 turned_away=0
for ((n = 0; n < bursts; n++)); do
	since=$(cursor) latest=0
	for port in 4001 4002; do
		load_begin load "127.0.0.1:$port" --clients 500 --at-once 500 --allow-empty --timeout 120
		load_wait load
		[[ $load_status = 0 ]] || fail "clients were lost: $(cat "$machine/load")"
		latest=$((latest + $(reported load greeted)))
		turned_away=$((turned_away + $(reported load empty)))
	done
	greeted=$((greeted + latest))
done
rm "$machine/root/root/asking"
wait "$asking"
figure "$((bursts * 1000)) clients: $greeted greeted, $turned_away turned away, 0 lost"
[[ $((greeted + turned_away)) = $((bursts * 1000)) && $greeted -gt $((bursts * 500)) ]] || fail "too few were greeted"

check "meanwhile systemctl answers within a second, and the sockets stay active"
figure "the slowest answer took $(cat "$machine/slowest") ms"
expect_match '^[0-9]+$' cat "$machine/slowest"
[[ $(cat "$machine/slowest") -lt 1000 ]] || fail "it took $(cat "$machine/slowest") ms"
expect "active"$'\n'"active" run systemctl is-active greeter-accepted.socket greeter-inet.socket

check "each client has its line under journalctl -u 'greeter*', and no instance failed"
no_instance() { [[ -z $(run systemctl list-units --plain --no-legend --all 'greeter-*@*') ]]; }
expect_within 60 no_instance
journal --after-cursor="$first" --identifier=greeter PRIORITY=5 >"$machine/entries"
expect "$greeted" grep -c '"greeted ' "$machine/entries"
# By their units only those of the last burst: with tens of thousands of names to
# look for, journalctl takes many minutes.
journal --after-cursor="$since" --unit='greeter*' --identifier=greeter PRIORITY=5 >"$machine/entries"
figure "$(grep -c '"greeted ' <"$machine/entries") lines"
expect "$latest" grep -c '"greeted ' "$machine/entries"
# A failed instance is not kept, but the journal would know.
expect_nothing_failed
expect "" journal --after-cursor="$first" --identifier=greeter --identifier=systemd --priority=warning

# What PID 1 and its children, which it waits for, use up for a client that comes
# when no other is there.
cost() {
	local before
	before=$(cpu_of_systemd)
	load_begin cost "127.0.0.1:$1" --clients 60 --at-once 1 --rate 25 --timeout 60
	load_wait cost
	expect_none_lost cost
	expect_within 30 no_instance
	cost=$((($(cpu_of_systemd) - before) / 60))
}

# The same program and the same way to start it without a sandbox, as a measure
# of the machine that this runs on.
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
User=greeter
LogLevelMax=notice
END
run systemctl daemon-reload
run systemctl start greeter-bare.socket

check "what a client costs in CPU, systemd and the process together"
declare -A lowest
# In turns, and the lowest of each: whatever else runs only adds to it.
for _ in {1..4}; do
	for mode in bare:4009 accepted:4001 inet:4002; do
		cost "${mode#*:}"
		[[ -n ${lowest[${mode%:*}]-} && ${lowest[${mode%:*}]} -le $cost ]] || lowest[${mode%:*}]=$cost
	done
done
for mode in accepted inet; do
	figure "$mode: ${lowest[$mode]} µs with the sandbox, ${lowest[bare]} µs without one"
	[[ ${lowest[$mode]} -lt 60000 ]] || fail "$mode: ${lowest[$mode]} µs"
	[[ $((lowest[$mode] * 10)) -lt $((lowest[bare] * 26)) ]] || fail "$mode: more than 2.6 times as much"
done
end_of_tests
