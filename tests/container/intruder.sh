# shellcheck shell=bash disable=SC2154 # lib.sh assigns variables
# A program of an attacker in the place of greeter, for the scripts that source this file.

# Replaces /usr/bin/greeter in the container by tests/container/intruder.c.
install_intruder() {
	cc -static -O2 -Wall -Wextra -Werror -o "$container/intruder" "$repository/tests/container/intruder.c"
	cp --remove-destination "$container/intruder" "$container/root/usr/bin/greeter"
}

# Nothing that the program tries succeeds in the service of a port.
expect_confined() {
	run socat -u -T 60 "TCP:$1" - >"$container/attempts"
	expect end tail -n 1 "$container/attempts"
	expect "" eval "grep ': succeeded$' '$container/attempts' || true"
	expect "$attempts" grep -c ': refused$' "$container/attempts"
}

# The same attempts of an ordinary user without a sandbox: many succeed, so that the test can
# fail.
expect_unconfined() {
	run setpriv --reuid=65534 --regid=65534 --clear-groups \
		socat -t 10 -T 60 - EXEC:/usr/bin/greeter </dev/null >"$container/attempts"
	attempts=$(grep -c ': ' "$container/attempts")
	local attempt
	for attempt in /run/dbus/system_bus_socket /dev/shm /tmp 'execute memory' 'writable code' \
		'/proc of process 1' 'signal to others' 'IPv4 socket' 'IPv6 socket' \
		'netlink socket' 'user namespace'; do
		expect "$attempt: succeeded" grep -Fx "$attempt: succeeded" "$container/attempts"
	done
}
