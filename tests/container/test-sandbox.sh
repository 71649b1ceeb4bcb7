#!/bin/bash
# The sandbox of the services, tested in the namespaces of running processes: which files
# they can read and write, which network they have, which system calls they make. And
# that input from clients is not logged.
. "$(dirname "$0")/lib.sh"

boot
install_greeter
run useradd --create-home alice
# Run in the container, because its /tmp is a separate file system.
run sh -c 'for directory in /home/alice /root /tmp; do echo secret >$directory/secret; done'

# An instance exits with its connection: these connections stay open.
for mode in accepted inet; do
	write "/etc/greeter/greeter-$mode.toml.d/hold.toml" <<-END
		[limits]
		linger_timeout = "20s"
	END
done
run systemctl enable --quiet --now greeter.socket greeter-accepted.socket greeter-inet.socket
load_pids=()
for port in 4000 4001 4002; do
	run greeter-load "127.0.0.1:$port" --clients 1 --at-once 1 --hold --for 60 >/dev/null &
	load_pids+=($!)
done
three_processes() { [[ $(run pgrep --count --exact greeter) == 3 ]]; }
expect_within 20 three_processes
mapfile -t pids < <(run pgrep --exact greeter)

# in_sandbox NAMESPACE COMMAND...: runs a command as root in a namespace of each process,
# so that the namespace restricts it, not the permissions of the user.
in_sandbox() {
	local pid
	for pid in "${pids[@]}"; do run nsenter --target "$pid" "$1" -- "${@:2}" 2>&1; done
}

# The dynamic user exists only while a service runs.
user=$(run stat --format=%u "/proc/${pids[0]}")

check "/home, /root, the /tmp of others and devices are not visible"
for hidden in /home/alice/secret /root/secret /tmp/secret; do
	expect_match "$hidden" run ls "$hidden"
	expect "" in_sandbox --mount sh -c "cat $hidden 2>/dev/null; true"
done
expect "" in_sandbox --mount sh -c 'ls /dev/kmsg /dev/mem /dev/sda /dev/vda 2>/dev/null; true'

check "per-connection services see only /usr and the settings"
mapfile -t instances < <(run pgrep --full -- '--config greeter-(accepted|inet)$')
expect 2 echo "${#instances[@]}"
for pid in "${instances[@]}"; do
	expect greeter run nsenter --target "$pid" --mount ls /etc
	expect tmp run nsenter --target "$pid" --mount ls /var
	expect "" run nsenter --target "$pid" --mount ls /var/tmp
	expect_match denied run nsenter --target "$pid" --mount -- setpriv --reuid="$user" --clear-groups \
		sh -c 'ls /sys /root 2>&1; true'
done

check "system files and settings are not writable"
for directory in / /etc /etc/greeter /usr/bin /var/lib /var/log /run; do
	for pid in "${pids[@]}"; do
		expect refused run nsenter --target "$pid" --mount -- setpriv --reuid="$user" --clear-groups \
			sh -c "touch $directory/probe 2>/dev/null && echo written || echo refused"
	done
done
# Also not by root, in case the process gains its privileges.
for directory in / /etc/greeter /usr/bin /var/lib; do
	expect $'refused\nrefused\nrefused' in_sandbox --mount sh -c "touch $directory/probe 2>/dev/null && echo written || echo refused"
done

check "each service has a private, writable /tmp"
expect "" in_sandbox --mount sh -c 'touch /tmp/probe'
expect secret run ls /tmp --ignore='systemd-private-*' --ignore='.*' --ignore='snap*'

check "the only network device is a private loopback without listening sockets"
for pid in "${pids[@]}"; do
	expect 1 run nsenter --target "$pid" --net sh -c 'ip -oneline link | grep -c .'
	expect refused run nsenter --target "$pid" --net sh -c \
		'socat -u TCP:127.0.0.1:4000 - 2>/dev/null && echo reached || echo refused'
done

check "each per-connection service has an empty network namespace of its own"
network_namespace() { run readlink "/proc/$1/ns/net"; }
namespaces() { network_namespace 1; for pid in "${instances[@]}"; do network_namespace "$pid"; done; }
expect 3 eval 'namespaces | sort -u | grep -c .'

check "no capabilities, no_new_privs, and a system call filter"
for pid in "${pids[@]}"; do
	status() { run cat "/proc/$pid/status"; }
	for line in $'CapEff:\t0000000000000000' $'CapBnd:\t0000000000000000' $'NoNewPrivs:\t1' $'Seccomp:\t2'; do
		expect_match "^$line\$" status
	done
	expect "$user" run stat --format=%u "/proc/$pid"
	[[ $user -ge 61184 && $user -le 65519 ]] || fail "$user is not the ID of a dynamic user"
done
kill "${load_pids[@]}"
wait "${load_pids[@]}" || true

check "all modes work with SystemCallErrorNumber=kill: the filter denies no call that is used"
for unit in greeter greeter@ greeter-accepted@ greeter-inet@; do
	write "/etc/systemd/system/$unit.service.d/kill.conf" <<-'END'
		[Service]
		SystemCallErrorNumber=kill
	END
done
run rm -r /etc/greeter/greeter-accepted.toml.d /etc/greeter/greeter-inet.toml.d
run systemctl daemon-reload
run systemctl restart greeter.service
run systemctl start greeter@2525.socket
expect $'This is a test\n' greeting 127.0.0.1:4000
expect $'This is a test\n' greeting '[::1]:2525'
expect $'This socket was already accepted\n' greeting '[::1]:4001'
expect $'This socket was passed on stdin/stdout\n' greeting 127.0.0.1:4002
for unit in greeter.service greeter@2525.service; do
	run systemctl reload "$unit"
	run systemctl restart "$unit"
done
expect $'This is a test\n' greeting 127.0.0.1:4000
expect $'This is a test\n' greeting 127.0.0.1:2525
sleep 2 # until the status text and the watchdog message are sent
for unit in greeter.service greeter@2525.service; do
	expect active run systemctl is-active "$unit"
	expect 0 property NRestarts "$unit"
done
expect_nothing_failed
# The dynamic user exists as long as one service runs as it; see lean-sandbox.conf below.
run systemctl stop greeter@2525.socket

check "client input is not logged"
word=Xanthorrhoea
for port in 4000 4001 4002; do
	expect_match . run curl --http0.9 --silent --show-error --user-agent "$word" "http://127.0.0.1:$port/$word"
done
run journalctl --sync
expect 0 run sh -c "journalctl --quiet --no-pager --output=export | grep -c $word || true"
expect_match 'greeted 127.0.0.1' run journalctl --quiet --no-pager --identifier=greeter --lines=1

expect_within 60 no_instances
check "lean-sandbox.conf, installed as it says: a static user, no mount and network namespace"
run sh -euc 'cd /usr/share/doc/greeter/examples && eval "$(sed -n "s/^#   //p" lean-sandbox.conf)"'
for mode in accepted inet; do
	expect_status 0 run systemd-analyze security --no-pager --threshold=24 "greeter-$mode@1.service"
done
# A dynamic user of the same name uses the account.
run systemctl restart greeter.service
expect _greeterd run stat --format=%U "/proc/$(property MainPID greeter.service)"
for port in 4001 4002; do
	run greeter-load "127.0.0.1:$port" --clients 1 --at-once 1 --hold --for 2 >/dev/null &
	load=$!
	instance() { pid=$(run pgrep --newest --full -- '--config greeter-(accepted|inet)$'); }
	expect_within 10 instance
	expect _greeterd run stat --format=%U "/proc/$pid"
	for namespace in mnt net; do
		expect "$(run readlink "/proc/1/ns/$namespace")" run readlink "/proc/$pid/ns/$namespace"
	done
	wait "$load" || true
	expect_within 30 no_instances
done
expect_nothing_failed
end_of_tests
