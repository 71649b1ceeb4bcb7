#!/bin/bash
# Upgrade, removal and purge of the Debian package: an upgrade under load keeps the
# sockets and loses no connection, the removal stops everything, and the purge removes
# all files that the administrator did not add.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/load.sh"
. "$(dirname "$0")/next.sh"

boot

# Lists all files that a package could leave behind, without those that dpkg, systemd
# and the journal write about any package.
list_files() {
	run find / -xdev -mindepth 1 \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp \
		-o -path /root/packages -o -path /var/lib/dpkg -o -path /var/log -o -path /var/cache \
		-o -path /var/tmp -o -path /usr/local/bin/greeter-load -o -path '/etc/*-' \
		-o -path /var/lib/systemd/deb-systemd-helper-enabled -o -path /var/lib/systemd/deb-systemd-user-helper-enabled \
		-o -path /var/lib/apt \) -prune -o -print | LC_ALL=C sort
}
accounts=$(create_greetd_account greetd)
expect_match '^greeter:.*:/var/lib/greetd:/bin/bash$' echo "$accounts"
list_files >"$container/before"

install_greeter

old=$(package)
build_next_deb "$old"

upgrade() { run apt install -y /root/packages/next.deb >"$container/apt.log" 2>&1; }
downgrade() { run apt install -y --allow-downgrades "/root/packages/${old##*/}" >"$container/apt.log" 2>&1; }

check "an upgrade enables and starts nothing if nothing is enabled"
upgrade
for unit in greeter.socket greeter-accepted.socket greeter-inet.socket greeter.service; do
	expect_status 3 run systemctl is-active "$unit"
	expect_status 1 run systemctl is-enabled "$unit"
done
expect "" run systemctl list-units --plain --no-legend --all 'greeter@*'
downgrade

check "an upgrade before the first connection does not start the services"
run systemctl enable --quiet --now greeter.socket greeter-accepted.socket greeter-inet.socket
# Instances of the template: two that will run, one that stays idle, and one that is
# enabled and stopped.
run systemctl enable --quiet --now greeter@2525.socket greeter@2526.socket greeter@2527.socket
run systemctl enable --quiet greeter@2528.socket
before=$(listening_sockets)
expect 9 grep -c . <<<"$before"
upgrade
expect "$before" listening_sockets
expect_status 3 run systemctl is-active greeter.service greeter@252{5,6,7,8}.service
downgrade

check "an upgrade under load keeps the sockets, restarts what runs, loses no connection"
expect $'This is a test\n' greeting 127.0.0.1:4000
pid=$(property MainPID greeter.service)
pids=()
for port in 2525 2526; do
	expect $'This is a test\n' greeting "127.0.0.1:$port"
	pids[port]=$(property MainPID "greeter@$port.service")
done
echo 'message = "This is a test"' | write /etc/greeter/greeter.toml.d/50-test.toml
# Clients that close their side of the connection after two seconds. One more starts
# every third of a second, so that some are connected whenever the service restarts.
run touch /run/upgrading
run sh -c 'clients=0
while [ $clients -lt 15 ] || [ -e /run/upgrading ]; do
	(sleep 2 | socat -t 10 - TCP:127.0.0.1:4000) &
	clients=$((clients + 1))
	sleep 0.33
done
wait
echo "$clients clients"' >"$container/held" &
held_pid=$!
start_load load 127.0.0.1:4000 '[::1]:4000' --at-once 16 --rate 1000 --for 600 --expect 'This is a test\n'
start_load instances 127.0.0.1:4001 127.0.0.1:4002 --at-once 8 --rate 10 --for 600
start_load ports 127.0.0.1:2525 '[::1]:2526' --at-once 16 --rate 300 --for 600 --expect 'This is a test\n'
sleep 1
upgrade
run rm /run/upgrading
wait "$held_pid"
for load in load instances ports; do
	stop_load "$load"
	expect_none_lost "$load"
done
clients=$(sed -n 's/ clients$//p' "$container/held")
expect "$clients" grep -cx 'This is a test' "$container/held"
expect $((clients + 1)) grep -c . "$container/held"
expect_upgraded
for unit in greeter.socket greeter-accepted.socket greeter-inet.socket; do
	expect enabled run systemctl is-enabled "$unit"
done
expect_nothing_failed

check "an upgrade keeps edited settings and drop-ins"
downgrade
echo '# edited' >>"$container/root/etc/greeter/greeter.toml"
upgrade
expect_match '^# edited$' cat "$container/root/etc/greeter/greeter.toml"
expect_match '^# the next version$' cat "$container/root/etc/greeter/greeter-inet.toml"
expect_match . cat "$container/root/etc/greeter/greeter.toml.d/50-test.toml"
expect "$accounts" run cat /etc/passwd /etc/group

check "an upgrade that could not start again leaves the running services alone"
downgrade
expect $'This is a test\n' greeting 127.0.0.1:4000
services="greeter.service greeter@2525.service greeter@2526.service"
main_pids() { for unit in $services; do property MainPID "$unit"; done; }
processes=$(main_pids)
echo 'for some users' | write /etc/greeter/notice
echo 'message_file = "/etc/greeter/notice"' | write /etc/greeter/greeter.toml.d/50-test.toml
run chmod 0640 /etc/greeter/notice
run chmod 0600 /etc/greeter/greeter.toml.d/50-test.toml
upgrade
expect_match "50-test.toml: the service cannot read it, as its mode is 0600; run 'chmod o\+r" cat "$container/apt.log"
expect_match "/etc/greeter/notice: the service cannot read it, as its mode is 0640; run 'chmod o\+r /etc/greeter/notice'" \
	cat "$container/apt.log"
expect_match "correct the settings, then run 'systemctl restart $services'" cat "$container/apt.log"
expect "$processes" main_pids
for port in 4000 2525 2526; do expect $'This is a test\n' greeting "127.0.0.1:$port"; done
expect $'This socket was already accepted\n' greeting 127.0.0.1:4001
expect_status 3 run systemctl is-active greeter@2527.service greeter@2528.socket

check "what the messages say helps"
run chmod o+r /etc/greeter/greeter.toml.d/50-test.toml /etc/greeter/notice
# shellcheck disable=SC2086 # one word per unit
run systemctl restart $services
for port in 4000 2525 2526; do expect $'for some users\n' greeting "127.0.0.1:$port"; done
user=$(run stat --format=%u "/proc/$(property MainPID greeter.service)")
[[ $user -ge 61184 && $user -le 65519 ]] || fail "$user is not the ID of a dynamic user"
run systemctl reload greeter.service
expect_nothing_failed
run rm /etc/greeter/notice
echo 'message = "This is a test"' | write /etc/greeter/greeter.toml.d/50-test.toml

check "the removal stops sockets, services and instances, also masked and edited ones, and keeps the settings"
run greeter-load 127.0.0.1:4001 --clients 2 --hold --for 60 >"$container/hold.log" 2>&1 &
expect_within 10 grep -q 'holding 2' "$container/hold.log"
# Masked, or edited so that they do not stop with their socket.
run systemctl mask --quiet greeter.service greeter@2525.service
run sh -c 'sed "/^Requires=/d" /usr/lib/systemd/system/greeter@.service >/etc/systemd/system/greeter@2526.service
	systemctl daemon-reload'
for port in 4000 2525 2526; do expect $'for some users\n' greeting "127.0.0.1:$port"; done
run apt remove -y greeter >"$container/apt.log" 2>&1
expect "" run ss --no-header --listening --tcp
expect "" run systemctl list-units --plain --no-legend --state=active,activating,deactivating,failed 'greeter*'
expect_status 1 run pgrep --exact greeter
expect_match '^# edited$' cat "$container/root/etc/greeter/greeter.toml"
expect_nothing_failed
run systemctl unmask --quiet greeter.service greeter@2525.service
run rm /etc/systemd/system/greeter@2526.service
run systemctl daemon-reload
expect "$accounts" run cat /etc/passwd /etc/group

check "a new installation starts no instance, and finds them enabled"
run apt install -y "/root/packages/${old##*/}" >"$container/apt.log" 2>&1
expect active run systemctl is-active greeter.socket
expect_status 3 run systemctl is-active greeter@252{5,6,7,8}.socket
expect $'enabled\nenabled\nenabled\nenabled' run systemctl is-enabled greeter@252{5,6,7,8}.socket
run systemctl start greeter@2525.socket
expect $'This is a test\n' greeting 127.0.0.1:2525
run systemctl --global enable --quiet greeter@2529.socket
expect_status 0 run test -L /etc/systemd/user/sockets.target.wants/greeter@2529.socket

check "the purge removes everything except files that the administrator added"
run apt purge -y greeter >"$container/apt.log" 2>&1
expect "" run ss --no-header --listening --tcp
expect "/etc/greeter/greeter.toml.d/50-test.toml" run find /etc/greeter -type f
expect "$accounts" run cat /etc/passwd /etc/group
rm -r "$container/root/etc/greeter"
list_files >"$container/after"
expect "" diff "$container/before" "$container/after"
expect_status 1 run sh -c 'ls /var/lib/systemd/deb-systemd-*-helper-enabled/greeter* /etc/systemd/*/*/greeter* 2>/dev/null | grep .'
end_of_tests
