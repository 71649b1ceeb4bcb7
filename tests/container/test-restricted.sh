#!/bin/bash
# Machines on which the sandbox of the services cannot be set up: user namespaces are
# switched off, or systemd runs in a container without CAP_SYS_ADMIN. `greeter --check` says
# so, and all modes greet with the drop-in that it names.
. "$(dirname "$0")/lib.sh"

units="greeter greeter@ greeter-accepted@ greeter-inet@"
sockets="greeter.socket greeter@2525.socket greeter-accepted.socket greeter-inet.socket"

# expect_status_of STATUS: the services fail with it, and `greeter --check` knows.
expect_status_of() {
	# shellcheck disable=SC2086 # one word per unit
	run systemctl start $sockets
	run socat -u -T 1 TCP:127.0.0.1:4000 - >/dev/null || :
	failed() { [[ $(property ExecMainStatus greeter.service) == "${1%/*}" ]]; }
	expect_within 10 failed "$1"
	for mode in "" -accepted -inet; do
		expect_match "greeter$mode@?.service cannot start with its sandbox \\(status=$1\\)" \
			run sh -c "greeter --config greeter$mode --check 2>&1"
	done
	# shellcheck disable=SC2086 # one word per unit
	run systemctl stop $sockets greeter.service 2>/dev/null
}

expect_greetings() {
	# shellcheck disable=SC2086 # one word per unit
	run systemctl start $sockets
	for address in 127.0.0.1 '[::1]'; do
		expect $'This is a test\n' greeting "$address:4000"
		expect $'This is a test\n' greeting "$address:2525"
		expect $'This socket was already accepted\n' greeting "$address:4001"
		expect $'This socket was passed on stdin/stdout\n' greeting "$address:4002"
	done
	expect_status 0 run systemctl reload greeter.service
	for mode in "" -accepted -inet; do
		expect_status 1 run sh -c "greeter --config greeter$mode --check 2>&1 | grep status="
	done
	expect_within 10 no_instances
}

boot running --private-users=524288 --private-users-ownership=chown
install_greeter
nsenter --user --target "$(leader)" sh -c 'echo 0 >/proc/sys/user/max_user_namespaces'

check "user.max_user_namespaces = 0: status 217, and --check names the drop-in"
expect_status_of 217/USER

check "all modes greet with PrivateUsers=no"
for unit in $units; do
	# Not write: the container's root would not be the owner.
	run sh -c 'mkdir -p "$1"; printf "[Service]\nPrivateUsers=no\n" >"$1/users.conf"' sh \
		"/etc/systemd/system/$unit.service.d"
done
run systemctl daemon-reload
expect_greetings

check "all modes greet with lean-sandbox.conf as well"
run sh -euc 'cd /usr/share/doc/greeter/examples && eval "$(sed -n "s/^#   //p" lean-sandbox.conf)"'
expect_greetings
destroy_container

boot degraded --drop-capability=CAP_SYS_ADMIN
install_greeter

check "a container without CAP_SYS_ADMIN: status 226, and --check names the drop-in"
expect_status_of 226/NAMESPACE

check "all modes greet with unprivileged-container.conf, installed as it says"
run sh -euc 'cd /usr/share/doc/greeter/examples && eval "$(sed -n "s/^#   //p" unprivileged-container.conf)"'
expect_greetings
end_of_tests
