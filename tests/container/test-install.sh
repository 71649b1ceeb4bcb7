#!/bin/bash
# Installation of the Debian package: it enables and starts nothing and opens no port,
# and the installed files and units are valid.
. "$(dirname "$0")/lib.sh"

sockets="greeter.socket greeter-accepted.socket greeter-inet.socket"
templates="greeter-accepted@.service greeter-inet@.service greeter@.socket greeter@.service"

boot

accounts=$(create_greetd_account greeter)
expect_match '^greeter:.*:/bin/bash$' echo "$accounts"

check "apt installs the package offline"
install_greeter
expect "ii " run dpkg-query --show --showformat='${db:Status-Abbrev}' greeter

check "the root directory of the services exists and is empty"
expect $'root 755\n' run stat --format='%U %a' /run/greeter-root
expect "" run ls -A /run/greeter-root

check "nothing is enabled, running or listening after the installation"
for unit in $sockets greeter.service; do
	expect_status 1 run systemctl is-enabled "$unit"
	[[ $output == disabled ]] || fail "$unit is '$output', not disabled"
	# The user service is "static": only its socket starts it.
	run systemctl --global is-enabled "$unit" >"$container/state" || :
	expect_match "^(disabled|static)$" cat "$container/state"
	expect_status 3 run systemctl is-active "$unit"
done
expect_status 1 run systemctl is-enabled greeter@.socket greeter@25.socket greeter-tls@.socket greeter-tls@993.socket
expect_status 1 run systemctl --global is-enabled greeter@.socket greeter@2525.socket
expect "" run systemctl list-units --plain --no-legend --all 'greeter@*'
expect "" run ss --no-header --listening --tcp
expect_nothing_failed

check "presets enable nothing, also at the first boot of a new image"
expect "" run systemctl preset $sockets greeter.service greeter@.socket
expect "" run systemctl --global preset $sockets greeter@.socket
expect_status 1 run systemctl is-enabled $sockets greeter.service greeter@25.socket
expect_status 1 run systemctl --global is-enabled $sockets greeter@2525.socket

check "the package creates no account, and leaves that of greetd alone"
expect_status 2 run getent passwd _greeterd
expect_match '^u greeter - "Greeter daemon"' run cat /usr/lib/sysusers.d/greeter.conf
expect "$accounts" run cat /etc/passwd /etc/group

check "presets keep what an administrator has added"
run sh -c 'sed "s/4000/2525/" /usr/lib/systemd/system/greeter.socket >/etc/systemd/system/greeter-smtp.socket'
run systemctl daemon-reload
run systemctl enable --quiet greeter-smtp.socket greeter@2526.socket greeter-tls@2527.socket
run systemctl --global enable --quiet greeter@2526.socket
run systemctl preset-all --preset-mode=full >/dev/null 2>&1
run systemctl --global preset-all --preset-mode=full >/dev/null 2>&1
expect $'enabled\nenabled\nenabled' run systemctl is-enabled greeter-smtp.socket greeter@2526.socket greeter-tls@2527.socket
expect enabled run systemctl --global is-enabled greeter@2526.socket
for unit in $sockets greeter.service; do
	expect_status 1 run systemctl is-enabled "$unit"
done
expect_status 1 run systemctl is-enabled greeter@25.socket
run systemctl disable --quiet greeter-smtp.socket greeter@2526.socket greeter-tls@2527.socket
run systemctl --global disable --quiet greeter@2526.socket
run rm /etc/systemd/system/greeter-smtp.socket
run systemctl daemon-reload

check "the program and the package have the same version"
expect "greeter $(dpkg-deb --field "$(package)" Version | sed 's/-.*//')" run greeter --version

check "systemd-analyze verify reports nothing"
for unit in $sockets greeter.service; do
	expect "" run sh -c "systemd-analyze verify --man=no $unit 2>&1"
	expect "" run sh -c "XDG_RUNTIME_DIR=/run systemd-analyze verify --user --man=no /usr/lib/systemd/user/$unit 2>&1"
done
# A template can be verified only as an instance.
for unit in $templates; do
	expect "" run sh -c "systemd-analyze verify --man=no ${unit/@/@25} 2>&1"
	expect "" run sh -c "XDG_RUNTIME_DIR=/run systemd-analyze verify --user --man=no ${unit/@/@2525} 2>&1"
done

check "systemd-analyze security: exposure at most 0.2"
for unit in greeter.service greeter@25.service greeter-accepted@1.service greeter-inet@1.service; do
	# The threshold is in tenths; above it the command fails.
	expect_status 0 run systemd-analyze security --no-pager --threshold=2 "$unit"
done

check "an instance opens its port for IPv4 and IPv6, with a process and a greeting of its own"
run systemctl enable --quiet --now greeter@25.socket greeter@2525.socket
expect_status 3 run systemctl is-active greeter@25.service
for port in 25 2525; do
	for address in 127.0.0.1 '[::1]'; do
		expect $'This is a test\n' greeting "$address:$port"
	done
done
pid=$(property MainPID greeter@2525.service)
[[ $(property MainPID greeter@25.service) != "$pid" ]] || fail "two ports have the same process"
write /etc/greeter/greeter.toml.d/25.toml <<-'TOML'
	[greeting.25]
	message = "this is {socket}"
TOML
run systemctl try-reload-or-restart greeter.service 'greeter@*.service'
expect $'this is 25\n' greeting 127.0.0.1:25
expect $'This is a test\n' greeting 127.0.0.1:2525
expect_match "greeted ::1 port [0-9]+ on '25', 15 bytes" run journalctl --quiet --no-pager --output=cat --unit=greeter@25.service
run rm /etc/greeter/greeter.toml.d/25.toml

check "'disable --now' closes the port of an instance, and no other one"
run systemctl disable --quiet --now greeter@25.socket
is_closed 127.0.0.1:25 || fail "port 25 is still open"
is_closed '[::1]:25' || fail "port 25 is still open for IPv6"
expect_status 3 run systemctl is-active greeter@25.socket greeter@25.service
expect_status 1 run systemctl is-enabled greeter@25.socket
expect $'This is a test\n' greeting 127.0.0.1:2525
expect "$pid" property MainPID greeter@2525.service
run systemctl disable --quiet --now greeter@2525.socket
expect "" run ss --no-header --listening --tcp
expect_nothing_failed

check "a name that is not a port cannot be started; 'disable' removes its link, as in greeter(7)"
for name in abc 0 99999; do
	expect_status 1 run systemctl enable --now "greeter@$name.socket"
	expect_match "has a bad unit file setting" echo "$output"
	link=/etc/systemd/system/sockets.target.wants/greeter@$name.socket
	expect_status 0 run test -L "$link"
	run systemctl disable --quiet "greeter@$name.socket"
	expect_status 1 run test -L "$link"
done
# The name of a socket cannot contain a colon: the port is open, and no client is greeted.
run systemctl start greeter@127.0.0.1:2527.socket
expect_status 124 run sh -c 'timeout 3 socat -u -T 30 TCP:127.0.0.1:2527 - 2>/dev/null'
expect "" echo "$output"
[[ $(property NRestarts greeter@127.0.0.1:2527.service) -gt 1 ]] || fail "the service has started"
run systemctl stop greeter@127.0.0.1:2527.socket
expect "" run ss --no-header --listening --tcp
expect_nothing_failed

check "dpkg --verify: the installed files match the package"
expect "" run dpkg --verify greeter

check "the autopkgtest of the source package passes"
copy_in "$repository/debian/tests/three-modes" /root
# Output on standard error makes an autopkgtest fail.
expect "" run sh -c '/root/three-modes 2>&1 >/dev/null'
end_of_tests
