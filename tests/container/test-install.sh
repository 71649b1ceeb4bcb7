#!/bin/bash
# Installation of the Debian package: it enables and starts nothing and opens no port,
# and the installed files and units are valid.
. "$(dirname "$0")/lib.sh"

sockets="greeter.socket greeter-accepted.socket greeter-inet.socket"
templates="greeter-accepted@.service greeter-inet@.service"

boot

accounts=$(create_greetd_account greeter)
expect_match '^greeter:.*:/bin/bash$' echo "$accounts"

check "apt installs the package offline"
install_greeter
expect "ii " run dpkg-query --show --showformat='${db:Status-Abbrev}' greeter

check "nothing is enabled, running or listening after the installation"
for unit in $sockets greeter.service; do
	expect_status 1 run systemctl is-enabled "$unit"
	[[ $output == disabled ]] || fail "$unit is '$output', not disabled"
	# The user service is "static": only its socket starts it.
	run systemctl --global is-enabled "$unit" >"$container/state" || :
	expect_match "^(disabled|static)$" cat "$container/state"
	expect_status 3 run systemctl is-active "$unit"
done
expect "" run ss --no-header --listening --tcp
expect_nothing_failed

check "presets enable nothing, also at the first boot of a new image"
expect "" run systemctl preset $sockets greeter.service
expect "" run systemctl --global preset $sockets
expect_status 1 run systemctl is-enabled $sockets greeter.service
expect_status 1 run systemctl --global is-enabled $sockets

check "the package creates no account, and leaves that of greetd alone"
expect_status 2 run getent passwd _greeterd
expect_match '^u greeter - "Greeter daemon"' run cat /usr/lib/sysusers.d/greeter.conf
expect "$accounts" run cat /etc/passwd /etc/group

check "presets keep what an administrator has added"
run sh -c 'sed "s/4000/2525/" /usr/lib/systemd/system/greeter.socket >/etc/systemd/system/greeter-smtp.socket'
run systemctl daemon-reload
run systemctl enable --quiet greeter-smtp.socket
run systemctl preset-all --preset-mode=full >/dev/null 2>&1
expect enabled run systemctl is-enabled greeter-smtp.socket
for unit in $sockets greeter.service; do
	expect_status 1 run systemctl is-enabled "$unit"
done
run systemctl disable --quiet greeter-smtp.socket
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
	expect "" run sh -c "systemd-analyze verify --man=no ${unit/@/@1} 2>&1"
done

check "systemd-analyze security: exposure at most 0.2"
for unit in greeter.service greeter-accepted@1.service greeter-inet@1.service; do
	# The threshold is in tenths; above it the command fails.
	expect_status 0 run systemd-analyze security --no-pager --threshold=2 "$unit"
done

check "dpkg --verify: the installed files match the package"
expect "" run dpkg --verify greeter

check "the autopkgtest of the source package passes"
copy_in "$repository/debian/tests/three-modes" /root
# Output on standard error makes an autopkgtest fail.
expect "" run sh -c '/root/three-modes 2>&1 >/dev/null'
end_of_tests
