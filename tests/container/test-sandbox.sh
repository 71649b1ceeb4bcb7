#!/bin/bash
# The sandbox of the units as it is in force, seen from inside a process that
# serves: what it may read and write, what network it has, which system calls it
# makes. And that the journal holds no word of a client's.
. "$(dirname "$0")/lib.sh"

boot
install_greeter
run useradd --create-home alice
# In the machine, as its /tmp is a file system of its own.
run sh -c 'for folder in /home/alice /root /tmp; do echo secret >$folder/secret; done'

# An instance ends with its client: this one holds the connection open.
for mode in accepted inet; do
	write "/etc/greeter/greeter-$mode.toml.d/hold.toml" <<-END
		[limits]
		linger_timeout = "20s"
	END
done
run systemctl enable --quiet --now greeter.socket greeter-accepted.socket greeter-inet.socket
held=()
for port in 4000 4001 4002; do
	run greeter-load "127.0.0.1:$port" --clients 1 --at-once 1 --hold --for 60 >/dev/null &
	held+=($!)
done
three() { [[ $(run pgrep --count --exact greeter) == 3 ]]; }
expect_within 20 three
mapfile -t served < <(run pgrep --exact greeter)

# in_sandbox NAMESPACES COMMAND...: a command of root's in the namespaces of each
# process, so that what stops it is what the namespaces lack, not whose it is.
in_sandbox() {
	local pid
	for pid in "${served[@]}"; do run nsenter --target "$pid" "$1" -- "${@:2}" 2>&1; done
}

user=$(run id --user greeter)

check "home folders, /root, /tmp of others and devices are out of sight"
for hidden in /home/alice/secret /root/secret /tmp/secret; do
	expect_match "$hidden" run ls "$hidden"
	expect "" in_sandbox --mount sh -c "cat $hidden 2>/dev/null; true"
done
expect "" in_sandbox --mount sh -c 'ls /dev/kmsg /dev/mem /dev/sda /dev/vda 2>/dev/null; true'

check "with a process for each client, /usr and the settings are all that is in sight"
mapfile -t instances < <(run pgrep --full -- '--config greeter-(accepted|inet)$')
expect 2 echo "${#instances[@]}"
for pid in "${instances[@]}"; do
	expect greeter run nsenter --target "$pid" --mount ls /etc
	expect tmp run nsenter --target "$pid" --mount ls /var
	expect "" run nsenter --target "$pid" --mount ls /var/tmp
	expect_match denied run nsenter --target "$pid" --mount -- setpriv --reuid="$user" --clear-groups \
		sh -c 'ls /sys /root 2>&1; true'
done

check "nothing of the system can be written, nor the settings"
for folder in / /etc /etc/greeter /usr/bin /var/lib /var/log /run; do
	for pid in "${served[@]}"; do
		expect refused run nsenter --target "$pid" --mount -- setpriv --reuid="$user" --clear-groups \
			sh -c "touch $folder/probe 2>/dev/null && echo written || echo refused"
	done
done
# Not even by root, should it ever become that.
for folder in / /etc/greeter /usr/bin /var/lib; do
	expect $'refused\nrefused\nrefused' in_sandbox --mount sh -c "touch $folder/probe 2>/dev/null && echo written || echo refused"
done

check "what it can write is a /tmp of its own, which nobody else sees"
expect "" in_sandbox --mount sh -c 'touch /tmp/probe'
expect secret run ls /tmp --ignore='systemd-private-*' --ignore='.*' --ignore='snap*'

check "there is no network but a loopback of its own, on which nobody listens"
for pid in "${served[@]}"; do
	expect 1 run nsenter --target "$pid" --net sh -c 'ip -oneline link | grep -c .'
	expect refused run nsenter --target "$pid" --net sh -c \
		'socat -u TCP:127.0.0.1:4000 - 2>/dev/null && echo reached || echo refused'
done

check "the services for one client share an empty network, and not the machine's"
network() { run readlink "/proc/$1/ns/net"; }
shared=$(network "${instances[0]}")
expect "$shared" network "${instances[1]}"
[[ $shared != "$(network 1)" ]] || fail "they are in the machine's own"

check "no privilege, now or later; every system call goes through the filter"
for pid in "${served[@]}"; do
	status() { run cat "/proc/$pid/status"; }
	for line in $'CapEff:\t0000000000000000' $'CapBnd:\t0000000000000000' $'NoNewPrivs:\t1' $'Seccomp:\t2'; do
		expect_match "^$line\$" status
	done
	expect greeter run stat --format=%U "/proc/$pid"
done
kill "${held[@]}"
wait "${held[@]}" || true

check "the filter refuses nothing that is used: where refusal kills, all modes greet"
for unit in greeter greeter-accepted@ greeter-inet@; do
	write "/etc/systemd/system/$unit.service.d/kill.conf" <<-'END'
		[Service]
		SystemCallErrorNumber=kill
	END
done
run rm -r /etc/greeter/greeter-accepted.toml.d /etc/greeter/greeter-inet.toml.d
run systemctl daemon-reload
run systemctl restart greeter.service
expect $'This is a test\n' greeting 127.0.0.1:4000
expect $'This socket was already accepted\n' greeting '[::1]:4001'
expect $'This socket was passed on stdin/stdout\n' greeting 127.0.0.1:4002
run systemctl reload greeter.service
run systemctl restart greeter.service
expect $'This is a test\n' greeting 127.0.0.1:4000
sleep 2 # for a status text and its like
expect active run systemctl is-active greeter.service
expect 0 run systemctl show --property=NRestarts --value greeter.service
expect_nothing_failed

check "the journal has no word of what a client said"
word=Xanthorrhoea
for port in 4000 4001 4002; do
	expect_match . run curl --http0.9 --silent --show-error --user-agent "$word" "http://127.0.0.1:$port/$word"
done
run journalctl --sync
expect 0 run sh -c "journalctl --quiet --no-pager --output=export | grep -c $word || true"
expect_match 'greeted 127.0.0.1' run journalctl --quiet --no-pager --identifier=greeter --lines=1
end_of_tests
