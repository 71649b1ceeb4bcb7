# shellcheck shell=bash
# Boots a real systemd, of Debian 13, for the script that reads this file, and
# runs commands in it. A script of this folder starts so:
#
#     #!/bin/bash
#     # What it tests, in a sentence.
#     tree=mail packages="postfix swaks"     # only if it needs more than all do
#     . "$(dirname "$0")/lib.sh"
#     boot
#     check "a client reads the greeting"
#     expect $'This is a test\n' greeting 127.0.0.1:4000
#     end_of_tests
#
# The script runs twice. The first time, `. lib.sh` makes the Debian tree (or
# finds the one made before), starts the script again in mount and process
# namespaces of its own, waits for it and cleans up. So whatever the second one
# mounts, starts or writes, the kernel takes away with the namespaces, also when
# the script is interrupted or killed. Each machine stands on a fresh overlay of
# the tree, has a control group of its own, and no network but its loopback.
#
# Nothing is skipped: where a machine cannot boot, the script says why and fails.
set -Eeuo pipefail

repository=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
script=$(realpath "$0")
# What every machine has; `packages` adds to it.
packages="systemd systemd-sysv dbus libpam-systemd curl iproute2 procps socat ${packages-}"

if [[ -z ${GREETER_CONTROL_GROUP-} ]]; then
	mkdir -p "$repository/target"
	if [[ $(id -u) != 0 ]]; then
		exec "$repository/tools/as-root" env "PATH=$PATH:/usr/sbin:/sbin" "$script" "$@"
	fi
	# shellcheck disable=SC2086 # one word a package
	base=$("$repository/tools/root" "${tree:-machine}" $packages)
	[[ ${1-} != --tree ]] || { echo "$base"; exit; }
	hierarchy=$(findmnt --noheadings --first-only --types cgroup2 --output TARGET) ||
		{ echo >&2 "greeter: no cgroup2 file system is mounted, and systemd needs one"; exit 1; }
	name=greeter-$$
	# A group for us and one for each machine: systemd shares its group with
	# nobody. The kernel removes no group by itself, so that is ours to do, and
	# the next one's where a script was killed before it could.
	remove_group() { find "$1" -depth -type d -exec rmdir {} + 2>/dev/null; }
	for stale in "$hierarchy"/greeter-*; do
		[[ ! -d $stale || -e /proc/${stale##*-} ]] || remove_group "$stale" || :
	done
	mkdir -p "$hierarchy/$name/script"
	finish() {
		# Whoever is impatient and interrupts twice ends us no sooner.
		trap - EXIT
		trap '' INT TERM HUP
		if [[ -n ${inner-} ]]; then
			kill -KILL "$inner" 2>/dev/null || :
			wait "$inner" 2>/dev/null || :
		fi
		for _ in {1..100}; do
			remove_group "$hierarchy/$name" && return
			sleep 0.05
		done
		echo >&2 "greeter: cannot remove the control group '$hierarchy/$name'"
	}
	trap finish EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	trap 'exit 129' HUP
	# The lock says that this tree is in use: see tools/root. The kernel kills
	# unshare when we are gone, and all that is in the namespaces with it.
	GREETER_BASE=$base GREETER_CONTROL_GROUP=$name setpriv --pdeathsig KILL \
		flock --shared --no-fork "$base" \
		unshare --mount --pid --ipc --uts --fork --kill-child --mount-proc \
		"$script" "$@" </dev/null &
	inner=$!
	status=0
	wait "$inner" || status=$?
	inner=
	exit "$status"
fi

# From here on, in the namespaces. Bash is process 1 here, and the kernel keeps
# from process 1 every signal that it has no handler for.
trap 'exit 143' INT TERM HUP
mount -t tmpfs -o mode=0755 greeter /mnt
# systemd-nspawn keeps its books in /run: not in the host's.
mount -t tmpfs -o mode=0755 greeter /run
# Hosts with both versions of control groups have a mixture here, with which
# nspawn boots a systemd that filters no addresses.
umount --lazy --recursive /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
group=/sys/fs/cgroup/$GREETER_CONTROL_GROUP
echo $$ >"$group/script/cgroup.procs"

machines=0   # how many were made
machine=     # the folder of the present one: root/, the tree, and console, its log
supervisor=  # its systemd-nspawn
passed=0     # checks
title=       # of the present check

# -- Machines -----------------------------------------------------------------

# Makes a fresh machine without booting it, so that files can be put in
# "$machine/root" first.
fresh() {
	machines=$((machines + 1))
	machine=/mnt/$machines
	mkdir -p "$machine"/{upper,work,root}
	mount -t overlay -o "lowerdir=$GREETER_BASE,upperdir=$machine/upper,workdir=$machine/work" \
		greeter "$machine/root"
	# A machine-id of its own, and so no first boot, which would apply presets.
	tr -d - </proc/sys/kernel/random/uuid >"$machine/root/etc/machine-id"
}

# Boots the machine that `fresh` made, or a fresh one, and waits until it is up.
boot() {
	[[ -n $machine ]] || fresh
	mkdir -p "$group/machine$machines"
	(
		echo "$BASHPID" >"$group/machine$machines/cgroup.procs"
		export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
		# bpf: for IPAddressDeny= and its kin, which a container may not use as is.
		exec systemd-nspawn --directory="$machine/root" --machine="$GREETER_CONTROL_GROUP-$machines" \
			--boot --quiet --settings=no --register=no --keep-unit --private-network \
			--resolv-conf=off --timezone=off --link-journal=no --console=pipe \
			--capability=CAP_BPF --system-call-filter=bpf
	) </dev/null >"$machine/console" 2>&1 &
	supervisor=$!
	local state=
	for _ in {1..600}; do
		kill -0 "$supervisor" 2>/dev/null || break
		state=$(run systemctl is-system-running 2>/dev/null || :)
		[[ $state != running ]] || return 0
		[[ $state != degraded ]] || break
		sleep 0.05
	done
	cat "$machine/console" >&2
	fail "the machine does not boot: it is '${state:-not there}'"
}

# Ends the machine, if there is one, as pulling its plug would.
end() {
	[[ -n $machine ]] || return 0
	if [[ -n $supervisor ]]; then
		kill -KILL "$supervisor"
		wait "$supervisor" 2>/dev/null || :
	fi
	umount --lazy "$machine/root"
	rm -rf "$machine/upper" "$machine/work"
	machine='' supervisor=''
}

# Runs a command in the machine, as root, with nothing of our environment.
run() {
	local leader=
	# Asked each time: after a reboot it is another.
	read -r leader _ <"/proc/$supervisor/task/$supervisor/children" || :
	[[ -n $leader ]] || { echo "the machine is gone" >&2; return 1; }
	nsenter --all --target "$leader" -- env -i HOME=/root LANG=C.UTF-8 TERM=dumb \
		PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		DEBIAN_FRONTEND=noninteractive SYSTEMD_COLORS=0 SYSTEMD_PAGER='' SYSTEMD_LOG_LEVEL=notice \
		"$@"
}

# Copies files or folders of ours into a folder of the machine.
copy_in() {
	local to=${!#}
	mkdir -p "$machine/root$to"
	cp -r -t "$machine/root$to" "${@:1:$#-1}"
}

# Writes standard input to a file of the machine, and makes the folders above it.
write() {
	mkdir -p "$(dirname "$machine/root$1")"
	cat >"$machine/root$1"
}

# -- What the scripts test with -------------------------------------------------

# The package under test, as a path.
package() {
	local found
	found=("$repository"/dist/greeter_*_"$(dpkg --print-architecture)".deb)
	[[ -e ${found[0]} ]] || fail "there is no Debian package in dist/: run 'make deb' first"
	[[ ${#found[@]} = 1 ]] || fail "there is more than one Debian package in dist/: ${found[*]}"
	echo "${found[0]}"
}

# Installs the package as users do, and the load generator beside it.
install_greeter() {
	local deb
	deb=$(package)
	copy_in "$deb" /root/packages
	install_load
	run apt install -y "/root/packages/${deb##*/}" >"$machine/apt.log" 2>&1 ||
		{ cat "$machine/apt.log"; fail "apt cannot install the package"; }
}

install_load() {
	[[ -x $repository/target/tools/greeter-load ]] ||
		fail "there is no target/tools/greeter-load: run 'make load' first"
	copy_in "$repository/target/tools/greeter-load" /usr/local/bin
}

# What a client reads that says nothing: of IP:PORT, [IP6]:PORT or /a/path.
greeting() {
	case $1 in
		/*) run socat -u -T 30 "UNIX-CONNECT:$1" - ;;
		*) run socat -u -T 30 "TCP:$1" - ;;
	esac
}

# Whether nobody listens at IP:PORT.
closed() {
	! run socat -u "TCP:$1" - >/dev/null 2>&1
}

# Journal entries as JSON, once all that was written up to now is in there.
journal() {
	run journalctl --sync
	run journalctl --quiet --no-pager --output=json "$@"
}

# No unit may have failed, however briefly: journal and list are both asked.
expect_nothing_failed() {
	expect "" run systemctl list-units --failed --plain --no-legend
}

# -- Assertions -----------------------------------------------------------------

# Begins a check: a claim, as a sentence. It has passed when the next one begins.
check() {
	check_passed
	title=$1
	began=$EPOCHREALTIME
}

check_passed() {
	[[ -n $title ]] || return 0
	passed=$((passed + 1))
	printf 'ok %3d  %6.1f s  %s\n' "$passed" "$(bc_seconds "$began")" "$title"
	title=
}

# Seconds since a value of EPOCHREALTIME.
bc_seconds() {
	local microseconds=$((${EPOCHREALTIME/[.,]/} - ${1/[.,]/}))
	printf '%d.%06d' $((microseconds / 1000000)) $((microseconds % 1000000))
}

# The last line of every script. The closing line counts its checks.
end_of_tests() {
	check_passed
	end
	[[ $passed -gt 0 ]] || { title="anything"; fail "the script has checked nothing"; }
	echo "$passed passed, 0 failed"
}

# Says what is wrong, where in the script, and what the machine has to say to it.
fail() {
	local frame=0
	trap - ERR
	set +e
	while [[ ${BASH_SOURCE[frame]-} == *lib.sh ]]; do frame=$((frame + 1)); done
	{
		echo "FAILED  ${title:-before the first check}"
		echo "  ${BASH_SOURCE[frame]#"$repository"/}:${BASH_LINENO[frame - 1]}: $*"
	} >&2
	# In a subshell: the shell above sees the status, and goes on below.
	[[ $BASH_SUBSHELL = 0 ]] || exit 1
	if [[ -n $supervisor ]]; then
		echo "  what the machine's journal ends with:"
		run journalctl --sync
		run journalctl --no-pager --lines=40 | sed 's/^/    /'
		run systemctl list-units --failed --no-pager --no-legend | sed 's/^/  failed: /'
	fi
	echo "$passed passed, 1 failed"
	exit 1
}
trap 'fail "status $? of: $BASH_COMMAND"' ERR

# The command succeeds and prints exactly this.
expect() {
	local want=$1 got
	shift
	# The full stop keeps the line ends, which $(…) would drop; commands of which
	# only the text matters may leave the last one out of WANT.
	got=$("$@" && echo .) || fail "this failed: $*: $got"
	got=${got%.$'\n'}
	got=${got%.}
	[[ $got == "$want" || $got == "$want"$'\n' && $want != *$'\n' ]] ||
		fail "this printed $(printf %q "$got"), not $(printf %q "$want"): $*"
}

# The command succeeds and prints a line that matches.
expect_match() {
	local pattern=$1 got
	shift
	got=$("$@") || fail "this failed: $*: $got"
	grep -Eq -- "$pattern" <<<"$got" || fail "nothing matches '$pattern' in what this printed: $*: $got"
}

# The command ends with this status. What it prints is in "$output" then.
expect_status() {
	local want=$1 got=0
	shift
	output=$("$@" 2>&1) || got=$?
	[[ $got == "$want" ]] || fail "this ended with $got, not $want: $*: $output"
}

# The command succeeds within so many seconds, tried again and again.
expect_within() {
	local seconds=$1 start=$SECONDS
	shift
	until "$@" >/dev/null 2>&1; do
		((SECONDS - start <= seconds)) || fail "this did not succeed within $seconds seconds: $*"
		sleep 0.1
	done
}
