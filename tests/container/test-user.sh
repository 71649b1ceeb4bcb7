#!/bin/bash
# User units: an ordinary user has greeter in one command, without root, with
# settings, addresses and journal of their own, and after logging out too.
. "$(dirname "$0")/lib.sh"

boot
install_greeter
run useradd --create-home --shell /bin/bash alice

# What a user types, in a login of their own; the log shows what they see.
types() {
	printf '        alice$ %s\n' "${1//$'\n\t'/$'\n        > '}"
	run su --login alice --command "$1" </dev/null >"$machine/said" 2>&1 || fail "this failed: $1: $(cat "$machine/said")"
	sed 's/^/        /' "$machine/said"
}
says() { expect_match "$1" cat "$machine/said"; }

check "a user enables the socket with one command, and reads the greeting"
types 'systemctl --user enable --now greeter.socket'
says "Created symlink '/home/alice/.config/systemd/user/sockets.target.wants/greeter.socket'"
expect $'This is a test\n' greeting 127.0.0.1:4000
expect $'This is a test\n' greeting '[::1]:4000'
types 'systemctl --user is-enabled greeter.socket'
says '^enabled$'
# It is the user's process; the system's units are as they were.
expect_match . run pgrep --exact --uid alice greeter
expect_status 1 run systemctl is-enabled greeter.socket
expect_status 3 run systemctl is-active greeter.socket

check "settings under ~/.config/greeter/ change the greeting"
types 'mkdir --parents ~/.config/greeter/greeter.toml.d
	echo "message = \"alice greets {peer_addr}\"" >~/.config/greeter/greeter.toml.d/my.toml
	systemctl --user reload greeter.service'
expect $'alice greets 127.0.0.1\n' greeting 127.0.0.1:4000

check "a main file there stands above the system's; the user's drop-in is laid over it"
types 'printf "%s\n" "message = \"the main file\"" "[greeting.other]" "message = \"of other\"" >~/.config/greeter/greeter.toml
	systemctl --user reload greeter.service'
expect $'alice greets 127.0.0.1\n' greeting 127.0.0.1:4000
types 'rm ~/.config/greeter/greeter.toml.d/my.toml && systemctl --user reload greeter.service'
expect $'the main file\n' greeting 127.0.0.1:4000

check "the user sees beforehand what the service will say, as greeter(7) has it"
types 'CONFIGURATION_DIRECTORY=~/.config/greeter greeter --check'
says '^/home/alice/.config/greeter/greeter.toml: read$'
types 'CONFIGURATION_DIRECTORY=~/.config/greeter greeter --preview'
says '^the main file$'

check "wrong settings at a reload: the old ones stay, and the user's journal says why"
types 'echo "mesage = 1" >~/.config/greeter/greeter.toml.d/my.toml
	systemctl --user reload greeter.service'
expect $'the main file\n' greeting 127.0.0.1:4000
types 'journalctl --quiet --user --unit=greeter.service --priority=err --lines=1'
says "/home/alice/.config/greeter/greeter.toml.d/my.toml:1:1: unknown key 'mesage'"
types 'rm ~/.config/greeter/greeter.toml.d/my.toml'

check "the user reads the journal without being in a group for it"
run journalctl --sync
types 'journalctl --quiet --user --unit=greeter.service --output=cat'
says "^greeted 127\.0\.0\.1 port [0-9]+ on 'greeter', 15 bytes$"
types 'journalctl --quiet --user --identifier=greeter --output=verbose --lines=1 GREETER_RESULT=sent'
says '_SYSTEMD_USER_UNIT=greeter.service'
says 'GREETER_PEER=127\.0\.0\.1'
expect_match "greeted 127\.0\.0\.1" run journalctl --quiet --no-pager --identifier=greeter _SYSTEMD_USER_UNIT=greeter.service

check "other addresses, a Unix socket too, by 'systemctl --user edit'"
types 'systemctl --user edit --stdin greeter.socket <<-END
		[Socket]
		ListenStream=
		ListenStream=127.0.0.1:4444
		ListenStream=%t/greeter.sock
	END
	systemctl --user restart greeter.socket'
expect $'the main file\n' greeting 127.0.0.1:4444
expect $'the main file\n' greeting /run/user/1000/greeter.sock
closed 127.0.0.1:4000 || fail "port 4000 is still open"

check "a process for each client, both ways"
types 'systemctl --user enable --now greeter-accepted.socket greeter-inet.socket'
expect $'This socket was already accepted\n' greeting 127.0.0.1:4001
expect $'This socket was passed on stdin/stdout\n' greeting 127.0.0.1:4002
types 'mkdir --parents ~/.config/greeter
	echo "message = \"alice, once a client\"" | tee ~/.config/greeter/greeter-accepted.toml >~/.config/greeter/greeter-inet.toml'
expect $'alice, once a client\n' greeting 127.0.0.1:4001
expect $'alice, once a client\n' greeting 127.0.0.1:4002
run journalctl --sync
# Not by unit: of a user's process that has ended by then, journald no longer
# finds out the unit. (Of the system's, systemd tells it.)
types 'journalctl --quiet --user --identifier=greeter --output=cat'
says "^greeted 127\.0\.0\.1 port [0-9]+ on 'greeter-accepted', 33 bytes$"
says "^greeted 127\.0\.0\.1 port [0-9]+ on 'stdin', 39 bytes$"

check "nothing of the user's has failed"
types 'systemctl --user list-units --failed --plain --no-legend'
expect "" cat "$machine/said"
expect_nothing_failed

check "lingering, it is there after a reboot, before anybody logs in"
# Asked from within the machine's own control groups, by which logind tells who asks.
run systemd-run --quiet --wait --pipe loginctl enable-linger alice
run systemctl poweroff
wait "$supervisor" || fail "the machine did not power off: status $?"
boot
answers() { [[ $(greeting 127.0.0.1:4444 2>/dev/null) == "the main file" ]]; }
expect_within 30 answers
expect_status 1 run sh -c 'loginctl list-sessions --no-legend | grep -v " manager "'

check "switched off, the ports are closed and nothing runs"
types 'systemctl --user disable --now greeter.socket greeter-accepted.socket greeter-inet.socket'
says "Removed '/home/alice/.config/systemd/user/sockets.target.wants/greeter.socket'"
expect "" run ss --no-header --listening --tcp
expect_status 1 run pgrep --exact greeter
end_of_tests
