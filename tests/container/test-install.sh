#!/bin/bash
# Installing the Debian package: it enables, starts and opens nothing, and what
# it brings is in order.
. "$(dirname "$0")/lib.sh"

sockets="greeter.socket greeter-accepted.socket greeter-inet.socket"
templates="greeter-accepted@.service greeter-inet@.service"

boot

check "apt installs it, offline"
install_greeter
expect "ii " run dpkg-query --show --showformat='${db:Status-Abbrev}' greeter

check "nothing is enabled, nothing runs, nothing is open"
for unit in $sockets greeter.service; do
	expect_status 1 run systemctl is-enabled "$unit"
	[[ $output == disabled ]] || fail "$unit is '$output', not disabled"
	# Nothing can enable the user service (it is "static"): the socket starts it.
	run systemctl --global is-enabled "$unit" >"$machine/state" || :
	expect_match "^(disabled|static)$" cat "$machine/state"
	expect_status 3 run systemctl is-active "$unit"
done
expect "" run ss --no-header --listening --tcp
expect_nothing_failed

check "presets leave it so, at the first boot of a fresh image too"
expect "" run systemctl preset $sockets greeter.service
expect "" run systemctl --global preset $sockets
expect_status 1 run systemctl is-enabled $sockets greeter.service
expect_status 1 run systemctl --global is-enabled $sockets

check "the user 'greeter' is there, and cannot log in"
expect_match "^greeter:[^:]*:[0-9]+:[0-9]+:[^:]*:/:/usr/sbin/nologin$" run getent passwd greeter

check "the version and the package's agree"
expect "greeter $(dpkg-deb --field "$(package)" Version | sed 's/-.*//')" run greeter --version

check "systemd finds nothing to say about the units"
for unit in $sockets greeter.service; do
	expect "" run sh -c "systemd-analyze verify --man=no $unit 2>&1"
	expect "" run sh -c "XDG_RUNTIME_DIR=/run systemd-analyze verify --user --man=no /usr/lib/systemd/user/$unit 2>&1"
done
# A template needs an instance; greeter@.service has none without one.
for unit in $templates; do
	expect "" run sh -c "systemd-analyze verify --man=no ${unit/@/@1} 2>&1"
done

check "each service is locked in: exposure at most 0.2"
for unit in greeter.service greeter-accepted@1.service greeter-inet@1.service; do
	# The threshold is in tenths; above it the command fails.
	expect_status 0 run systemd-analyze security --no-pager --threshold=2 "$unit"
done

check "the files are as they were packed, and all are owned"
expect "" run dpkg --verify greeter

check "the test that the source package brings for others passes too"
copy_in "$repository/debian/tests/three-modes" /root
# What it says on standard error would fail it there.
expect "" run sh -c '/root/three-modes 2>&1 >/dev/null'
end_of_tests
