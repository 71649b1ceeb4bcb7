#!/bin/bash
# Wrong settings, in each mode: status 78, one line in the journal that says
# where and what to do, and a clean end for the client; and that the socket
# outlives it, so that those who wait are served once the file is mended.
. "$(dirname "$0")/lib.sh"

boot
install_greeter

# NAME of a unit; MODE; a mode that does not fit its socket.
units="greeter:accept:inet greeter-accepted:accepted:accept greeter-inet:inet:accept"

# What is written into a drop-in, and what the line in the journal says of it,
# FILE being the drop-in; of each fault the place too.
faults() {
	cat <<-'END'
		mesage = "x"                            # FILE:1:1: unknown key 'mesage'; did you mean 'message'
		message = 3                             # FILE:1:11: 3 is no value for 'message'; 'message' takes a string
		[limits]\nwrite_timeout = "soon"        # FILE:2:17: .*soon.* takes a duration in quotes
		message = "a"\nmessage_file = "b"       # FILE:2:16: both 'message' and 'message_file' are set; keep one
		message_file = "/etc/greeter/absent"    # FILE:1:16: no file '/etc/greeter/absent'; write it
		port = 25                               # FILE:1:1: unknown key 'port'; .*systemctl edit SOCKET
		message = "unended                      # FILE:1:[0-9]+: no TOML: .*; mend the line
		mode = "WRONG"                          # FILE:1:.* mode = .*WRONG.* does not fit the socket, .*; set mode = .*RIGHT
	END
}

# The lines about wrong settings or unfit sockets since a cursor.
complaints() {
	journal --after-cursor="$1" --identifier=greeter PRIORITY=3 |
		sed -E 's/.*"MESSAGE" ?: ?"(([^"\\]|\\.)*)".*/\1/'
}

cursor() {
	run journalctl --sync
	run journalctl --quiet --no-pager --lines=0 --show-cursor | sed -n 's/^-- cursor: //p'
}

for entry in $units; do
	IFS=: read -r unit mode unfit <<<"$entry"
	drop_in=/etc/greeter/$unit.toml.d/50-wrong.toml
	run systemctl start "$unit.socket"
	case $mode in
		accept) port=4000 ;;
		accepted) port=4001 ;;
		inet) port=4002 ;;
	esac
	while IFS= read -r line; do
		text=${line%%  *#*} pattern=${line#*\# }
		text=${text//WRONG/$unfit} pattern=${pattern//WRONG/$unfit} pattern=${pattern//RIGHT/$mode}
		pattern=${pattern//FILE/$drop_in} pattern=${pattern//SOCKET/$unit.socket}

		check "$mode: $text"
		printf '%b\n' "$text" | write "$drop_in"
		since=$(cursor)
		if [[ $mode == accept ]]; then
			# The client waits while systemd tries again and again.
			greeting "127.0.0.1:$port" >"$machine/client" &
			client=$!
			failed() { [[ $(run systemctl show --value --property=ExecMainStatus "$unit.service") == 78 ]]; }
			expect_within 10 failed
			rm "$machine/root$drop_in"
			wait "$client" || fail "the waiting client ended with status $?"
			expect $'This is a test\n' cat "$machine/client"
			# However often it was tried, it said the same each time.
			complaints "$since" | uniq >"$machine/said"
			run systemctl stop --no-warn "$unit.service"
			run systemctl reset-failed
		else
			expect "" greeting "127.0.0.1:$port"
			rm "$machine/root$drop_in"
			complaints "$since" >"$machine/said"
			expect_match . journal --after-cursor="$since" EXIT_STATUS=78
		fi
		expect 1 grep -c . "$machine/said"
		expect_match "$pattern" cat "$machine/said"
		expect active run systemctl is-active "$unit.socket"
		expect_nothing_failed
	done < <(faults)
done

check "reload keeps the old settings where the new ones are wrong"
expect $'This is a test\n' greeting 127.0.0.1:4000
write /etc/greeter/greeter.toml.d/50-wrong.toml <<<'mesage = "x"'
run systemctl reload greeter.service
expect $'This is a test\n' greeting 127.0.0.1:4000
journal --unit=greeter.service MESSAGE_ID=48b5678f1a3b4f7d9c085d591f46dbd7 >"$machine/said"
expect 1 grep -c "'mesage'" "$machine/said"
expect_match 'Status: ".*50-wrong.toml' run systemctl status --no-pager greeter.service

check "reload takes new settings, for new clients"
write /etc/greeter/greeter.toml.d/50-wrong.toml <<<'message = "changed"'
run systemctl reload greeter.service
expect $'changed\n' greeting 127.0.0.1:4000
end_of_tests
