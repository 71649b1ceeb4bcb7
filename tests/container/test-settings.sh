#!/bin/bash
# Invalid settings, in each mode: exit status 78, one journal line with the position and
# a fix, and an orderly close for the client; and the socket stays open, so that waiting
# clients are served once the file is fixed.
. "$(dirname "$0")/lib.sh"

boot
install_greeter

# UNIT:MODE:OTHER: a unit, its mode, and a mode that does not match its socket.
units="greeter:accept:inet greeter-accepted:accepted:accept greeter-inet:inet:accept"

# The text of a drop-in, and a pattern that the journal line about it matches, with its
# position. FILE is the drop-in, SOCKET the socket unit.
invalid_settings() {
	cat <<-'END'
		mesage = "x"                            # FILE:1:1: unknown key 'mesage'; did you mean 'message'
		message = 3                             # FILE:1:11: invalid value 3 for 'message': expected a string
		[limits]\nwrite_timeout = "soon"        # FILE:2:17: invalid value .*soon.* for 'write_timeout': expected a duration in quotes
		message = "a"\nmessage_file = "b"       # FILE:2:16: both 'message' and 'message_file' are set; remove one of the two
		message_file = "/etc/greeter/absent"    # FILE:1:16: file '/etc/greeter/absent' not found; create it
		port = 25                               # FILE:1:1: unknown key 'port'; .*systemctl edit SOCKET
		message = "unended                      # FILE:1:[0-9]+: invalid TOML: .*; check the syntax
		mode = "OTHER"                          # FILE:1:.* mode = .*OTHER.* does not match the socket \(mode .*MODE.*\); set mode = .*MODE
	END
}

# The error lines of greeter since a cursor.
error_lines() {
	journal --after-cursor="$1" --identifier=greeter PRIORITY=3 |
		sed -E 's/.*"MESSAGE" ?: ?"(([^"\\]|\\.)*)".*/\1/'
}

for entry in $units; do
	IFS=: read -r unit mode other <<<"$entry"
	drop_in=/etc/greeter/$unit.toml.d/50-invalid.toml
	run systemctl start "$unit.socket"
	case $mode in
		accept) port=4000 ;;
		accepted) port=4001 ;;
		inet) port=4002 ;;
	esac
	while IFS= read -r line; do
		text=${line%%  *#*} pattern=${line#*\# }
		text=${text//OTHER/$other}
		pattern=${pattern//OTHER/$other}
		pattern=${pattern//MODE/$mode}
		pattern=${pattern//FILE/$drop_in}
		pattern=${pattern//SOCKET/$unit.socket}

		check "$mode: $text"
		printf '%b\n' "$text" | write "$drop_in"
		since=$(journal_cursor)
		if [[ $mode == accept ]]; then
			# The client waits while systemd restarts the service.
			greeting "127.0.0.1:$port" >"$container/client" &
			client=$!
			exited_with_78() { [[ $(property ExecMainStatus "$unit.service") == 78 ]]; }
			expect_within 10 exited_with_78
			rm "$container/root$drop_in"
			wait "$client" || fail "the waiting client exited with $?"
			expect $'This is a test\n' cat "$container/client"
			# Each attempt logged the same line.
			error_lines "$since" | uniq >"$container/errors"
			run systemctl stop --no-warn "$unit.service"
			run systemctl reset-failed
		else
			expect "" greeting "127.0.0.1:$port"
			rm "$container/root$drop_in"
			error_lines "$since" >"$container/errors"
			expect_match . journal --after-cursor="$since" EXIT_STATUS=78
		fi
		expect 1 grep -c . "$container/errors"
		expect_match "$pattern" cat "$container/errors"
		expect active run systemctl is-active "$unit.socket"
		expect_nothing_failed
	done < <(invalid_settings)
done

check "a settings file means the same with the package as with other versions of the crates"
copy_in "$repository/tests/settings-language" /root
expect_match ' rows, 0 differences$' run /root/settings-language /usr/bin/greeter

check "a reload of invalid settings fails and keeps the current ones"
expect $'This is a test\n' greeting 127.0.0.1:4000
write /etc/greeter/greeter.toml.d/50-test.toml <<<'mesage = "x"'
expect_status 1 run systemctl reload greeter.service
expect $'This is a test\n' greeting 127.0.0.1:4000
journal --unit=greeter.service MESSAGE_ID=48b5678f1a3b4f7d9c085d591f46dbd7 >"$container/errors"
expect 1 grep -c "'mesage'" "$container/errors"
expect_match 'Status: ".*; reload failed: .*50-test.toml' run systemctl status --no-pager greeter.service

check "a port that systemd would read as octal, hexadecimal or binary is refused"
for instance in 025 0x19 0o31 0b11001; do
	expect_status 1 run systemctl start "greeter@$instance.socket"
	expect_match 'write the port without leading zeros, as in greeter@25.socket' \
		run journalctl --no-pager --boot --unit="greeter@$instance.socket"
done
[[ -z $(run ss --no-header --listening --tcp --numeric 'sport = :21 or sport = :25') ]] || fail "a port is open"
run systemctl reset-failed

check "a reload applies new settings to new connections"
write /etc/greeter/greeter.toml.d/50-test.toml <<<'message = "changed"'
run systemctl reload greeter.service
expect $'changed\n' greeting 127.0.0.1:4000
end_of_tests
