# shellcheck shell=bash
# Boots a container with Debian 13 and a real systemd for the script that sources this
# file, and runs commands in it. A script in this directory begins like this:
#
#     #!/bin/bash
#     # What it tests, in one sentence.
#     image=mail packages="postfix swaks"     # only if it needs additional packages
#     . "$(dirname "$0")/lib.sh"
#     boot
#     check "a client receives the greeting"
#     expect $'This is a test\n' greeting 127.0.0.1:4000
#     end_of_tests
#
# The script runs twice. The first time, `. lib.sh` builds the Debian image (or finds
# an existing one), runs the script again in separate mount and process namespaces,
# waits for it and cleans up. Everything that the second run mounts, starts or writes
# is removed by the kernel with the namespaces, also if the script is interrupted or
# killed. Each container has a new overlay of the image, its own control group, and no
# network except its loopback device.
#
# No test is skipped: if a container does not boot, the script prints why and fails.
set -Eeuo pipefail

repository=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
script=$(realpath "$0")
# The packages in every container; `packages` adds to them.
packages="systemd systemd-sysv dbus libpam-systemd curl iproute2 procps socat ${packages-}"

if [[ -z ${GREETER_CGROUP-} ]]; then
	mkdir -p "$repository/target"
	if [[ $(id -u) != 0 ]]; then
		exec "$repository/tools/as-root" env "PATH=$PATH:/usr/sbin:/sbin" "$script" "$@"
	fi
	# shellcheck disable=SC2086 # one word per package
	image_path=$("$repository/tools/root" "${image:-container}" $packages)
	if [[ ${1-} == --image ]]; then
		echo "$image_path"
		exit
	fi
	cgroup_root=$(findmnt --noheadings --first-only --types cgroup2 --output TARGET) ||
		{ echo >&2 "greeter: no cgroup2 file system is mounted; systemd requires one"; exit 1; }
	name=greeter-$$
	# One control group for this script and one for each container: systemd requires a
	# group of its own. The kernel does not remove groups, so this script removes them,
	# and those of earlier scripts that were killed.
	remove_cgroup() { find "$1" -depth -type d -exec rmdir {} + 2>/dev/null; }
	for stale in "$cgroup_root"/greeter-*; do
		if [[ -d $stale && ! -e /proc/${stale##*-} ]]; then
			remove_cgroup "$stale" || :
		fi
	done
	mkdir -p "$cgroup_root/$name/script"
	clean_up() {
		# Ignore further signals during cleanup.
		trap - EXIT
		trap '' INT TERM HUP
		if [[ -n ${inner-} ]]; then
			kill -KILL "$inner" 2>/dev/null || :
			wait "$inner" 2>/dev/null || :
		fi
		for _ in {1..100}; do
			remove_cgroup "$cgroup_root/$name" && return
			sleep 0.05
		done
		echo >&2 "greeter: cannot remove the control group '$cgroup_root/$name'"
	}
	trap clean_up EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	trap 'exit 129' HUP
	# The lock marks the image as in use, see tools/root. If this process exits, the
	# kernel kills unshare and with it everything in the namespaces.
	GREETER_IMAGE=$image_path GREETER_CGROUP=$name setpriv --pdeathsig KILL \
		flock --shared --no-fork "$image_path" \
		unshare --mount --pid --ipc --uts --fork --kill-child --mount-proc \
		"$script" "$@" </dev/null &
	inner=$!
	status=0
	wait "$inner" || status=$?
	inner=
	exit "$status"
fi

# From here on, this is the second run, in the namespaces. Bash is process 1 here, and
# the kernel delivers to process 1 only the signals that it has a handler for.
trap 'exit 143' INT TERM HUP
mount -t tmpfs -o mode=0755 greeter /mnt
# systemd-nspawn keeps its state in /run: keep it out of the host's /run.
mount -t tmpfs -o mode=0755 greeter /run
# On hosts with a hybrid of both control group versions, systemd-nspawn would boot a
# systemd that cannot filter addresses: mount version 2 only.
umount --lazy --recursive /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
cgroup=/sys/fs/cgroup/$GREETER_CGROUP
echo $$ >"$cgroup/script/cgroup.procs"

containers=0  # the number of containers created
container=    # the directory of the current one: root/, its root file system, and logs
nspawn_pid=   # the process ID of its systemd-nspawn
passed=0      # the number of passed checks
title=        # the title of the current check

# -- Containers -----------------------------------------------------------------

# Creates a container without booting it, so that files can be added to
# "$container/root" first.
create_container() {
	containers=$((containers + 1))
	container=/mnt/$containers
	mkdir -p "$container"/{upper,work,root}
	mount -t overlay -o "lowerdir=$GREETER_IMAGE,upperdir=$container/upper,workdir=$container/work" \
		greeter "$container/root"
	# With a machine ID this is not a first boot, in which systemd applies presets.
	tr -d - </proc/sys/kernel/random/uuid >"$container/root/etc/machine-id"
}

# Boots the created container, or a new one, and waits until the boot is complete, with
# this state of systemd: running, or degraded if a unit is expected to fail. Further
# arguments are options of systemd-nspawn.
boot() {
	local want=${1:-running}
	[[ -n $container ]] || create_container
	mkdir -p "$cgroup/container$containers"
	(
		echo "$BASHPID" >"$cgroup/container$containers/cgroup.procs"
		export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
		# bpf: for IPAddressDeny= and IPAddressAllow=, which containers cannot use by
		# default.
		exec systemd-nspawn --directory="$container/root" --machine="$GREETER_CGROUP-$containers" \
			--boot --quiet --settings=no --register=no --keep-unit --private-network \
			--resolv-conf=off --timezone=off --link-journal=no --console=pipe \
			--capability=CAP_BPF --system-call-filter=bpf "${@:2}"
	) </dev/null >"$container/console" 2>&1 &
	nspawn_pid=$!
	local state=
	for _ in {1..600}; do
		kill -0 "$nspawn_pid" 2>/dev/null || break
		state=$(run systemctl is-system-running 2>/dev/null || :)
		[[ $state != "$want" ]] || return 0
		[[ $state != running && $state != degraded ]] || break
		sleep 0.05
	done
	cat "$container/console" >&2
	fail "the container does not boot; the state of systemd is '${state:-unknown}'"
}

# Reboots, to this state: with status 133 systemd-nspawn reports a reboot, and the caller
# performs it.
reboot() {
	local status=0
	run systemctl reboot
	wait "$nspawn_pid" || status=$?
	[[ $status = 133 ]] || fail "systemd-nspawn exited with $status instead of 133"
	boot "${1-}"
}

# Kills the container, if there is one, as a power failure would.
destroy_container() {
	[[ -n $container ]] || return 0
	if [[ -n $nspawn_pid ]]; then
		kill -KILL "$nspawn_pid"
		wait "$nspawn_pid" 2>/dev/null || :
	fi
	umount --lazy "$container/root"
	rm -rf "$container/upper" "$container/work"
	container='' nspawn_pid=''
}

# Prints the process ID of the container's systemd. A reboot changes it.
leader() {
	local leader=
	read -r leader _ <"/proc/$nspawn_pid/task/$nspawn_pid/children" || :
	if [[ -z $leader ]]; then
		echo "the container is not running" >&2
		return 1
	fi
	echo "$leader"
}

# Runs a command in the container, as root, without the environment of this script.
run() {
	local leader
	leader=$(leader) || return
	nsenter --all --target "$leader" -- env -i HOME=/root LANG=C.UTF-8 TERM=dumb \
		PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		DEBIAN_FRONTEND=noninteractive SYSTEMD_COLORS=0 SYSTEMD_PAGER='' SYSTEMD_LOG_LEVEL=notice \
		"$@"
}

# copy_in FILE... DIRECTORY: copies files or directories of the host to a directory of
# the container.
copy_in() {
	local to=${!#}
	mkdir -p "$container/root$to"
	cp -r -t "$container/root$to" "${@:1:$#-1}"
}

# Writes standard input to a file of the container, and creates its parent directories.
write() {
	mkdir -p "$(dirname "$container/root$1")"
	cat >"$container/root$1"
}

# -- Helpers for tests ------------------------------------------------------------

# Prints the path of the package under test.
package() {
	local found
	found=("$repository"/dist/greeter_*_"$(dpkg --print-architecture)".deb)
	[[ -e ${found[0]} ]] || fail "there is no Debian package in dist/; run 'make deb' first"
	[[ ${#found[@]} = 1 ]] || fail "there is more than one Debian package in dist/: ${found[*]}"
	echo "${found[0]}"
}

# Installs the package as users do, and the load generator.
install_greeter() {
	local deb
	deb=$(package)
	copy_in "$deb" /root/packages
	install_load
	run apt install -y "/root/packages/${deb##*/}" >"$container/apt.log" 2>&1 ||
		{ cat "$container/apt.log"; fail "apt cannot install the package"; }
}

# Creates the login account of greetd, as its packages and image builds do, with the
# sysusers.d file NAME.conf, and prints all accounts.
create_greetd_account() {
	write "/usr/lib/sysusers.d/$1.conf" <<-'END'
		u greeter - "Greeter daemon" /var/lib/greetd /bin/bash
		m greeter video
	END
	run systemd-sysusers
	run cat /etc/passwd /etc/group
}

install_load() {
	[[ -x $repository/target/tools/greeter-load ]] ||
		fail "there is no target/tools/greeter-load; run 'make load' first"
	copy_in "$repository/target/tools/greeter-load" /usr/local/bin
}

# Prints what a client that sends nothing receives from IP:PORT, [IP6]:PORT or /path.
greeting() {
	case $1 in
		/*) run socat -u -T 30 "UNIX-CONNECT:$1" - ;;
		*) run socat -u -T 30 "TCP:$1" - ;;
	esac
}

# Succeeds if no socket listens on IP:PORT.
is_closed() {
	! run socat -u "TCP:$1" - >/dev/null 2>&1
}

# Prints journal entries as JSON, including all that were written until now.
journal() {
	run journalctl --sync
	run journalctl --quiet --no-pager --output=json "$@"
}

# Prints the cursor of the last journal entry.
journal_cursor() {
	run journalctl --sync
	run journalctl --quiet --no-pager --lines=0 --show-cursor | sed -n 's/^-- cursor: //p'
}

# property NAME UNIT: prints a property of a unit.
property() {
	run systemctl show --value --property="$1" "$2"
}

# visible PID: prints every file that a process sees, without those in the directories that
# each service sees (of which /lib and /lib64 are parts of /usr), in /proc and in /dev.
visible() {
	run nsenter --target "$1" --mount find / '(' -path /usr -o -path /lib -o -path /lib64 -o \
		-path /etc/greeter -o -path /run/greeter -o -path /proc -o -path /dev ')' -prune -o \
		! -type d -print
}

# Succeeds if no per-connection service exists.
no_instances() {
	[[ -z $(run systemctl list-units --plain --no-legend --all 'greeter-*@*') ]]
}

# No unit is in the failed state.
expect_nothing_failed() {
	expect "" run systemctl list-units --failed --plain --no-legend
}

# -- Assertions -----------------------------------------------------------------

# Begins a check with this title. The check has passed when the next one begins.
check() {
	pass_check
	title=$1
	started_at=$EPOCHREALTIME
}

pass_check() {
	[[ -n $title ]] || return 0
	passed=$((passed + 1))
	printf 'ok %3d  %6.1f s  %s\n' "$passed" "$(seconds_since "$started_at")" "$title"
	title=
}

# Prints the seconds since a value of EPOCHREALTIME.
seconds_since() {
	local microseconds=$((${EPOCHREALTIME/[.,]/} - ${1/[.,]/}))
	printf '%d.%06d' $((microseconds / 1000000)) $((microseconds % 1000000))
}

# Ends the script, which must call this last, and prints the number of checks.
end_of_tests() {
	pass_check
	destroy_container
	[[ $passed -gt 0 ]] || fail "the script has no checks"
	echo "$passed passed, 0 failed"
}

# Prints the error, its line in the script, and the end of the container's journal.
fail() {
	local frame=0
	trap - ERR
	set +e
	while [[ ${BASH_SOURCE[frame]-} == *lib.sh ]]; do frame=$((frame + 1)); done
	{
		echo "FAILED  ${title:-before the first check}"
		echo "  ${BASH_SOURCE[frame]#"$repository"/}:${BASH_LINENO[frame - 1]}: $*"
	} >&2
	# In a subshell, only exit: the parent shell detects the status and continues below.
	[[ $BASH_SUBSHELL = 0 ]] || exit 1
	if [[ -n $nspawn_pid ]]; then
		echo "  the last lines of the container's journal:"
		run journalctl --sync
		run journalctl --no-pager --lines=40 | sed 's/^/    /'
		run systemctl list-units --failed --no-pager --no-legend | sed 's/^/  failed: /'
	fi
	echo "$passed passed, 1 failed"
	exit 1
}
trap 'fail "status $? of: $BASH_COMMAND"' ERR

# expect TEXT COMMAND...: the command succeeds and prints exactly this text.
expect() {
	local want=$1 got
	shift
	# The full stop preserves trailing newlines, which $(…) would remove. TEXT may omit
	# the last newline if only the text matters.
	got=$("$@" && echo .) || fail "failed: $*: $got"
	got=${got%.$'\n'}
	got=${got%.}
	[[ $got == "$want" || $got == "$want"$'\n' && $want != *$'\n' ]] ||
		fail "printed $(printf %q "$got") instead of $(printf %q "$want"): $*"
}

# expect_match PATTERN COMMAND...: the command succeeds and prints a line that matches.
expect_match() {
	local pattern=$1 got
	shift
	got=$("$@") || fail "failed: $*: $got"
	grep -Eq -- "$pattern" <<<"$got" || fail "no line matches '$pattern' in the output of: $*: $got"
}

# expect_status STATUS COMMAND...: the command exits with this status. Its output is
# in "$output" afterwards.
expect_status() {
	local want=$1 got=0
	shift
	output=$("$@" 2>&1) || got=$?
	[[ $got == "$want" ]] || fail "exited with $got instead of $want: $*: $output"
}

# program STATUS COMMAND...: runs a program, which must exit with this status, and prints
# its output, which is in "$output" afterwards.
program() {
	local want=$1 got=0
	shift
	printf '        $ %s\n' "$*"
	output=$(run timeout --foreground 60 "$@" </dev/null 2>&1) || got=$?
	output=${output//$'\r'/}
	printf '%s\n' "$output" | sed 's/^/        | /'
	[[ $got == "$want" ]] || fail "exited with $got instead of $want: $*"
}

# The output of the last program contains each of these texts.
expect_output() {
	local text
	for text; do
		[[ $output == *"$text"* ]] || fail "the output does not contain: $text"
	done
}

# expect_within SECONDS COMMAND...: the command, repeated, succeeds within this time.
expect_within() {
	local seconds=$1 start=$SECONDS
	shift
	until "$@" >/dev/null 2>&1; do
		((SECONDS - start <= seconds)) || fail "did not succeed within $seconds seconds: $*"
		sleep 0.1
	done
}
