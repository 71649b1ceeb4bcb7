#!/bin/bash
# The three modes under a real systemd: the exact greeting over IPv4, IPv6 and Unix
# sockets; many clients each, silent ones and ones that send data first, none lost and
# none reset; and the status text and journal entries. With one process for all, 1,000
# clients; with one process per connection that takes two minutes of CPU, so there it is
# 1,000 clients only with the argument "soak".
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/load.sh"

boot
install_greeter

# Unix sockets in addition to the TCP ones, in drop-ins as users write them.
for name in greeter greeter-accepted greeter-inet; do
	write "/etc/systemd/system/$name.socket.d/unix.conf" <<-END
		[Socket]
		ListenStream=/run/$name.sock
	END
done
run systemctl daemon-reload

# Runs curl, which sends data first and reports a reset, for each address. Prints the
# results that differ from the expected text without an error.
write /root/run-curl <<'END'
#!/bin/sh
expected="$1
status 0"
shift
for address; do
	result=$(curl --http0.9 --silent --show-error --max-time 60 "http://$address/" 2>&1; echo "status $?")
	[ "$result" = "$expected" ] || echo "$address: $result"
done
END

# The port and greeting of each unit.
declare -A port=([greeter]=4000 [greeter-accepted]=4001 [greeter-inet]=4002)
declare -A text=(
	[greeter]="This is a test"
	[greeter-accepted]="This socket was already accepted"
	[greeter-inet]="This socket was passed on stdin/stdout"
)

silent_clients() {
	expect_status 0 run greeter-load "127.0.0.1:${port[$1]}" "[::1]:${port[$1]}" "/run/$1.sock" \
		--clients "$clients" --at-once 32 --timeout 60 --expect "${text[$1]}\\n"
}
curl_clients() {
	expect "" run sh -c 'seq $0 | xargs -P 8 -I{} sh /root/run-curl "$@"' $((clients / 2)) \
		"${text[$1]}" "127.0.0.1:${port[$1]}" "[::1]:${port[$1]}"
}
# for_each_unit FUNCTION UNIT...: runs the function for all units in parallel.
for_each_unit() {
	local unit job jobs=()
	for unit in "${@:2}"; do
		"$1" "$unit" &
		jobs+=($!)
	done
	for job in "${jobs[@]}"; do wait "$job"; done
}

test_units() {
	local unit

	check "$*: enabled by one command, and stays enabled"
	run systemctl enable --quiet --now "${@/%/.socket}"
	for unit; do
		expect enabled run systemctl is-enabled "$unit.socket"
		expect active run systemctl is-active "$unit.socket"
	done

	check "$*: exact greeting over IPv4, IPv6 and a Unix socket"
	for unit; do
		expect "${text[$unit]}"$'\n' greeting "127.0.0.1:${port[$unit]}"
		expect "${text[$unit]}"$'\n' greeting "[::1]:${port[$unit]}"
		expect "${text[$unit]}"$'\n' greeting "/run/$unit.sock"
	done

	check "$*: $clients silent clients each, no connection lost"
	for_each_unit silent_clients "$@"

	check "$*: $clients curl clients each, which send data first, without an error"
	for_each_unit curl_clients "$@"

	check "$*: no unit failed, and the sockets are still active"
	expect_nothing_failed
	for unit; do expect active run systemctl is-active "$unit.socket"; done
}

clients=1000
test_units greeter

check "greeter: 'systemctl status' shows the status text, at most one second old"
sleep 1.5
expect_match 'Status: "2,003 greetings sent, 0 open connections; last client ' run systemctl status --no-pager greeter.service

check "greeter: journal entries have every field"
expect $'This is a test\n' greeting 127.0.0.1:4000
journal --unit=greeter.service GREETER_RESULT=sent --lines=1 >"$container/entry"
for field in '"MESSAGE_ID":"b3dee68698274abda6d4503f22a2407f"' '"GREETER_MODE":"accept"' \
	'"GREETER_SOCKET":"greeter"' '"GREETER_PEER":"127.0.0.1"' '"GREETER_PEER_PORT":"[0-9]+"' \
	'"GREETER_LOCAL":"127.0.0.1:4000"' '"GREETER_BYTES":"15"' '"GREETER_DURATION_USEC":"[0-9]+"' \
	'"SYSLOG_IDENTIFIER":"greeter"' '"PRIORITY":"5"'; do
	expect_match "$field" sed 's/" : "/":"/g' "$container/entry"
done
expect_match '.' run journalctl --quiet --no-pager --identifier=greeter --lines=1

check "greeter: 'journalctl --catalog' explains an entry"
expect_match 'Subject: Connection: sent' run journalctl --quiet --no-pager --catalog --unit=greeter.service --lines=1 GREETER_RESULT=sent

# Two units in parallel, because each uses most of one CPU.
clients=$(size 200 1000)
test_units greeter-accepted greeter-inet

check "one line per client under 'journalctl -u greeter-…@*', with the identifier 'greeter'"
for mode in accepted inet; do
	journal --unit="greeter-$mode@*" --identifier=greeter PRIORITY=5 >"$container/entries"
	expect $((3 + 2 * clients)) grep -c . "$container/entries"
done

check "no instance remains"
expect_within 30 no_instances

check "the paths of Unix sockets are removed when the sockets stop"
run systemctl stop greeter.socket greeter-accepted.socket greeter-inet.socket
expect "" run find /run -maxdepth 1 -name 'greeter*.sock'
end_of_tests
