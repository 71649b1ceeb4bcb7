#!/bin/bash
# The user units: an ordinary user enables greeter with one command, without root, with
# separate settings, addresses and journal, also after logging out.
. "$(dirname "$0")/lib.sh"

boot
install_greeter
run useradd --create-home --shell /bin/bash alice

# Runs a command in a login session of the user, and shows the command and its output.
as_user() {
	printf '        alice$ %s\n' "${1//$'\n\t'/$'\n        > '}"
	run su --login alice --command "$1" </dev/null >"$container/output" 2>&1 || fail "failed: $1: $(cat "$container/output")"
	sed 's/^/        /' "$container/output"
}
expect_line() { expect_match "$1" cat "$container/output"; }

check "a user enables the socket with one command, and receives the greeting"
as_user 'systemctl --user enable --now greeter.socket'
expect_line "Created symlink '/home/alice/.config/systemd/user/sockets.target.wants/greeter.socket'"
expect $'This is a test\n' greeting 127.0.0.1:4000
expect $'This is a test\n' greeting '[::1]:4000'
as_user 'systemctl --user is-enabled greeter.socket'
expect_line '^enabled$'
# The process belongs to the user; the system's units are unchanged.
expect_match . run pgrep --exact --uid alice greeter
expect_status 1 run systemctl is-enabled greeter.socket
expect_status 3 run systemctl is-active greeter.socket

check "settings in ~/.config/greeter change the greeting"
as_user 'mkdir --parents ~/.config/greeter/greeter.toml.d
	echo "message = \"alice greets {peer_addr}\"" >~/.config/greeter/greeter.toml.d/my.toml
	systemctl --user reload greeter.service'
expect $'alice greets 127.0.0.1\n' greeting 127.0.0.1:4000

check "the user's main file takes precedence over the system's, and the user's drop-in over both"
as_user 'printf "%s\n" "message = \"the main file\"" "[greeting.other]" "message = \"of other\"" >~/.config/greeter/greeter.toml
	systemctl --user reload greeter.service'
expect $'alice greets 127.0.0.1\n' greeting 127.0.0.1:4000
as_user 'rm ~/.config/greeter/greeter.toml.d/my.toml && systemctl --user reload greeter.service'
expect $'the main file\n' greeting 127.0.0.1:4000

check "--check and --preview read the user's settings with CONFIGURATION_DIRECTORY, as in greeter(7)"
as_user 'greeter --check'
expect_line '^/home/alice/.config/greeter/greeter.toml: read$'
as_user 'greeter --preview'
expect_line '^the main file$'

check "a reload of invalid settings fails and keeps the current ones, and the user's journal has the error"
as_user 'echo "mesage = 1" >~/.config/greeter/greeter.toml.d/my.toml
	! systemctl --user reload greeter.service 2>/dev/null'
expect $'the main file\n' greeting 127.0.0.1:4000
as_user 'journalctl --quiet --user --unit=greeter.service --identifier=greeter --priority=err --lines=1'
expect_line "/home/alice/.config/greeter/greeter.toml.d/my.toml:1:1: unknown key 'mesage'"
as_user 'rm ~/.config/greeter/greeter.toml.d/my.toml'

check "the user can read the journal without membership in a group"
run journalctl --sync
as_user 'journalctl --quiet --user --unit=greeter.service --output=cat'
expect_line "^greeted 127\.0\.0\.1 port [0-9]+ on 'greeter', 15 bytes$"
as_user 'journalctl --quiet --user --identifier=greeter --output=verbose --lines=1 GREETER_RESULT=sent'
expect_line '_SYSTEMD_USER_UNIT=greeter.service'
expect_line 'GREETER_PEER=127\.0\.0\.1'
expect_match "greeted 127\.0\.0\.1" run journalctl --quiet --no-pager --identifier=greeter _SYSTEMD_USER_UNIT=greeter.service

check "'systemctl --user edit' changes the addresses, also to a Unix socket"
as_user 'systemctl --user edit --stdin greeter.socket <<-END
		[Socket]
		ListenStream=
		ListenStream=127.0.0.1:4444
		ListenStream=%t/greeter.sock
	END
	systemctl --user restart greeter.socket'
expect $'the main file\n' greeting 127.0.0.1:4444
expect $'the main file\n' greeting /run/user/1000/greeter.sock
is_closed 127.0.0.1:4000 || fail "port 4000 is still open"

check "both modes with one process per connection"
as_user 'systemctl --user enable --now greeter-accepted.socket greeter-inet.socket'
expect $'This socket was already accepted\n' greeting 127.0.0.1:4001
expect $'This socket was passed on stdin/stdout\n' greeting 127.0.0.1:4002
as_user 'mkdir --parents ~/.config/greeter
	echo "message = \"alice, once per client\"" | tee ~/.config/greeter/greeter-accepted.toml >~/.config/greeter/greeter-inet.toml'
expect $'alice, once per client\n' greeting 127.0.0.1:4001
expect $'alice, once per client\n' greeting 127.0.0.1:4002
run journalctl --sync
# Not by unit: once a user's process has exited, journald cannot determine its unit.
# (systemd informs it only about the units of the system.)
as_user 'journalctl --quiet --user --identifier=greeter --output=cat'
expect_line "^greeted 127\.0\.0\.1 port [0-9]+ on 'greeter-accepted', 33 bytes$"
expect_line "^greeted 127\.0\.0\.1 port [0-9]+ on 'stdin', 39 bytes$"

check "an instance on a port above 1023, with a greeting of its own"
as_user 'systemctl --user enable --now greeter@2525.socket
	printf "%s\n" "[greeting.2525]" "message = \"port {socket}\"" >~/.config/greeter/greeter.toml.d/2525.toml'
expect_line "Created symlink '/home/alice/.config/systemd/user/sockets.target.wants/greeter@2525.socket'"
for address in 127.0.0.1 '[::1]'; do expect $'port 2525\n' greeting "$address:2525"; done
expect $'the main file\n' greeting 127.0.0.1:4444
as_user 'systemctl --user show --value --property=MainPID greeter@2525.service'
expect alice run stat --format=%U "/proc/$(tail -n 1 "$container/output" | tr -d ' ')"

check "none of the user's units has failed"
as_user 'systemctl --user list-units --failed --plain --no-legend'
expect "" cat "$container/output"
expect_nothing_failed

check "with lingering enabled, greeter starts at boot, before any login"
# Run in a unit of the container: logind identifies the caller by its control group.
run systemd-run --quiet --wait --pipe loginctl enable-linger alice
run systemctl poweroff
wait "$nspawn_pid" || fail "the container did not power off: status $?"
boot
answers() { [[ $(greeting 127.0.0.1:4444 2>/dev/null) == "the main file" ]]; }
expect_within 30 answers
expect $'port 2525\n' greeting 127.0.0.1:2525
expect_status 1 run sh -c 'loginctl list-sessions --no-legend | grep -v " manager "'

check "after 'disable --now' the ports are closed and no process runs"
as_user 'systemctl --user disable --now greeter.socket greeter-accepted.socket greeter-inet.socket greeter@2525.socket'
expect_line "Removed '/home/alice/.config/systemd/user/sockets.target.wants/greeter.socket'"
expect "" run ss --no-header --listening --tcp
expect_status 1 run pgrep --exact greeter
end_of_tests
