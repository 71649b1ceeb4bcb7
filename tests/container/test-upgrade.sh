#!/bin/bash
# The package's life: an upgrade under load loses no client and keeps the
# sockets, removing it stops everything, purging it leaves nothing.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/load.sh"

boot

# Everything in the machine that a package could leave behind, but for what
# dpkg, systemd and the journal write about any package.
inventory() {
	run find / -xdev -mindepth 1 \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp \
		-o -path /root/packages -o -path /var/lib/dpkg -o -path /var/log -o -path /var/cache \
		-o -path /var/tmp -o -path /usr/local/bin/greeter-load -o -path '/etc/*-' \
		-o -path /var/lib/systemd/deb-systemd-helper-enabled -o -path /var/lib/systemd/deb-systemd-user-helper-enabled \
		-o -path /var/lib/apt \) -prune -o -print | LC_ALL=C sort
}
inventory >"$machine/before"

install_greeter

# The next version: the same files, but for one default that the maintainers
# changed.
old=$(package)
run sh -euc '
	cd /root/packages
	dpkg-deb --raw-extract "$1" next
	sed -i "s/^Version: .*/&+next/" next/DEBIAN/control
	echo "# the next version" >>next/etc/greeter/greeter-inet.toml
	dpkg-deb --build next next.deb' . "${old##*/}" >"$machine/next.log" || fail "$(cat "$machine/next.log")"

upgrade() { run apt install -y /root/packages/next.deb >"$machine/apt.log" 2>&1; }
back() { run apt install -y --allow-downgrades "/root/packages/${old##*/}" >"$machine/apt.log" 2>&1; }
# The listening sockets themselves, by their numbers in the kernel.
sockets() { run ss --no-header --listening --tcp --extended --numeric | grep -Eo ':400[0-2] .*ino:[0-9]+' | sort; }

check "an upgrade where nothing is enabled enables and starts nothing"
upgrade
for unit in greeter.socket greeter-accepted.socket greeter-inet.socket greeter.service; do
	expect_status 3 run systemctl is-active "$unit"
	expect_status 1 run systemctl is-enabled "$unit"
done
back

check "an upgrade of a service that waits for its first client does not start it"
run systemctl enable --quiet --now greeter.socket greeter-accepted.socket greeter-inet.socket
before=$(sockets)
expect 6 grep -c . <<<"$before"
upgrade
expect "$before" sockets
expect_status 3 run systemctl is-active greeter.service
back

check "an upgrade under load and with a held client keeps the sockets, restarts the service, loses none"
expect $'This is a test\n' greeting 127.0.0.1:4000
pid=$(property MainPID greeter.service)
echo 'message = "This is a test"' | write /etc/greeter/greeter.toml.d/50-ours.toml
# Clients that hold their half of the connection open for two seconds, one more
# each third of a second, so that some are there whenever the service restarts.
run touch /run/upgrading
run sh -c 'clients=0
while [ $clients -lt 15 ] || [ -e /run/upgrading ]; do
	(sleep 2 | socat -t 10 - TCP:127.0.0.1:4000) &
	clients=$((clients + 1))
	sleep 0.33
done
wait
echo "$clients clients"' >"$machine/held" &
held=$!
load_begin load 127.0.0.1:4000 '[::1]:4000' --at-once 16 --rate 1000 --for 600 --expect 'This is a test\n'
load_begin instances 127.0.0.1:4001 127.0.0.1:4002 --at-once 8 --rate 10 --for 600
sleep 1
upgrade
run rm /run/upgrading
wait "$held"
for load in load instances; do
	load_end "$load"
	expect_none_lost "$load"
done
clients=$(sed -n 's/ clients$//p' "$machine/held")
expect "$clients" grep -cx 'This is a test' "$machine/held"
expect $((clients + 1)) grep -c . "$machine/held"
expect "$before" sockets
expect active run systemctl is-active greeter.service
[[ $(property MainPID greeter.service) != "$pid" ]] || fail "the service was not restarted"
for unit in greeter.socket greeter-accepted.socket greeter-inet.socket; do
	expect enabled run systemctl is-enabled "$unit"
done
expect_nothing_failed

check "an upgrade keeps settings that were edited, and drop-ins"
back
echo '# edited' >>"$machine/root/etc/greeter/greeter.toml"
upgrade
expect_match '^# edited$' cat "$machine/root/etc/greeter/greeter.toml"
expect_match '^# the next version$' cat "$machine/root/etc/greeter/greeter-inet.toml"
expect_match . cat "$machine/root/etc/greeter/greeter.toml.d/50-ours.toml"

check "removing it stops sockets, service and instances, and keeps the settings"
run greeter-load 127.0.0.1:4001 --clients 2 --hold --for 60 >"$machine/hold.log" 2>&1 &
expect_within 10 grep -q 'holding 2' "$machine/hold.log"
run apt remove -y greeter >"$machine/apt.log" 2>&1
expect "" run ss --no-header --listening --tcp
expect "" run systemctl list-units --plain --no-legend --state=active,activating,deactivating,failed 'greeter*'
expect_status 1 run pgrep --exact greeter
expect_match '^# edited$' cat "$machine/root/etc/greeter/greeter.toml"
expect_nothing_failed

check "purging it leaves nothing but what was added by hand"
rm -r "$machine/root/etc/greeter/greeter.toml.d"
run apt purge -y greeter >"$machine/apt.log" 2>&1
inventory >"$machine/after"
expect "" diff "$machine/before" "$machine/after"
expect_status 1 run sh -c 'ls /var/lib/systemd/deb-systemd-*-helper-enabled/greeter* /etc/systemd/*/*/greeter* 2>/dev/null | grep .'
end_of_tests
