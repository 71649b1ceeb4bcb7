#!/bin/bash
# Another release of Debian, with an older or newer systemd: the package of Debian 13
# installs, all modes greet, and a reload is applied or fails.
#   tests/container/test-releases.sh [bookworm|trixie|testing]
. "$(dirname "$0")/arguments.sh" bookworm "$@"
image=release-$SUITE packages="binutils"
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/intruder.sh"

# What older versions of systemd do not know, and ignore.
unknown="Unknown key '(RestartSteps|RestartMaxDelaySec|BindLogSockets|PollLimitIntervalSec|PollLimitBurst)'\
|Failed to parse service type, ignoring: notify-reload|Failed to parse boolean value, ignoring: disconnected"

boot
note() { printf '   %s\n' "$*"; }
note "$(run systemctl --version | head -n 1)"
systemd=$(run systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
[[ $systemd -lt 257 ]] || unknown='^$'

check "apt installs the package"
install_greeter
note "glibc $(run ldd --version | sed -n '1s/.* //p'), the program needs $(run objdump -T /usr/bin/greeter |
	grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)"
run systemctl enable --quiet --now greeter.socket greeter-accepted.socket greeter-inet.socket

check "all three modes greet"
for address in 127.0.0.1 '[::1]'; do
	expect $'This is a test\n' greeting "$address:4000"
	expect $'This socket was already accepted\n' greeting "$address:4001"
	expect $'This socket was passed on stdin/stdout\n' greeting "$address:4002"
done
expect_within 10 no_instances
expect_nothing_failed

check "the units are valid, but for settings that this systemd does not know"
for unit in greeter.socket greeter.service greeter-accepted.socket greeter-accepted@1.service \
	greeter-inet.socket greeter-inet@1.service greeter@25.socket greeter@25.service; do
	run sh -c "systemd-analyze verify --man=no $unit 2>&1 || true
		XDG_RUNTIME_DIR=/run systemd-analyze verify --user --man=no /usr/lib/systemd/user/$unit 2>&1 || true" \
		>"$container/verify"
	expect "" eval "grep -vE \"$unknown\" '$container/verify' || true"
done
for unit in greeter.service greeter@25.service greeter-accepted@1.service greeter-inet@1.service; do
	expect_status 0 run systemd-analyze security --no-pager --threshold=2 "$unit"
done

check "nothing of the host is visible to a service but /usr, the settings and two sockets of systemd"
expect_status 0 run systemctl start greeter@2525.socket
expect $'This is a test\n' greeting 127.0.0.1:2525
for unit in greeter.service greeter@2525.service; do
	expect $'/run/systemd/notify\n' eval "visible $(property MainPID "$unit") | grep -v '^/run/systemd/journal/'"
done
run systemctl stop greeter@2525.socket
run greeter-load 127.0.0.1:4001 127.0.0.1:4002 --clients 2 --at-once 2 --hold --for 5 >/dev/null &
load=$!
two_instances() { [[ $(run pgrep --count --full -- '--config greeter-(accepted|inet)$') == 2 ]]; }
expect_within 10 two_instances
for pid in $(run pgrep --full -- '--config greeter-(accepted|inet)$'); do expect "" visible "$pid"; done
wait "$load" || true
expect_within 30 no_instances

check "the services run as a dynamic user"
user=$(run stat --format=%u "/proc/$(property MainPID greeter.service)")
[[ $user -ge 61184 && $user -le 65519 ]] || fail "$user is not the ID of a dynamic user"
expect_status 0 run sh -c '! getent passwd greeter'

check "a reload with invalid settings fails and changes nothing"
pid=$(property MainPID greeter.service)
echo 'mesage = "x"' | write /etc/greeter/greeter.toml.d/50-test.toml
expect_status 1 run systemctl reload greeter.service
expect "$pid" property MainPID greeter.service
expect active run systemctl is-active greeter.service
expect $'This is a test\n' greeting 127.0.0.1:4000
expect_match "reload failed: /etc/greeter/greeter.toml.d/50-test.toml:1:1: unknown key 'mesage'; did you mean 'message'" \
	property StatusText greeter.service
# One message, from the service, and none from the process that validated.
expect 1 eval 'journal SYSLOG_IDENTIFIER=greeter PRIORITY=3 | grep -c .'
expect 1 eval 'journal MESSAGE_ID=48b5678f1a3b4f7d9c085d591f46dbd7 PRIORITY=3 | grep -c .'

check "100 valid reloads: the next client gets the new greeting, one line each"
expect "" run sh -euc '
	for number in $(seq 100); do
		echo "message = \"$number\"" >/etc/greeter/greeter.toml.d/50-test.toml
		systemctl reload greeter.service
		greeting=$(socat -u -T 30 TCP:127.0.0.1:4000 -)
		[ "$greeting" = "$number" ] || echo "$greeting after $number"
	done'
expect "$pid" property MainPID greeter.service
expect 100 eval 'journal MESSAGE_ID=d199e71bb35344f7afb51cad54551f7e | grep -c .'

check "an instance: greeted over IPv4 and IPv6, an invalid reload fails, a valid one is applied"
run systemctl enable --quiet --now greeter@25.socket
for address in 127.0.0.1 '[::1]'; do expect 100 greeting "$address:25"; done
pid=$(property MainPID greeter@25.service)
echo 'mesage = "x"' | write /etc/greeter/greeter.toml.d/50-test.toml
expect_status 1 run systemctl reload greeter@25.service
expect 100 greeting 127.0.0.1:25
expect_match "reload failed: /etc/greeter/greeter.toml.d/50-test.toml:1:1: unknown key 'mesage'" \
	property StatusText greeter@25.service
printf '%s\n' '[greeting.25]' 'message = "port {socket}"' | write /etc/greeter/greeter.toml.d/50-test.toml
run systemctl reload greeter@25.service
expect "port 25" greeting '[::1]:25'
expect "$pid" property MainPID greeter@25.service
# greeter.service, another process, was not reloaded.
expect 100 greeting 127.0.0.1:4000
run systemctl disable --quiet --now greeter@25.socket
expect_status 0 is_closed 127.0.0.1:25
expect_status 3 run systemctl is-active greeter@25.service
expect_nothing_failed

check "a start that fails has its reason in the status"
run systemctl stop greeter.service 2>/dev/null
echo 'mesage = "x"' | write /etc/greeter/greeter.toml.d/50-test.toml
run socat -u -T 60 TCP:127.0.0.1:4000 - >"$container/waiting" &
client=$!
expect_within 10 eval "property StatusText greeter.service | grep -q \"Failed: .*50-test.toml:1:1: unknown key 'mesage'\""
echo 'message = "repaired"' | write /etc/greeter/greeter.toml.d/50-test.toml
wait "$client"
expect repaired cat "$container/waiting"

check "the user units: an invalid reload fails, the next client after a valid one gets the new greeting"
run systemctl stop greeter.socket greeter-accepted.socket greeter-inet.socket
run rm /etc/greeter/greeter.toml.d/50-test.toml
run useradd --create-home --shell /bin/bash alice
as_user() { run su --login alice --command "set -e; $1"; }
as_user 'systemctl --user start greeter.socket
	mkdir -p .config/greeter/greeter.toml.d'
expect $'This is a test\n' greeting 127.0.0.1:4000
expect_status 1 as_user 'echo "mesage = 1" >.config/greeter/greeter.toml.d/50-test.toml
	systemctl --user reload greeter.service'
expect $'This is a test\n' greeting 127.0.0.1:4000
expect_match "reload failed: /home/alice/.config/greeter/greeter.toml.d/50-test.toml:1:1: unknown key 'mesage'" \
	as_user 'systemctl --user show --value --property=StatusText greeter.service'
expect "" as_user '
	for number in $(seq 20); do
		echo "message = \"$number\"" >.config/greeter/greeter.toml.d/50-test.toml
		systemctl --user reload greeter.service
		greeting=$(socat -u -T 30 TCP:127.0.0.1:4000 -)
		[ "$greeting" = "$number" ] || echo "$greeting after $number"
	done'
as_user 'systemctl --user stop greeter.socket greeter.service 2>/dev/null'

check "a program of an attacker in the place of greeter reaches nothing"
install_intruder
expect_unconfined
run systemctl start greeter.socket greeter-accepted.socket greeter-inet.socket greeter@2525.socket
for port in 4000 2525 4001 4002; do expect_confined "127.0.0.1:$port"; done
end_of_tests
