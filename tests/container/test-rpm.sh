#!/bin/bash
# Installation, upgrade and removal of the RPM with dnf, from a repository, on a Debian
# with stub packages of an RPM distribution: the installation enables nothing, an upgrade
# under load loses no connection, the removal stops everything and keeps edited settings.
image=dnf packages="createrepo-c dnf rpm"
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/load.sh"
. "$(dirname "$0")/next.sh"

sockets="greeter.socket greeter-accepted.socket greeter-inet.socket"

rpm=("$repository"/dist/greeter-[0-9]*."$(uname -m)".rpm)
[[ -e ${rpm[0]} ]] || fail "there is no RPM in dist/; run 'make rpm' first"
[[ ${#rpm[@]} = 1 ]] || fail "there is more than one RPM in dist/: ${rpm[*]}"

boot
install_load
copy_in "$repository/tests/container/rpm" "$repository/rpm" /root
copy_in "${rpm[0]}" /root/repository
copy_in "$(package)" /root/deb
write /etc/yum.repos.d/local.repo <<-'INI'
	[local]
	name=RPMs of this test
	baseurl=file:///root/repository
	gpgcheck=0
	metadata_expire=0
INI

update_repository() {
	run createrepo_c --quiet /root/repository
}
dnf() {
	run dnf --assumeyes --releasever=13 "$@" >"$container/dnf.log" 2>&1 ||
		fail "dnf $* failed: $(cat "$container/dnf.log")"
}

build_rpm /root/rpm/stub-packages.spec
update_repository
dnf install debian systemd

check "dnf installs the package from a repository, offline"
dnf install greeter
expect_match '^greeter-[0-9.]+-1\.' run rpm --query greeter
expect "greeter $(run rpm --query --queryformat '%{VERSION}' greeter)" run greeter --version

check "a settings file means the same as with the Debian package"
copy_in "$repository/tests/settings-language" /root
expect_match ' rows, 0 differences$' run /root/settings-language /usr/bin/greeter

check "nothing is enabled, running or listening after the installation"
for unit in $sockets greeter.service; do
	expect_status 1 run systemctl is-enabled "$unit"
	[[ $output == disabled ]] || fail "$unit is '$output', not disabled"
	expect_status 3 run systemctl is-active "$unit"
done
expect_status 1 run systemctl is-enabled greeter@.socket greeter@2525.socket
expect "" run systemctl list-units --plain --no-legend --all 'greeter@*'
expect "" run ss --no-header --listening --tcp
expect_nothing_failed

check "the presets keep an instance that is enabled, although those of the distribution disable all"
run systemctl enable --quiet greeter@2525.socket greeter-inet.socket
run systemctl preset-all >/dev/null 2>&1
expect enabled run systemctl is-enabled greeter@2525.socket
expect_status 1 run systemctl is-enabled greeter-inet.socket
run systemctl disable --quiet greeter@2525.socket

check "the root directory of the services exists"
expect $'root 755\n' run stat --format='%U %a' /run/greeter-root

check "rpm --verify: the installed files match the package"
expect "" run rpm --verify greeter

check "the package creates no account"
expect_status 2 run getent passwd greeter
expect_status 2 run getent passwd _greeterd

check "the scriptlets are those of the spec file, with their macros expanded"
script() { run rpm --query --queryformat "%{$1}" greeter | sed '/^$/d'; }
section() {
	run rpm --load=/root/rpm/macros.systemd --define "sockets $sockets" \
		--eval "$(sed -n "/^%$1\$/,/^%$2\$/{//d;p}" "$repository/rpm/greeter.spec")" | sed '/^$/d'
}
expect "$(section post preun)" script POSTIN
expect "$(section preun postun)" script PREUN
expect "$(section postun files)" script POSTUN
expect "3 /bin/sh" run sh -c 'rpm --query --scripts greeter | grep -o "using .*)" | sort | uniq -c | sed "s/ *\([0-9]*\) using \(.*\))/\1 \2/"'

check "the files and their modes are the same as in the Debian package"
# The packages differ in the names of licence files, changelog and zsh directory, and
# Debian compresses documents.
run sh -euc '
	cd /root/deb
	dpkg-deb --extract ./*.deb root
	find root ! -type d -printf "%m /%P\n" |
		sed -E "s|/zsh/vendor-completions/|/zsh/site-functions/|; s|(/doc/.*)\.gz$|\1|; s|/changelog$|/CHANGELOG.md|" |
		grep -vE "/usr/share/(doc/greeter/(copyright|changelog.Debian)|lintian/.*)$"' | sort >"$container/deb-files"
run sh -euc '
	rpm --query --queryformat "[%{FILEMODES:octal} %{FILENAMES}\n]" greeter |
		sed -nE "s/^(100|120)//p" | grep -vE "/usr/share/licenses/|/usr/lib/.build-id/"' | sort >"$container/rpm-files"
expect "" diff "$container/deb-files" "$container/rpm-files"
[[ $(wc -l <"$container/rpm-files") -gt 30 ]] || fail "only these files: $(cat "$container/rpm-files")"

check "the License field contains the licence of every linked crate"
# One licence per line; the alternatives of a licence are sorted.
normalize_licences() {
	while read -r licence; do
		sed 's| OR |\n|g; s|/|\n|g' <<<"$licence" | sort | paste -sd'|'
	done | sort -u
}
run rpm --query --queryformat '%{LICENSE}\n' greeter | sed 's/ AND /\n/g; s/[()]//g' | normalize_licences >"$container/declared"
run sh -c "sed -n '/^\$/q; s/: .*//p' /usr/share/licenses/greeter*/LICENSE.dependencies" |
	sed 's/ AND /\n/g; s/[()]//g' | normalize_licences >"$container/linked"
expect_match '^Apache-2.0\|MIT$' cat "$container/linked"
expect "" diff "$container/linked" "$container/declared"

build_next_rpm
update_repository

check "an upgrade before the first connection does not start the services"
# shellcheck disable=SC2086 # one word per unit
run systemctl enable --quiet --now $sockets
# Instances of the template: two that will run, one that stays idle, and one that is
# enabled and stopped.
run systemctl enable --quiet --now greeter@2525.socket greeter@2526.socket greeter@2527.socket
run systemctl enable --quiet greeter@2528.socket
run systemctl --global enable --quiet greeter@2529.socket
before=$(listening_sockets)
expect 9 grep -c . <<<"$before"
dnf upgrade greeter
expect_match '^greeter-[0-9.]+-2\.' run rpm --query greeter
expect "$before" listening_sockets
expect_status 3 run systemctl is-active greeter.service greeter@252{5,6,7,8}.service
dnf downgrade greeter
expect "$before" listening_sockets
expect_status 3 run systemctl is-active greeter.service greeter@252{5,6,7,8}.service

check "the three modes greet"
expect $'This is a test\n' greeting 127.0.0.1:4000
expect $'This is a test\n' greeting '[::1]:4000'
expect $'This socket was already accepted\n' greeting 127.0.0.1:4001
expect $'This socket was passed on stdin/stdout\n' greeting 127.0.0.1:4002
expect_nothing_failed

check "an upgrade that could not start again leaves the running services alone"
services="greeter.service greeter@2525.service greeter@2526.service"
for port in 2525 2526; do expect $'This is a test\n' greeting "127.0.0.1:$port"; done
main_pids() { for unit in $services; do property MainPID "$unit"; done; }
processes=$(main_pids)
echo 'message = "secret"' | write /etc/greeter/greeter.toml.d/50-test.toml
chmod 0600 "$container/root/etc/greeter/greeter.toml.d/50-test.toml"
dnf upgrade greeter
expect_match "50-test.toml: the service cannot read it, as its mode is 0600; run 'chmod o\+r" cat "$container/dnf.log"
expect_match "correct the settings, then run 'systemctl restart $services'" cat "$container/dnf.log"
expect "$processes" main_pids
for port in 4000 2525 2526; do expect $'This is a test\n' greeting "127.0.0.1:$port"; done
rm -r "$container/root/etc/greeter/greeter.toml.d"
dnf downgrade greeter
[[ -z $(comm -12 <(sort <<<"$processes") <(main_pids | sort)) ]] || fail "a service was not restarted"

check "an upgrade under load keeps the sockets, restarts what runs, loses no connection"
pid=$(property MainPID greeter.service)
pids=()
for port in 2525 2526; do pids[port]=$(property MainPID "greeter@$port.service"); done
echo '# edited' >>"$container/root/etc/greeter/greeter.toml"
echo '# edited' >>"$container/root/etc/greeter/greeter-inet.toml"
# A client that stays connected to the old process: it closes its side after a second.
run sh -c '{ sleep 1; } | socat -t 10 - TCP:127.0.0.1:4000 >/root/held' &
held_pid=$!
# The load continues for some seconds after the upgrade.
start_load load 127.0.0.1:4000 '[::1]:4000' --at-once 16 --rate 1000 --for 600 --expect 'This is a test\n'
start_load instances 127.0.0.1:4001 127.0.0.1:4002 --at-once 8 --rate 10 --for 600
start_load ports 127.0.0.1:2525 '[::1]:2526' --at-once 16 --rate 300 --for 600 --expect 'This is a test\n'
sleep 0.5
dnf upgrade greeter
sleep 4
for load in load instances ports; do
	stop_load "$load"
	expect_none_lost "$load"
done
wait "$held_pid" || fail "the client of the old process exited with $?"
expect $'This is a test\n' cat "$container/root/root/held"
expect_match '^greeter-[0-9.]+-2\.' run rpm --query greeter
expect_upgraded
for unit in $sockets; do
	expect enabled run systemctl is-enabled "$unit"
done
expect_nothing_failed

check "an upgrade keeps edited settings, and writes changed defaults to .rpmnew"
edited_settings() { run sh -c 'cd /etc/greeter && grep -H "^# \(edited\|the next release\)" * | sort'; }
expect "greeter-accepted.toml:# the next release
greeter-inet.toml:# edited
greeter.toml.rpmnew:# the next release
greeter.toml:# edited" edited_settings
expect_status 1 run rpm --verify greeter
expect "  c /etc/greeter/greeter-inet.toml
  c /etc/greeter/greeter.toml" sed 's/^S\.5....[.T]\.//' <<<"$output"

check "the removal stops sockets, service and instances"
run greeter-load 127.0.0.1:4001 --clients 2 --hold --for 60 >"$container/hold.log" 2>&1 &
expect_within 10 grep -q 'holding 2' "$container/hold.log"
dnf remove greeter
expect "" run ss --no-header --listening --tcp
expect "" run systemctl list-units --plain --no-legend --all 'greeter*'
expect_status 1 run pgrep --exact greeter
expect_nothing_failed

check "the removal leaves only edited settings, as .rpmsave"
expect "/etc/greeter
/etc/greeter/greeter-inet.toml.rpmsave
/etc/greeter/greeter.toml.rpmnew
/etc/greeter/greeter.toml.rpmsave" run sh -c 'find /etc /usr /var/lib/systemd -path "*greeter*" ! -path /usr/local/bin/greeter-load | sort'
end_of_tests
