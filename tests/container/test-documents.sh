#!/bin/bash
# The commands of README.md, run as they are printed, by a user with sudo.
image=recipes packages="haproxy postfix swaks msmtp inetutils-telnet openssh-client lftp slrn fetchmail wget netcat-openbsd sudo"
. "$(dirname "$0")/lib.sh"

create_container
rm -f "$container"/root/etc/systemd/system/multi-user.target.wants/postfix.service
echo mail >"$container/root/etc/hostname"
write /etc/hosts <<<$'127.0.0.1 localhost\n::1 localhost\n192.0.2.1 mail.example.org mail'
boot
# Addresses for documentation (RFC 5737, RFC 3849), on loopback.
for address in 192.0.2.1/24 198.51.100.7/24; do run ip address add "$address" dev lo; done
run ip address add 2001:db8::1/64 dev lo nodad
run useradd --create-home --shell /bin/bash admin
echo 'admin ALL=(ALL:ALL) NOPASSWD: ALL' | write /etc/sudoers.d/admin
copy_in "$(package)" /home/admin/dist

# The code blocks of a section of README.md of this kind, one after the other.
blocks() {
	awk -v heading="## $1" -v fence="\`\`\`$2" '
		/^## / { inside = $0 == heading }
		inside && $0 == "```" { block = 0 }
		block { print }
		inside && $0 == fence { block = 1 }
	' "$repository/README.md"
}

# Runs a script as the user, in the directory with dist/. A line that fails ends it.
as_admin() { run su --login admin --command "set -e; cd; $1"; }

# documented COMMAND: README.md contains it between backquotes; it is run.
documented() {
	grep -qF "\`$1\`" "$repository/README.md" || fail "README.md does not contain: $1"
	as_admin "$1"
}

client() { run nc -w 5 "$@" </dev/null; }

check "install"
as_admin "$(blocks Install sh | grep '^sudo apt install') -y" >"$container/apt.log" 2>&1 ||
	fail "$(cat "$container/apt.log")"

check "the first five minutes: a mail server is down, and back"
section="The first five minutes: a mail server is down"
run systemctl start postfix.service
expect_within 20 eval 'client 192.0.2.1 25 | grep -q ^220'
script=$(blocks "$section" sh)
back="sudo systemctl start postfix.service"
[[ $script == *$'\n'"$back" ]] || fail "the last command is not: $back"
as_admin "${script%"$back"}" >"$container/check"
expect_match '^settings are valid' cat "$container/check"
mapfile -t steps < <(blocks "$section" console | sed -n 's/^\$ //p')
as_admin "${steps[0]}" 2>/dev/null
expect_status 3 run systemctl is-active postfix.service
# The document omits what follows the 421.
expect_status 21 as_admin "${steps[1]}"
printf '%s\n' "${output//$'\r'/}" | sed 's/^/        | /'
printed=$(blocks "$section" console | sed '1,/^\$ swaks/d')
[[ ${output//$'\r'/} == "$printed"* ]] || fail "README.md has: $printed"
as_admin "$back"
expect_within 20 eval 'client 192.0.2.1 25 | grep -q ^220'
expect_status 3 run systemctl is-active greeter@25.socket
run systemctl disable --quiet greeter@25.socket
run systemctl stop postfix.service
run rm /etc/systemd/system/postfix.service.d/greeter.conf
run systemctl daemon-reload

check "first greeting: the commands print what the document shows"
commands=$(blocks "First greeting" console | sed -n 's/^\$ //p')
as_admin "$(sed -n 1p <<<"$commands")" 2>/dev/null
expect_status 3 run systemctl status greeter.service
expect "$(blocks "First greeting" console | sed -n 3p)" as_admin "$(sed -n 2p <<<"$commands")"
# The counts are up to a second old.
sleep 1.5
as_admin "$(sed -n 3p <<<"$commands")" >"$container/status"
expect_match '^     Active: active \(running\) since ' cat "$container/status"
expect_match '^TriggeredBy: ● greeter.socket$' cat "$container/status"
status=$(blocks "First greeting" console | tail -n 1)
expect_match "^${status/10:12:01/[0-9:]{8\}}$" cat "$container/status"

check "change the text"
as_admin "$(blocks "Change the text" sh)" >/dev/null
expect $'Hello 127.0.0.1, this is mail\n' client 127.0.0.1 4000
documented 'greeter --check' >/dev/null
expect_match '^Hello 192.0.2.1, this is mail$' documented 'greeter --preview'

check "change the port"
as_admin "$(blocks "Change the port" sh)"
expect $'Hello 127.0.0.1, this is mail\n' client 127.0.0.1 2525
expect_status 0 is_closed 127.0.0.1:4000
documented 'sudo systemctl revert greeter.socket' 2>/dev/null

check "open it to the network: addresses in the ranges are greeted, others are not"
as_admin "$(blocks "Open it to the network" sh)"
for address in 127.0.0.1 192.0.2.1 2001:db8::1; do
	expect $'Hello '"$address"$', this is mail\n' client "$address" 4000
done
expect_status 1 client -w 1 -s 198.51.100.7 192.0.2.1 4000
expect_match 'connections_per_source = 20 ' run greeter --show-config
documented 'sudo systemctl revert greeter.socket' 2>/dev/null

check "logs"
run journalctl --sync
while read -r command; do
	expect_match . as_admin "${command%%#*}"
done < <(blocks Logs sh)
expect_match "greeted 192.0.2.1 port [0-9]+ on 'greeter', [0-9]+ bytes" as_admin 'sudo journalctl -u greeter.service'

check "switch off"
run systemctl enable --quiet --now greeter.socket
documented 'sudo systemctl stop greeter.socket'
expect_status 0 is_closed 127.0.0.1:4000
run systemctl start greeter.socket
documented 'sudo systemctl disable --now greeter.socket' 2>/dev/null
expect_status 0 is_closed 127.0.0.1:4000

check "without root"
expect $'Hello 127.0.0.1, this is mail\n' as_admin \
	'systemctl --user enable --now greeter.socket 2>/dev/null; nc 127.0.0.1 4000 </dev/null'
end_of_tests
