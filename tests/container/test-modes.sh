#!/bin/bash
# The three modes under a real systemd: the exact greeting over IPv4, IPv6 and
# Unix sockets, many clients each, silent and talking, none lost and none reset;
# and what status and journal say of it. A thousand clients where one process
# serves them all; where each is a process of its own that takes two minutes of
# a machine's time, so there it is a thousand with "soak" as the argument.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/load.sh"

boot
install_greeter

# Unix sockets beside the TCP ones, by drop-ins as users write them.
for name in greeter greeter-accepted greeter-inet; do
	write "/etc/systemd/system/$name.socket.d/unix.conf" <<-END
		[Socket]
		ListenStream=/run/$name.sock
		RemoveOnStop=yes
	END
done
run systemctl daemon-reload

# A program that speaks first and complains of a reset. It prints nothing where
# each of the addresses gave it the text and no error.
write /root/talk <<'END'
#!/bin/sh
text="$1
status 0"
shift
for address; do
	said=$(curl --http0.9 --silent --show-error --max-time 60 "http://$address/" 2>&1; echo "status $?")
	[ "$said" = "$text" ] || echo "$address: $said"
done
END

# Of each unit: its port and its greeting.
declare -A port=([greeter]=4000 [greeter-accepted]=4001 [greeter-inet]=4002)
declare -A text=(
	[greeter]="This is a test"
	[greeter-accepted]="This socket was already accepted"
	[greeter-inet]="This socket was passed on stdin/stdout"
)

silent() {
	expect_status 0 run greeter-load "127.0.0.1:${port[$1]}" "[::1]:${port[$1]}" "/run/$1.sock" \
		--clients "$clients" --at-once 32 --timeout 60 --expect "${text[$1]}\\n"
}
talking() {
	expect "" run sh -c 'seq $0 | xargs -P 8 -I{} sh /root/talk "$@"' $((clients / 2)) \
		"${text[$1]}" "127.0.0.1:${port[$1]}" "[::1]:${port[$1]}"
}
# The same for each of several units, all at once.
each_at_once() {
	local job jobs=()
	for unit in "${@:2}"; do
		"$1" "$unit" &
		jobs+=($!)
	done
	for job in "${jobs[@]}"; do wait "$job"; done
}

greet() {
	local unit

	check "$*: enabled by one command, and stays so"
	run systemctl enable --quiet --now "${@/%/.socket}"
	for unit; do
		expect enabled run systemctl is-enabled "$unit.socket"
		expect active run systemctl is-active "$unit.socket"
	done

	check "$*: the exact greeting over IPv4, IPv6 and a Unix socket"
	for unit; do
		expect "${text[$unit]}"$'\n' greeting "127.0.0.1:${port[$unit]}"
		expect "${text[$unit]}"$'\n' greeting "[::1]:${port[$unit]}"
		expect "${text[$unit]}"$'\n' greeting "/run/$unit.sock"
	done

	check "$*: $clients silent clients each, none lost"
	each_at_once silent "$@"

	check "$*: $clients times curl each, which speaks first, without an error"
	each_at_once talking "$@"

	check "$*: no failed unit is left, and the sockets are as they were"
	expect_nothing_failed
	for unit; do expect active run systemctl is-active "$unit.socket"; done
}

clients=1000
greet greeter

check "greeter: 'systemctl status' shows the status text, at most a second old"
sleep 1.5
expect_match 'Status: "Greeted 2,003, 0 connected; last ' run systemctl status --no-pager greeter.service

check "greeter: the journal has fields to search by"
expect $'This is a test\n' greeting 127.0.0.1:4000
journal --unit=greeter.service GREETER_RESULT=sent --lines=1 >"$machine/entry"
for field in '"MESSAGE_ID":"b3dee68698274abda6d4503f22a2407f"' '"GREETER_MODE":"accept"' \
	'"GREETER_SOCKET":"greeter"' '"GREETER_PEER":"127.0.0.1"' '"GREETER_PEER_PORT":"[0-9]+"' \
	'"GREETER_LOCAL":"127.0.0.1:4000"' '"GREETER_BYTES":"15"' '"GREETER_DURATION_USEC":"[0-9]+"' \
	'"SYSLOG_IDENTIFIER":"greeter"' '"PRIORITY":"5"'; do
	expect_match "$field" sed 's/" : "/":"/g' "$machine/entry"
done
expect_match '.' run journalctl --quiet --no-pager --identifier=greeter --lines=1

check "greeter: 'journalctl --catalog' explains a line"
expect_match 'Subject: A client came: sent' run journalctl --quiet --no-pager --catalog --unit=greeter.service --lines=1 GREETER_RESULT=sent

# Two at once, as both take most of a core.
clients=$(so_many 200 1000)
greet greeter-accepted greeter-inet

check "one line a client under 'journalctl -u greeter-…@*', named 'greeter', none lost"
for mode in accepted inet; do
	journal --unit="greeter-$mode@*" --identifier=greeter PRIORITY=5 >"$machine/entries"
	expect $((3 + 2 * clients)) grep -c . "$machine/entries"
done

check "no instance is left behind"
no_instance() { [[ -z $(run systemctl list-units --plain --no-legend --all 'greeter-*@*') ]]; }
expect_within 30 no_instance
end_of_tests
