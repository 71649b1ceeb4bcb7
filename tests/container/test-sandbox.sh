#!/bin/bash
# The sandbox of the services, tested in the namespaces of running processes: which files
# they can read and write, which network they have, which system calls they make. And
# that input from clients is not logged.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/intruder.sh"

boot
install_greeter
run useradd --create-home alice
# Run in the container, because some of these are separate file systems. The last one is a
# directory that no list of well-known directories contains.
secrets="/home/alice /root /tmp /var/tmp /dev/shm /etc /run /run/user /srv /opt /mnt /var/lib /data"
run sh -c "mkdir /data; for directory in $secrets; do echo secret >\$directory/secret; done"
run mkdir /run/greeter

# An instance exits with its connection: these connections stay open.
for mode in accepted inet; do
	write "/etc/greeter/greeter-$mode.toml.d/hold.toml" <<-END
		[limits]
		linger_timeout = "20s"
	END
done
run systemctl enable --quiet --now greeter.socket greeter-accepted.socket greeter-inet.socket greeter@2525.socket
load_pids=()
for port in 4000 2525 4001 4002; do
	run greeter-load "127.0.0.1:$port" --clients 1 --at-once 1 --hold --for 60 >/dev/null &
	load_pids+=($!)
done
four_processes() { [[ $(run pgrep --count --exact greeter) == 4 ]]; }
expect_within 20 four_processes
mapfile -t pids < <(run pgrep --exact greeter)
mapfile -t instances < <(run pgrep --full -- '--config greeter-(accepted|inet)$')
mapfile -t services < <(run pgrep --full -- '--config greeter$')
expect "2 2" echo "${#instances[@]} ${#services[@]}"

# in_sandbox NAMESPACE COMMAND...: runs a command as root in a namespace of each process,
# so that the namespace restricts it, not the permissions of the user.
in_sandbox() {
	local pid
	for pid in "${pids[@]}"; do run nsenter --target "$pid" "$1" -- "${@:2}" 2>&1; done
}

# The user of a process, which exists only while its service runs.
user() { run stat --format=%u "/proc/$1"; }

# as_user PID COMMAND...: the same, as the user of the services, in one process.
as_user() {
	local user
	user=$(user "$1")
	run nsenter --target "$1" --mount -- setpriv --reuid="$user" --regid="$user" --clear-groups "${@:2}"
}

check "/home, /root, the /tmp of others and devices are not visible"
for directory in $secrets; do
	hidden=$directory/secret
	expect_match "$hidden" run ls "$hidden"
	expect "" in_sandbox --mount sh -c "cat $hidden 2>/dev/null; true"
done
expect "" in_sandbox --mount sh -c 'ls /dev/kmsg /dev/mem /dev/sda /dev/vda 2>/dev/null; true'

check "nothing of the host is visible but /usr, /etc/greeter, /run/greeter"
for pid in "${instances[@]}"; do expect "" visible "$pid"; done
# And what the journal and sd_notify(3) need.
for pid in "${services[@]}"; do
	expect $'/run/systemd/notify\n' eval "visible $pid | grep -v '^/run/systemd/journal/'"
done
for pid in "${pids[@]}"; do
	expect greeter run nsenter --target "$pid" --mount ls /etc
	expect "" eval "run nsenter --target $pid --mount ls -A / |
		grep -vxE 'dev|etc|lib|lib64|proc|root|run|sys|usr|var' || true"
	expect_match denied as_user "$pid" sh -c 'ls /sys 2>&1; true'
	for directory in /dev/shm /dev/mqueue /dev/hugepages; do
		expect_match denied as_user "$pid" sh -c "ls $directory 2>&1; true"
	done
	expect "" as_user "$pid" sh -c 'ls -A /root /home /tmp /var/tmp /srv 2>/dev/null; true'
	expect greeter-accepted.toml as_user "$pid" sh -c 'cd /etc/greeter && ls greeter-accepted.toml'
done

check "system files and settings are not writable"
for directory in / /etc /etc/greeter /usr/bin /var/lib /var/log /run; do
	for pid in "${pids[@]}"; do
		expect refused as_user "$pid" \
			sh -c "touch $directory/probe 2>/dev/null && echo written || echo refused"
	done
done
# Also not by root, in case the process gains its privileges.
for directory in / /etc/greeter /usr/bin /var/lib; do
	expect $'refused\nrefused\nrefused\nrefused' in_sandbox --mount sh -c "touch $directory/probe 2>/dev/null && echo written || echo refused"
done

check "nothing at all is writable, neither /tmp nor /dev/shm, and the host's /tmp is not used"
for pid in "${pids[@]}"; do
	# Some directories cannot be searched. The notification socket is a file to find, as its
	# mount point is one.
	expect $'/usr\n' as_user "$pid" sh -c 'find / "(" -path /proc -o -path /run/systemd/notify ")" -prune -o \
		"(" -type d -o -type f ")" "(" -writable -o -path /usr ")" -print 2>/dev/null; true'
	for directory in /tmp /var/tmp /dev/shm /dev/mqueue; do
		expect refused as_user "$pid" sh -c "touch $directory/probe 2>/dev/null && echo written || echo refused"
	done
done
expect secret run ls /tmp --ignore='systemd-private-*' --ignore='.*' --ignore='snap*'
expect "" run sh -c 'ls -d /tmp/systemd-private-*-greeter* /var/tmp/systemd-private-*-greeter* 2>/dev/null; true'

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
	user=$(user "$pid")
	[[ $user -ge 61184 && $user -le 65519 ]] || fail "$user is not the ID of a dynamic user"
done
users() { for pid in "${pids[@]}"; do user "$pid"; done; }
expect 4 eval 'users | sort -u | grep -c .'
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
run systemctl restart greeter.service greeter@2525.service
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

check "a program of an attacker in the place of greeter reaches nothing"
run sh -c 'rm -r /etc/systemd/system/greeter*.service.d; systemctl daemon-reload'
run systemctl stop greeter.service 2>/dev/null
run systemctl start greeter@2525.socket
install_intruder
expect_unconfined
for port in 4000 2525 4001 4002; do expect_confined "127.0.0.1:$port"; done
end_of_tests
