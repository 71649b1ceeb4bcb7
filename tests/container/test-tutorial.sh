#!/bin/bash
# The commands of docs/tutorial.md, run as they are printed by a user with sudo: each
# prints what the tutorial shows. Then each fault of its section "What goes wrong in
# service" is measured, with the small program and with greeter.
#   tests/container/test-tutorial.sh            tests
#   tests/container/test-tutorial.sh record     writes the present output to target/tutorial.md
image=tutorial packages="netcat-openbsd sudo"
. "$(dirname "$0")/lib.sh"
record=${1-}
set --
. "$(dirname "$0")/load.sh"
tutorial=$repository/docs/tutorial.md

# -- Comparison -----------------------------------------------------------------

# The only differences that are allowed between the printed and the actual output:
# times, process IDs and ports. An extended regular expression, then what replaces it in
# both. No byte count differs between runs.
patterns=(
	# Times.
	'[A-Z][a-z]{2} [0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8} UTC' 'DATE'
	'([0-9]+(\.[0-9]+)?(us|ms|s|min) ?)+ago' 'DURATION ago'
	'^[0-9]+\.[0-9]{3} s$' 'SECONDS s'
	# Process IDs.
	'(PID|Child) [0-9]+' '\1 PID'
	# Ports that the kernel has chosen.
	'(127\.0\.0\.1)(:| port )(3[2-9]|[456][0-9])[0-9]{3}\>' '\1\2PORT'
)

normalized() {
	local index expressions=()
	for ((index = 0; index < ${#patterns[@]}; index += 2)); do
		expressions+=(-e "s#${patterns[index]}#${patterns[index + 1]}#g")
	done
	sed -E "${expressions[@]}"
}

# -- The reader's shell ------------------------------------------------------------

# Starts a login shell in the directory of the source code. Background processes of the
# previous one end.
shell_pid=
start_shell() {
	[[ -z $shell_pid ]] || stop_shell
	rm -f "$container/commands"
	mkfifo "$container/commands"
	: >"$container/output"
	(
		trap - ERR
		run su --login admin --command 'cd greeter && export LANG=C.UTF-8 && exec bash 2>&1'
	) <"$container/commands" >"$container/output" &
	shell_pid=$!
	exec {commands}>"$container/commands"
	offset=0
}

stop_shell() {
	echo 'kill $(jobs -p) 2>/dev/null; exit' >&"$commands"
	exec {commands}>&-
	wait "$shell_pid" || :
	shell_pid=
}

# Prints what the shell has printed since the last command, without the marker that
# shows the end of a command.
end_marker=$'\001'
new_output() {
	tail -c +$((offset + 1)) "$container/output"
}

# run_command COMMAND EXPECTED: the shell runs the command and prints what is expected,
# at most 30 seconds later; background processes may print after the end of the command.
run_command() {
	local got want deadline=$((SECONDS + 30)) quiet=0
	[[ -z $record ]] || deadline=$((SECONDS + 60))
	printf '%s\nprintf "\\001\\n"\n' "$1" >&"$commands"
	want=$(normalized <<<"$2")
	while :; do
		got=$(new_output)
		if [[ $got == *"$end_marker"* ]]; then
			got=${got//"$end_marker"$'\n'/}
			got=${got//"$end_marker"/}
			got=${got%$'\n'}
			if [[ -n $record ]]; then
				quiet=$((quiet + 1))
				[[ $quiet -lt 10 ]] || break
			elif [[ $(normalized <<<"$got") == "$want" ]]; then
				break
			fi
		fi
		if ((SECONDS > deadline)); then
			[[ -z $record ]] || break
			diff --label "docs/tutorial.md" --label "printed" -u <(echo "$want") <(normalized <<<"$got") >&2 || :
			fail "not as in the tutorial: $1"
		fi
		sleep 0.1
	done
	offset=$(stat --format=%s "$container/output")
	recorded=$got
}

# Runs the command that was read, and compares its output; or records it.
finish_command() {
	[[ -n ${command-} ]] || return 0
	run_command "$command" "${expected%$'\n'}"
	if [[ -n $record && -n $recorded ]]; then
		printf '%s\n' "$recorded" >>"$repository/target/tutorial.md"
	fi
	command=''
}

emit() {
	[[ -z $record ]] || printf '%s\n' "$1" >>"$repository/target/tutorial.md"
}

# -- The container -----------------------------------------------------------------

create_container
echo host >"$container/root/etc/hostname"
write /etc/hosts <<<$'127.0.0.1 localhost host\n::1 localhost'
boot
run useradd --create-home --shell /bin/bash admin
echo 'admin ALL=(ALL:ALL) NOPASSWD: ALL' | write /etc/sudoers.d/admin
install_load
examples=(accept accepted inet)
for file in "$repository"/examples/faults/*.rs; do
	name=$(basename "$file" .rs)
	examples+=("fault-${name//_/-}")
done
for name in "${examples[@]}"; do
	[[ -x $repository/target/debug/examples/$name ]] ||
		fail "target/debug/examples/$name is missing; run 'cargo build --examples' first"
	copy_in "$repository/target/debug/examples/$name" /home/admin/greeter/target/debug/examples
done
copy_in "$repository/target/tools/greeter-load" /home/admin/greeter/target/tools
copy_in "$repository/examples/systemd" /home/admin/greeter/examples
copy_in "$(package)" /home/admin/greeter/dist
run chown -R admin: /home/admin/greeter

# -- Figures -------------------------------------------------------------------------

as_admin() { run su --login admin --command "cd greeter; $1"; }

# fault_unit NAME PORT "PROGRAM" PROPERTY...: a user unit with a socket.
fault_unit() {
	as_admin "systemd-run --user --quiet --unit=$1 --service-type=notify ${*:4} \
		--socket-property=ListenStream=127.0.0.1:$2 target/debug/examples/$3"
}

# Runs greeter-load until it ends; its report is in "$container/load".
load() {
	start_load load "$@" --timeout 20
	wait_for_load load
}

lost() { echo $(($(load_value "$1" started) - $(load_value "$1" greeted))); }
resets() { echo $(($(load_value load reset_before) + $(load_value load reset_after))); }

# figure WHAT SMALL GREETER: a row of the table in docs/tutorial.md.
figure() { note "| $1 | $2 | $3 |"; }

# Prints seconds with one digit after the point.
short_seconds() { printf '%.1f' "$(seconds_since "$1")"; }

# Measures each fault, the small program first. The units are those that the commands have
# left, and a session is open, as the user's manager ends with the last one.
measure() {
	check "figures: one connection, then exit"
	fault_unit figure-one-connection 4121 fault-one-connection
	started=$EPOCHREALTIME served=0
	while [[ $(greeting 127.0.0.1:4121 2>/dev/null || :) == "This is a test" && $served -lt 1000 ]]; do
		served=$((served + 1))
	done
	closed_after=$(short_seconds "$started")
	expect_within 5 is_closed 127.0.0.1:4121
	[[ $served -lt 20 ]] || fail "$served clients were greeted"
	load 127.0.0.1:4000 --clients 1000
	[[ $(load_value load greeted) == 1000 ]] || fail "$(cat "$container/load")"
	figure "One connection, then exit: clients greeted until the port is closed" \
		"$served in $closed_after s" "1,000 of 1,000, open"

	check "figures: READY after accept"
	fault_unit figure-ready 4122 fault-ready-after-accept --property=TimeoutStartSec=5s
	started=$EPOCHREALTIME
	expect_status 1 as_admin 'systemctl --user start figure-ready.service'
	small=$(short_seconds "$started")
	run systemctl stop --quiet greeter.service
	started=$EPOCHREALTIME
	run systemctl start greeter.service
	own=$(short_seconds "$started")
	[[ ${small%.*} -ge 5 && ${own%.*} -lt 3 ]] || fail "$small and $own s"
	figure "READY after accept: seconds of systemctl start (5 s allowed)" "$small, failed" "$own"

	check "figures: close with unread input"
	load 127.0.0.1:4100 --clients 1000 --talk 5000
	small=$(resets)
	load 127.0.0.1:4101 --clients 100 --talk 5000
	small_accepted=$(resets)
	load 127.0.0.1:4000 --clients 1000 --talk 5000
	own=$(resets)
	[[ $load_status = 0 ]] || fail "$(cat "$container/load")"
	load 127.0.0.1:4001 --clients 100 --talk 5000 --at-once 20
	[[ $load_status = 0 && $(resets) = 0 && $own = 0 && $small -gt 0 && $small_accepted -gt 50 ]] ||
		fail "$small $small_accepted $own $(cat "$container/load")"
	figure "Close with unread input: resets of 1,000 clients that send data first" "$small" "0"
	figure "The same with a process per connection, of 100 clients" "$small_accepted" "0"

	check "figures: a client that never closes"
	fault_unit figure-wait 4124 fault-wait-for-close
	hold_connections small 1 127.0.0.1:4124
	expect_status 124 run timeout 5 socat -u TCP:127.0.0.1:4124 -
	hold_connections own 1 127.0.0.1:4000
	started=$EPOCHREALTIME
	expect $'This is a test\n' greeting 127.0.0.1:4000
	own=$(short_seconds "$started")
	[[ ${own%.*} -lt 2 ]] || fail "$own s"
	stop_load small
	stop_load own
	figure "A client that never closes: seconds until the next one is greeted" "more than 5" "$own"

	check "figures: output on the client's socket"
	small=$(($(greeting 127.0.0.1:4102 | wc -c) - 39))
	write /etc/systemd/system/greeter-inet@.service.d/test.conf <<<$'[Service]\nStandardError=inherit'
	write /etc/greeter/greeter-inet.toml.d/test.toml <<<'mesage = "x"'
	run systemctl daemon-reload
	own=$(greeting 127.0.0.1:4002 | wc -c)
	rm -r "$container"/root/etc/{systemd/system/greeter-inet@.service.d,greeter/greeter-inet.toml.d}
	run systemctl daemon-reload
	[[ $small -gt 0 && $own = 0 ]] || fail "$small and $own bytes"
	figure "Output on the client's socket: bytes beside the greeting" "$small" "$own"

	check "figures: wrong settings"
	fault_unit figure-text 4126 'fault-text-file /home/admin/missing'
	started=$EPOCHREALTIME
	greeting 127.0.0.1:4126 >/dev/null 2>&1 || :
	expect_within 5 is_closed 127.0.0.1:4126
	small=$(short_seconds "$started")
	as_admin 'echo hello >~/missing && systemctl --user reset-failed figure-text.service && systemctl --user start figure-text.socket'
	expect hello greeting 127.0.0.1:4126
	rm "$container/root/home/admin/missing"
	started=$EPOCHREALTIME
	for _ in 1 2; do greeting 127.0.0.1:4126 >/dev/null 2>&1 || :; done
	expect_within 5 is_closed 127.0.0.1:4126
	running=$(short_seconds "$started")
	write /etc/greeter/greeter.toml.d/test.toml <<<'mesage = "x"'
	expect_status 1 run systemctl reload greeter.service
	expect $'This is a test\n' greeting 127.0.0.1:4000
	run systemctl stop --quiet greeter.service
	start_load own 127.0.0.1:4000 --clients 100 --at-once 100 --timeout 60
	sleep 3
	rm "$container/root/etc/greeter/greeter.toml.d/test.toml"
	started=$EPOCHREALTIME
	wait_for_load own
	own=$(short_seconds "$started")
	expect_none_lost own
	figure "Wrong settings at start: the port" \
		"closed after $small s, also after the fix" "open; 100 waiting clients greeted $own s after the fix"
	figure "Wrong settings while it runs" "closed $running s after the change" "reload fails, greets as before"

	check "figures: failed instances"
	write "/home/admin/.config/systemd/user/tutorial-accepted@.service.d/test.conf" <<<$'[Service]\nExecStart=\nExecStart=/bin/false'
	as_admin 'systemctl --user daemon-reload'
	write /etc/greeter/greeter-accepted.toml.d/test.toml <<<'mesage = "x"'
	for _ in {1..50}; do
		greeting 127.0.0.1:4101 2>/dev/null || :
		greeting 127.0.0.1:4001 2>/dev/null || :
	done
	expect_within 10 no_instances
	small=$(as_admin "systemctl --user list-units --failed --plain --no-legend 'tutorial-accepted@*' | wc -l")
	own=$(run systemctl list-units --failed --plain --no-legend 'greeter-accepted@*' | wc -l)
	rm -r "$container/root/home/admin/.config/systemd/user/tutorial-accepted@.service.d" \
		"$container/root/etc/greeter/greeter-accepted.toml.d"
	as_admin 'systemctl --user daemon-reload; systemctl --user reset-failed'
	[[ $small = 50 && $own = 0 ]] || fail "$small and $own"
	figure "Failed instances left after 50 failures" "$small" "$own"

	# cpu_without_descriptors "SYSTEMCTL [OPTION]" PORT SERVICE [sudo]: milliseconds of CPU in 3
	# seconds without a free descriptor, while a client waits.
	cpu_without_descriptors() {
		local pid before after port=$2
		pid=$(as_admin "$1 show -P MainPID $3")
		as_admin "${4-} prlimit --pid $pid --nofile=5:"
		greeting "127.0.0.1:$port" >/dev/null &
		greeting "127.0.0.1:$port" >/dev/null &
		sleep 0.5
		before=$(as_admin "$1 show -P CPUUsageNSec $3")
		sleep 3
		after=$(as_admin "$1 show -P CPUUsageNSec $3")
		as_admin "${4-} prlimit --pid $pid --nofile=1024:"
		echo $(((after - before) / 1000000))
	}
	check "figures: descriptors used up"
	# Its first log lines are those of this check.
	as_admin 'systemctl --user restart tutorial-accept.service'
	pid=$(as_admin 'systemctl --user show -P MainPID tutorial-accept.service')
	small=$(cpu_without_descriptors "systemctl --user" 4100 tutorial-accept.service)
	run systemctl restart greeter.service
	own_pid=$(property MainPID greeter.service)
	own=$(cpu_without_descriptors systemctl 4000 greeter.service sudo)
	[[ $small -gt 300 && $own -lt 100 ]] || fail "$small and $own ms"
	run journalctl --sync
	lines=$(run journalctl -q _PID="$pid" -o cat | grep -c 'cannot accept')
	own_lines=$(run journalctl -q _PID="$own_pid" -o cat | grep -c 'cannot accept')
	[[ $lines -gt 1000 && $own_lines = 1 ]] || fail "$lines and $own_lines lines"
	figure "Descriptors used up: milliseconds of CPU in 3 s" "$small" "$own"
	figure "The same: log lines (after journald's own limit)" "$lines" "$own_lines"

	check "figures: a flood of log lines"
	as_admin 'systemctl --user restart tutorial-accept.service'
	pid=$(as_admin 'systemctl --user show -P MainPID tutorial-accept.service')
	load 127.0.0.1:4100 --clients 1000
	run systemctl restart greeter.service
	own_pid=$(property MainPID greeter.service)
	load 127.0.0.1:4000 --clients 1000
	sleep 2
	run journalctl --sync
	lines=$(run journalctl -q _PID="$pid" -o cat | grep -c greeted)
	own_lines=$(run journalctl -q _PID="$own_pid" -o cat | grep -c greeted)
	[[ $lines = 1000 && $own_lines -le 100 ]] || fail "$lines and $own_lines lines"
	figure "A flood of log lines: lines for 1,000 clients" "$lines" "$own_lines, the others counted"

	# restart_under_load ADDRESS COMMAND: runs the command 25 times under load.
	restart_under_load() {
		start_load load "$1" --for 60
		for _ in {1..25}; do
			as_admin "$2"
			sleep 0.1
		done
		stop_load load
	}
	check "figures: restart under load"
	# Without notifications: at full load, a STATUS= for each client keeps the user's manager
	# so busy that systemctl times out.
	write "/home/admin/.config/systemd/user/tutorial-accept.service.d/test.conf" \
		<<<$'[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=exec\nNotifyAccess=none'
	as_admin 'systemctl --user daemon-reload'
	small=0 small_clients=0 small_restarts=0
	until [[ $small -gt 0 || $small_restarts -ge 200 ]]; do
		restart_under_load 127.0.0.1:4100 'systemctl --user restart tutorial-accept.service'
		small=$((small + $(lost load))) small_clients=$((small_clients + $(load_value load started)))
		small_restarts=$((small_restarts + 25))
	done
	restart_under_load 127.0.0.1:4000 'sudo systemctl restart greeter.service'
	own=$(lost load) own_clients=$(load_value load started)
	[[ $small -gt 0 && $own = 0 ]] || fail "lost $small and $own: $(cat "$container/load")"
	figure "Restart under load: clients lost" "$small of $small_clients in $small_restarts restarts" \
		"$own of $own_clients in 25 restarts"
	expect_status 1 as_admin 'systemctl --user restart tutorial-accept.socket'
	expect_status 0 run systemctl restart greeter.socket
	expect $'This is a test\n' greeting 127.0.0.1:4000
	figure "Restart of the socket" "fails" "works"

	check "figures: environment variables that are not validated"
	# shellcheck disable=SC2016 # $$ is of the other shell
	number='LISTEN_PID=$$ LISTEN_FDS=18446744073709551615 exec'
	expect_status 101 as_admin "sh -c '$number target/debug/examples/accept'"
	expect_status 1 as_admin "sh -c '$number greeter'"
	figure "Environment variables that are not validated: exit status with an invalid LISTEN_FDS=" "101, a panic" "1, a line with the reason"

	check "figures: the sandbox"
	for unit in tutorial-accepted.socket tutorial-accepted@.service; do
		sed 's|%h|/home/admin|; s|4101|4131|' "$repository/examples/systemd/$unit" | write "/etc/systemd/system/$unit"
	done
	run systemctl daemon-reload
	run systemctl start tutorial-accepted.socket
	cpu_per_connection() {
		local before after
		before=$(systemd_cpu_usec)
		load "127.0.0.1:$1" --clients 60 --rate 10 --at-once 4
		expect_within 10 no_instances
		after=$(systemd_cpu_usec)
		echo $(((after - before) / 60000))
	}
	small=$(cpu_per_connection 4131)
	own=$(cpu_per_connection 4001)
	exposure=$(run systemd-analyze security --no-pager tutorial-accepted@.service | sed -n 's/.*service: \([0-9.]*\).*/\1/p')
	own_exposure=$(run systemd-analyze security --no-pager greeter-accepted@.service | sed -n 's/.*service: \([0-9.]*\).*/\1/p')
	[[ ${exposure%.*} -ge 9 && ${own_exposure%.*} = 0 && $small -gt 0 && $small -lt $own ]] ||
		fail "$exposure $own_exposure $small $own"
	figure "The sandbox: exposure" "$exposure" "$own_exposure"
	figure "Its cost: milliseconds of CPU per process, of systemd and the process" "$small" "$own"
}

# -- The commands --------------------------------------------------------------------

[[ -z $record ]] || : >"$repository/target/tutorial.md"
command='' expected='' block=
exec {tutorial_fd}<"$tutorial"
while IFS= read -r -u "$tutorial_fd" line; do
	case $block in
		console)
			case $line in
				'```')
					finish_command
					block=
					emit "$line"
					;;
				'$ '*)
					finish_command
					command=${line#'$ '} expected=''
					emit "$line"
					;;
				'> '*)
					command+=$'\n'${line#'> '}
					emit "$line"
					;;
				*) expected+=$line$'\n' ;;
			esac
			continue
			;;
		other) [[ $line != '```' ]] || block= ;;
		*)
			case $line in
				'```console') block=console ;;
				'```'*) block=other ;;
				'##'*)
					check "as printed: ${line##*# }"
					start_shell
					[[ $line != '### Both sides in figures' || -n $record ]] || measure
					;;
			esac
			;;
	esac
	emit "$line"
done
stop_shell
end_of_tests
